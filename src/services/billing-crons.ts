import { openChain } from "../billing/chain-node.ts";
import { BATCH_SIZE, runDeduction } from "../billing/deduction.ts";
import { tariffOf } from "../billing/fee.ts";
import { type Bank, BEAT_MS, openLease, SILENT_AFTER_MS } from "../billing/lease.ts";
import { describeScan, scanChains } from "../billing/scan.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { type Log, messageOf } from "../errors.ts";
import type { WebuiSettings } from "../settings/services.ts";
import { countOf } from "../units.ts";
import type { GaugeSource } from "./server.ts";

/** The crons of the billing in `serve webui`. */
export interface BillingCrons {
  /** For each cron: its runs, those that failed, and when one last succeeded; and whether this master leads. */
  readonly gauges: readonly GaugeSource[];
  /** Ends them: waits for the batch in work, and gives the lease back. */
  close(): Promise<void>;
}

/** One cron. */
interface Cron {
  readonly name: string;
  readonly intervalMs: number;
  /** Returns false if it has to be tried again soon. Throws if the run ended early. */
  readonly run: (bank: Bank) => Promise<boolean>;
  running: Promise<boolean> | null;
  runs: number;
  failures: number;
  lastSuccessAt: Date | null;
}

/**
 * Starts the billing crons: the deduction, and the scanner of deposits. They run only on the master that leads, or, without
 * CRON_LEADER_LEASE, on every one. Each runs when this master becomes the leader, and then in its interval; ticks of one do not
 * overlap. The next tick of a run that failed is a minute later.
 */
export function startBillingCrons(
  {
    billing,
    postgres,
    pricing,
    masterId,
  }: Pick<WebuiSettings, "billing" | "postgres" | "pricing" | "masterId">,
  { pool, log }: { readonly pool: PostgresPool; readonly log: Log },
  { beatMs = BEAT_MS, retryMs = 60_000, silentAfterMs = SILENT_AFTER_MS, batchSize = BATCH_SIZE } = {},
): BillingCrons {
  if (billing === null) {
    log("payment crons disabled: NODE_ENV is not production, or VAULT_ADDRESS is not set");
    return { gauges: [], close: async () => {} };
  }
  if (!billing.idempotent) {
    log("payment crons disabled: BILLING_IDEMPOTENCY is false, so an hour could be charged twice");
    return { gauges: [], close: async () => {} };
  }
  const stop = new AbortController();
  const lease = billing.lease
    ? openLease({ target: postgres, pool, holder: masterId, log, silentAfterMs })
    : null;
  const tariff = tariffOf(pricing);
  const timers = new Set<NodeJS.Timeout>();
  const loops = new Set<Promise<void>>();
  let wasLeader = false;

  async function deduct(bank: Bank): Promise<boolean> {
    const { hours } = await runDeduction({ bank, tariff, log, batchSize, stop: stop.signal });
    for (const { hour, charged, amount, suspended, failed } of hours)
      if (charged + failed > 0)
        log(
          `deduction: ${hour}: ${countOf(charged, "account")} paid ${amount} FULA, ${suspended} suspended, ${failed} failed`,
        );
    return true;
  }

  const { vault, chains, bonuses, proxy } = billing;
  const open = (url: string) => openChain(url, { stop: stop.signal, proxy });
  async function scan(bank: Bank): Promise<boolean> {
    const reports = await scanChains({ bank, vault, chains, bonuses, open, log, stop: stop.signal });
    for (const line of reports.map(describeScan)) if (line !== null) log(line);
    return reports.every(({ fault }) => fault === null);
  }

  const crons = [
    cronOf("deduction", billing.deductionIntervalMs, deduct),
    cronOf("scanner", billing.scannerIntervalMs, scan),
  ];

  async function runOnce(cron: Cron, bank: Bank): Promise<boolean> {
    let isDone = false;
    try {
      isDone = await cron.run(bank);
    } catch (thrown) {
      log(`${cron.name}: the run ended early and is tried again: ${messageOf(thrown)}`);
    }
    cron.runs += 1;
    if (isDone) cron.lastSuccessAt = new Date();
    else cron.failures += 1;
    return isDone;
  }

  /** Returns how long to wait for the next tick. */
  async function tick(cron: Cron): Promise<number> {
    const bank = lease === null ? pool : lease.bank();
    if (bank === null) {
      log(
        lease?.fault() == null
          ? `[leaderLease] ${cron.name}: standby (lease held by another master) — skipping tick`
          : `[leaderLease] ${cron.name}: who holds the lease is not known (${lease.fault()}) — skipping tick`,
      );
      return cron.intervalMs;
    }
    cron.running ??= runOnce(cron, bank).finally(() => {
      cron.running = null;
    });
    return (await cron.running) ? cron.intervalMs : Math.min(retryMs, cron.intervalMs);
  }

  /** Calls `work` after `ms`, and then again after what it returns, until the end. */
  function every(ms: number, work: () => Promise<number>): void {
    const timer = setTimeout(() => {
      timers.delete(timer);
      const loop = work().then((next) => {
        loops.delete(loop);
        if (!stop.signal.aborted) every(next, work);
      });
      loops.add(loop);
    }, ms);
    timers.add(timer);
  }

  async function look(): Promise<number> {
    const isLeader = (await lease?.lookAgain()) === true;
    // Whoever takes over does not wait for its own interval: the last run of the other may be an hour ago.
    if (isLeader && !wasLeader && isStarted) for (const cron of crons) void tick(cron);
    wasLeader = isLeader;
    return beatMs;
  }

  let isStarted = false;
  // The first look decides who leads, before the first tick.
  const started = (async () => {
    await look();
    isStarted = true;
    if (stop.signal.aborted) return;
    if (lease !== null) every(beatMs, look);
    for (const cron of crons) every(0, () => tick(cron));
  })();
  return {
    gauges: [...gaugesOf(crons), leaderGauge(() => lease === null || wasLeader)],
    async close() {
      stop.abort();
      for (const timer of timers) clearTimeout(timer);
      await started;
      await Promise.all([...loops, ...crons.map(({ running }) => running)]);
      await lease?.release();
    },
  };
}

function cronOf(name: string, intervalMs: number, run: Cron["run"]): Cron {
  return { name, intervalMs, run, running: null, runs: 0, failures: 0, lastSuccessAt: null };
}

function gaugesOf(crons: readonly Cron[]): readonly GaugeSource[] {
  const byName = (value: (cron: Cron) => number) => () =>
    Object.fromEntries(crons.map((cron) => [cron.name, value(cron)]));
  return [
    {
      name: "fula_billing_cron_runs",
      help: "Runs of a billing cron on this master since it started.",
      label: "cron",
      read: byName(({ runs }) => runs),
    },
    {
      name: "fula_billing_cron_failures",
      help: "Runs of a billing cron that ended early since this master started.",
      label: "cron",
      read: byName(({ failures }) => failures),
    },
    {
      name: "fula_billing_cron_last_success_timestamp_seconds",
      help: "When a billing cron last ran to its end here, in seconds since 1970; 0: not since the start.",
      label: "cron",
      read: byName(({ lastSuccessAt }) => (lastSuccessAt?.getTime() ?? 0) / 1_000),
    },
    {
      name: "fula_billing_cron_running",
      help: "1 while a billing cron runs.",
      label: "cron",
      read: byName(({ running }) => (running === null ? 0 : 1)),
    },
  ];
}

function leaderGauge(leads: () => boolean): GaugeSource {
  return {
    name: "fula_billing_leads",
    help: "1 if this master runs the billing crons.",
    read: () => (leads() ? 1 : 0),
  };
}
