import { createHash } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { isExpired, isWalletToken, readBearer, readClaims } from "../accounts/api-key.ts";
import { accountOfKey } from "../accounts/usage.ts";
import {
  isRevoked,
  verifyWalletToken,
  WALLET_TOKEN_FAULTS,
  type WalletSession,
  type WalletTokenFault,
} from "../accounts/wallet-token.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { failure } from "./server.ts";

type Database = Pick<PostgresPool, "query">;

/** Who calls the storage API. */
export interface Caller {
  /** The id of the account. */
  readonly account: string;
  /** True if the credential is only good for uploading blocks. */
  readonly uploadOnly: boolean;
  readonly credential:
    | { readonly kind: "key"; readonly hash: string }
    | { readonly kind: "wallet"; readonly session: WalletSession };
}

/** Finds out who calls, or returns the response that refuses the request. Throws if the database does not answer. */
export type Authenticate = (incoming: IncomingMessage) => Promise<Caller | Response>;

/**
 * The storage API accepts API keys that are in `api_keys`, and wallet tokens if `walletTokens` is true. A request with two
 * Authorization headers is refused: this service and a proxy before it could each look at another one.
 */
export function createAuthentication(database: Database, walletTokens: boolean): Authenticate {
  return async ({ headers, headersDistinct }) => {
    if ((headersDistinct["authorization"]?.length ?? 0) > 1)
      return failure(400, "two-authorizations", "The request has more than one Authorization header.");
    const token = readBearer(headers.authorization);
    if (walletTokens && token !== null && isWalletToken(token)) return ofWallet(database, token);
    const key = keyOf(headers);
    const account = key === null ? null : await accountOfKey(database, key.hash);
    if (key === null || account === null) return unauthorized(headers);
    return { account, uploadOnly: key.uploadOnly, credential: { kind: "key", hash: key.hash } };
  };
}

async function ofWallet(database: Database, token: string): Promise<Caller | Response> {
  const opened = await openWalletSession(database, token);
  if ("refused" in opened)
    return failure(
      401,
      `wallet-token-${opened.code}`,
      opened.refused,
      {},
      { "www-authenticate": 'Bearer error="invalid_token"' },
    );
  const { account, session } = opened;
  return { account, uploadOnly: false, credential: { kind: "wallet", session } };
}

/**
 * The account that a wallet token opens now, or why it opens none: a code for programs, and a sentence. A contract wallet
 * is refused by its signature alone: no chain is asked.
 */
export async function openWalletSession(
  database: Database,
  token: string,
): Promise<
  | { readonly account: string; readonly session: WalletSession }
  | { readonly code: WalletTokenFault | "revoked"; readonly refused: string }
> {
  const session = verifyWalletToken(token, Math.floor(new Date().getTime() / 1_000));
  if ("refused" in session) return { code: session.refused, refused: WALLET_TOKEN_FAULTS[session.refused] };
  if (await isRevoked(database, session))
    return { code: "revoked", refused: "The session of this wallet token was revoked." };
  return { account: session.wallet, session };
}

/** The caller, if it may do more than uploading blocks; otherwise the response. */
export async function fullCaller(
  authenticate: Authenticate,
  incoming: IncomingMessage,
): Promise<Caller | Response> {
  const caller = await authenticate(incoming);
  if (caller instanceof Response || !caller.uploadOnly) return caller;
  return failure(403, "upload-only", UPLOAD_ONLY);
}

/** A request's API key. */
interface SentKey {
  /** Its hex sha256, as the database stores it. */
  readonly hash: string;
  /** True if the key is only good for uploading blocks. */
  readonly uploadOnly: boolean;
}

/** The bearer token of a request. Null if there is none, it has expired, or it is a JWT that no service issued. */
function keyOf({ authorization }: IncomingHttpHeaders): SentKey | null {
  const token = readBearer(authorization);
  if (token === null) return null;
  const claims = readClaims(token);
  if (claims === null || isExpired(claims, new Date())) return null;
  const hash = createHash("sha256").update(token).digest("hex");
  return { hash, uploadOnly: claims.uploadOnly };
}

/** The reason for a 403. */
const UPLOAD_ONLY = "This API key is only good for uploading blocks.";

/** The response to a request without an active API key: it sent none, or one that is not valid. */
function unauthorized({ authorization }: IncomingHttpHeaders): Response {
  const [code, error] =
    readBearer(authorization) === null
      ? ["no-api-key", "An API key is required: Authorization: Bearer KEY."]
      : ["other-api-key", "This API key is not valid: it is unknown, revoked or expired."];
  return failure(401, code, error, {}, { "www-authenticate": "Bearer" });
}
