import { readPrivateCa } from "../../edge/files.ts";
import { findEdgeWarnings } from "../../edge/look.ts";
import { isInSpans, parseKnown, staleSpans } from "../../edge/known.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import {
  type InviteRecord,
  listInvites,
  recordInvite,
  revokeInvite,
  stateOf,
  userOf,
} from "../../federation/invite-records.ts";
import { createInvite, readInvite } from "../../federation/invite-signing.ts";
import { parseDuration } from "../../federation/invite.ts";
import { readPoolTrust } from "../../federation/pool-trust.ts";
import { peersIn } from "../../federation/writer-trust.ts";
import { isMasterInvite, readMasterInvite } from "../../federation/master-invite.ts";
import { findUrlProblems } from "../../federation/storage-api-url.ts";
import { type InstalledMaster, openOwnCluster, readInstalledMaster } from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import { describeInvite } from "../../join/second-master.ts";
import { tokenText } from "../../join/storage-invite.ts";
import { trusting } from "../../machine/http.ts";
import { pemOfCertificates } from "../../settings/certificates.ts";
import { onlyPrivateHosts } from "../../settings/address.ts";
import { addressForNodes, edgeOf } from "../../settings/edge.ts";
import { RULES } from "../../settings/rules.ts";
import { countOf } from "../../units.ts";
import type { World } from "../../world.ts";

/** The flags of `invite create`. */
export interface InviteFlags {
  readonly baseDir?: string;
  readonly expires: string;
  readonly name?: string;
  readonly storageApiUrl?: string;
  readonly bootstrap: readonly string[];
  /** The invite of a master: invite-master.ts. */
  readonly master?: boolean;
}

/**
 * `invite create`: prints the invite (one line), and the fingerprint to compare over another channel. The invite is stored
 * in the database before it is printed: an invite that the master does not know would be refused.
 */
export async function inviteCreate(flags: InviteFlags, world: World): Promise<VerbExit> {
  const lifetimeMs = parseDuration(flags.expires);
  if (lifetimeMs === null)
    throw usage(
      `--expires is ${JSON.stringify(flags.expires)}; it must be a duration such as 90m, 24h or 7d, at most 90 days.`,
    );
  const invalid = flags.bootstrap.find((address) => !RULES.peerMultiaddr.holds(address));
  if (invalid !== undefined)
    throw usage(`--bootstrap is ${JSON.stringify(invalid)}; it must be ${RULES.peerMultiaddr.requirement}.`);
  if (flags.name !== undefined && !RULES.nodeName.holds(flags.name))
    throw usage(`--name is ${JSON.stringify(flags.name)}; it must be ${RULES.nodeName.requirement}.`);
  const master = await readInstalledMaster(world, flags.baseDir);
  const { layout, values } = master;
  const edge = edgeOf(values);
  const [clusterName, storageApiUrl] = [
    values("CLUSTERNAME"),
    flags.storageApiUrl ?? addressForNodes(values),
  ];
  if (clusterName === undefined || storageApiUrl === undefined || !RULES.apiUrl.holds(storageApiUrl)) {
    throw new OperatorError({
      exit: "settings",
      what:
        clusterName === undefined
          ? "CLUSTERNAME is not set."
          : storageApiUrl === undefined
            ? "The address at which nodes reach the storage API is unknown."
            : `The address of the storage API must be ${RULES.apiUrl.requirement}.`,
      remedy:
        clusterName === undefined
          ? "Run join-as-master --set CLUSTERNAME=NAME."
          : "Pass --storage-api-url https://HOST, or run join-as-master --set PUBLIC_HOST=HOST: then the edge serves it.",
    });
  }
  const isOfEdge = edge !== null && new URL(storageApiUrl).hostname === edge.host;
  const storageApiCa = isOfEdge ? await readPrivateCa(world.host, edge) : null;
  const { token, invite, fingerprint } = await createInvite({
    cluster: openOwnCluster(world, master),
    key: await world.readSigningKey(layout.signingKey),
    id: world.host.random.hex(ID_BYTES),
    now: world.host.clock.now(),
    lifetimeMs,
    clusterName,
    clusterSecret: values("CLUSTER_SECRET") ?? world.hash(clusterName),
    ...(await otherMasters(world, master, clusterName)),
    storageApiUrl,
    storageApiCa,
    nodeName: flags.name ?? null,
    bootstrap: flags.bootstrap,
    bridges: await world.host.docker.bridgeSubnets(),
  });
  const hosts = onlyPrivateHosts(invite.bootstrap);
  if (hosts !== null) {
    const found = `The invite has private addresses only (${hosts.join(", ")}).`;
    const text =
      values("KUBO_PRIVATE_NETWORK") === "true"
        ? `${found} This master connects over them; join each node with --set KUBO_PRIVATE_NETWORK=true, or its kubo does not.`
        : `${found} If the nodes are in that network, kubo connects over it only with KUBO_PRIVATE_NETWORK=true: run join-as-master --set KUBO_PRIVATE_NETWORK=true here, and join each node with the same --set. If they are elsewhere, pass an address that they can reach: --bootstrap /dns4/HOST/tcp/9096/p2p/${invite.trustedPeers[0] ?? "PEERID"}.`;
    world.reporter.listen({ type: "warning", text });
  }
  const { id } = invite.registration;
  const others = await withMasterDatabase(world, master, "invite", async (database) => {
    const before = invite.nodeName === null ? [] : await listInvites(database, clusterName);
    await recordInvite(database, clusterName, {
      id,
      kind: "node",
      name: invite.nodeName,
      verifyingKey: invite.publicPem,
      issuedAt: invite.issuedAt,
      expiresAt: invite.expiresAt,
    });
    const isOpen = (record: InviteRecord) => stateOf(record, invite.issuedAt) === "unused";
    return before.filter((record) => record.name === invite.nodeName && isOpen(record));
  });
  if (others.length > 0) {
    const ids = others.map((record) => `fula-node invite revoke ${record.id}`);
    const text = `There ${others.length === 1 ? "is another open invite" : `are ${others.length} other open invites`} for the name ${invite.nodeName ?? ""}, and the first node that joins gets it. If you do not need the other: ${ids.join("; ")}.`;
    world.reporter.listen({ type: "warning", text });
  }
  const http = trusting(world.host.http, storageApiCa === null ? null : pemOfCertificates(storageApiCa));
  for (const text of await findUrlProblems(http, storageApiUrl, clusterName))
    world.reporter.listen({ type: "warning", text });
  world.reporter.result({
    data: { verb: "invite create", token, fingerprint, id, expiresAt: invite.expiresAt.toISOString() },
    lines: [
      token,
      "",
      `Key fingerprint: ${fingerprint}`,
      "                 Send it over another channel than the line above.",
      `Valid until:     ${invite.expiresAt.toISOString()}, for one node`,
      `To revoke it:    fula-node invite revoke ${id}`,
    ],
  });
  return "ok";
}

/** The other masters that nodes shall trust: those that this one trusts and that were not removed, with their addresses. */
async function otherMasters(
  world: World,
  master: InstalledMaster,
  pool: string,
): Promise<{ readonly otherMasters: readonly string[]; readonly otherAddresses: readonly string[] }> {
  const trusted = peersIn(master.values("MASTER_CLUSTER_PEERIDS") ?? "");
  if (trusted.length === 0) return { otherMasters: [], otherAddresses: [] };
  const { masters, removed } = await withMasterDatabase(world, master, "invite", (database) =>
    readPoolTrust(database, pool),
  );
  const peers = trusted.filter((peer) => !removed.some(({ peerId }) => peerId === peer));
  const addresses = masters.flatMap(({ peer }) =>
    peer !== null && peers.includes(peer.peerId) ? peer.addresses : [],
  );
  return { otherMasters: peers, otherAddresses: addresses };
}

/** 128 bits. */
const ID_BYTES = 16;

/** `invite list`: every invite of the pool with its state, the newest first. */
export async function inviteList(flags: { readonly baseDir?: string }, world: World): Promise<VerbExit> {
  const master = await readInstalledMaster(world, flags.baseDir);
  const pool = poolOf(master);
  const records = await withMasterDatabase(world, master, "invite", (database) =>
    listInvites(database, pool),
  );
  const now = world.host.clock.now();
  const parseKey = await world.loadKeyParser();
  const stale = staleSpans(parseKnown(await world.host.files.readText(master.layout.edgeKnown)));
  const given = { path: master.layout.edgeKnown, values: master.values, hash: world.hash };
  for (const text of await findEdgeWarnings(world.host, given))
    world.reporter.listen({ type: "warning", text });
  const isOld = (record: InviteRecord) =>
    record.kind === "node" && stateOf(record, now) === "unused" && isInSpans(record.issuedAt, stale);
  const rows = records.map((record) => [
    record.id,
    `${stateOf(record, now)}${isOld(record) ? ", old" : ""}`,
    `until ${record.expiresAt.toISOString().slice(0, 16).replace("T", " ")}`,
    record.boundPeer !== null
      ? `used by ${userOf(record)}`
      : record.kind === "master"
        ? "for a master"
        : `for ${record.name ?? "any name"}`,
  ]);
  world.reporter.result({
    data: {
      verb: "invite list",
      pool,
      invites: records.map((record) => ({
        ...printable(record),
        state: stateOf(record, now),
        hasOldAddress: isOld(record),
        fingerprint: parseKey(record.verifyingKey, "the invite's key").id,
      })),
    },
    lines: [
      records.length === 0
        ? `There are no invites to pool ${pool}.`
        : `${countOf(records.length, "invite")} to pool ${pool} (times are UTC):`,
      ...world.reporter.table(rows),
      ...(records.some(isOld) ? ["old: it has an address or a CA that is not served any more."] : []),
    ],
  });
  return "ok";
}

/** `invite revoke ID`: no node can register a name with it any more. */
export async function inviteRevoke(
  id: string,
  flags: { readonly baseDir?: string },
  world: World,
): Promise<VerbExit> {
  const master = await readInstalledMaster(world, flags.baseDir);
  const pool = poolOf(master);
  const record = await withMasterDatabase(world, master, "invite", (database) =>
    revokeInvite(database, pool, id.trim().toLowerCase()),
  );
  if (record === null)
    throw new OperatorError({
      exit: "usage",
      what: `Pool ${pool} has no invite with the id ${JSON.stringify(id.slice(0, 80))}.`,
      remedy:
        "See the ids with fula-node invite list. An invite of 0.1.0 or 0.2.0 has no id; it can't register a name.",
    });
  const effect =
    record.kind === "master"
      ? effectOnMaster(record)
      : record.boundPeer === null
        ? [
            "Nobody can register a name with it any more. Nobody had used it.",
            "It still says where the pool is: who has it can follow the pool without a name.",
          ]
        : record.boundNames.length === 0
          ? [
              `It was used by ${userOf(record)}: it has left, or its name was released.`,
              "That node can't register a name with it any more.",
            ]
          : [
              `It was used by ${userOf(record)}.`,
              "That node stays in the pool and keeps its names; it gets no further one.",
              "Its names become free when it leaves (fula-node leave on that node).",
            ];
  world.reporter.result({
    data: { verb: "invite revoke", ...printable(record), state: "revoked" },
    lines: [`Revoked: ${record.id}.`, ...effect],
  });
  return "ok";
}

function effectOnMaster({ boundPeer, boundNames }: InviteRecord): readonly string[] {
  return boundPeer === null
    ? ["No machine can become a master with it any more. Nobody had used it."]
    : [
        `It was used by the master ${boundNames[0] ?? boundPeer}, which stays.`,
        "To remove that master: fula-node trust remove.",
      ];
}

function printable({ boundPeer, boundAt, boundNames, ...record }: InviteRecord) {
  const { id, kind, name, issuedAt, expiresAt, revokedAt } = record;
  return {
    id,
    kind,
    name,
    issuedAt,
    expiresAt,
    revokedAt,
    usedBy: boundPeer === null ? null : { peerId: boundPeer, names: boundNames, at: boundAt },
  };
}

/** The pool of a master. Throws (`settings`) if it has none. */
function poolOf({ values }: InstalledMaster): string {
  const pool = values("CLUSTERNAME");
  if (pool !== undefined) return pool;
  throw new OperatorError({
    exit: "settings",
    what: "CLUSTERNAME is not set.",
    remedy: "Run join-as-master --set CLUSTERNAME=NAME.",
  });
}

/** `invite show TOKEN`: prints an invite's contents. Exit 28 if it was altered. The cluster secret is not printed. */
export async function inviteShow(
  token: string,
  flags: { readonly fingerprint?: string },
  world: World,
): Promise<VerbExit> {
  const text = await tokenText(token, world);
  const options = {
    now: world.host.clock.now(),
    expected: flags.fingerprint ?? null,
    parseKey: await world.loadKeyParser(),
  };
  if (isMasterInvite(text)) return showMasterInvite(readMasterInvite(text, options), world);
  const { invite, fingerprint, expired } = readInvite(text, options);
  const { clusterSecret: _, publicPem: __, registration, ...shown } = invite;
  const id = registration?.id ?? null;
  world.reporter.result({
    data: { verb: "invite show", ...shown, id, fingerprint, expired },
    lines: world.reporter.table([
      ["id", id ?? "none: an invite of 0.1.0 or 0.2.0, which can't register a name"],
      ["pool", invite.clusterName],
      ["trusted masters", invite.trustedPeers.join(" ")],
      ["addresses", invite.bootstrap.join(" ")],
      ["storage API", invite.storageApiUrl],
      ...(invite.storageApiCa === null ? [] : [["its CA", "a private one, trusted for that address only"]]),
      ["name", invite.nodeName ?? "chosen by the node"],
      ["issued", invite.issuedAt.toISOString()],
      [expired ? "EXPIRED" : "valid until", invite.expiresAt.toISOString()],
      ["key fingerprint", `${fingerprint} (compare it with the one from the master's operator)`],
    ]),
  });
  return "ok";
}

function showMasterInvite(
  { invite, fingerprint, expired }: ReturnType<typeof readMasterInvite>,
  { reporter }: Pick<World, "reporter">,
): VerbExit {
  const { publicPem: _, ...shown } = invite;
  reporter.result({
    data: { verb: "invite show", kind: "master", ...shown, fingerprint, expired },
    lines: reporter.table([
      ["id", invite.id],
      ["for", "another master"],
      ["pool", invite.clusterName],
      ...describeInvite(invite),
      ["issued", invite.issuedAt.toISOString()],
      [expired ? "EXPIRED" : "valid until", invite.expiresAt.toISOString()],
      ["key fingerprint", `${fingerprint} (compare it with the one from the master's operator)`],
    ]),
  });
  return "ok";
}

function usage(what: string): OperatorError {
  return new OperatorError({ exit: "usage", what });
}
