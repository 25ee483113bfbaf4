import { createHash, randomBytes } from "node:crypto";
import type { PostgresPool } from "../database/postgres.ts";
import { openText, sealText } from "./api-key.ts";
import { checksummed } from "./wallet-signature.ts";

type Database = Pick<PostgresPool, "query">;

/** What a wallet is asked to sign, so that it is linked to an account. */
export interface Challenge {
  readonly message: string;
  /** ISO 8601. */
  readonly expiresAt: string;
}

/** How long a message may be signed, in minutes. */
const OPEN_MINUTES = 10;
/** How many wallets one account may have. */
export const MAX_WALLETS = 20;

/**
 * Creates the message that links a wallet to an account (EIP-4361): it names the service, the account, a nonce and its
 * end. Only a hash of it is stored, and no address. Null if the account has too many wallets.
 */
export async function createChallenge(
  database: Database,
  {
    account,
    address,
    chainId,
  }: { readonly account: string; readonly address: string; readonly chainId: number },
  { publicUrl, now }: { readonly publicUrl: string; readonly now: Date },
): Promise<Challenge | null> {
  const expiresAt = new Date(now.getTime() + OPEN_MINUTES * 60_000).toISOString();
  const message = [
    `${new URL(publicUrl).host} wants you to sign in with your Ethereum account:`,
    checksummed(address),
    "",
    `Link this wallet to the storage account ${account}. What it pays will be credited to that account.`,
    "",
    `URI: ${publicUrl}`,
    "Version: 1",
    `Chain ID: ${chainId}`,
    `Nonce: ${randomBytes(16).toString("hex")}`,
    `Issued At: ${now.toISOString()}`,
    `Expiration Time: ${expiresAt}`,
  ].join("\n");
  const rows = await database.query(CHALLENGE, [
    hashOf(message),
    account,
    hashOf(address.toLowerCase()),
    chainId,
    OPEN_MINUTES,
    MAX_WALLETS,
  ]);
  return rows.length === 0 ? null : { message, expiresAt };
}

const CHALLENGE = `
  WITH expired AS (DELETE FROM wallet_challenges WHERE expires_at < now())
  INSERT INTO wallet_challenges (message_hash, account, wallet_address_hash, chain_id, expires_at)
    SELECT $1::text, $2::varchar, $3::varchar, $4::integer, now() + $5::integer * interval '1 minute'
    WHERE (SELECT count(*) FROM user_wallets WHERE user_id = $2::varchar) < $6::integer
    RETURNING message_hash`;

/** A wallet of an account. */
export interface LinkedWallet {
  readonly id: number;
  /** With its checksum (EIP-55); null if it was encrypted with a key that is lost. */
  readonly address: string | null;
  readonly chainId: number;
  /** True if it signed a message of this or upstream's service. */
  readonly isVerified: boolean;
  /** ISO 8601. */
  readonly connectedAt: string;
}

/**
 * What became of a signed message. `unknown`: this service did not create it for that account, or it was used. `elsewhere`:
 * the wallet belongs to another account, which would be credited as well as this one.
 */
export type LinkOutcome =
  | { readonly outcome: "linked"; readonly isNew: boolean; readonly wallet: LinkedWallet }
  | { readonly outcome: "unknown" | "expired" | "other-wallet" | "elsewhere" };

/** Links the wallet that signed a message. The message is good for one link, and goes in the statement that links. */
export async function linkWallet(
  database: Database,
  {
    account,
    message,
    signer,
  }: { readonly account: string; readonly message: string; readonly signer: string },
  encryptionKey: string,
): Promise<LinkOutcome> {
  const [row] = await database.query<LinkRow>(LINK, [
    hashOf(message),
    account,
    hashOf(signer),
    sealText(signer, encryptionKey, randomBytes(12).toString("hex")),
  ]);
  if (row?.id !== null && row?.id !== undefined)
    return { outcome: "linked", isNew: row.is_new === true, wallet: walletOf(row, encryptionKey) };
  if (row?.is_taken === true) return { outcome: "elsewhere" };
  if (row?.is_open === false) return { outcome: "expired" };
  return { outcome: row?.is_same === false ? "other-wallet" : "unknown" };
}

interface WalletRow extends Record<string, unknown> {
  readonly id: number;
  readonly wallet_address: string | null;
  readonly encrypted_wallet_address: string | null;
  readonly chain_id: number;
  readonly is_verified: number | null;
  readonly connected_at: Date;
}

type LinkRow = WalletRow & {
  readonly is_new: boolean | null;
  readonly is_taken: boolean;
  readonly is_open: boolean | null;
  readonly is_same: boolean | null;
};

/**
 * Only the holder of the wallet's key could link it to two accounts at the same time, and would gain nothing: so no lock
 * holds two such statements apart.
 */
const LINK = `
  WITH asked AS (
    SELECT expires_at > now() AS is_open, wallet_address_hash = $3::varchar AS is_same
    FROM wallet_challenges WHERE message_hash = $1 AND account = $2::varchar
  ), used AS (
    DELETE FROM wallet_challenges
      WHERE message_hash = $1 AND account = $2::varchar AND wallet_address_hash = $3::varchar AND expires_at > now()
      RETURNING chain_id
  ), taken AS (
    SELECT FROM user_wallets, used
      WHERE wallet_address_hash = $3::varchar AND is_verified = 1 AND user_id IS DISTINCT FROM $2::varchar LIMIT 1
  ), linked AS (
    INSERT INTO user_wallets (user_id, wallet_address_hash, encrypted_wallet_address, chain_id, is_verified)
      SELECT $2::varchar, $3::varchar, $4, chain_id, 1 FROM used WHERE NOT EXISTS (SELECT FROM taken)
      ON CONFLICT (user_id, wallet_address_hash, chain_id)
        DO UPDATE SET is_verified = 1, encrypted_wallet_address = excluded.encrypted_wallet_address
      RETURNING id, wallet_address, encrypted_wallet_address, chain_id, is_verified, connected_at, xmax = 0 AS is_new
  )
  SELECT linked.*, EXISTS (SELECT FROM taken) AS is_taken, asked.is_open, asked.is_same
  FROM (SELECT 1) AS one LEFT JOIN asked ON true LEFT JOIN linked ON true`;

/** The wallets of an account, the oldest first. */
export async function listWallets(
  database: Database,
  account: string,
  encryptionKey: string,
): Promise<readonly LinkedWallet[]> {
  const rows = await database.query<WalletRow>(
    `SELECT id, wallet_address, encrypted_wallet_address, chain_id, is_verified, connected_at
     FROM user_wallets WHERE user_id = $1 ORDER BY id LIMIT 1000`,
    [account],
  );
  return rows.map((row) => walletOf(row, encryptionKey));
}

/** Unlinks a wallet. False if the account has none with that id. */
export async function unlinkWallet(database: Database, account: string, id: number): Promise<boolean> {
  const rows = await database.query("DELETE FROM user_wallets WHERE user_id = $1 AND id = $2 RETURNING id", [
    account,
    id,
  ]);
  return rows.length > 0;
}

function walletOf(row: WalletRow, encryptionKey: string): LinkedWallet {
  const { id, wallet_address, encrypted_wallet_address, chain_id, is_verified, connected_at } = row;
  const address = wallet_address ?? openText(encrypted_wallet_address ?? "", encryptionKey);
  return {
    id,
    address: address !== null && ADDRESS.test(address) ? checksummed(address) : null,
    chainId: chain_id,
    isVerified: is_verified === 1,
    connectedAt: connected_at.toISOString(),
  };
}

/** An Ethereum address: `0x` and 40 hexadecimal digits. */
export const ADDRESS = /^0x[0-9a-fA-F]{40}$/;

/** Hex sha256: what the database has in place of an address (functionland/pinning-service) or a message. */
function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
