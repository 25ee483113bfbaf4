import { createHash } from "node:crypto";
import { type Log, messageOf } from "../errors.ts";
import { HttpClient, parseJson, readWhole } from "../machine/http-client.ts";
import { remedyOfTls, tlsFaultBehind } from "../machine/http.ts";
import {
  decideQuota,
  QuotaCache,
  type QuotaDecision,
  type QuotaMode,
  type QuotaRefusal,
  type QuotaVerdict,
  readStorageAnswer,
  type StorageAnswer,
} from "../settings/quota.ts";

/** Decides whether the owner of a token may store a block. `client` is the address that sent the token. */
export type QuotaGate = (token: string, client: string) => Promise<QuotaDecision>;

const FRESH_MS = 30_000;
/** Long enough to stop a client that repeats a refused token; short enough for a key that was just created. */
const REFUSED_MS = 10_000;
/** A token that was accepted is asked about again even if its address sent too many refused tokens. */
const TRUSTED_MS = 600_000;
const MAX_TOKENS = 4_096;
const MAX_REFUSED_TOKENS = 1_024;
/** How many refused tokens one address may send at once, and how many more each minute. */
const REFUSALS = { burst: 20, perMinute: 6 };
/** How many tokens of one address may wait for the storage API's answer. */
const MAX_ASKING = 8;
const RESPONDING = "the storage API responds";

/**
 * Creates a gate that asks the storage API with the client's own token. A verdict on an account is cached for 30 s under
 * the token's sha256, a refused token for 10 s; concurrent requests with one token share one call. An unknown result is not
 * cached. An address that sends many refused tokens gets 429 without a call, but tokens that were accepted in the last ten
 * minutes are still asked about. The log records when the storage API starts and stops giving definite answers. It
 * contains no tokens.
 */
export function createQuotaGate(options: {
  readonly mode: QuotaMode;
  readonly storage: Pick<StorageApi, "storage"> | null;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  readonly log: Log;
}): QuotaGate {
  const { mode, storage, now, log } = options;
  const known = new QuotaCache(FRESH_MS, MAX_TOKENS);
  const refused = new QuotaCache(REFUSED_MS, MAX_REFUSED_TOKENS);
  const trusted = new QuotaCache(TRUSTED_MS, MAX_TOKENS);
  const clients = new RefusalCounts(now);
  const inFlight = new Map<string, Promise<QuotaVerdict>>();
  let lastState = "";

  function logState(state: string): void {
    if (state !== lastState && !(lastState === "" && state === RESPONDING))
      log(`quota: ${state}`, state === RESPONDING ? "info" : "warn");
    lastState = state;
  }

  async function ask(api: Pick<StorageApi, "storage">, token: string, key: string): Promise<QuotaVerdict> {
    try {
      const answer = await api.storage(token);
      const verdict = readStorageAnswer(answer);
      if (verdict === "unknown") {
        logState(`the storage API responded with HTTP status ${answer.status} and no usable answer`);
      } else if (verdict === "allow" || verdict === "deny") {
        logState(RESPONDING);
        known.set(key, verdict, now());
        trusted.set(key, verdict, now());
      } else refused.set(key, verdict, now());
      return verdict;
    } catch (cause) {
      const tlsFault = tlsFaultBehind(cause);
      logState(
        tlsFault === null
          ? `the request to the storage API failed: ${messageOf(cause)}`
          : `TLS with the storage API failed: ${tlsFault}. ${remedyOfTls(tlsFault)}`,
      );
      return "unknown";
    }
  }

  return async (token, client) => {
    if (storage === null) return mode === "open" ? { allowed: true } : NO_STORAGE_API;
    const key = createHash("sha256").update(token).digest("base64");
    const cached = known.get(key, now()) ?? refused.get(key, now());
    if (cached !== null) return decideQuota(cached, mode);
    let pending = inFlight.get(key);
    if (pending === undefined) {
      if (trusted.get(key, now()) === null && clients.isOver(client)) return TOO_MANY_REFUSED;
      pending = clients.during(client, ask(storage, token, key)).finally(() => inFlight.delete(key));
      inFlight.set(key, pending);
    }
    return decideQuota(await pending, mode);
  };
}

const NO_STORAGE_API: QuotaRefusal = {
  allowed: false,
  status: 503,
  why: "this node has no STORAGE_API_URL, and stores no block without a check of the quota",
};

const TOO_MANY_REFUSED: QuotaRefusal = {
  allowed: false,
  status: 429,
  why: "this address sent too many tokens that the storage API does not accept",
  retryAfterSeconds: 10,
};

/** How many clients are tracked. The client with the oldest request is dropped first. */
const MAX_CLIENTS = 4_096;

/** Counts for each client the tokens that the storage API refused, and those that wait for its answer. */
class RefusalCounts {
  readonly #now: () => number;
  readonly #refusals = new Map<string, { readonly count: number; readonly at: number }>();
  readonly #asking = new Map<string, number>();

  constructor(now: () => number) {
    this.#now = now;
  }

  isOver(client: string): boolean {
    return (
      (this.#asking.get(client) ?? 0) >= MAX_ASKING || Math.ceil(this.#countOf(client)) >= REFUSALS.burst
    );
  }

  async during(client: string, question: Promise<QuotaVerdict>): Promise<QuotaVerdict> {
    this.#asking.set(client, (this.#asking.get(client) ?? 0) + 1);
    const verdict = await question;
    const left = (this.#asking.get(client) ?? 1) - 1;
    if (left > 0) this.#asking.set(client, left);
    else this.#asking.delete(client);
    if (verdict === "not-accepted" || verdict === "forbidden") this.#add(client);
    return verdict;
  }

  /** The number of refusals, less those that have been forgotten since. */
  #countOf(client: string): number {
    const { count, at } = this.#refusals.get(client) ?? { count: 0, at: 0 };
    return Math.max(0, count - ((this.#now() - at) / 60_000) * REFUSALS.perMinute);
  }

  #add(client: string): void {
    const count = this.#countOf(client) + 1;
    this.#refusals.delete(client);
    this.#refusals.set(client, { count, at: this.#now() });
    const oldest = this.#refusals.keys().next().value;
    if (this.#refusals.size > MAX_CLIENTS && oldest !== undefined) this.#refusals.delete(oldest);
  }
}

/** Queries the master's storage API with a client's own token. */
export interface StorageApi {
  /** `GET /api/v1/storage`, without following redirects. If no answer arrives in time, throws an Error that does not contain the token. */
  storage(token: string): Promise<StorageAnswer>;
  close(): void;
}

/** The storage API's answers are never longer. */
const MAX_ANSWER_BYTES = 65_536;

/** Creates a client for the storage API. `timeoutMs` limits one request. Nothing is sent yet. */
export function openStorageApi(
  url: string,
  options: {
    readonly connections: number;
    readonly timeoutMs: number;
    readonly proxy?: string | null;
    readonly ca?: string | null;
  },
): StorageApi {
  const { connections, timeoutMs, proxy = null, ca } = options;
  const client = new HttpClient({
    url,
    connections,
    connectTimeoutMs: timeoutMs,
    proxy,
    ca: ca ?? undefined,
  });
  return {
    async storage(token) {
      const headers = { accept: "application/json", authorization: `Bearer ${token}` };
      const request = { method: "GET", path: "/api/v1/storage", headers } as const;
      const { status, text } = await client.exchange(request, readWhole(MAX_ANSWER_BYTES), timeoutMs);
      return { status, body: parseJson(text) };
    },
    close: () => client.close(),
  };
}
