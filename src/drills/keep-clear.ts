import type { Clock } from "../machine/clock.ts";
import { CRON_PERIODS_MS } from "../settings/layout.ts";
import { until } from "./drill-content.ts";

/** So near to the time at which cron starts something, the pool gets no pin of a drill. */
const NEAR_MS = 30_000;

/**
 * Waits until cron's jobs of this time have read the pinset: a snapshot with a drill's pin would miss it later, and a sweep of
 * another master would raise a real alarm for it. All masters have the same times. It takes a minute at most.
 */
export async function keepClear(
  clock: Clock,
  job: keyof typeof CRON_PERIODS_MS,
  report: (line: string) => void,
): Promise<void> {
  const isNear = (): boolean => {
    const now = clock.now();
    const localMs = now.getTime() - now.getTimezoneOffset() * 60_000;
    const sinceMs = localMs % CRON_PERIODS_MS[job];
    return sinceMs < NEAR_MS || sinceMs > CRON_PERIODS_MS[job] - NEAR_MS;
  };
  if (!isNear()) return;
  report(`waiting until the ${job} that cron starts now has read the pinset`);
  await until(clock, 2 * NEAR_MS, () => Promise.resolve(!isNear()));
}
