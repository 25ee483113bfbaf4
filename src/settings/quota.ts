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

/** What the database knows of one account's storage and money. */
export interface AccountUsage {
  /** Sum of the sizes of its pins that are not deleted. */
  readonly storageBytes: number;
  /** A float4 of the database, so exact to about seven digits. */
  readonly balanceFula: number;
  readonly isSuspended: boolean;
}

/** What storage costs. */
export interface Pricing {
  readonly freeTierBytes: number;
  readonly fulaPerGibMonth: number;
}

/** The body of `GET /api/v1/storage` (functionland/pinning-service, pinning-webui). */
export interface StorageReport {
  readonly currentStorageBytes: number;
  readonly freeTierBytes: number;
  /** What the balance would pay for one month; never below zero. */
  readonly paidStorageBytes: number;
  readonly totalAvailableBytes: number;
  readonly balanceFula: number;
  /** FULA a month at the present size. */
  readonly monthlyBurnRate: number;
  readonly isConsuming: boolean;
  readonly canUpload: boolean;
  readonly isSuspended: boolean;
}

const GIB = 1024 ** 3;

/** Puts the report together. */
export function reportStorage(
  usage: AccountUsage,
  { freeTierBytes, fulaPerGibMonth }: Pricing,
): StorageReport {
  const { storageBytes, balanceFula, isSuspended } = usage;
  const paidStorageBytes = bytesFor(balanceFula, fulaPerGibMonth);
  const overBytes = Math.max(0, storageBytes - freeTierBytes);
  return {
    currentStorageBytes: storageBytes,
    freeTierBytes,
    paidStorageBytes,
    totalAvailableBytes: Math.min(freeTierBytes + paidStorageBytes, Number.MAX_SAFE_INTEGER),
    balanceFula,
    monthlyBurnRate: (overBytes / GIB) * fulaPerGibMonth,
    isConsuming: overBytes > 0 && balanceFula > 0,
    canUpload: mayUpload(usage, freeTierBytes),
    isSuspended,
  };
}

/** Below the free tier anybody may; above it whoever is not suspended and has something left. */
function mayUpload({ storageBytes, isSuspended, balanceFula }: AccountUsage, freeTierBytes: number): boolean {
  return storageBytes < freeTierBytes || (!isSuspended && balanceFula > 0);
}

/** Where storage costs nothing, any balance pays for as much as a JSON number can say. */
function bytesFor(balanceFula: number, fulaPerGibMonth: number): number {
  if (balanceFula <= 0) return 0;
  return Math.min(Math.floor((balanceFula / fulaPerGibMonth) * GIB), Number.MAX_SAFE_INTEGER);
}
