import * as z from "zod";
import { isPeerId } from "../settings/address.ts";
import { RULES } from "../settings/rules.ts";

/** What a pool publishes about its masters: which ones a node trusts and how to reach them. */
export interface Pool {
  /** Cluster peer ids of the masters, the primary first. */
  readonly trustedPeers: readonly string[];
  /** The first TCP address of the cluster, with a peer id. */
  readonly bootstrap: string;
}

/** As upstream does, a value that is not a list counts as an empty list, and null and "" in a list are ignored. */
const texts = z
  .array(z.unknown())
  .catch([])
  .transform((list) => list.filter((each): each is string => typeof each === "string" && each !== ""));

const peerId = z.string().refine(isPeerId, {
  error: ({ input }) => `${JSON.stringify(String(input).slice(0, 80))} is not a peer id`,
});

/** Upstream: GET /pools/NAME. */
const ANSWER = z
  .object(
    {
      "ipfs-cluster-trustedpeers": texts,
      "ipfs-cluster-peerid": z.string().catch(""),
      ipfs_cluster: z.object({ addresses: texts }).catch({ addresses: [] }),
    },
    { error: "the answer is not a JSON object, or is longer than 1 MiB" },
  )
  .transform((answer) => {
    const listed = answer["ipfs-cluster-trustedpeers"];
    const single = answer["ipfs-cluster-peerid"];
    return {
      trustedPeers: listed.length > 0 || single === "" ? listed : [single],
      bootstrap: answer.ipfs_cluster.addresses.find((address) => address.includes("/tcp/")),
    };
  })
  .pipe(
    z.object({
      trustedPeers: z
        .array(peerId)
        .min(1, { error: "it contains no master (ipfs-cluster-trustedpeers, ipfs-cluster-peerid)" }),
      bootstrap: z
        .string({ error: "it contains no TCP address of the cluster (ipfs_cluster.addresses)" })
        .refine((address) => RULES.peerMultiaddr.holds(address), {
          error: ({ input }) =>
            `${JSON.stringify(String(input).slice(0, 120))} is not a TCP multiaddr with a peer id`,
        }),
    }),
  );

/**
 * Reads the pool API's answer. `ipfs-cluster-trustedpeers` is preferred; older pools only have the single
 * `ipfs-cluster-peerid`. `fault` describes the problem, as the end of a sentence.
 */
export function parsePool(body: unknown): Pool | { readonly fault: string } {
  const read = ANSWER.safeParse(body);
  return read.success ? read.data : { fault: read.error.issues[0]?.message ?? "the answer is malformed" };
}
