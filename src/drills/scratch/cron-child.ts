import { BEAT_MS } from "../../billing/lease.ts";
import type { openPostgresPool } from "../../database/postgres.ts";
import { startBillingCrons } from "../../services/billing-crons.ts";
import type { CronSettings, CronState } from "./cron-process.ts";

/** What the crons of a drill need. */
export interface CronChildDeps {
  /** Standard input: the settings, and then nothing until the drill ends. */
  readonly stdinLines: () => AsyncIterable<string>;
  readonly write: (lines: string) => void;
  readonly openPool: typeof openPostgresPool;
  /** Ends this process at once, as a power cut would. */
  readonly die: () => void;
}

/** How often it says how it stands. */
const SAY_MS = 50;
/** A run that failed is tried again soon: the drill waits for it. */
const RETRY_MS = 500;

/**
 * Runs the billing crons of one master against the scratch database of a drill, until the drill ends: then this process dies
 * with its work undone. The heartbeat and the patience of the lease are those of a real master.
 */
export async function runCronChild({ stdinLines, write, openPool, die }: CronChildDeps): Promise<void> {
  const lines = stdinLines()[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done === true) return;
  const { batchSize, ...given } = JSON.parse(first.value) as CronSettings;
  const log = (line: string): void => write(`${line}\n`);
  const pool = openPool(given.postgres, { applicationName: `fula-node drill ${given.masterId}`, log });
  const crons = startBillingCrons(given, { pool, log }, { beatMs: BEAT_MS, retryMs: RETRY_MS, batchSize });
  const read = (name: string) => crons.gauges.find((gauge) => gauge.name === name)?.read() ?? 0;
  const numbers = (name: string) => read(name) as Readonly<Record<string, number>>;
  setInterval(() => {
    const state: CronState = {
      leads: read("fula_billing_leads") === 1,
      runs: numbers("fula_billing_cron_runs"),
      failures: numbers("fula_billing_cron_failures"),
    };
    log(JSON.stringify({ state }));
  }, SAY_MS);
  await lines.next();
  die();
}
