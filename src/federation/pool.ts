import * as z from "zod";
import { isPeerId } from "../settings/address.ts";
import { RULES } from "../settings/rules.ts";

/** What a pool publishes about its masters: whom a node trusts, and where it finds them. */
export interface Pool {
  /** Cluster peer ids of the masters, the primary first. */
  readonly trustedPeers: readonly string[];
  /** The first TCP address of the cluster, with its peer. */
  readonly bootstrap: string;
}

/** What is no list counts as an empty one, and null and "" in it do not count, as upstream has it. */
const texts = z
  .array(z.unknown())
  .catch([])
  .transform((list) => list.filter((each): each is string => typeof each === "string" && each !== ""));

const peerId = z.string().refine(isPeerId, {
  error: ({ input }) => `${JSON.stringify(String(input).slice(0, 80))} is no peer id`,
});

/** Upstream: GET /pools/NAME. */
const ANSWER = z
  .object(
    {
      "ipfs-cluster-trustedpeers": texts,
      "ipfs-cluster-peerid": z.string().catch(""),
      ipfs_cluster: z.object({ addresses: texts }).catch({ addresses: [] }),
    },
    { error: "the answer is no JSON object, or longer than 1 MiB" },
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
        .min(1, { error: "it names no master (ipfs-cluster-trustedpeers, ipfs-cluster-peerid)" }),
      bootstrap: z
        .string({ error: "it names no TCP address of the cluster (ipfs_cluster.addresses)" })
        .refine((address) => RULES.peerMultiaddr.holds(address), {
          error: ({ input }) =>
            `${JSON.stringify(String(input).slice(0, 120))} is no TCP multiaddr with a peer`,
        }),
    }),
  );

/**
 * Reads the pool API's answer. `ipfs-cluster-trustedpeers` is preferred, the single `ipfs-cluster-peerid` is what
 * older pools have. Gives what is wrong with it in a sentence.
 */
export function parsePool(body: unknown): Pool | { readonly fault: string } {
  const read = ANSWER.safeParse(body);
  return read.success ? read.data : { fault: read.error.issues[0]?.message ?? "the answer is malformed" };
}
