import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { lookUpName } from "../federation/directory.ts";
import { readIdentity } from "../federation/storage-context.ts";
import type { HostReader } from "../host.ts";

/** A name that the node may hold, and the hand that gives it back. */
export interface NameToRelease {
  readonly pool: string;
  readonly name: string;
  /** The storage API of the master that keeps it, without a slash at its end. */
  readonly url: string;
  /** Gives the name back, signed by the identity whose text this is. Throws as federation/announce-name.ts does. */
  readonly release: (identity: string) => Promise<void>;
}

interface Seen {
  readonly isHeld: boolean;
}

type ReleaseChange = Change & { readonly kind: "release-name"; readonly pool: string; readonly name: string };

/**
 * The node's name, given back to the pool. It comes before all else: the signature needs the identity on the
 * node's volume, and where the master can't be asked, nothing has been changed yet.
 */
export function leaveName({ pool, name, url, release }: NameToRelease): StepSpec<Seen, ReleaseChange> {
  async function look(host: HostReader): Promise<{ readonly isHeld: boolean; readonly holder: string }> {
    const [identity, entry] = await Promise.all([
      readIdentity(host),
      lookUpName(host, url, name, "--no-release"),
    ]);
    const isHeld = identity !== null && entry?.peerId === identity.id;
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
      const identity = await readIdentity(host);
      if (identity !== null) await release(identity.text);
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
