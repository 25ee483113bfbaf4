import { trusting } from "../../machine/http.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { announceName, lookUpName } from "../../federation/announce-name.ts";
import { announceTrust } from "../../federation/announce-trust.ts";
import { announceableAddresses } from "../../federation/announcement.ts";
import { readNodeIdentity } from "../../federation/node-identity.ts";
import { ownClusterTarget, storageApiCaOf, type StorageContext } from "../../federation/storage-context.ts";
import { readWriterTrust } from "../../federation/writer-trust.ts";
import type { HostReader } from "../../host.ts";
import { parseJson } from "../../machine/http-client.ts";
import { dialable } from "../../settings/address.ts";
import { readValues } from "../../settings/context.ts";
import { suggestNodeNames } from "../../settings/node-name.ts";

type NameChange = Change & { readonly kind: "announce-name"; readonly pool: string; readonly name: string };

/** The node's desired name and its pool. */
interface Seen {
  readonly pool: string;
  readonly name: string;
}

/** The node's name. The master reserves it for the key of this node's cluster peer. */
export function nodeName(context: StorageContext): StepSpec<Seen, NameChange> {
  const { naming } = context;
  const path = context.layout.announced;
  const announcedNow = (url: string, ca: string | null): Announced => ({
    url,
    ca: ca === null ? null : context.hash(ca),
  });
  return {
    id: "node-name",
    title: "the node's name",
    touches:
      "Reserves CLUSTER_PEERNAME at the master. Signs the request with the cluster peer's key. Also says which masters the node trusts. Records in `announced.json` through which address and CA, so that a change of them is announced.",

    async probe(host): Promise<Finding<Seen>> {
      const { pool, name, url, ca, invite } = await readDesired(host, context);
      const seen = { pool, name };
      if (naming === null)
        return { state: "ours", seen, evidence: { [name]: "not reserved: --no-register" } };
      const identity = await readNodeIdentity(host);
      const claim = { pool, peerId: identity?.peerId ?? null, invite };
      const { entry } = await lookUpName(trusting(host.http, ca), url, name, "--no-register", claim);
      const evidence = {
        [`${name} in ${pool}`]: entry === null ? "free" : `reserved by ${entry.peerId}`,
        "own cluster peer": identity?.peerId ?? "not created yet",
      };
      if (entry === null) return { state: "absent", seen, evidence };
      if (entry.peerId !== identity?.peerId) return taken(name, pool, evidence);
      const addresses = await ownAddresses(host, context, identity.peerId);
      const isSame = addresses === null || sameTexts(addresses, entry.addresses);
      const { trusts } = await readWriterTrust(host);
      // An older master does not ask for it.
      const isTrustKnown =
        trusts === null || entry.trusts === undefined || sameTexts(trusts, entry.trusts ?? []);
      const recorded = parseAnnounced(await host.files.readText(path));
      const drift = [
        ...(isSame ? [] : [`the master has old addresses for ${name}`]),
        ...(isTrustKnown ? [] : ["the master does not know which masters this node trusts"]),
        ...describeMove(recorded, announcedNow(url, ca)),
        ...(entry.hasNewInvite ? ["the master does not know yet that this node has its new invite"] : []),
      ];
      if (drift.length === 0) return { state: "ours", seen, evidence };
      return { state: "drifted", seen, drift, evidence };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      const { pool, name } = finding.seen;
      return [{ kind: "announce-name", summary: `announce this node as ${name} in ${pool}`, pool, name }];
    },

    async apply({ pool, name }, host) {
      if (naming === null) return;
      const [identity, { url, ca, invite }] = await Promise.all([
        readNodeIdentity(host),
        readDesired(host, context),
      ]);
      const addresses = identity === null ? null : await ownAddresses(host, context, identity.peerId);
      if (identity === null || addresses === null) {
        throw new OperatorError({
          exit: "unhealthy",
          what: "ipfs-cluster has no identity yet or does not answer, so this node cannot announce itself.",
          remedy: "See `docker logs ipfs_cluster`, then run again.",
        });
      }
      const deps = { client: naming(url, ca), identity, clock: host.clock };
      await announceName(deps, { pool, name, addresses, invite });
      const { trusts } = await readWriterTrust(host);
      if (trusts !== null) await announceTrust(deps, { pool, name, trusts });
      const record = announcedNow(url, ca);
      await host.files.writeAtomic(path, `${JSON.stringify(record)}\n`, { mode: 0o644 });
    },

    async verify(host) {
      if (naming === null) return;
      const { name, url, ca } = await readDesired(host, context);
      const [identity, { entry }] = await Promise.all([
        readNodeIdentity(host),
        lookUpName(trusting(host.http, ca), url, name, "--no-register"),
      ]);
      if (entry !== null && entry.peerId === identity?.peerId) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The master does not list this node as ${name}.`,
        remedy: "Run again, or use --no-register.",
      });
    },
  };
}

/**
 * Through which address, and with which CA, a node announced itself. Its master takes an announcement since a change of
 * them as the sign that this node has the new ones (edge/known.ts), so a change must be announced, too.
 */
interface Announced {
  readonly url: string;
  /** A hash of the private CA; null for a public one. */
  readonly ca: string | null;
}

/** Null if there is no record, as on a node of an earlier version, or if it can't be read: then it is announced again. */
function parseAnnounced(text: string | null): Announced | null {
  const { url, ca } = (parseJson(text ?? "") ?? {}) as Partial<Record<keyof Announced, unknown>>;
  return typeof url === "string" ? { url, ca: typeof ca === "string" ? ca : null } : null;
}

/** What its master can't know yet, as a sentence; none if it was told. */
function describeMove(before: Announced | null, now: Announced): readonly string[] {
  if (before === null) return [`it is not recorded that this node announced itself through ${now.url}`];
  if (before.url !== now.url)
    return [`this node announced itself through ${before.url}, and uses ${now.url} now`];
  return before.ca === now.ca
    ? []
    : ["this node has another CA for its master than when it announced itself"];
}

async function readDesired(
  host: HostReader,
  context: StorageContext,
): Promise<{
  readonly pool: string;
  readonly name: string;
  readonly url: string;
  readonly ca: string | null;
  readonly invite: string | null;
}> {
  const values = await readValues(host, context);
  return {
    pool: values("CLUSTERNAME") ?? "",
    name: values("CLUSTER_PEERNAME") ?? "",
    url: (values("STORAGE_API_URL") ?? "").replace(/\/+$/, ""),
    ca: storageApiCaOf(values),
    invite: values("NODE_INVITE") ?? null,
  };
}

/** The addresses that other machines can reach; null if the cluster peer does not answer. */
async function ownAddresses(
  host: HostReader,
  context: StorageContext,
  peerId: string,
): Promise<readonly string[] | null> {
  const target = ownClusterTarget(await readValues(host, context));
  try {
    const [{ addresses }, bridges] = await Promise.all([
      context.openCluster(target).identity(),
      host.docker.bridgeSubnets(),
    ]);
    return announceableAddresses(dialable(addresses, bridges).addresses, peerId);
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

function sameTexts(some: readonly string[], others: readonly string[]): boolean {
  return some.toSorted().join(" ") === others.toSorted().join(" ");
}

function taken(name: string, pool: string, evidence: Readonly<Record<string, string>>): Finding<Seen> {
  return {
    state: "foreign",
    evidence,
    why: `The name ${name} belongs to another node of pool ${pool}.`,
    remedy: `Choose another name, such as ${suggestNodeNames(name).slice(0, 3).join(", ")}: --set CLUSTER_PEERNAME=NAME. If this box is that node, restore its ipfs-cluster data.`,
  };
}
