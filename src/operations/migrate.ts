import type { ExitName } from "../errors.ts";
import type { Host, HostReader, PostgresTarget } from "../host/host.ts";
import type { MigrationRun, MigrationStatus } from "../model/migration-plan.ts";

/** What `migrate status` tells, and how it exits: `pending` while `up` has something to do. */
export interface MigrationReport extends MigrationStatus {
  readonly exit: Extract<ExitName, "ok" | "pending">;
}

/** Looks at one database; changes nothing. Throws the OperatorError with which `up` would refuse. */
export async function reportMigrations(host: HostReader, target: PostgresTarget): Promise<MigrationReport> {
  const status = await host.migrations.status(target);
  return { ...status, exit: status.pending === 0 ? "ok" : "pending" };
}

/** Applies what is pending; `done` is empty when there was nothing to do. */
export function migrateUp(
  host: Host,
  target: PostgresTarget,
  report: (line: string) => void,
): Promise<MigrationRun> {
  return host.migrations.up(target, { report });
}

/** Takes one migration back; `done` is empty where it isn't applied. Throws `drift` where its down file refuses. */
export function migrateDown(
  host: Host,
  target: PostgresTarget,
  version: number,
  report: (line: string) => void,
): Promise<MigrationRun> {
  return host.migrations.down(target, version, { report });
}
