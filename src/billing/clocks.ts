import { OperatorError } from "../errors.ts";
import { age } from "../units.ts";
import { FIRST_HOUR, HOUR_TEXT } from "./deduction-sql.ts";
import type { Bank } from "./lease.ts";

/** What the database's clock says, and the newest hour that was billed although it has not come yet. */
export interface ClockReading extends Record<string, unknown> {
  readonly databaseMs: number;
  readonly futureHour: string | null;
}

/** Of a select list. */
export const CLOCK = `
  (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "databaseMs",
  (SELECT ${HOUR_TEXT("max(hour)")} FROM billing_hours WHERE hour > clock_timestamp() + interval '5 minutes') AS "futureHour"`;

/** The time of this machine's clock, to compare it with another clock. */
export function wallClockMs(): number {
  return new Date().getTime();
}

/** Clocks that differ by more are not both right. */
const TOLERANCE_MS = 300_000;

/** Why the time can't be believed: hours that have not happened, or that long ago were billed, would be charged. Null if it can. */
export function faultOfClock({ databaseMs, futureHour }: ClockReading, ownMs: number): string | null {
  const ahead = databaseMs - ownMs;
  if (Math.abs(ahead) > TOLERANCE_MS)
    return `the clock of the database is ${age(Math.abs(ahead))} ${ahead > 0 ? "ahead of" : "behind"} this machine's`;
  if (databaseMs < Date.parse(FIRST_HOUR))
    return `the clock says ${new Date(databaseMs).toISOString().slice(0, 16)}Z, which is long ago`;
  return futureHour === null ? null : `the hour ${futureHour} was billed, and has not come yet`;
}

/** Throws if the time can't be believed. The database's clock decides which hours are charged, so nothing checks it later. */
export async function refuseWrongClock(bank: Pick<Bank, "query">, nowMs: () => number): Promise<void> {
  const before = nowMs();
  const [reading] = await bank.query<ClockReading>(`SELECT ${CLOCK}`);
  if (reading === undefined) return;
  // A slow answer is no wrong clock.
  const ownMs = Math.min(Math.max(before, reading.databaseMs), nowMs());
  const fault = faultOfClock(reading, ownMs);
  if (fault === null) return;
  throw new OperatorError({
    exit: "unavailable",
    what: `Nothing is billed: ${fault}.`,
    why: "Hours that have not happened could be charged. Nothing was changed.",
    remedy: "Correct the clocks. See docs/billing.md#clocks.",
  });
}
