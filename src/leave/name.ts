import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { giveBackName, lookUpName, type NodesClient } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import type { HostReader } from "../host.ts";

/** A name that the node may hold, and the directory that keeps it. */
export interface NameToRelease {
  readonly pool: string;
  readonly name: string;
  readonly client: NodesClient;
}

interface Seen {
  readonly isHeld: boolean;
}

type ReleaseChange = Change & { readonly kind: "release-name"; readonly pool: string; readonly name: string };

/**
 * The node's name, given back to the pool. It comes before all else: the signature needs the identity on the
 * node's volume, and where the master can't be asked, nothing has been changed yet.
 */
export function leaveName({ pool, name, client }: NameToRelease): StepSpec<Seen, ReleaseChange> {
  async function look(host: HostReader): Promise<{ readonly isHeld: boolean; readonly holder: string }> {
    const [identity, entry] = await Promise.all([
      readNodeIdentity(host),
      lookUpName(host.http, client.url, name, "--no-release"),
    ]);
    const isHeld = identity !== null && entry?.peerId === identity.peerId;
    return { isHeld, holder: isHeld ? "this node" : (entry?.peerId ?? "nobody") };
  }

  return {
    id: "node-name",
    title: "the node's name",
    touches: "Gives the node's name back to the master, signed with the cluster peer's own key.",

    async probe(host): Promise<Finding<Seen>> {
      const { isHeld, holder } = await look(host);
      const evidence = { [`${name} in ${pool}`]: `held by ${holder}` };
      if (!isHeld) return { state: "ours", seen: { isHeld }, evidence };
      return { state: "drifted", seen: { isHeld }, drift: [`${name} is still this node's`], evidence };
    },

    plan: ({ seen: { isHeld } }) =>
      isHeld
        ? [{ kind: "release-name", summary: `give the name ${name} back to pool ${pool}`, pool, name }]
        : [],

    async apply(_change, host) {
      const identity = await readNodeIdentity(host);
      if (identity !== null) await giveBackName({ client, identity, clock: host.clock }, { pool, name });
    },

    async verify(host) {
      if (!(await look(host)).isHeld) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The master still has ${name} as this node's.`,
        remedy: "Run again; or use --no-release.",
      });
    },
  };
}
