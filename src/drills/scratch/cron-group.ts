import { join } from "node:path";
import { BATCH_SIZE } from "../../billing/deduction.ts";
import type { Host } from "../../host.ts";
import { programEnvironment } from "../../machine/run-program.ts";
import type { BillingSettings } from "../../settings/billing.ts";
import type { PostgresTarget } from "../../settings/postgres-target.ts";
import { type CronProcess, type CronState, cronStarter } from "./cron-process.ts";
import { DrillFinding, untilFound } from "../drill-finding.ts";
import { DRILL_BILLING, DRILL_PRICING } from "./scratch-accounts.ts";
import type { ScratchDeps } from "./scratch-database.ts";

/** What a drill with crons needs from the composition root. */
export interface CronDrillDeps extends ScratchDeps {
  readonly host: ScratchDeps["host"] & { readonly clock: Host["clock"] };
  readonly nodePath: string;
  readonly packageDir: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** The crons of several masters against one scratch database. */
export interface CronGroup {
  start(masterId: string, billing?: Partial<BillingSettings>): CronProcess;
  /** Throws a DrillFinding if one of them ended although nobody killed it, or a run of one failed. */
  check(): void;
  /** Waits until it has said how it stands. */
  untilUp(cron: CronProcess): Promise<CronState>;
  /** Waits as untilFound does, and checks at each look. */
  until<Found>(
    limitMs: number,
    look: () => Promise<Found | null> | Found | null,
    late: () => string,
  ): Promise<Found>;
  /** Kills one with SIGKILL, on purpose. */
  kill(cron: CronProcess): Promise<void>;
}

/** The longest start of a process: Node.js, the program, the first connection. */
const START_MS = 20_000;

/** Lets `work` start crons, and kills all of them at its end. */
export async function withCrons<Result>(
  {
    host,
    nodePath,
    packageDir,
    environment,
  }: Pick<CronDrillDeps, "host" | "nodePath" | "packageDir" | "environment">,
  given: {
    readonly target: PostgresTarget;
    readonly stop: AbortSignal;
    /** How many accounts a transaction charges. */
    readonly batchSize?: number;
  },
  work: (group: CronGroup) => Promise<Result>,
): Promise<Result> {
  const { target, stop, batchSize = BATCH_SIZE } = given;
  const program = [nodePath, join(packageDir, "bin/fula-node.js"), "serve", "drill-crons"] as const;
  const start = cronStarter(program, programEnvironment(environment));
  const running: CronProcess[] = [];
  const killed = new Set<CronProcess>();
  const group: CronGroup = {
    start(masterId, billing = {}) {
      const cron = start({
        masterId,
        postgres: { ...target, maxConnections: 3, idleTimeoutMs: 30_000, connectTimeoutMs: 5_000 },
        pricing: DRILL_PRICING,
        billing: { ...DRILL_BILLING, ...billing },
        batchSize,
      });
      running.push(cron);
      return cron;
    },
    check() {
      for (const cron of running) if (!killed.has(cron)) refuseFailed(cron);
    },
    untilUp: (cron) =>
      group.until(
        START_MS,
        () => cron.state(),
        () => `the crons of ${cron.name} did not start within ${START_MS / 1_000} s${lastOf(cron)}`,
      ),
    until: (limitMs, look, late) =>
      untilFound(
        { clock: host.clock, stop, limitMs },
        async () => {
          group.check();
          return look();
        },
        late,
      ),
    async kill(cron) {
      killed.add(cron);
      await cron.kill();
    },
  };
  try {
    return await work(group);
  } finally {
    await Promise.all(running.map((cron) => group.kill(cron)));
  }
}

function refuseFailed(cron: CronProcess): void {
  const ended = cron.ended();
  if (ended !== null) throw new DrillFinding(`the crons of ${cron.name} ${ended}${lastOf(cron)}`);
  const failures = Object.entries(cron.state()?.failures ?? {}).filter(([, times]) => times > 0);
  const [failed] = failures;
  if (failed === undefined) return;
  const said = cron.log().findLast((line) => line.startsWith(`${failed[0]}: `));
  throw new DrillFinding(`a run of ${cron.name} failed${said === undefined ? lastOf(cron) : `: ${said}`}`);
}

/** The newest line of its log, after a colon. */
export function lastOf(cron: CronProcess): string {
  const line = cron.log().at(-1);
  return line === undefined ? "" : `; it said last: ${line}`;
}
