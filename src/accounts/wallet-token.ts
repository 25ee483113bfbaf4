import type { PostgresPool } from "../database/postgres.ts";
import { isWalletToken, WALLET_TOKEN_PREFIX } from "./api-key.ts";
import { sessionDigest, signerOf } from "./wallet-signature.ts";

/**
 * What a wallet token opens. The three values are the identity of the session: whoever has one signature can write the
 * same token as many different texts, and all of them are this session.
 */
export interface WalletSession {
  /** `0x` and 40 lower-case hexadecimal digits. It is also the id of the account. */
  readonly wallet: string;
  /** Seconds since 1970. */
  readonly iat: number;
  readonly exp: number;
}

/** Why a wallet token is refused. */
export type WalletTokenFault = keyof typeof WALLET_TOKEN_FAULTS;

/** A sentence for each reason, for the client. */
export const WALLET_TOKEN_FAULTS = {
  malformed: "The wallet token is malformed.",
  expired: "The wallet token has expired.",
  "not-yet": "The wallet token was issued in the future. Check the clock of the machine that signed it.",
  "too-long": "The wallet token is valid for more than 24 hours.",
  "bad-signature":
    "The wallet token's signature is not an ECDSA signature of 65 bytes with a low s. Contract wallets can't sign one.",
  "other-wallet":
    "The wallet token was not signed by the key of its wallet. Contract wallets have no key and are not supported.",
} as const;

/** A token is 253 characters; more only with blanks in its payload. */
const MAX_CHARACTERS = 1_024;
/** How far ahead the signer's clock may be, and the longest session, in seconds. */
const MAX_AHEAD = 300;
const MAX_LIFETIME = 86_400;

/**
 * Reads `fula-eip712.PAYLOAD.SIGNATURE` (functionland/fula-api, FM-4): base64url of a JSON object with exactly `wallet`,
 * `iat` and `exp`, and of a signature over its values (EIP-712). Says why it is refused, or which session it opens. It asks
 * nobody: whether the session was revoked is another question (isRevoked).
 */
export function verifyWalletToken(
  token: string,
  nowSeconds: number,
): WalletSession | { readonly refused: WalletTokenFault } {
  if (!isWalletToken(token) || token.length > MAX_CHARACTERS) return { refused: "malformed" };
  const [payload = "", sealed = "", ...more] = token.slice(WALLET_TOKEN_PREFIX.length).split(".");
  const text = decode(payload)?.toString("latin1");
  const session = text === undefined || more.length > 0 ? null : readPayload(text);
  const signature = decode(sealed);
  if (session === null || signature === null) return { refused: "malformed" };
  const { wallet, iat, exp } = session;
  if (exp <= iat) return { refused: "malformed" };
  if (exp <= nowSeconds) return { refused: "expired" };
  if (iat > nowSeconds + MAX_AHEAD) return { refused: "not-yet" };
  if (exp - iat > MAX_LIFETIME) return { refused: "too-long" };
  const signer = signerOf(sessionDigest(session), signature);
  if (signer === null) return { refused: "bad-signature" };
  return signer === wallet ? session : { refused: "other-wallet" };
}

/** Only the one spelling that RFC 4648 (section 5) has for these bytes: no padding, no other alphabet, no spare bits. */
function decode(text: string): Buffer | null {
  const bytes = Buffer.from(text, "base64url");
  return bytes.length > 0 && bytes.toString("base64url") === text ? bytes : null;
}

/** One member. JSON.parse would take the last of two equal keys, and 1.7e9 for a decimal integer. */
const MEMBER =
  /^[ \t\n\r]*"(?:(?<wallet>wallet)"[ \t\n\r]*:[ \t\n\r]*"(?<address>0x[0-9a-fA-F]{40})"|(?<time>iat|exp)"[ \t\n\r]*:[ \t\n\r]*(?<seconds>0|[1-9][0-9]{0,11}))[ \t\n\r]*$/;

function readPayload(text: string): WalletSession | null {
  const [, inner] = /^[ \t\n\r]*\{([^{}]*)\}[ \t\n\r]*$/.exec(text) ?? [];
  const members = inner?.split(",") ?? [];
  const found = new Map<string, string>();
  for (const member of members) {
    const { wallet, address, time, seconds } = MEMBER.exec(member)?.groups ?? {};
    const key = wallet ?? time;
    const value = address ?? seconds;
    if (key === undefined || value === undefined || found.has(key)) return null;
    found.set(key, value);
  }
  const [wallet, iat, exp] = [found.get("wallet"), found.get("iat"), found.get("exp")];
  if (wallet === undefined || iat === undefined || exp === undefined) return null;
  return { wallet: wallet.toLowerCase(), iat: Number(iat), exp: Number(exp) };
}

type Database = Pick<PostgresPool, "query">;

/** True if the session was revoked, in whatever text its token came. */
export async function isRevoked(database: Database, session: WalletSession): Promise<boolean> {
  const { wallet, iat, exp } = session;
  const rows = await database.query(
    "SELECT 1 AS n FROM revoked_wallet_sessions WHERE wallet = $1 AND iat = $2 AND exp = $3",
    [wallet, iat, exp],
  );
  return rows.length > 0;
}

/** Revokes a session until it ends. What has ended by this database's clock needs no row any more, and goes. */
export async function revokeWalletSession(database: Database, session: WalletSession): Promise<void> {
  const { wallet, iat, exp } = session;
  await database.query(
    `WITH ended AS (
       DELETE FROM revoked_wallet_sessions WHERE exp < extract(epoch FROM now() - interval '1 hour')
     )
     INSERT INTO revoked_wallet_sessions (wallet, iat, exp) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [wallet, iat, exp],
  );
}
