import { BATCH_SIZE, runDeduction } from "../billing/deduction.ts";
import { tariffOf } from "../billing/fee.ts";
import { type Bank, BEAT_MS, openLease, SILENT_AFTER_MS } from "../billing/lease.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf } from "../errors.ts";
import type { WebuiSettings } from "../settings/services.ts";
import { countOf } from "../units.ts";

/** The crons of the billing in `serve webui`. */
export interface BillingCrons {
  /** Ends them: waits for the batch in work, and gives the lease back. */
  close(): Promise<void>;
}

/**
 * Starts the billing crons. They run only on the master that leads, or, without CRON_LEADER_LEASE, on every one. The
 * deduction runs when this master becomes the leader, and then in its interval; ticks do not overlap. The next tick of a
 * run that failed is a minute later.
 */
export function startBillingCrons(
  { billing, postgres, pricing, masterId }: WebuiSettings,
  { pool, log }: { readonly pool: PostgresPool; readonly log: (line: string) => void },
  { beatMs = BEAT_MS, retryMs = 60_000, silentAfterMs = SILENT_AFTER_MS, batchSize = BATCH_SIZE } = {},
): BillingCrons {
  if (billing === null) {
    log("payment crons disabled: NODE_ENV is not production, or VAULT_ADDRESS is not set");
    return { close: async () => {} };
  }
  if (!billing.idempotent) {
    log("payment crons disabled: BILLING_IDEMPOTENCY is false, so an hour could be charged twice");
    return { close: async () => {} };
  }
  const stop = new AbortController();
  const lease = billing.lease
    ? openLease({ target: postgres, pool, holder: masterId, log, silentAfterMs })
    : null;
  const tariff = tariffOf(pricing);
  const timers = new Set<NodeJS.Timeout>();
  const loops = new Set<Promise<void>>();
  let wasLeader = false;
  let running: Promise<boolean> | null = null;

  async function deduct(bank: Bank): Promise<boolean> {
    try {
      const { hours } = await runDeduction({ bank, tariff, log, batchSize, stop: stop.signal });
      for (const { hour, charged, amount, suspended, failed } of hours)
        if (charged + failed > 0)
          log(
            `deduction: ${hour}: ${countOf(charged, "account")} paid ${amount} FULA, ${suspended} suspended, ${failed} failed`,
          );
      return true;
    } catch (thrown) {
      log(`deduction: the run ended early and is tried again: ${messageOf(thrown)}`);
      return false;
    }
  }

  /** Returns how long to wait for the next tick. */
  async function tick(): Promise<number> {
    const bank = lease === null ? pool : lease.bank();
    if (bank === null) {
      log("[leaderLease] deduction: standby (lease held by another master) — skipping tick");
      return billing?.deductionIntervalMs ?? retryMs;
    }
    running ??= deduct(bank).finally(() => {
      running = null;
    });
    return (await running) ? (billing?.deductionIntervalMs ?? retryMs) : retryMs;
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
    if (isLeader && !wasLeader && isStarted) void tick();
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
    every(0, tick);
  })();
  return {
    async close() {
      stop.abort();
      for (const timer of timers) clearTimeout(timer);
      await started;
      await Promise.all([...loops, running]);
      await lease?.release();
    },
  };
}
