/** What happens to an upload if the storage API gave no usable answer: `strict` refuses it, `open` accepts it. */
export type QuotaMode = "strict" | "open";

/**
 * The storage API's verdict on a token. `allow` and `deny`: it knows the account. `not-accepted`, `payment` and
 * `forbidden`: it refused the token itself (401, 402, 403). `unknown`: it gave no usable answer.
 */
export type QuotaVerdict = "allow" | "deny" | "not-accepted" | "payment" | "forbidden" | "unknown";

/** The response of the storage API. `body` is the parsed JSON; null if it is not JSON. */
export interface StorageAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** Whether a block may be stored. The client gets the status and `why`. */
export type QuotaDecision = { readonly allowed: true } | QuotaRefusal;

/** A refusal. `retryAfterSeconds`: when the client may try again. */
export interface QuotaRefusal {
  readonly allowed: false;
  readonly status: 401 | 402 | 403 | 429 | 503;
  readonly why: string;
  readonly retryAfterSeconds?: number;
}

/**
 * Reads `GET /api/v1/storage`. Only a 200 with a boolean `canUpload` says something about the quota (functionland/fula-ota,
 * docker/fula-ingest). 401, 402 and 403 are refusals of the token.
 */
export function readStorageAnswer({ status, body }: StorageAnswer): QuotaVerdict {
  if (status === 401) return "not-accepted";
  if (status === 402) return "payment";
  if (status === 403) return "forbidden";
  if (status !== 200) return "unknown";
  const canUpload = typeof body === "object" && body !== null && "canUpload" in body ? body.canUpload : null;
  if (typeof canUpload !== "boolean") return "unknown";
  return canUpload ? "allow" : "deny";
}

/**
 * Decides on an upload from the verdict and the mode. The open mode only replaces a missing answer. Without one, strict mode
 * refuses with 503: nothing is known against the account (fula-ingest answers 402 there, which says that it must pay).
 */
export function decideQuota(verdict: QuotaVerdict, mode: QuotaMode): QuotaDecision {
  if (verdict === "allow" || (verdict === "unknown" && mode === "open")) return { allowed: true };
  return { allowed: false, ...REFUSALS[verdict] };
}

const REFUSALS = {
  deny: { status: 402, why: "the storage quota is used up, or the account is suspended" },
  "not-accepted": { status: 401, why: "the storage API does not accept this token" },
  payment: { status: 402, why: "the storage API requires a payment for this account" },
  forbidden: { status: 403, why: "the storage API does not allow uploads with this token" },
  unknown: {
    status: 503,
    why: "the master's storage API can't check the quota now, and this node stores no block without that; try again later",
    retryAfterSeconds: 10,
  },
} as const satisfies Record<Exclude<QuotaVerdict, "allow">, Omit<QuotaRefusal, "allowed">>;

/** Caches verdicts for a limited time and a limited number of keys; the oldest entry is dropped first. Times are milliseconds of any monotonic clock. */
export class QuotaCache {
  readonly #entries = new Map<string, { readonly verdict: QuotaVerdict; readonly expiresMs: number }>();
  readonly #lifetimeMs: number;
  readonly #maxEntries: number;

  constructor(lifetimeMs: number, maxEntries: number) {
    this.#lifetimeMs = lifetimeMs;
    this.#maxEntries = maxEntries;
  }

  /** The number of entries, expired ones included. */
  get size(): number {
    return this.#entries.size;
  }

  /** The verdict if it has not expired, else null. */
  get(key: string, nowMs: number): QuotaVerdict | null {
    const entry = this.#entries.get(key);
    if (entry === undefined) return null;
    if (nowMs < entry.expiresMs) return entry.verdict;
    this.#entries.delete(key);
    return null;
  }

  /** Stores a verdict; its lifetime starts now. */
  set(key: string, verdict: QuotaVerdict, nowMs: number): void {
    this.#entries.delete(key);
    this.#entries.set(key, { verdict, expiresMs: nowMs + this.#lifetimeMs });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxEntries) return;
      this.#entries.delete(oldest);
    }
  }
}

/** One account's storage and balance in the database. */
export interface AccountUsage {
  /** Sum of the sizes of its pins that are not deleted. */
  readonly storageBytes: number;
  /** The exact balance, as near as a number can be. */
  readonly balanceFula: number;
  /** Suspended by the billing, until its balance is positive, or by the operator. */
  readonly isSuspended: boolean;
  /** Suspended by the operator: it may not upload at all, whatever its balance is. */
  readonly isHeld: boolean;
}

/** The price of storage. */
export interface Pricing {
  readonly freeTierBytes: number;
  readonly fulaPerGibMonth: number;
}

/** The body of `GET /api/v1/storage` (functionland/pinning-service, pinning-webui). */
export interface StorageReport {
  readonly currentStorageBytes: number;
  readonly freeTierBytes: number;
  /** How much the balance pays for one month; never below zero. */
  readonly paidStorageBytes: number;
  readonly totalAvailableBytes: number;
  readonly balanceFula: number;
  /** FULA per month at the current size. */
  readonly monthlyBurnRate: number;
  readonly isConsuming: boolean;
  readonly canUpload: boolean;
  readonly isSuspended: boolean;
}

const GIB = 1024 ** 3;

/** Builds the report. */
export function reportStorage(
  usage: AccountUsage,
  { freeTierBytes, fulaPerGibMonth }: Pricing,
): StorageReport {
  const { storageBytes, balanceFula, isSuspended, isHeld } = usage;
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
    isSuspended: isSuspended || isHeld,
  };
}

/**
 * Below the free tier every account may upload; above it, an account that is not suspended and has a balance. An account
 * that the operator suspended may not.
 */
function mayUpload(usage: AccountUsage, freeTierBytes: number): boolean {
  const { storageBytes, isSuspended, isHeld, balanceFula } = usage;
  return !isHeld && (storageBytes < freeTierBytes || (!isSuspended && balanceFula > 0));
}

/** If storage is free, any balance pays for the largest safe integer of bytes. */
function bytesFor(balanceFula: number, fulaPerGibMonth: number): number {
  if (balanceFula <= 0) return 0;
  return Math.min(Math.floor((balanceFula / fulaPerGibMonth) * GIB), Number.MAX_SAFE_INTEGER);
}
