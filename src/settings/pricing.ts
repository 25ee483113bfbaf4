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
