import type { PostgresPool } from "../database/postgres.ts";
import { OperatorError } from "../errors.ts";
import { visible } from "../units.ts";

type Database = Pick<PostgresPool, "query">;

/** Reads the reason of a decision, for the audit log. Throws an OperatorError (`usage`). */
export function readReason(text: string): string {
  const reason = text.trim();
  if (reason.length > 0 && reason.length <= 500 && visible(reason, { oneLine: true }) === reason)
    return reason;
  throw new OperatorError({
    exit: "usage",
    what: "--reason must be one line of 1 to 500 characters.",
    remedy: "Say why, so that the audit log shows it: --reason 'refund of invoice 117'.",
  });
}

/** Who decides, for the audit log: the user before sudo, on this machine. */
export function actorOf({
  environment,
  hostname,
}: {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly hostname: string;
}): string {
  const user = environment["SUDO_USER"] ?? "";
  return `${/^[A-Za-z0-9._-]{1,64}$/.test(user) ? user : "root"}@${hostname}`;
}

/** An SQL condition: an account of that id exists. It signed up, or has a balance, or pins. */
export function accountExists(id: string): string {
  return `(EXISTS (SELECT FROM webui_users WHERE user_id = ${id}) OR EXISTS (SELECT FROM user_credits WHERE user_id = ${id})
  OR EXISTS (SELECT FROM pins WHERE user_id = ${id}))`;
}

/** A suspension of an account by the operator, or its end. */
export interface HoldChange {
  readonly account: string;
  readonly reason: string;
  readonly actor: string;
}

/** `unchanged`: the account was already suspended by the operator, or was not suspended. */
export interface HoldOutcome {
  readonly outcome: "changed" | "unchanged" | "no-account";
  readonly balanceFula: number;
}

/** Suspends an account until holdAccount's opposite, whatever its balance is or becomes. */
export async function holdAccount(database: Database, change: HoldChange): Promise<HoldOutcome> {
  return outcomeOf(database, HOLD, change);
}

/** Ends a suspension, by whomever. The billing may suspend the account again if its balance is used up. */
export async function releaseAccount(database: Database, change: HoldChange): Promise<HoldOutcome> {
  return outcomeOf(database, RELEASE, change);
}

async function outcomeOf(
  database: Database,
  statement: string,
  { account, reason, actor }: HoldChange,
): Promise<HoldOutcome> {
  const [row] = await database.query<{ changed: boolean; exists: boolean; balance: string | null }>(
    statement,
    [account, reason, actor],
  );
  const outcome = row?.changed === true ? "changed" : row?.exists === true ? "unchanged" : "no-account";
  return { outcome, balanceFula: Number(row?.balance ?? 0) };
}

/** Upstream's services read is_suspended of user_credits. */
const HOLD = `
  WITH held AS (
    INSERT INTO account_holds (account, reason, actor) SELECT $1::varchar, $2, $3
      WHERE ${accountExists("$1::varchar")} ON CONFLICT (account) DO NOTHING RETURNING account
  ), suspended AS (
    INSERT INTO user_credits AS c (user_id, is_suspended, suspended_at) SELECT account, 1, now() FROM held
      ON CONFLICT (user_id) DO UPDATE SET is_suspended = 1, suspended_at = coalesce(c.suspended_at, now())
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, target_id, details)
      SELECT $3, 'suspend', account, jsonb_build_object('reason', $2::text) FROM held
  )
  SELECT EXISTS (SELECT FROM held) AS changed, ${accountExists("$1::varchar")} AS exists,
    (SELECT balance FROM account_credits WHERE account = $1::varchar) AS balance`;

const RELEASE = `
  WITH released AS (
    DELETE FROM account_holds WHERE account = $1::varchar RETURNING account
  ), resumed AS (
    UPDATE user_credits SET is_suspended = 0, suspended_at = NULL
      WHERE user_id = $1::varchar AND is_suspended = 1 RETURNING user_id
  ), changed AS (
    SELECT account FROM released UNION SELECT user_id FROM resumed
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, target_id, details)
      SELECT $3, 'unsuspend', account, jsonb_build_object('reason', $2::text) FROM changed
  )
  SELECT EXISTS (SELECT FROM changed) AS changed, ${accountExists("$1::varchar")} AS exists,
    (SELECT balance FROM account_credits WHERE account = $1::varchar) AS balance`;
