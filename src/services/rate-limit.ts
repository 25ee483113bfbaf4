import type { IncomingMessage } from "node:http";

/** How often each client may ask. */
export interface RateLimit {
  /** How many requests at once. */
  readonly burst: number;
  /** How many more each minute. */
  readonly perMinute: number;
}

/** So many clients are remembered; the one that asked longest ago is forgotten first. */
const MAX_CLIENTS = 10_000;
/** In seconds: what sums of fractions may be off by. */
const ROUNDING = 1e-6;
const WHOLE = 1 - ROUNDING;

/**
 * Makes a function that says in how many seconds a client may ask again: 0 for now. A bucket of tokens for
 * each client; `now` is in milliseconds and never goes back.
 */
export function createRateLimit(
  { burst, perMinute }: RateLimit,
  now: () => number,
): (client: string) => number {
  const buckets = new Map<string, { tokens: number; at: number }>();
  return (client) => {
    const at = now();
    const before = buckets.get(client) ?? { tokens: burst, at };
    const tokens = Math.min(burst, before.tokens + ((at - before.at) / 60_000) * perMinute);
    buckets.delete(client);
    buckets.set(client, { tokens: tokens < WHOLE ? tokens : tokens - 1, at });
    const oldest = buckets.keys().next().value;
    if (buckets.size > MAX_CLIENTS && oldest !== undefined) buckets.delete(oldest);
    return tokens < WHOLE ? Math.max(1, Math.ceil(((1 - tokens) / perMinute) * 60 - ROUNDING)) : 0;
  };
}

/**
 * Who asks: the address of the connection, or, where that is this machine's own (a proxy in front), the last
 * address in X-Forwarded-For, which that proxy wrote. Earlier ones there are the client's own words.
 */
export function clientOf({ socket, headers }: Pick<IncomingMessage, "socket" | "headers">): string {
  const peer = socket.remoteAddress ?? "unknown";
  if (!/^(?:127\.|::1$|::ffff:127\.)/.test(peer)) return peer;
  const forwarded = headers["x-forwarded-for"];
  const last = (Array.isArray(forwarded) ? forwarded.join(",") : (forwarded ?? "")).split(",").at(-1)?.trim();
  return last === undefined || last === "" ? peer : last.slice(0, 64);
}
