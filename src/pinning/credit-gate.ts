/**
 * The credit gate as SQL. An account with a balance that is not suspended may store anything. Any other account may store
 * while its pins are smaller than the free tier (the rule of `GET /api/v1/storage`). The size of a pin is known only after
 * it was fetched, so such an account may also have only a few requests that are not pinned yet, or whose size is not known.
 */

/** True if the account has a balance and is not suspended. `account` is an SQL expression of type text. */
function isFunded(account: string): string {
  return `EXISTS (SELECT FROM user_credits c
      WHERE c.user_id = ${account} AND c.balance_fula > 0 AND coalesce(c.is_suspended, 0) = 0)`;
}

/** True if the operator suspended the account (user suspend): then it may store nothing more, in the free tier neither. */
export function isHeld(account: string): string {
  return `EXISTS (SELECT FROM account_holds h WHERE h.account = ${account})`;
}

/** An SQL condition: the gate is open for any number of requests, whatever the account stores already. */
export function isOpenToAll(account: string): string {
  return `(NOT ${isHeld(account)} AND ${isFunded(account)})`;
}

/**
 * An SQL condition: the account may store more now. It is asked again before a pin is sent to the cluster. Both arguments
 * are SQL expressions, the second one of type bigint.
 */
export function mayStore(account: string, freeTierBytes: string): string {
  return `(NOT ${isHeld(account)} AND (${isFunded(account)} OR (
      SELECT coalesce(sum(u.bytes), 0) < ${freeTierBytes} FROM account_usage u WHERE u.account = ${account})))`;
}

/** What the gate says: `open`, or the reason why not. */
export type GateVerdict = "open" | "held" | "used-up" | "too-many";

/**
 * An SQL expression for a GateVerdict. For an account without a balance it waits for the end of other requests of that
 * account (migration 027, pin_account_use), so that many requests at once do not all see the same number.
 * `maxPending` is NULL for any number of them. `replaced` is 1 if the new request takes the place of a pending one.
 */
export function gateVerdict(parts: {
  readonly account: string;
  readonly freeTierBytes: string;
  readonly maxPending: string;
  readonly replaced?: string;
}): string {
  const { account, freeTierBytes, maxPending, replaced = "0" } = parts;
  return `CASE WHEN ${isHeld(account)} THEN 'held' WHEN ${isFunded(account)} THEN 'open' ELSE (
      SELECT CASE WHEN used.bytes >= ${freeTierBytes} THEN 'used-up'
        WHEN used.pending - ${replaced} >= ${maxPending} THEN 'too-many' ELSE 'open' END
      FROM pin_account_use(${account}) used) END`;
}
