/** What an API key says (functionland/pinning-service, generateJwtApiKey); `name` is ours, and optional. */
export interface ApiKeyClaims {
  /** The account: hex sha256 of its lower-cased e-mail address. */
  readonly sub: string;
  /** Seconds since 1970. */
  readonly iat: number;
  readonly scope: "storage:read storage:write";
  /** A UUID: no two keys are the same. */
  readonly jti: string;
  readonly name?: string;
}

/** The claims of a new key; `randomHex` is 16 random bytes. Such a key has no end: it lives until it is revoked. */
export function apiKeyClaims(from: {
  readonly userId: string;
  readonly issuedAt: Date;
  readonly randomHex: string;
  readonly name: string | undefined;
}): ApiKeyClaims {
  const { userId, issuedAt, randomHex, name } = from;
  return {
    sub: userId,
    iat: Math.floor(issuedAt.getTime() / 1000),
    scope: "storage:read storage:write",
    jti: uuidOf(randomHex),
    ...(name === undefined ? {} : { name }),
  };
}

/**
 * The e-mail address by which an account is known, or null where the text is none. Only its case is
 * levelled, as upstream does, so that both find the same account.
 */
export function readEmail(text: string): string | null {
  const isAddress = text.length <= 254 && /^[^\s@,]+@[^\s@,]+$/.test(text);
  return isAddress ? text.toLowerCase() : null;
}

/** The bearer token of an Authorization header; null where there is none that could be a key. */
export function readBearer(header: string | undefined): string | null {
  // RFC 6750, section 2.1; the scheme's name has no case (RFC 9110, section 11.1).
  return /^bearer +([A-Za-z0-9._~+/-]{1,4096}=*) *$/i.exec(header ?? "")?.[1] ?? null;
}

/** RFC 9562, version 4. */
function uuidOf(randomHex: string): string {
  const variant = ((Number.parseInt(randomHex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return [
    randomHex.slice(0, 8),
    randomHex.slice(8, 12),
    `4${randomHex.slice(13, 16)}`,
    `${variant}${randomHex.slice(17, 20)}`,
    randomHex.slice(20, 32),
  ].join("-");
}
