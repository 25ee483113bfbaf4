import type { Problem } from "../errors.ts";

/** The settings that define which masters a node trusts and how to reach them. */
export const TRUST_KEYS = [
  "CLUSTERNAME",
  "CLUSTER_SECRET",
  "MASTER_CLUSTER_PEERIDS",
  "MASTER_CLUSTER_BOOTSTRAP",
  "STORAGE_API_URL",
  "STORAGE_API_CA",
] as const;

/** What an invite or a pool API says about a pool. */
export interface TrustInfo {
  /** The start of a sentence: "The invite". */
  readonly source: string;
  /** True for an invite: then other addresses of the same masters do not change which masters a node trusts. */
  readonly isSigned: boolean;
  readonly values: ReadonlyMap<string, string>;
}

/**
 * Where the pool's values differ from `.env`, one sentence per key. The cluster secret is not printed. Order
 * and letter case are compared only where they matter.
 */
export function findTrustDrift(
  { source, isSigned, values }: TrustInfo,
  saved: (key: string) => string | undefined,
): readonly Problem[] {
  return TRUST_KEYS.flatMap((key) => {
    const [offered, current] = [values.get(key), saved(key)];
    const normalise = (value: string) => (isSigned ? peersOf(key, value) : normal(key, value));
    if (offered === undefined || current === undefined || normalise(offered) === normalise(current))
      return [];
    const what =
      key === "CLUSTER_SECRET" || key === "STORAGE_API_CA"
        ? `${source} has a different ${key} than .env.`
        : `${source} has ${key} ${offered}, but .env has ${current}.`;
    return [{ subject: key, what }];
  });
}

/** Settings that a flag and an invite give different values: one of the two is a mistake. */
export function findContradictions(
  { source, values }: TrustInfo,
  flags: ReadonlyMap<string, string>,
): readonly Problem[] {
  return TRUST_KEYS.flatMap((key) => {
    const [offered, set] = [values.get(key), flags.get(key)];
    if (offered === undefined || set === undefined || normal(key, offered) === normal(key, set)) return [];
    const what = `--set ${key} differs from the value in ${source.toLowerCase()}.`;
    return [{ subject: key, what, remedy: "Use only one of the two." }];
  });
}

/** For addresses, their peer ids: `/ip4/.../p2p/ID` can only reach that peer. */
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
