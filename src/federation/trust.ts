import type { Problem } from "../errors.ts";

/** The settings that say whom a node obeys and where it finds them. */
export const TRUST_KEYS = [
  "CLUSTERNAME",
  "CLUSTER_SECRET",
  "MASTER_CLUSTER_PEERIDS",
  "MASTER_CLUSTER_BOOTSTRAP",
  "STORAGE_API_URL",
] as const;

/** What a pool says of itself: by an invite, or by its pool API. */
export interface TrustInfo {
  /** Begins a sentence: "The invite". */
  readonly source: string;
  /** True for an invite: other addresses of the same masters are then no change of whom a node obeys. */
  readonly isSigned: boolean;
  readonly values: ReadonlyMap<string, string>;
}

/**
 * What a pool says otherwise than `.env` has it, a sentence each; the cluster's secret is not told. Order
 * and letter case count only where they mean something.
 */
export function findTrustDrift(
  { source, isSigned, values }: TrustInfo,
  saved: (key: string) => string | undefined,
): readonly Problem[] {
  return TRUST_KEYS.flatMap((key) => {
    const [said, kept] = [values.get(key), saved(key)];
    const of = (value: string) => (isSigned ? peersOf(key, value) : normal(key, value));
    if (said === undefined || kept === undefined || of(said) === of(kept)) return [];
    const what =
      key === "CLUSTER_SECRET"
        ? `${source} gives another CLUSTER_SECRET than .env has.`
        : `${source} gives ${key} as ${said}; .env has ${kept}.`;
    return [{ subject: key, what }];
  });
}

/** What is given by flag and, otherwise, by an invite: one of the two is a mistake. */
export function findContradictions(
  { source, values }: TrustInfo,
  flags: ReadonlyMap<string, string>,
): readonly Problem[] {
  return TRUST_KEYS.flatMap((key) => {
    const [said, given] = [values.get(key), flags.get(key)];
    if (said === undefined || given === undefined || normal(key, said) === normal(key, given)) return [];
    const what = `${key} is given by --set, and ${source.toLowerCase()} gives another.`;
    return [{ subject: key, what, remedy: "Give one of the two." }];
  });
}

/** Of addresses, whose they are: `/ip4/.../p2p/ID` can lead to no other peer than that. */
function peersOf(key: string, value: string): string {
  if (key !== "MASTER_CLUSTER_BOOTSTRAP") return normal(key, value);
  const peers = value.split(",").map((address) => address.replace(/^.*\/p2p\//, ""));
  return [...new Set(peers)].toSorted().join(",");
}

function normal(key: string, value: string): string {
  if (key === "CLUSTER_SECRET") return value.toLowerCase();
  if (key === "STORAGE_API_URL") return value.replace(/\/+$/, "");
  return key === "CLUSTERNAME" ? value : value.split(",").toSorted().join(",");
}
