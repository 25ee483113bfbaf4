// The statements of the deposits. $1 is the chain, $2 the transaction, if both are needed. Amounts are in units of 10^-18 FULA.

/** Units as FULA, exactly. */
const FULA = (units: string) => `(${units}::numeric * 1e-18)`;

/** The gate that upstream's image has, too: whoever inserts the row settles the transaction. */
export const OPEN_TRANSACTION = `
  INSERT INTO token_transactions
      (tx_hash, chain_id, from_address, to_address, amount_raw, amount_fula, block_number, block_timestamp, ingestion_source)
    VALUES ($2, $1, $3, $4, $5::numeric::text, ${FULA("$5")}, $6, $7, $8)
    ON CONFLICT (tx_hash, chain_id) DO NOTHING RETURNING id`;

/**
 * Locks the row of the transaction, and says whether it is ours to settle: upstream's image has no rows of deposits, and one that
 * we have not credited, but is claimed, was credited by it.
 */
export const LOCK_TRANSACTION = `
  SELECT count(d.tx_hash) > 0 AND (t.claimed_at IS NULL OR count(d.credited_at) > 0) AS ours
  FROM (SELECT * FROM token_transactions WHERE chain_id = $1 AND tx_hash = $2 FOR UPDATE) t
    LEFT JOIN deposits d USING (chain_id, tx_hash)
  GROUP BY t.claimed_at`;

/** $3 log indexes, $4 senders, $5 amounts, $6 block, $7 its hash. */
export const ADD_TRANSFERS = `
  INSERT INTO deposits (chain_id, tx_hash, log_index, from_address, amount, block_number, block_hash)
    SELECT $1, $2, log_index, from_address, amount, $6, $7
    FROM unnest($3::integer[], $4::text[], $5::numeric[]) AS t (log_index, from_address, amount)
    ON CONFLICT (chain_id, tx_hash, log_index) DO NOTHING`;

/**
 * Transfers without a credit whose sender is a verified wallet, of whatever chain. Of several accounts, which only
 * upstream's image could link, the first one counts.
 */
export const CREDITABLE = `
  SELECT d.log_index, d.amount::text AS amount, w.user_id AS account, d.from_address AS "from",
    d.block_number::float8 AS block, d.block_hash AS "blockHash"
  FROM deposits d CROSS JOIN LATERAL (
    SELECT user_id FROM user_wallets
    WHERE wallet_address_hash = encode(sha256(d.from_address::bytea), 'hex') AND is_verified = 1 AND user_id IS NOT NULL
    ORDER BY id LIMIT 1) w
  WHERE d.chain_id = $1 AND d.tx_hash = $2 AND d.account IS NULL
    AND NOT EXISTS (SELECT FROM failed_deposits f WHERE f.chain_id = d.chain_id AND f.tx_hash = d.tx_hash
      AND f.log_index = d.log_index AND f.dismissed_at IS NOT NULL)
  ORDER BY d.log_index FOR UPDATE OF d`;

/** Who gets a bonus for a deposit of $1, up to three levels; nobody twice. */
export const REFERRERS = `
  WITH RECURSIVE up (account, code, level, path) AS (
    SELECT r.referrer_id, r.referral_code, 1, ARRAY[$1::text, r.referrer_id::text]
      FROM referrals r WHERE r.referred_id = $1::varchar AND r.referrer_id IS NOT NULL AND r.referrer_id <> $1::varchar
    UNION ALL
    SELECT r.referrer_id, r.referral_code, up.level + 1, up.path || r.referrer_id::text
      FROM up JOIN referrals r ON r.referred_id = up.account
      WHERE up.level < 3 AND r.referrer_id IS NOT NULL AND r.referrer_id::text <> ALL (up.path)
  )
  SELECT account, code, level FROM up ORDER BY level`;

/** Credits a transfer: balance, history and gate. $3 log index, $4 account, $5 amount. Ends a suspension by the billing. */
export const CREDIT = `
  WITH changed AS (
    SELECT balance FROM change_credits($4::varchar, ${FULA("$5")}, ${FULA("$5")}, 0, true)
  ), noted AS (
    INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
      SELECT $4::varchar, 'deposit', ${FULA("$5")}, balance, $1::integer || ':' || $2::text FROM changed RETURNING id
  )
  UPDATE deposits d SET account = $4::varchar, credited_at = now(), history_id = noted.id FROM noted
    WHERE d.chain_id = $1::integer AND d.tx_hash = $2::text AND d.log_index = $3 RETURNING d.history_id`;

/** The parts of a deposit that the levels get (creditService.ts of functionland/pinning-service). */
const RATES = ["0.10", "0.01", "0.01"];

/**
 * The bonus for a referrer, rounded to 6 digits; a suspension stays. $1 referrer, $2 its code, $3 level, $4 the deposit's
 * history row, $5 its account, $6 its amount, $7 the code of that account's referrer.
 */
export const BONUS = `
  WITH bonus AS (
    SELECT round(${FULA("$6")} * (ARRAY[${RATES.join(", ")}])[$3::integer], 6) AS amount
  ), changed AS (
    SELECT amount, c.balance FROM bonus, change_credits($1::varchar, amount, 0, amount, false) AS c WHERE amount > 0
  ), noted AS (
    INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
      SELECT $1::varchar, 'referral_bonus', amount, balance, 'Level ' || $3::integer || ' referral bonus for a deposit'
      FROM changed RETURNING id
  )
  INSERT INTO referral_bonuses (credit_history_id, recipient_user_id, recipient_referral_code, source_credit_history_id,
      source_user_id, source_referral_code, level, bonus_amount_fula, source_amount_fula)
    SELECT noted.id, $1::varchar, $2, $4, $5::varchar, $7, $3::integer, amount, ${FULA("$6")} FROM noted, bonus`;

/** Of a credited transfer: whose it is, and its row of the history. $3 log index. */
export const CREDITED_AS = `
  SELECT account, amount::text AS amount, history_id AS "historyId" FROM deposits
  WHERE chain_id = $1 AND tx_hash = $2 AND log_index = $3 AND account IS NOT NULL`;

/** Who got a bonus for a deposit. $1: its row of the history. */
export const GIVEN_BONUSES =
  "SELECT recipient_user_id AS account FROM referral_bonuses WHERE source_credit_history_id = $1";

/** What upstream's image reads: the sum of all transfers, and the sender and account of the first one. */
export const SUM_UP = `
  UPDATE token_transactions t SET amount_raw = s.amount::text, amount_fula = ${FULA("s.amount")},
      from_address = s.from_address, user_id = s.account, claimed_at = coalesce(t.claimed_at, s.credited_at)
    FROM (
      SELECT sum(amount) AS amount, min(credited_at) AS credited_at,
        (array_agg(from_address ORDER BY log_index))[1] AS from_address,
        (array_agg(account ORDER BY log_index))[1] AS account
      FROM deposits WHERE chain_id = $1 AND tx_hash = $2) AS s
    WHERE t.chain_id = $1 AND t.tx_hash = $2`;

/** Not those that are credited, and whose bonuses failed: only these end that. */
export const FORGET_FAILED = `
  DELETE FROM failed_deposits
  WHERE chain_id = $1 AND tx_hash = $2 AND log_index = ANY ($3::integer[]) AND NOT transfer ? 'referrers'`;

/** $3 log index. */
export const FORGET_BONUSES =
  "DELETE FROM failed_deposits WHERE chain_id = $1 AND tx_hash = $2 AND log_index = $3 AND transfer ? 'referrers'";

/** $3 log index, $4 the transfer, $5 the reason. */
export const NOTE_FAILED = `
  INSERT INTO failed_deposits AS f (chain_id, tx_hash, log_index, transfer, reason) VALUES ($1, $2, $3, $4::jsonb, $5)
    ON CONFLICT (chain_id, tx_hash, log_index)
    DO UPDATE SET transfer = excluded.transfer, reason = excluded.reason, tries = f.tries + 1, failed_at = now()`;

/**
 * Which of these transfers are known: they have a row of the same block, or the operator has dismissed them. $2 hashes, $3 log
 * indexes, $4 hashes of their blocks.
 */
export const KNOWN = `
  SELECT tx_hash, log_index FROM unnest($2::text[], $3::integer[], $4::text[]) AS t (tx_hash, log_index, block_hash)
  WHERE EXISTS (SELECT FROM deposits d
      WHERE d.chain_id = $1 AND d.tx_hash = t.tx_hash AND d.log_index = t.log_index AND d.block_hash = t.block_hash)
    OR EXISTS (SELECT FROM failed_deposits f
      WHERE f.chain_id = $1 AND f.tx_hash = t.tx_hash AND f.log_index = t.log_index AND f.dismissed_at IS NOT NULL)`;

/** What an account got by a transaction. $3 account. */
export const CREDITED_TO = `
  SELECT trim_scale(coalesce(sum(${FULA("amount")}), 0))::text AS fula, count(*)::integer AS transfers
  FROM deposits WHERE chain_id = $1 AND tx_hash = $2 AND account = $3`;

/** Those to try again: of transfer $1, $2, $3, or, without one, all that are not dismissed. */
export const FAILED_ROWS = `
  SELECT chain_id, transfer, reason FROM failed_deposits
  WHERE CASE WHEN $1::integer IS NULL THEN dismissed_at IS NULL ELSE (chain_id, tx_hash, log_index) = ($1::integer, $2::text, $3::integer) END
  ORDER BY failed_deposits.failed_at, chain_id, tx_hash, log_index LIMIT 1000`;

/**
 * Transfers of a transaction that the operator has dismissed. The rows of all that failed are locked: none is dismissed while it is
 * being settled.
 */
export const DISMISSED = `
  SELECT log_index AS "logIndex", transfer->>'from' AS "from", transfer->>'amount' AS amount, transfer->>'blockHash' AS "blockHash"
  FROM (SELECT log_index, transfer, dismissed_at FROM failed_deposits WHERE chain_id = $1 AND tx_hash = $2 FOR UPDATE) AS failed
  WHERE dismissed_at IS NOT NULL`;

/**
 * Takes a transfer off the list without a credit, with a line in the audit log; nothing credits it until it is taken back. $3 log
 * index, $4 who does it.
 */
export const DISMISS = decideSql("dismiss deposit", "now(), dismissed_by = $4::text", "IS NULL");

/** Takes a dismissed transfer back into the list. */
export const TAKE_BACK = decideSql("take back deposit", "NULL, dismissed_by = NULL", "IS NOT NULL");

function decideSql(action: string, set: string, was: string): string {
  return `
  WITH decided AS (
    UPDATE failed_deposits SET dismissed_at = ${set}
      WHERE chain_id = $1::integer AND tx_hash = $2 AND log_index = $3 AND dismissed_at ${was} RETURNING *
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, details) SELECT $4::text, '${action}', to_jsonb(decided) FROM decided
  )
  SELECT trim_scale((transfer->>'amount')::numeric * 1e-18)::text AS fula, transfer->>'from' AS "from" FROM decided`;
}
