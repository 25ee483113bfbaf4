import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";

/** How long a sign-in lasts. */
export const SESSION_SECONDS = 3_600;

/** Over HTTPS, a browser takes a cookie with this prefix only from this host itself, and with Secure. */
const SECURE_NAME = "__Host-fula-status";
const PLAIN_NAME = "fula-status";
const FORM = /^(\d{10})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})$/;

/** Opens the status page for whoever knows SYSTEM_KEY. It keeps nothing: a cookie proves itself. */
export interface PageSessions {
  /** True for the right key. It takes the same time for every wrong one. */
  isKey(given: string): boolean;
  /** The Set-Cookie of a new session. */
  begin(incoming: IncomingMessage): string;
  /** The Set-Cookie that ends the session in this browser. */
  end(incoming: IncomingMessage): string;
  /** True if the request has a cookie that this service, or one with the same secrets, gave within the last hour. */
  isOpen(incoming: IncomingMessage): boolean;
}

/**
 * Creates them. A cookie is signed with both secrets: it ends when SYSTEM_KEY is rotated, and whoever gets hold of one can't
 * try keys on it. `nowMs` is the time since 1970.
 */
export function createPageSessions(
  secrets: { readonly systemKey: string; readonly sessionSecret: string | null },
  nowMs: () => number,
): PageSessions {
  const { systemKey, sessionSecret } = secrets;
  const own = sessionSecret ?? randomBytes(32).toString("hex");
  const signingKey = digest(JSON.stringify(["fula-node status page", own, systemKey]));
  const wanted = digest(systemKey);
  const sign = (text: string) => createHmac("sha256", signingKey).update(text).digest("base64url");
  const nowSeconds = () => Math.floor(nowMs() / 1_000);
  return {
    isKey: (given) => timingSafeEqual(wanted, digest(given)),
    begin(incoming) {
      const text = `${nowSeconds() + SESSION_SECONDS}.${randomBytes(16).toString("base64url")}`;
      return setCookie(incoming, `${text}.${sign(text)}`, SESSION_SECONDS);
    },
    end: (incoming) => setCookie(incoming, "", 0),
    isOpen(incoming) {
      const read = FORM.exec(cookieOf(incoming) ?? "");
      if (read === null) return false;
      const [, until = "", nonce = "", signature = ""] = read;
      if (!timingSafeEqual(digest(sign(`${until}.${nonce}`)), digest(signature))) return false;
      const left = Number(until) - nowSeconds();
      return left > 0 && left <= SESSION_SECONDS;
    },
  };
}

/** True if the request came through a proxy that speaks HTTPS with the client: the edge. */
function isSecure({ headers }: IncomingMessage): boolean {
  return headers["x-forwarded-proto"] === "https";
}

function setCookie(incoming: IncomingMessage, value: string, seconds: number): string {
  const secure = isSecure(incoming);
  const attributes = `Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure ? "; Secure" : ""}`;
  return `${secure ? SECURE_NAME : PLAIN_NAME}=${value}; ${attributes}`;
}

/** Null for none, and for two: one of them may have been put there by somebody else. */
function cookieOf(incoming: IncomingMessage): string | null {
  const prefix = `${isSecure(incoming) ? SECURE_NAME : PLAIN_NAME}=`;
  const all = (incoming.headers.cookie ?? "").split(";").map((pair) => pair.trim());
  const [own, second] = all.filter((pair) => pair.startsWith(prefix));
  return own === undefined || second !== undefined ? null : own.slice(prefix.length);
}

/** Texts of any length compare in the same time by their digests. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
