import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { accountIdOf } from "./account-id.ts";
import { isExpired, isJwt, isWalletToken, readBearer, readClaims } from "./api-key.ts";

/** Who sent a request to the pinning API, as far as the request itself shows. */
export type Credential =
  /** A bearer token, as `sessions.token_hash` has it. Only the database knows if it is valid. */
  | { readonly kind: "session"; readonly tokenHash: string }
  /** A service on this machine, which vouches for the account. */
  | { readonly kind: "account"; readonly account: string }
  /** A token that a wallet signed (facts of functionland/fula-api: `fula-eip712.PAYLOAD.SIGNATURE`). */
  | { readonly kind: "wallet"; readonly token: string }
  | { readonly kind: "refused"; readonly status: 400 | 401 | 403; readonly why: string };

/** How credentials are read. */
export interface CredentialRules {
  /** True for requests that come through the edge: a trusted header is refused there, whatever it says. */
  readonly isOutside: boolean;
  /** FULA_PIN_SERVICE_SECRET; null if the trusted header is not used. */
  readonly serviceSecret: string | null;
}

/** The header of a trusted service on this machine. */
const SERVICE_HEADER = "x-fula-service-auth";

/**
 * Reads the credential of a request. A trusted header that is present but not valid is refused, also beside a valid
 * bearer token (functionland/pinning-service). A token in the form of a JWT must be one with HS256 and must not have
 * expired, even if a session has it.
 */
export function readCredential(
  { headers, rawHeaders }: Pick<IncomingMessage, "headers" | "rawHeaders">,
  { isOutside, serviceSecret }: CredentialRules,
  now: Date,
): Credential {
  const trusted = headers[SERVICE_HEADER];
  if (trusted !== undefined) {
    if (isOutside) return refused(401, "X-Fula-Service-Auth is not accepted from outside this machine.");
    const account = typeof trusted === "string" ? readServiceHeader(trusted, serviceSecret, now) : null;
    return account === null
      ? refused(401, "X-Fula-Service-Auth is not valid.")
      : { kind: "account", account };
  }
  if (headers.authorization === undefined)
    return refused(401, "The Authorization header with a bearer token is missing.");
  if (countHeader(rawHeaders, "authorization") > 1)
    return refused(400, "The request has more than one Authorization header.");
  const token = readBearer(headers.authorization);
  if (token === null) return refused(401, "The Authorization header has no bearer token.");
  if (isWalletToken(token)) return { kind: "wallet", token };
  if (isJwt(token)) {
    const claims = readClaims(token);
    if (claims === null) return refused(401, NOT_ACCEPTED);
    if (isExpired(claims, now)) return refused(401, "The token has expired.");
    if (claims.uploadOnly) return refused(403, "This API key is only good for uploading blocks.");
  }
  return { kind: "session", tokenHash: createHash("sha256").update(token).digest("hex") };
}

/** The reason for a 401 with a token that no session has. */
export const NOT_ACCEPTED = "The token is not valid, was revoked or has expired.";

function refused(status: 400 | 401 | 403, why: string): Credential {
  return { kind: "refused", status, why };
}

function countHeader(rawHeaders: readonly string[], name: string): number {
  let count = 0;
  for (let index = 0; index < rawHeaders.length; index += 2)
    if (rawHeaders[index]?.toLowerCase() === name) count += 1;
  return count;
}

/**
 * The account of a trusted header: `v1.BASE64URL(user id).EXPIRY.BASE64URL(HMAC-SHA256(secret, "v1.ID.EXPIRY"))`, the
 * expiry in seconds since 1970 (functionland/pinning-service). Null if it is not valid, or no secret is set.
 */
export function readServiceHeader(header: string, secret: string | null, now: Date): string | null {
  if (secret === null || !isServiceSecret(secret)) return null;
  const [, signed = "", id = "", expiry = "", mac = ""] =
    /^(v1\.([A-Za-z0-9_-]{1,400})\.([0-9]{1,12}))\.([A-Za-z0-9_-]{43})$/.exec(header) ?? [];
  if (signed === "") return null;
  const right = createHmac("sha256", secret).update(signed).digest();
  const given = Buffer.from(mac, "base64url");
  if (given.length !== right.length || !timingSafeEqual(given, right)) return null;
  if (Number(expiry) * 1_000 <= now.getTime()) return null;
  return accountIdOf(Buffer.from(id, "base64url").toString("utf8"));
}

/** False for a secret that upstream counts as none. */
export function isServiceSecret(secret: string): boolean {
  return secret.trim() !== "" && secret.trim().toLowerCase() !== "disabled";
}

/** Rows from before user ids only have a name, which is often an e-mail address. */
export const SESSION_NAME = "coalesce(nullif(s.user_id, ''), nullif(s.username, ''))";

/** The rule of accountIdOf, in SQL. */
export function accountOfName(name: string): string {
  return `CASE
      WHEN ${name} LIKE '%@%' THEN encode(sha256(convert_to(lower(${name}), 'UTF8')), 'hex')
      WHEN ${name} ~* '^(0x[0-9a-f]{40}|[0-9a-f]{64})$' THEN lower(${name})
      ELSE ${name} END`;
}

const ACCOUNT_OF_SESSION = accountOfName(SESSION_NAME);
const IS_VALID = `(s.expires_at IS NULL OR s.expires_at > now()) AND length(${SESSION_NAME}) BETWEEN 1 AND 254`;

/**
 * A part of a WITH clause: `who(account)` has one row if the sender of a request is known, and none otherwise. $1 is the
 * hash of a token, $2 an account that is already known; one of them is NULL.
 */
export const WHO = `who AS MATERIALIZED (
    SELECT $2::text AS account WHERE $2::text IS NOT NULL
    UNION ALL
    SELECT ${ACCOUNT_OF_SESSION} FROM sessions s WHERE s.token_hash = $1::text AND ${IS_VALID}
  )`;

/** The same for several senders at once: `who(sender, token_hash, account)`. $1 and $2 are arrays, `sender` is the place in them. */
export const WHO_EACH = `senders AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given (token_hash, account, sender)
  ), who AS MATERIALIZED (
    SELECT sender, token_hash, account FROM senders WHERE account IS NOT NULL
    UNION ALL
    SELECT g.sender, g.token_hash, ${ACCOUNT_OF_SESSION}
    FROM senders g JOIN sessions s ON s.token_hash = g.token_hash AND ${IS_VALID}
  )`;
