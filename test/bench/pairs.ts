import type { Measurement } from "./report.ts";

/** Numbers taken in turns. */
export type Pairs = Pick<Measurement, "ours" | "anchor">;

/** One measured run. The time of the preparation before it does not count. */
export interface Contender {
  readonly prepare?: () => Promise<void>;
  /** Returns milliseconds if not all of its time counts. */
  readonly run: () => Promise<number | void>;
}

/** Milliseconds of ours and of the anchor, taken in turns (A B A B) after a pair that does not count. */
export async function timePairs(rounds: number, ours: Contender, anchor: Contender): Promise<Pairs> {
  const times: { ours: number[]; anchor: number[] } = { ours: [], anchor: [] };
  for (let round = 0; round <= rounds; round += 1) {
    const pair = { ours: await time(ours), anchor: await time(anchor) };
    if (round === 0) continue;
    times.ours.push(pair.ours);
    times.anchor.push(pair.anchor);
  }
  return times;
}

async function time({ prepare, run }: Contender): Promise<number> {
  await prepare?.();
  const startedAt = performance.now();
  const counted = await run();
  return counted ?? performance.now() - startedAt;
}
