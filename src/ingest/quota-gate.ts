import { createHash } from "node:crypto";
import { messageOf } from "../errors.ts";
import { HttpClient, parseJson, readWhole } from "../machine/http-client.ts";
import {
  decideQuota,
  QuotaCache,
  type QuotaDecision,
  type QuotaMode,
  type QuotaVerdict,
  readStorageAnswer,
  type StorageAnswer,
} from "../settings/quota.ts";

/** Decides whether the owner of a token may store a block. */
export type QuotaGate = (token: string) => Promise<QuotaDecision>;

const FRESH_MS = 30_000;
const MAX_TOKENS = 4_096;
const RESPONDING = "the storage API responds";
/** These statuses are about one client, not about the storage API. */
const CLIENT_STATUSES: ReadonlySet<number> = new Set([401, 402, 403]);

/**
 * Creates a gate that asks the storage API with the client's own token. A definite answer is cached for 30 s under the
 * token's sha256; concurrent requests with one token share one call. An unknown result is not cached. The log records
 * when the storage API starts and stops giving definite answers. It contains no tokens.
 */
export function createQuotaGate(options: {
  readonly mode: QuotaMode;
  readonly storage: Pick<StorageApi, "storage"> | null;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
  readonly log: (line: string) => void;
}): QuotaGate {
  const { mode, storage, now, log } = options;
  const cache = new QuotaCache(FRESH_MS, MAX_TOKENS);
  const inFlight = new Map<string, Promise<QuotaVerdict>>();
  let lastState = "";

  function logState(state: string): void {
    if (state !== lastState && !(lastState === "" && state === RESPONDING)) log(`quota: ${state}`);
    lastState = state;
  }

  async function ask(api: Pick<StorageApi, "storage">, token: string, key: string): Promise<QuotaVerdict> {
    try {
      const answer = await api.storage(token);
      const verdict = readStorageAnswer(answer);
      if (verdict !== "unknown") logState(RESPONDING);
      else if (!CLIENT_STATUSES.has(answer.status)) {
        logState(`the storage API responded with HTTP status ${answer.status} and no usable answer`);
      }
      if (verdict !== "unknown") cache.set(key, verdict, now());
      return verdict;
    } catch (cause) {
      logState(`the request to the storage API failed: ${messageOf(cause)}`);
      return "unknown";
    }
  }

  return async (token) => {
    if (storage === null) return decideQuota("unknown", mode);
    const key = createHash("sha256").update(token).digest("base64");
    const known = cache.get(key, now());
    if (known !== null) return decideQuota(known, mode);
    let pending = inFlight.get(key);
    if (pending === undefined) {
      pending = ask(storage, token, key).finally(() => inFlight.delete(key));
      inFlight.set(key, pending);
    }
    return decideQuota(await pending, mode);
  };
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
  options: { readonly connections: number; readonly timeoutMs: number; readonly proxy?: string | null },
): StorageApi {
  const { connections, timeoutMs, proxy = null } = options;
  const client = new HttpClient({ url, connections, connectTimeoutMs: timeoutMs, proxy });
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
