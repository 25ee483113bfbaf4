import { feeSql } from "./fee.ts";

// The statements of the billing. Every time is PostgreSQL's. Hours are told apart by their beginning, as text.

/** `hour:2026-06-12T14`, as upstream writes it: the reference of a charge in credit_history. */
const REFERENCE = (hour: string) => `'hour:' || to_char(${hour} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')`;

/** An hour for people and for a later statement: `2026-06-12T14:00Z`. */
export const HOUR_TEXT = (hour: string) => `to_char(${hour} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')`;

const TARIFF_KEPT = `free_bytes::text AS "freeBytes", trunc(fula_per_gib_month * 1e18)::text AS "unitsPerGibMonth"`;

export const CURRENT = "date_trunc('hour', now(), 'UTC')";

/** The advisory lock of the crons, in pg_locks (leaderLease.ts of functionland/pinning-service). `k` is the row. */
export const LOCK = 815_551_001;
export const LEASE_LOCK = `k.locktype = 'advisory' AND k.classid = 0 AND k.objid = ${LOCK} AND k.objsubid = 1 AND k.granted
    AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

/** No hour of before fula-node was ever billed: a row of one comes from a wrong clock. */
export const FIRST_HOUR = "2026-01-01T00:00Z";

/** Hours from `first` to the one before the current one that no run has finished. */
const openHours = (first: string) => `
  SELECT hour
  FROM generate_series(${first}, ${CURRENT} - interval '1 hour', '1 hour') AS series (hour)
  WHERE NOT EXISTS (SELECT FROM billing_hours b WHERE b.hour = series.hour AND b.finished_at IS NOT NULL)`;

/** Hours between the first billed one and the current one that no run has finished. */
const OPEN_HOURS = openHours(`(SELECT min(hour) FROM billing_hours WHERE hour >= '${FIRST_HOUR}')`);

/** How many hours the next run makes up for. $1: how many hours back it goes; no more are looked at. */
export const BEHIND = `
  SELECT count(*)::integer AS hours FROM (${openHours(`(
    SELECT greatest(min(hour), ${CURRENT} - $1 * interval '1 hour') FROM billing_hours WHERE hour >= '${FIRST_HOUR}'
    HAVING min(hour) IS NOT NULL)`)}) AS hours`;

/** The hours of a run, the oldest first. $1: how many hours back at most. */
export const DUE_HOURS = `
  SELECT ${HOUR_TEXT("hour")} AS hour, hour = ${CURRENT} AS current, ${REFERENCE("hour")} AS reference FROM (
    ${OPEN_HOURS} AND hour >= ${CURRENT} - $1 * interval '1 hour'
    UNION ALL SELECT ${CURRENT}) AS hours
  ORDER BY hours.hour`;

/** Hours that were missed so long ago that no run charges them unasked. $1: how many hours back a run goes. */
export const FORGOTTEN = `
  SELECT count(*)::integer AS hours, ${HOUR_TEXT("min(hour)")} AS first, ${HOUR_TEXT("max(hour)")} AS last
  FROM (${OPEN_HOURS} AND hour < ${CURRENT} - $1 * interval '1 hour') AS hours`;

/** The missed hours from $1 on, whatever their age. */
export const MISSED_HOURS = `
  SELECT ${HOUR_TEXT("hour")} AS hour, false AS current, ${REFERENCE("hour")} AS reference
  FROM (${OPEN_HOURS} AND hour >= $1::timestamptz) AS hours ORDER BY hours.hour`;

/**
 * Ends the suspensions that the billing made: of accounts below the free tier ($1), or with a balance again. Not those by
 * the operator. An account that another session changes now gets its turn with the next run.
 */
export const RESUME = `
  UPDATE user_credits SET is_suspended = 0, suspended_at = NULL WHERE id IN (
    SELECT c.id FROM user_credits c
    WHERE c.is_suspended = 1 AND c.user_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM account_holds h WHERE h.account = c.user_id)
      AND (c.balance_fula > 0
        OR (SELECT coalesce(sum(u.bytes), 0) FROM account_usage u WHERE u.account = c.user_id) < $1::numeric)
    FOR NO KEY UPDATE OF c SKIP LOCKED)`;

/** The fee of an hour from `bytes`; $1 and $2 are the tariff. */
const FEE = feeSql("bytes", { free: "$1", price: "$2" });

/** What each account stores now: for the current hour. */
const NOW = { table: "account_usage", account: "account", bytes: "bytes", when: "true" };

/**
 * What each account stored during all of a missed hour ($3): pins that were there before it began, and not deleted before
 * it ended. So an hour that was missed never costs more than one that was not.
 */
const THEN = {
  table: "pins",
  account: "user_id",
  bytes: "size",
  when: "created_at <= $3::timestamptz AND (status <> 'deleted' OR updated_at >= $3::timestamptz + interval '1 hour')",
};

function storedSql(isCurrent: boolean, more: string): string {
  const { table, account, bytes, when } = isCurrent ? NOW : THEN;
  return `SELECT ${account} AS account, sum(${bytes}) AS bytes FROM ${table} WHERE ${when} ${more.replaceAll("@", account)}
    GROUP BY ${account} HAVING sum(${bytes}) > $1::numeric`;
}

/** Whether an account still has to pay for the hour $3, with the reference $4. */
const DUE = `
  NOT EXISTS (SELECT FROM credit_history h WHERE h.user_id = s.account AND h.reference_id = $4
    AND h.tx_type = 'hourly_deduction')
  AND NOT EXISTS (SELECT FROM user_credits c WHERE c.user_id = s.account AND c.is_suspended = 1)
  AND NOT EXISTS (SELECT FROM failed_charges f WHERE f.account = s.account AND f.hour = $3::timestamptz)`;

/** No part of a missed hour was in a suspension, even if that has ended. */
const NOT_SUSPENDED_THEN = (account: string, hour: string) => `
  NOT EXISTS (SELECT FROM account_suspensions p WHERE p.account = ${account}
    AND p.began_at < ${hour}::timestamptz + interval '1 hour' AND p.ended_at > ${hour}::timestamptz)`;

function dueSql(isCurrent: boolean): string {
  return isCurrent ? DUE : `${DUE} AND ${NOT_SUSPENDED_THEN("s.account", "$3")}`;
}

/**
 * A page of accounts above the free tier, in the order of their ids: the next $6 after $5, and which of them have to pay
 * how much. `last` is null at the end.
 */
export function pageSql(isCurrent: boolean): string {
  return `
    WITH s AS MATERIALIZED (${storedSql(isCurrent, "AND @ > $5")} ORDER BY account LIMIT $6),
      due AS (SELECT account, ${FEE} AS fee FROM s WHERE ${dueSql(isCurrent)})
    SELECT (SELECT max(account) FROM s) AS last,
      coalesce((SELECT array_agg(account ORDER BY account) FROM due WHERE fee > 0), '{}') AS accounts,
      coalesce((SELECT array_agg(fee::text ORDER BY account) FROM due WHERE fee > 0), '{}') AS fees`;
}

/** What a run would charge for an hour at most: an account whose balance ends pays less. */
export function previewSql(isCurrent: boolean): string {
  return `
    WITH s AS MATERIALIZED (${storedSql(isCurrent, "AND @ IS NOT NULL")})
    SELECT count(*)::integer AS accounts, coalesce(sum(fee), 0)::text AS fula
    FROM (SELECT ${FEE} AS fee FROM s WHERE ${dueSql(isCurrent)}
      AND NOT EXISTS (SELECT FROM user_credits c WHERE c.user_id = s.account AND c.balance_fula < 0)) AS due WHERE fee > 0`;
}

/** For the rest of the transaction: rows of a batch are found by index. By its own guess, PostgreSQL reads whole tables. */
export const BY_INDEX =
  "SELECT set_config('random_page_cost', '0.1', true), set_config('enable_seqscan', 'off', true)";

/** An account that never had a balance gets one of 0. An id is used only for a new row. */
export const ADD_MISSING = `
  INSERT INTO user_credits (user_id) SELECT account FROM unnest($1::varchar[]) AS account
    WHERE NOT EXISTS (SELECT FROM user_credits c WHERE c.user_id = account) ORDER BY account
    ON CONFLICT (user_id) DO NOTHING`;

/** Locks the accounts' rows. Without waiting, those that another session holds are left out. */
export function lockSql(wait: boolean): string {
  return `
    SELECT user_id AS account FROM user_credits WHERE user_id = ANY ($1::varchar[])
    ORDER BY user_id FOR NO KEY UPDATE ${wait ? "" : "SKIP LOCKED"}`;
}

/** A balance that is no amount is refused with its reason, not suspended. */
const BELOW_ZERO = "state.balance < 0 AND state.balance >= -1e30";

/**
 * Charges accounts whose rows are locked. The history row decides: only who gets one pays. It must be a statement of its
 * own after the lock, to see what others committed before. An account below zero, which somebody has unsuspended, is suspended again
 * without a charge. $1 accounts, $2 fees, $3 hour, $4 reference.
 */
export function chargeSql(isCurrent: boolean): string {
  return `
  WITH state AS MATERIALIZED (
    SELECT a.*, i.fee, a.balance - i.fee AS rest
    FROM unnest($1::varchar[], $2::numeric[]) AS i (account, fee) JOIN account_credits a ON a.account = i.account
    WHERE NOT a.suspended ${isCurrent ? "" : `AND ${NOT_SUSPENDED_THEN("a.account", "$3")}`}
  ), below AS (
    UPDATE user_credits c SET is_suspended = 1, suspended_at = ${isCurrent ? "now()" : "$3::timestamptz"}
      FROM state WHERE ${BELOW_ZERO} AND c.user_id = state.account RETURNING c.user_id
  ), noted AS (
    INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
      SELECT account, 'hourly_deduction', -fee, rest, $4 FROM state WHERE NOT (${BELOW_ZERO}) ORDER BY account
      ON CONFLICT (user_id, reference_id) WHERE tx_type = 'hourly_deduction' DO NOTHING
      RETURNING user_id
  ), paid AS (
    SELECT state.* FROM state JOIN noted ON user_id = account
  ), taken_over AS (
    INSERT INTO credit_takeovers (account, balance, deposited, deducted, bonus)
      SELECT e.account, p.balance - e.balance, p.deposited - e.deposited, p.deducted - e.deducted, p.bonus - e.bonus
      FROM paid p JOIN exact_credits e ON e.account = p.account WHERE p.moved
  ), kept AS (
    INSERT INTO exact_credits (account, balance, deposited, deducted, bonus)
      SELECT account, rest, deposited, deducted + fee, bonus FROM paid
      ON CONFLICT (account) DO UPDATE SET balance = excluded.balance, deposited = excluded.deposited,
        deducted = excluded.deducted, bonus = excluded.bonus
  ), shown AS (
    UPDATE user_credits c SET balance_fula = p.rest::real, total_deposited_fula = p.deposited::real,
        total_deducted_fula = (p.deducted + p.fee)::real, total_bonus_received_fula = p.bonus::real,
        last_deduction_at = now(), is_suspended = CASE WHEN p.rest < 0 THEN 1 ELSE c.is_suspended END,
        -- From the end of the hour that used the balance up, so that no hour after it is charged.
        suspended_at = CASE WHEN p.rest < 0 THEN least(now(), $3::timestamptz + interval '1 hour') ELSE c.suspended_at END
      FROM paid p WHERE c.user_id = p.account
      RETURNING p.fee, p.rest < 0 AS suspends
  )
  SELECT count(*)::integer AS charged, coalesce(sum(fee), 0)::text AS amount,
    (count(*) FILTER (WHERE suspends))::integer + (SELECT count(*)::integer FROM below) AS suspended FROM shown`;
}

/**
 * Begins an hour, or goes on with it: whoever begins it decides at which tariff all of it is charged. $2 free bytes, $3 price of a
 * GiB and month in units of 10^-18 FULA.
 */
export const BEGIN_HOUR = `
  INSERT INTO billing_hours AS b (hour, free_bytes, fula_per_gib_month)
    VALUES ($1::timestamptz, $2::bigint, trim_scale($3::numeric * 1e-18))
    ON CONFLICT (hour) DO UPDATE SET free_bytes = coalesce(b.free_bytes, excluded.free_bytes),
      fula_per_gib_month = coalesce(b.fula_per_gib_month, excluded.fula_per_gib_month)
    RETURNING ${TARIFF_KEPT}`;

/** The tariff of an hour that was begun. $1: the hour. */
export const HOUR_TARIFF = `
  SELECT ${TARIFF_KEPT} FROM billing_hours WHERE hour = $1::timestamptz AND free_bytes IS NOT NULL`;

/** The last statement of each batch: other runs wait for this row only until the commit. */
export const COUNT_BATCH = `
  UPDATE billing_hours SET charged = charged + $2, amount = amount + $3::numeric, suspended = suspended + $4
  WHERE hour = $1::timestamptz`;

export const FINISH_HOUR = "UPDATE billing_hours SET finished_at = now() WHERE hour = $1::timestamptz";

/** $2 accounts, $3 their fees, $4 why. */
export const NOTE_FAILURES = `
  INSERT INTO failed_charges AS f (hour, account, fee, reason)
    SELECT $1::timestamptz, account, fee, $4 FROM unnest($2::varchar[], $3::numeric[]) AS t (account, fee)
    ON CONFLICT (hour, account) DO UPDATE SET reason = excluded.reason, tries = f.tries + 1, failed_at = now()`;

/**
 * Failed charges of hours from $1 on; without $1, of the last $2 hours. Those whose last try is the longest ago come first: if there
 * are more than one run tries, each gets its turn.
 */
export const FAILURES = `
  SELECT ${HOUR_TEXT("hour")} AS hour, hour = ${CURRENT} AS current, ${REFERENCE("hour")} AS reference, account, fee::text AS fee
  FROM failed_charges WHERE hour >= coalesce($1::timestamptz, ${CURRENT} - $2 * interval '1 hour')
  ORDER BY failed_charges.failed_at, failed_charges.hour, account LIMIT 1000`;

export const FORGET_FAILURE = "DELETE FROM failed_charges WHERE hour = $1::timestamptz AND account = $2";

/** The operator decides that missed hours from $1 on are not billed. */
export const WAIVE = `
  INSERT INTO billing_hours AS b (hour, finished_at, waived)
    SELECT hour, now(), true FROM (${OPEN_HOURS} AND hour >= $1::timestamptz) AS hours
    ON CONFLICT (hour) DO UPDATE SET finished_at = now(), waived = true WHERE b.finished_at IS NULL`;
