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
const MOST_TOKENS = 4_096;
const WELL = "the storage API answers";
/** These say something of one client, nothing of the storage API. */
const ABOUT_THE_TOKEN: ReadonlySet<number> = new Set([401, 402, 403]);

/**
 * A gate that asks the storage API with the client's own token. A clear answer is kept for 30 s, by the token's
 * sha256; requests of one token that come meanwhile share one question. What could not be told is
 * kept for nobody. The log says when the storage API stops and starts to give clear answers, and no token.
 */
export function createQuotaGate(options: {
  readonly mode: QuotaMode;
  readonly storage: Pick<StorageApi, "storage"> | null;
  /** Milliseconds of any clock that goes forward. */
  readonly now: () => number;
  readonly log: (line: string) => void;
}): QuotaGate {
  const { mode, storage, now, log } = options;
  const cache = new QuotaCache(FRESH_MS, MOST_TOKENS);
  const underWay = new Map<string, Promise<QuotaVerdict>>();
  let told = "";

  function tell(state: string): void {
    if (state !== told && !(told === "" && state === WELL)) log(`quota: ${state}`);
    told = state;
  }

  async function ask(api: Pick<StorageApi, "storage">, token: string, key: string): Promise<QuotaVerdict> {
    try {
      const answer = await api.storage(token);
      const verdict = readStorageAnswer(answer);
      if (verdict !== "unknown") tell(WELL);
      else if (!ABOUT_THE_TOKEN.has(answer.status)) {
        tell(`the storage API answers ${answer.status} without a clear word`);
      }
      if (verdict !== "unknown") cache.set(key, verdict, now());
      return verdict;
    } catch (cause) {
      tell(`the storage API can't be asked: ${messageOf(cause)}`);
      return "unknown";
    }
  }

  return async (token) => {
    if (storage === null) return decideQuota("unknown", mode);
    const key = createHash("sha256").update(token).digest("base64");
    const known = cache.get(key, now());
    if (known !== null) return decideQuota(known, mode);
    let question = underWay.get(key);
    if (question === undefined) {
      question = ask(storage, token, key).finally(() => underWay.delete(key));
      underWay.set(key, question);
    }
    return decideQuota(await question, mode);
  };
}

/** Asks the master's storage API for a client, with the client's own token. */
export interface StorageApi {
  /** `GET /api/v1/storage`, following no redirect; throws an Error without the token where no answer comes in time. */
  storage(token: string): Promise<StorageAnswer>;
  close(): void;
}

/** The storage API sends no longer answer. */
const MAX_ANSWER_BYTES = 65_536;

/** Opens the storage API; `timeoutMs` bounds one question. Nothing is sent yet. */
export function openStorageApi(
  url: string,
  options: { readonly connections: number; readonly timeoutMs: number },
): StorageApi {
  const { connections, timeoutMs } = options;
  const client = new HttpClient({ url, connections, connectTimeoutMs: timeoutMs });
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
