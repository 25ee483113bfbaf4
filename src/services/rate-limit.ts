import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";

/** How many requests each client may send. */
export interface RateLimit {
  /** How many requests at once. */
  readonly burst: number;
  /** How many more each minute. */
  readonly perMinute: number;
}

/** How many clients are tracked. The client with the oldest request is dropped first. */
const MAX_CLIENTS = 10_000;
/** In seconds: the tolerance for rounding errors. */
const ROUNDING = 1e-6;
const WHOLE = 1 - ROUNDING;

/** The requests of each client, counted. */
export interface RateLimiter {
  /** After how many seconds a client may send a request: 0 if now, and then it counts. */
  (client: string): number;
  /** The last request of a client does not count after all. */
  readonly forgive: (client: string) => void;
}

/** Counts requests by a token bucket for each client. `now` is in milliseconds and monotonic. */
export function createRateLimit({ burst, perMinute }: RateLimit, now: () => number): RateLimiter {
  const buckets = new Map<string, { tokens: number; at: number }>();
  const take = (client: string): number => {
    const at = now();
    const before = buckets.get(client) ?? { tokens: burst, at };
    const tokens = Math.min(burst, before.tokens + ((at - before.at) / 60_000) * perMinute);
    buckets.delete(client);
    buckets.set(client, { tokens: tokens < WHOLE ? tokens : tokens - 1, at });
    const oldest = buckets.keys().next().value;
    if (buckets.size > MAX_CLIENTS && oldest !== undefined) buckets.delete(oldest);
    return tokens < WHOLE ? Math.max(1, Math.ceil(((1 - tokens) / perMinute) * 60 - ROUNDING)) : 0;
  };
  const forgive = (client: string): void => {
    const bucket = buckets.get(client);
    if (bucket !== undefined) bucket.tokens = Math.min(burst, bucket.tokens + 1);
  };
  return Object.assign(take, { forgive });
}

/**
 * The client for a limit: the address of the connection. If that is a loopback address (a proxy on this machine), the
 * last address in X-Forwarded-For, which that proxy wrote; the client can forge the earlier ones.
 * An IPv6 client is its /64 network: one customer usually gets a whole /64, which has 2^64 addresses.
 */
export function clientOf({ socket, headers }: Pick<IncomingMessage, "socket" | "headers">): string {
  const peer = socket.remoteAddress ?? "unknown";
  if (!/^(?:127\.|::1$|::ffff:127\.)/.test(peer)) return networkOf(peer);
  const forwarded = headers["x-forwarded-for"];
  const last = (Array.isArray(forwarded) ? forwarded.join(",") : (forwarded ?? "")).split(",").at(-1)?.trim();
  return last === undefined || last === "" ? peer : networkOf(withoutPort(last)).slice(0, 64);
}

/** IPv4 addresses (also mapped ones such as ::ffff:192.0.2.1) unchanged, the /64 of other IPv6 addresses, other text unchanged. */
export function networkOf(text: string): string {
  const [address = ""] = text.split("%", 1);
  if (isIP(address) !== 6) return text;
  // A URL has one spelling for each address (WHATWG URL, "IPv6 serializer"): hexadecimal, in lower case, without leading zeros.
  const spelled = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(spelled);
  if (mapped !== null) {
    const [high = 0, low = 0] = mapped.slice(1).map((group) => Number.parseInt(group, 16));
    return [high >> 8, high & 255, low >> 8, low & 255].join(".");
  }
  const [left = "", right = ""] = spelled.split("::");
  const before = groupsOf(left);
  const after = groupsOf(right);
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  return `${[...before, ...zeros, ...after].slice(0, 4).join(":")}::/64`;
}

function groupsOf(text: string): readonly string[] {
  return text === "" ? [] : text.split(":");
}

/** Some proxies append the client's port, which differs for each connection. */
function withoutPort(text: string): string {
  const { bracketed, plain } =
    /^(?:\[(?<bracketed>[^\]]*)\]|(?<plain>[\d.]+))(?::\d+)?$/.exec(text)?.groups ?? {};
  return bracketed ?? plain ?? text;
}
