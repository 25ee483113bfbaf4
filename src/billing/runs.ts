import type { PostgresPool } from "../database/postgres.ts";
import type { BillingSettings } from "../settings/billing.ts";
import { age, countOf } from "../units.ts";
import { CLOCK, type ClockReading, faultOfClock, wallClockMs } from "./clocks.ts";
import { BEHIND, CURRENT, FORGOTTEN, HOUR_TEXT, LEASE_LOCK } from "./deduction-sql.ts";

/** How the billing stands, as the database has it. */
export interface BillingStanding {
  /** The name of the master that leads, or its MASTER_ID; null if none of ours does. */
  readonly leader: string | null;
  /** Since when it leads; UTC. */
  readonly since: string | null;
  /** Seconds since its last heartbeat. */
  readonly silentSeconds: number;
  /** True if a session that no master of ours recorded holds the lease: upstream's image. */
  readonly isElsewhere: boolean;
  /** The beginning of the newest hour that was billed for all accounts. */
  readonly lastHour: string | null;
  /** Seconds since that; null if there is none. */
  readonly sinceLastHour: number | null;
  /** Seconds since a master began to lead. */
  readonly leadingSeconds: number;
  readonly failures: number;
  /** Hours before the current one that the next run charges. */
  readonly behind: number;
  /** Missed hours that no run charges unasked. */
  readonly forgotten: number;
  readonly firstForgotten: string | null;
  /** The table that has used most of its row numbers, or whose next one is taken; null if none has any. */
  readonly numbered: string | null;
  /** True if another row has its next number: the sequence was set back. */
  readonly numberTaken: boolean;
  /** Which part of them it has used: 1 is all. */
  readonly numbersUsed: number;
  /** Why the clocks can't be believed, so that no run charges anything; null if they can. */
  readonly clockFault: string | null;
  /** For how many hours the others last, if each is like the last billed one; null if that is not known. */
  readonly numbersLastHours: number | null;
}

/** Reads it. Null if the database has no tables of the billing yet. `hoursBack`: how far back a run goes. */
export async function readStanding(
  database: Pick<PostgresPool, "query">,
  hoursBack: number,
): Promise<BillingStanding | null> {
  const [there] = await database.query<{ there: boolean }>(
    "SELECT to_regclass('public.billing_hours') IS NOT NULL AS there",
  );
  if (there?.there !== true) return null;
  const [row] = await database.query<Omit<BillingStanding, "clockFault"> & ClockReading>(STANDING, [
    hoursBack,
  ]);
  if (row === undefined) return null;
  const { databaseMs, futureHour, ...standing } = row;
  return { ...standing, clockFault: faultOfClock({ databaseMs, futureHour }, wallClockMs()) };
}

/**
 * The `id` of upstream's tables is an integer: about 2,147 million rows. A charge uses up one of credit_history, also if the row is
 * deleted later.
 */
const NUMBERS = `
  SELECT tbl, (coalesce(s.last_value, low - 1) - low + 1) / (top - low + 1) AS used, top - coalesce(s.last_value, low - 1) AS free,
    CASE tbl WHEN 'credit_history' THEN EXISTS (SELECT FROM credit_history WHERE id = following)
      ELSE EXISTS (SELECT FROM user_credits WHERE id = following) END AS taken
  FROM (VALUES ('credit_history'), ('user_credits')) AS t (tbl)
    JOIN pg_attribute a ON a.attrelid = to_regclass('public.' || tbl) AND a.attname = 'id'
    JOIN pg_sequences s ON to_regclass(format('%I.%I', s.schemaname, s.sequencename))
      = to_regclass(pg_get_serial_sequence('public.' || tbl, 'id'))
    CROSS JOIN LATERAL (SELECT s.min_value::numeric AS low,
      CASE a.atttypid WHEN 'integer'::regtype THEN least(s.max_value, 2147483647) ELSE s.max_value END::numeric AS top,
      coalesce(s.last_value + s.increment_by, s.start_value) AS following) AS bounds
  ORDER BY taken DESC, used DESC LIMIT 1`;

const STANDING = `
  WITH forgotten AS (${FORGOTTEN}), last AS (
    SELECT max(hour) AS hour, (array_agg(charged ORDER BY hour DESC))[1] AS charged
    FROM billing_hours WHERE finished_at IS NOT NULL AND NOT waived
  ), numbers AS (${NUMBERS}), lease AS (
    SELECT coalesce(m.name, l.holder, 'a master without MASTER_ID') AS leader, l.pid, l.backend_start, l.acquired_at,
      l.heartbeat_at
    FROM cron_lease l LEFT JOIN masters m ON m.id = l.holder WHERE l.name = 'billing' AND l.pid IS NOT NULL
  )
  SELECT lease.leader, to_char(acquired_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI" UTC"') AS since,
    coalesce(extract(epoch FROM clock_timestamp() - heartbeat_at), 0)::int AS "silentSeconds",
    coalesce(extract(epoch FROM now() - acquired_at), 0)::int AS "leadingSeconds",
    EXISTS (SELECT FROM pg_locks k LEFT JOIN lease ON lease.pid = k.pid WHERE ${LEASE_LOCK} AND lease.pid IS NULL) AS "isElsewhere",
    ${CLOCK}, ${HOUR_TEXT("last.hour")} AS "lastHour", extract(epoch FROM now() - last.hour)::int AS "sinceLastHour",
    (SELECT count(*)::int FROM failed_charges) AS failures, (${BEHIND}) AS behind,
    forgotten.hours AS forgotten, forgotten.first AS "firstForgotten",
    tbl AS numbered, coalesce(taken, false) AS "numberTaken", coalesce(used, 0)::float8 AS "numbersUsed",
    CASE tbl WHEN 'credit_history' THEN floor(free / nullif(last.charged, 0))::float8 END AS "numbersLastHours"
  FROM forgotten, last LEFT JOIN lease ON true LEFT JOIN numbers ON true`;

/** A judgement: how the billing stands in a sentence, and what to do. */
export interface BillingJudgement {
  readonly state: "ok" | "attention";
  readonly sentence: string;
  readonly todo: string | null;
}

/** A holder beats every 10 s, and loses the lease after 60 s (lease.ts): then a standby should have taken it. */
const SILENT_SECONDS = 120;
/** How long a run may take after its interval. */
const GRACE_SECONDS = 900;
const LOG = "docker logs fula-pinning-webui";
/** The join starts a container that was stopped or frozen. */
const NO_LEADER = `fula-node join-as-master, then ${LOG}`;
/** It shows why charges failed. */
export const RUNS = "fula-node billing runs";
/** From this part of the row numbers on, they are reported. */
const NUMBERS_WARN = 0.8;

/** Judges the standing. `lease`: CRON_LEADER_LEASE. */
export function judgeBilling(
  standing: BillingStanding,
  { lease, deductionIntervalMs }: Pick<BillingSettings, "lease" | "deductionIntervalMs">,
): BillingJudgement {
  const { leader, since, isElsewhere, lastHour, failures, forgotten } = standing;
  const attention = (sentence: string, todo: string): BillingJudgement => ({
    state: "attention",
    sentence,
    todo,
  });
  const { numbered, numberTaken, numbersUsed } = standing;
  if (numberTaken)
    return attention(
      `the next row number of ${numbered} is another row's: nothing is charged or credited`,
      NUMBERS_PAGE,
    );
  if (numbersUsed >= 1)
    return attention(`${numbered} has no row numbers left: nothing is charged or credited`, NUMBERS_PAGE);
  if (standing.clockFault !== null)
    return attention(`nothing is charged: ${standing.clockFault}`, "see docs/billing.md#clocks");
  if (lease && isElsewhere && numbersUsed < NUMBERS_WARN)
    return {
      state: "ok",
      sentence: "another program runs it (upstream's image on another master)",
      todo: null,
    };
  const absent = judgeLeader(standing, lease);
  if (absent !== null) return attention(`${absent}${describeBehind(standing)}`, NO_LEADER);
  const who = lease ? `run by ${leader} since ${since}` : "run by every master";
  if (isLate(standing, lease, deductionIntervalMs))
    return attention(
      `${who}, but late: the last billed hour is ${lastHour ?? "none"}${describeBehind(standing)}`,
      LOG,
    );
  if (numbersUsed >= NUMBERS_WARN) return attention(describeNumbers(standing), NUMBERS_PAGE);
  if (failures > 0)
    return attention(`${countOf(failures, "charge")} failed, of one account and hour each`, RUNS);
  if (forgotten > 0)
    return attention(
      `${countOf(forgotten, "hour")} since ${standing.firstForgotten} were never billed`,
      `fula-node billing catch-up --dry-run --since ${standing.firstForgotten}`,
    );
  return {
    state: "ok",
    sentence: `${who}, ${describeHour(lastHour)}${describeBehind(standing)}`,
    todo: null,
  };
}

/** Why no master runs the billing now; null if one does. */
export function judgeLeader(
  { leader, silentSeconds, isElsewhere }: BillingStanding,
  lease: boolean,
): string | null {
  if (!lease || isElsewhere) return null;
  if (leader === null) return "no master runs it";
  return silentSeconds > SILENT_SECONDS
    ? `${leader} should run it, and is silent for ${silentSeconds} s`
    : null;
}

function describeBehind({ behind }: BillingStanding): string {
  return behind === 0 ? "" : `; ${countOf(behind, "hour")} ${behind === 1 ? "is" : "are"} not charged yet`;
}

/** The hour begins at the time that names it. */
function describeHour(hour: string | null): string {
  if (hour === null) return "no hour is billed yet";
  const end = new Date(new Date(hour).getTime() + 3_600_000).toISOString();
  return `last billed hour: ${hour.slice(0, 10)} ${hour.slice(11, 16)} to ${end.slice(11, 16)} UTC`;
}

const NUMBERS_PAGE = "see docs/billing.md#row-numbers";

function describeNumbers({ numbered, numbersUsed, numbersLastHours }: BillingStanding): string {
  const lasts = numbersLastHours === null ? "" : `: the others last ${age(numbersLastHours * 3_600_000)}`;
  return `${numbered} has used ${Math.floor(numbersUsed * 100)} % of its row numbers${lasts}`;
}

/** The hour after the last billed one begins 3600 s after it, and a run comes within an interval from then. */
function isLate(
  { sinceLastHour, leadingSeconds }: BillingStanding,
  lease: boolean,
  intervalMs: number,
): boolean {
  const within = intervalMs / 1_000 + GRACE_SECONDS;
  if (sinceLastHour === null) return lease && leadingSeconds > within;
  // A new leader runs at once, and a run of many missed hours takes its time.
  return sinceLastHour > 3_600 + within && (!lease || leadingSeconds > GRACE_SECONDS);
}

/** One hour of `billing runs`. */
export interface BilledHour extends Record<string, unknown> {
  readonly hour: string;
  /** `open`: a run has begun it. `missed`: none has. */
  readonly state: "billed" | "open" | "waived" | "missed";
  readonly charged: number;
  readonly amount: string;
  readonly suspended: number;
}

/** A charge that the database refused. */
export interface FailedCharge extends Record<string, unknown> {
  readonly hour: string;
  readonly account: string;
  readonly fee: string;
  readonly reason: string;
  readonly tries: number;
}

/** The newest hours, and the oldest failed charges. */
export async function listRuns(
  database: Pick<PostgresPool, "query">,
  limit: number,
): Promise<{ readonly hours: readonly BilledHour[]; readonly failures: readonly FailedCharge[] }> {
  const hours = await listHours(database, limit);
  return { hours, failures: await database.query<FailedCharge>(FAILED, [limit]) };
}

/** The newest hours. */
export async function listHours(
  database: Pick<PostgresPool, "query">,
  limit: number,
): Promise<readonly BilledHour[]> {
  return database.query<BilledHour>(HOURS, [limit]);
}

const HOURS = `
  SELECT ${HOUR_TEXT("series.hour")} AS hour,
    CASE WHEN b.hour IS NULL THEN 'missed' WHEN waived THEN 'waived' WHEN finished_at IS NULL THEN 'open' ELSE 'billed' END AS state,
    coalesce(charged, 0)::float8 AS charged, coalesce(trim_scale(amount), 0)::text AS amount,
    coalesce(suspended, 0)::float8 AS suspended
  FROM generate_series(
      greatest((SELECT min(hour) FROM billing_hours), ${CURRENT} - $1 * interval '1 hour'), ${CURRENT}, '1 hour') AS series (hour)
    LEFT JOIN billing_hours b USING (hour)
  WHERE b.hour IS NOT NULL OR series.hour < ${CURRENT}
  ORDER BY series.hour DESC LIMIT $1`;

const FAILED = `
  SELECT ${HOUR_TEXT("hour")} AS hour, account, trim_scale(fee)::text AS fee, reason, tries
  FROM failed_charges ORDER BY failed_charges.hour, account LIMIT $1`;
