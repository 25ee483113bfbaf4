/** What happens to an upload when the storage API gave no usable answer: `strict` refuses it, `open` takes it. */
export type QuotaMode = "strict" | "open";

/** What the storage API says of a token's owner. */
export type QuotaVerdict = "allow" | "deny" | "unknown";

/** What the storage API answered. `body`: the JSON, or null where it is none. */
export interface StorageAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** Whether a block may be stored; `why` is for the client. */
export type QuotaDecision = { readonly allowed: true } | { readonly allowed: false; readonly why: string };

/** Reads `GET /api/v1/storage`: only a 200 with a boolean `canUpload` says anything (functionland/fula-ota, docker/fula-ingest). */
export function readStorageAnswer({ status, body }: StorageAnswer): QuotaVerdict {
  if (status !== 200) return "unknown";
  const canUpload = typeof body === "object" && body !== null && "canUpload" in body ? body.canUpload : null;
  if (typeof canUpload !== "boolean") return "unknown";
  return canUpload ? "allow" : "deny";
}

/** What the verdict means in this mode. */
export function decideQuota(verdict: QuotaVerdict, mode: QuotaMode): QuotaDecision {
  if (verdict === "allow" || (verdict === "unknown" && mode === "open")) return { allowed: true };
  return {
    allowed: false,
    why:
      verdict === "deny"
        ? "the storage quota is used up, or the account is suspended"
        : "the storage quota can't be checked now, and this node stores nothing unchecked",
  };
}

/** Remembers verdicts for a while, of so many keys at most; the oldest goes first. Times are milliseconds of any clock that goes forward. */
export class QuotaCache {
  readonly #entries = new Map<string, { readonly verdict: "allow" | "deny"; readonly expiresMs: number }>();
  readonly #lifetimeMs: number;
  readonly #mostEntries: number;

  constructor(lifetimeMs: number, mostEntries: number) {
    this.#lifetimeMs = lifetimeMs;
    this.#mostEntries = mostEntries;
  }

  /** How many are remembered, expired ones among them. */
  get size(): number {
    return this.#entries.size;
  }

  /** The verdict while it is fresh, else null. */
  get(key: string, nowMs: number): "allow" | "deny" | null {
    const entry = this.#entries.get(key);
    if (entry === undefined) return null;
    if (nowMs < entry.expiresMs) return entry.verdict;
    this.#entries.delete(key);
    return null;
  }

  /** Remembers it from now on. */
  set(key: string, verdict: "allow" | "deny", nowMs: number): void {
    this.#entries.delete(key);
    this.#entries.set(key, { verdict, expiresMs: nowMs + this.#lifetimeMs });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#mostEntries) return;
      this.#entries.delete(oldest);
    }
  }
}
