import {
  concernsNodes,
  describeHolders,
  type EdgeNow,
  findChanges,
  findHolders,
  isVolumeLost,
  type KnownEdge,
  parseKnown,
  readEdgeNow,
  recordChange,
  renewalFor,
  staleSpans,
  type StaleSpan,
} from "../../edge/known.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { type MasterContext, readValues } from "../../settings/context.ts";

interface Seen {
  /** Null for the first record. */
  readonly known: KnownEdge | null;
  /** Null if invites have no address. */
  readonly url: string | null;
}

type EdgeKnownChange = Change & { readonly kind: "record-edge"; readonly path: string };

/**
 * Records the address and the CA of the edge that invites contain. When they change, everybody who has the old ones is
 * named, since nothing else tells them.
 */
export function edgeKnown(context: MasterContext): StepSpec<Seen, EdgeKnownChange> {
  const { layout, hash } = context;
  const path = layout.edgeKnown;

  async function read(host: HostReader): Promise<{
    readonly known: KnownEdge | null;
    readonly now: EdgeNow;
    readonly values: Awaited<ReturnType<typeof readValues>>;
  }> {
    const values = await readValues(host, context);
    const [text, now] = await Promise.all([host.files.readText(path), readEdgeNow(host, values, hash)]);
    return { known: parseKnown(text), now, values };
  }

  return {
    id: "edge-known",
    title: "what invites and nodes know of the edge",
    touches:
      "If PUBLIC_HOST is set, writes `edge-known.json`: the address and the CA that invites contain, so that a change of them, or their end, is announced.",

    async probe(host): Promise<Finding<Seen>> {
      const { known, now, values } = await read(host);
      const seen = { known, url: now.url };
      if (now.host === null && known === null)
        return { state: "ours", seen, evidence: { edge: "off: PUBLIC_HOST is not set" } };
      const evidence = {
        address: now.url ?? "none: PUBLIC_HOST is not set",
        CA: now.ca === undefined ? "not made yet" : (now.ca ?? "a public one"),
      };
      if (known === null) return { state: "absent", seen, evidence };
      const isLost = now.ca === undefined && known.ca !== null && (await isVolumeLost(host));
      const changes = [
        ...findChanges(known, now),
        ...(isLost ? ["its CA is lost: Caddy makes a new one, which nobody trusts yet"] : []),
      ];
      if (changes.length === 0) return { state: "ours", seen, evidence };
      const concerned = isLost || concernsNodes(known, now);
      const holders = concerned
        ? await findHolders(host, values, spansAfter(known, now, host.clock.now(), isLost))
        : { invites: 0, nodes: [] };
      const who =
        typeof holders === "string"
          ? `which invites and nodes have the old one is not known: ${holders}`
          : describeHolders(holders);
      const todo = typeof holders === "string" || who === null ? null : renewalFor(holders);
      const drift = [...changes, ...[who, todo].filter((one) => one !== null)];
      return { state: "drifted", seen, drift, evidence };
    },

    plan({ state, seen: { known, url } }) {
      if (state === "ours") return [];
      const summary =
        known === null
          ? `record what invites contain: ${url ?? "no address"}`
          : "record that the edge has changed for invites and nodes (fula-node status)";
      return [{ kind: "record-edge", summary, path }];
    },

    async apply(_change, host) {
      const { known, now } = await read(host);
      if (now.host === null && known === null) return;
      const nowText = host.clock.now().toISOString();
      if (now.ca === undefined)
        throw new OperatorError({
          exit: "unhealthy",
          what: "The edge's own CA has no root on its volume.",
          why: "Caddy makes it when it starts.",
          remedy: "Restart it with `docker restart fula-edge`, then run again.",
        });
      const record = recordChange(known, { ...now, ca: now.ca }, nowText);
      await host.files.writeAtomic(path, `${JSON.stringify(record)}\n`, { mode: 0o644 });
    },

    async verify(host) {
      const { known, now } = await read(host);
      if (known === null ? now.host === null : findChanges(known, now).length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${path} does not have what invites contain.`,
        remedy: "Run again.",
      });
    },
  };
}

/** The times whose holders the change concerns, as they will be once it is recorded. With a lost CA, or no address, all. */
function spansAfter(known: KnownEdge, now: EdgeNow, at: Date, isLost: boolean): readonly StaleSpan[] {
  const { ca } = now;
  if (isLost || ca === undefined) return [{ from: null, until: at }];
  return staleSpans(recordChange(known, { ...now, ca }, at.toISOString()));
}
