import { dumpOf, hasDatabase, markDatabase, readStage, type Stage } from "../../backup/restore-stage.ts";
import { saidBy } from "../../dumps/dump.ts";
import type { Docker } from "../../docker/engine.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { type MasterContext, readValues, requireTarget } from "../../settings/context.ts";
import { NAMES } from "../../settings/layout.ts";
import { isDatabaseElsewhere, type PostgresTarget, postgresTarget } from "../../settings/postgres-target.ts";

type RestoreDatabase = Change & { readonly kind: "restore-database" };

const DEADLINE_MS = 24 * 3_600_000;
const ROLE_SQL =
  "SELECT format('CREATE ROLE %I NOLOGIN', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \\gexec\n";

/** One that a killed run started goes on in the container, and would commit beside the next one. */
const END_SQL =
  "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pg_restore';\n";

/** Ends every pg_restore into a database of a container, and waits for its end. */
export async function endRestores(
  docker: Pick<Docker, "runIn">,
  {
    container,
    user,
    database,
  }: { readonly container: string; readonly user: string; readonly database: string },
): Promise<void> {
  const psql = ["psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--no-password"];
  const argv = [...psql, `--username=${user}`, `--dbname=${database}`];
  await docker.runIn(container, argv, { text: END_SQL }, { timeoutMs: DEADLINE_MS });
}

/**
 * Restores all of a dump, a file of this machine, into the empty database of a container, or nothing. Roles that the dump names must be
 * there first; no backup has their passwords. Throws (`unhealthy`) if Postgres refuses it.
 */
export async function restoreDump(
  docker: Pick<Docker, "runIn">,
  given: {
    readonly container: string;
    readonly user: string;
    readonly database: string;
    readonly dump: string;
    readonly roles: readonly string[];
  },
): Promise<void> {
  const { container, user, database, dump, roles } = given;
  const to = [`--username=${user}`, `--dbname=${database}`, "--no-password"];
  const run = (argv: readonly string[], stdin: Parameters<Docker["runIn"]>[2]) =>
    docker.runIn(container, argv, stdin, { timeoutMs: DEADLINE_MS });
  try {
    for (const role of roles) {
      const psql = ["psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", `--set=role=${role}`, ...to];
      await run(psql, { text: ROLE_SQL });
    }
    await run(["pg_restore", "--single-transaction", "--exit-on-error", ...to], { file: dump });
  } catch (cause) {
    if (!(cause instanceof OperatorError)) throw cause;
    const why = saidBy((cause.why ?? cause.what).split("\n")) ?? cause.what;
    throw new OperatorError({
      exit: "unhealthy",
      what: "The database of the backup could not be restored. Nothing of it is in the new one.",
      why,
      remedy: why.includes("No space left on device")
        ? "Free some space on the disk of Docker (docker info --format '{{.DockerRootDir}}'), then run again: it goes on here."
        : "Correct the cause, then run again: it goes on here.",
      cause,
    });
  }
}

/** The database of a backup. It is restored in one transaction, so that there is all of it or nothing. */
export function restoredDatabase(context: MasterContext): StepSpec<readonly string[], RestoreDatabase> {
  const { baseDir } = context.layout;

  /** Null: there is nothing to restore, because no restore goes on or the database is on another machine. */
  async function hasIt(host: HostReader): Promise<boolean | null> {
    const values = await readValues(host, context);
    const stage = await readStage(host.files, baseDir);
    if (stage === null || isDatabaseElsewhere(values)) return null;
    const target = postgresTarget(values);
    const answer = target === null ? null : await host.postgres.ask(target);
    if (target === null || answer?.kind !== "open") return false;
    const { hasLedger, ledgerSince } = await host.migrations.status(target);
    // A run that was killed after the restore has not said so. The first migration of a backup is older than it.
    const isOlder = ledgerSince !== null && ledgerSince <= new Date(stage.manifest.created_at);
    if (hasLedger && !isOlder && !(await hasDatabase(stage, host.files)))
      throw anotherDatabase(stage, target);
    return hasLedger;
  }

  return {
    id: "restored-database",
    title: "database of the backup",
    touches: "Restores the database of a backup into the new one, in one transaction.",
    reprobeAfter: true,

    async probe(host): Promise<Finding<readonly string[]>> {
      const found = await hasIt(host);
      const evidence = { ledger: found === null ? "not looked at" : found ? "present" : "absent" };
      const stage = found === false ? await readStage(host.files, baseDir) : null;
      const seen = stage?.manifest.database.roles ?? [];
      return { state: found === false ? "absent" : "ours", seen, evidence };
    },

    plan({ state, seen: roles }) {
      if (state === "ours") return [];
      const without = roles.length === 0 ? "" : `; without their passwords: the roles ${roles.join(", ")}`;
      return [{ kind: "restore-database", summary: `restore the database of the backup${without}` }];
    },

    async apply(_change, host, report) {
      const stage = await readStage(host.files, baseDir);
      if (stage === null) return;
      const { user, database } = requireTarget(await readValues(host, context), context);
      report("restoring the database, in one transaction");
      const { roles } = stage.manifest.database;
      await endRestores(host.docker, { container: NAMES.postgres, user, database });
      // It may have come to its end before.
      if ((await hasIt(host)) !== true)
        await restoreDump(host.docker, {
          container: NAMES.postgres,
          user,
          database,
          dump: dumpOf(stage),
          roles,
        });
      await markDatabase(stage, host.files);
    },

    async verify(host) {
      if ((await hasIt(host)) !== false) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: "The database of the backup is not there: it has no ledger of migrations.",
        remedy: "Run again. If it stays so, look at `docker logs postgres-pinning`.",
      });
    },
  };
}

/** What the backup has would be lost in silence: it is taken as restored, and then its dump is removed. */
function anotherDatabase({ directory }: Stage, { user, database }: PostgresTarget): OperatorError {
  const psql = `docker exec ${NAMES.postgres} psql -U ${user} -d postgres`;
  return new OperatorError({
    exit: "foreign",
    what: `The database ${database} is not that of the backup, which is not restored yet.`,
    why: "Its migrations are newer than the backup: they were applied while the restore was not finished.",
    remedy: `If nothing in it is needed: ${psql} -c 'DROP DATABASE ${database} WITH (FORCE)' -c 'CREATE DATABASE ${database}'; then run again. The backup's database is in ${directory}.`,
  });
}
