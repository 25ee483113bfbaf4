import { createHash } from "node:crypto";
import { openChain } from "../../src/billing/chain-node.ts";
import type { Scan } from "../../src/billing/scan.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { type FakeChain, TOKEN, VAULT } from "./fake-chain.ts";
import { poolOf } from "./names-database.ts";
import { sql } from "./postgres-server.ts";

export const ONE = 10n ** 18n;
export const CONFIRMATIONS = 12;

/** The wallet of an account of the tests. */
export function walletOf(account: string): string {
  return `0x${createHash("sha256").update(account).digest("hex").slice(0, 40)}`;
}

/** An account whose wallet is known by its hash only, as new ones are. */
export async function linkWallet(target: PostgresTarget, account: string): Promise<void> {
  await sql(
    target,
    `INSERT INTO user_wallets (user_id, wallet_address_hash, chain_id, is_verified)
     VALUES ($1, encode(sha256($2::bytea), 'hex'), 1, 1)`,
    [account, walletOf(account)],
  );
}

/** `referrer` has brought `account` here. */
export async function refer(target: PostgresTarget, referrer: string, account: string): Promise<void> {
  for (const user of [referrer, account])
    await sql(target, "INSERT INTO webui_users (user_id) VALUES ($1) ON CONFLICT DO NOTHING", [user]);
  await sql(
    target,
    "INSERT INTO referral_codes (user_id, code) VALUES ($1, $2) ON CONFLICT (code) DO NOTHING",
    [referrer, `code-${referrer}`],
  );
  await sql(target, "INSERT INTO referrals (referrer_id, referred_id, referral_code) VALUES ($1, $2, $3)", [
    referrer,
    account,
    `code-${referrer}`,
  ]);
}

/** A chain of the database whose cursor is at a block. */
export async function addChain(target: PostgresTarget, cursor = 900, id = 8_453): Promise<void> {
  await sql(
    target,
    `INSERT INTO chain_sync_state (chain_id, chain_name, last_scanned_block, token_address, vault_address)
     VALUES ($1, 'Base', $2, $3, $4)`,
    [id, cursor, TOKEN, VAULT],
  );
}

/** A scan of a fake chain. */
export function scanOf(
  target: PostgresTarget,
  chain: Pick<FakeChain, "url">,
  more: Partial<Scan> = {},
): Scan & { readonly bank: PostgresPool; readonly lines: string[] } {
  const lines: string[] = [];
  const bank = poolOf(target);
  return {
    vault: VAULT,
    chains: [{ id: 8_453, url: chain.url, confirmations: CONFIRMATIONS }],
    open: (url) => openChain(url, { answerMs: 2_000 }),
    bonuses: true,
    log: (line) => void lines.push(line),
    ...more,
    lines,
    bank: (more.bank ?? bank) as PostgresPool,
  };
}

/** Exact balances of accounts, as `account balance`. */
export async function balances(target: PostgresTarget): Promise<readonly string[]> {
  const rows = await sql<{ line: string }>(
    target,
    "SELECT account || ' ' || trim_scale(balance) AS line FROM account_credits WHERE balance <> 0 ORDER BY account",
  );
  return rows.map(({ line }) => line);
}

/** The block up to which the chain was scanned. */
export async function cursorOf(target: PostgresTarget): Promise<number> {
  const [row] = await sql<{ block: number }>(
    target,
    "SELECT last_scanned_block::float8 AS block FROM chain_sync_state WHERE chain_id = 8453",
  );
  return row?.block ?? -1;
}
