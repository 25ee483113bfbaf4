import { isPeerId } from "../settings/address.ts";
import { RULES } from "../settings/rules.ts";

/** What a pool publishes about its masters: whom a node trusts, and where it finds them. */
export interface Pool {
  /** Cluster peer ids of the masters, the primary first. */
  readonly trustedPeers: readonly string[];
  /** The first TCP address of the cluster, with its peer. */
  readonly bootstrap: string;
}

/**
 * Reads the pool API's answer (upstream: GET /pools/NAME). `ipfs-cluster-trustedpeers` is preferred,
 * the single `ipfs-cluster-peerid` is what older pools have. Gives what is wrong with it in a sentence.
 */
export function parsePool(body: unknown): Pool | { readonly fault: string } {
  if (typeof body !== "object" || body === null || Array.isArray(body))
    return { fault: "the answer is no JSON object, or longer than 1 MiB" };
  const answer = body as Readonly<Record<string, unknown>>;
  const listed = textsOf(answer["ipfs-cluster-trustedpeers"]).filter((id) => id !== "");
  const trustedPeers = listed.length > 0 ? listed : textsOf([answer["ipfs-cluster-peerid"]]);
  if (trustedPeers.length === 0)
    return { fault: "it names no master (ipfs-cluster-trustedpeers, ipfs-cluster-peerid)" };
  const odd = trustedPeers.find((id) => !isPeerId(id));
  if (odd !== undefined) return { fault: `${JSON.stringify(odd.slice(0, 80))} is no peer id` };
  const addresses = textsOf(at(answer["ipfs_cluster"], "addresses"));
  const bootstrap = addresses.find((address) => address.includes("/tcp/"));
  if (bootstrap === undefined)
    return { fault: "it names no TCP address of the cluster (ipfs_cluster.addresses)" };
  if (!RULES.peerMultiaddr.holds(bootstrap))
    return { fault: `${JSON.stringify(bootstrap.slice(0, 120))} is no TCP multiaddr with a peer` };
  return { trustedPeers, bootstrap };
}

function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((each): each is string => typeof each === "string") : [];
}

function at(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null
    ? (value as Readonly<Record<string, unknown>>)[key]
    : undefined;
}
