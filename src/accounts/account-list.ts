import type { PostgresPool } from "../database/postgres.ts";
import { openText } from "./api-key.ts";

/** An account, as the operator sees it. */
export interface ListedAccount {
  readonly account: string;
  /** Null for an account without one, and if ENCRYPTION_KEY does not decrypt it. */
  readonly email: string | null;
  readonly storageBytes: number;
  readonly balanceFula: number;
  readonly isSuspended: boolean;
  /** True if the operator suspended it, not the billing. */
  readonly isHeld: boolean;
}

/** Up to `limit` accounts whose ids follow `after`, in the order of the ids. Memory and time are bounded by `limit`. */
export async function listAccounts(
  database: Pick<PostgresPool, "query">,
  { after, limit }: { readonly after: string; readonly limit: number },
  encryptionKey: string,
): Promise<readonly ListedAccount[]> {
  const rows = await database.query<{
    account: string;
    email: string | null;
    encrypted_email: string | null;
    bytes: string;
    /** A numeric, which the driver returns as text. */
    balance: string | null;
    suspended: boolean;
    held: boolean;
  }>(LIST, [after, limit]);
  return rows.map((row) => ({
    account: row.account,
    email: openText(row.encrypted_email ?? "", encryptionKey) ?? row.email,
    storageBytes: Number(row.bytes),
    balanceFula: Number(row.balance ?? 0),
    isSuspended: row.suspended || row.held,
    isHeld: row.held,
  }));
}

/** One who only has a wallet has no row in webui_users; many have no balance. Each list is an index. */
const LIST = `
  WITH ids AS (
    (SELECT user_id AS account FROM webui_users WHERE user_id > $1::varchar ORDER BY user_id LIMIT $2)
    UNION (SELECT user_id FROM user_credits WHERE user_id > $1::varchar ORDER BY user_id LIMIT $2)
    UNION (SELECT account FROM account_usage WHERE account > $1::varchar GROUP BY account ORDER BY account LIMIT $2)
    ORDER BY account LIMIT $2
  )
  SELECT ids.account, u.email, u.encrypted_email, c.balance, coalesce(c.suspended, false) AS suspended,
    (SELECT coalesce(sum(bytes), 0) FROM account_usage a WHERE a.account = ids.account) AS bytes,
    EXISTS (SELECT FROM account_holds h WHERE h.account = ids.account) AS held
  FROM ids
    LEFT JOIN webui_users u ON u.user_id = ids.account
    LEFT JOIN account_credits c ON c.account = ids.account
  ORDER BY ids.account`;
