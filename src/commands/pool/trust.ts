import type { PostgresPool } from "../../database/postgres.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import {
  describeRest,
  findMeant,
  type Meant,
  type PoolMaster,
  type PoolTrust,
  readPoolTrust,
  refuseReplaced,
  removeMaster,
  takeBack,
} from "../../federation/pool-trust.ts";
import {
  describeByHand,
  doesTrust,
  peersIn,
  readWriterTrust,
  type WriterTrust,
} from "../../federation/writer-trust.ts";
import { planTrust } from "../../join/change-trust.ts";
import { type InstalledMaster, openOwnCluster, readInstalledMaster } from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import { refuseOtherBaseDir, takeLocks } from "../../join/one-node.ts";
import { lockNames } from "../../settings/layout.ts";
import { wrap } from "../../ui/text.ts";
import type { World } from "../../world.ts";

/** The flags of `trust add` and `trust remove`. */
export interface TrustFlags {
  readonly baseDir?: string;
  readonly dryRun: boolean;
  readonly yes: boolean;
  /** `trust remove`: also a master that was heard of within the last minutes. */
  readonly stillRuns?: boolean;
}

/** What a verb knows of its master and its pool. */
interface Scene {
  readonly master: InstalledMaster;
  readonly database: PostgresPool;
  readonly pool: string;
  readonly ownId: string | null;
  readonly ownPeer: string;
  readonly trust: PoolTrust;
  readonly writer: WriterTrust;
}

/** `trust list`: every peer that this master trusts or should trust, the master that it is, and whether it is connected. */
export async function trustList(flags: { readonly baseDir?: string }, world: World): Promise<VerbExit> {
  const master = await readInstalledMaster(world, flags.baseDir);
  return withMasterDatabase<VerbExit>(world, master, "trust", async (database) => {
    const { trust, writer, ownPeer, ownId } = await readScene(world, master, database);
    const members = await openOwnCluster(world, master).peers();
    const connected = new Set(members.filter(({ error }) => error === "").map(({ id }) => id));
    const others = trust.masters.filter(({ id }) => id !== ownId);
    const known = others.flatMap(({ peer }) => (peer === null ? [] : [peer.peerId]));
    const listed = [...new Set([...(writer.trusts ?? []), ...known])].filter((id) => id !== ownPeer);
    const peers = listed.map((peerId) => {
      const its = others.find(({ peer }) => peer?.peerId === peerId);
      const removed = trust.removed.find((one) => one.peerId === peerId);
      return {
        peerId,
        master: its?.name ?? removed?.name ?? null,
        removed: its === undefined && removed !== undefined,
        trusted: writer.trusts === null ? null : doesTrust(writer.trusts, peerId),
        trustsThis: its?.peer?.trusts == null ? null : doesTrust(its.peer.trusts, ownPeer),
        connected: peerId === "*" ? null : connected.has(peerId),
        lastSeen: its?.heartbeatAt ?? null,
      };
    });
    const unrecorded = others.filter(({ peer }) => peer === null).map(({ name }) => name);
    const rows = peers.map((one) => [
      one.master ??
        (one.peerId === "*" ? "every peer" : nameless(members.find(({ id }) => id === one.peerId))),
      one.removed
        ? `removed, ${one.trusted === true ? "still trusted" : "not trusted"}`
        : one.trusted === null
          ? "not known"
          : one.trusted
            ? "trusted"
            : "not trusted",
      one.connected === null ? "" : one.connected ? "connected" : "not connected",
      one.trustsThis === false ? `${one.peerId}; does not trust this master` : one.peerId,
    ]);
    world.reporter.result({
      data: { verb: "trust list", peerId: ownPeer, writer: writer.place.kind, peers, unrecorded },
      lines: [
        rows.length === 0
          ? "This master trusts no other peer, and the pool has no other master."
          : "The masters, and the peers that this master trusts:",
        ...world.reporter.table(rows),
        `This master is ${ownPeer}.`,
        ...unrecorded.map((name) => `The peer of ${name} is not recorded: run join-as-master there.`),
      ],
    });
    return "ok";
  });
}

/** A peer may give itself any name. */
function nameless(member: { readonly peername: string } | undefined): string {
  return member === undefined || member.peername === ""
    ? "no known master"
    : `no known master, calls itself ${member.peername}`;
}

/** `trust add PEER`: the writer of this master trusts that peer. A master that was removed may come back. */
export function trustAdd(given: string, flags: TrustFlags, world: World): Promise<VerbExit> {
  return change("trust add", flags, world, async (scene) => {
    const meant = clear(findMeant(scene.trust, given), given, scene);
    const removed = meant.kind === "removed" ? meant.removed : null;
    const peerId = peerOf(meant);
    if (removed !== null) refuseReplaced(scene.trust, removed);
    if (peerId === scene.ownPeer || (meant.kind === "master" && meant.master.id === scene.ownId))
      throw usage(`${given} is this master itself, which always trusts itself.`);
    if (peerId === null && removed === null)
      throw usage(
        `The cluster peer of ${given} is not recorded.`,
        "Run join-as-master there, or pass its peer id (fula-node status there shows it).",
      );
    const { writer } = scene;
    const saved = savedPeers(scene);
    return {
      peerId,
      wanted: peerId === null ? saved : [...new Set([...saved, peerId])],
      isByHand: peerId !== null && writer.trusts !== null && !doesTrust(writer.trusts, peerId),
      byHand: peerId === null ? [] : [...new Set([...(writer.trusts ?? []), peerId])],
      registry:
        removed === null
          ? null
          : {
              question: `${removed.name} was removed by ${removed.removedBy}, ${removed.removedAt}. Let it come back?`,
              planned: `${removed.name} was removed by ${removed.removedBy}, ${removed.removedAt}. This would let it come back.`,
              done: `${removed.name} may come back: run join-as-master there.`,
              write: () => takeBack(scene.database, removed),
            },
    };
  });
}

/** `trust remove PEER`: the pool forgets a master that is gone, and the writer of this master does not trust its peer. */
export function trustRemove(given: string, flags: TrustFlags, world: World): Promise<VerbExit> {
  return change("trust remove", flags, world, async (scene) => {
    const { trust, writer, ownPeer, ownId, master } = scene;
    const meant = clear(findMeant(trust, given), given, scene);
    const peerId = peerOf(meant);
    if (peerId === ownPeer || (meant.kind === "master" && meant.master.id === ownId))
      throw usage(
        `${given} is this master itself.`,
        "To take this machine out of its pool: fula-node leave. To remove it from outside, run this on another master.",
      );
    const saved = savedPeers(scene);
    const isTrusted = peerId !== null && [...saved, ...(writer.trusts ?? [])].includes(peerId);
    if (meant.kind === "peer" && !isTrusted)
      throw usage(`${given} does not belong to a master of this pool, and this master does not trust it.`);
    if (meant.kind === "master") {
      if (!trust.masters.some(({ id }) => id === ownId))
        throw new OperatorError({
          exit: "preflight",
          what: "This master is not recorded in the database, so it removes no other one.",
          why: "The last master of a pool is never removed.",
          remedy: "Run fula-node join-as-master first.",
        });
      await confirmSilent(meant.master, flags, world);
    }
    const left = (some: readonly string[]) => some.filter((one) => one !== peerId);
    const known = trust.masters.flatMap(({ id, peer }) =>
      id === ownId || peer === null ? [] : [peer.peerId],
    );
    const running = writer.trusts ?? [];
    return {
      peerId,
      wanted: left(saved),
      isByHand: peerId !== null && doesTrust(running, peerId),
      // A list that trusts everybody can't leave one out: then the other masters are named.
      byHand: left(running.includes("*") ? known : running),
      registry:
        meant.kind === "master"
          ? {
              question: `Remove the master ${meant.master.name} from the pool?`,
              planned: `This would remove the master ${meant.master.name} from the pool: its record, its flags, and what it holds of the billing.${describeHeard(meant.master, flags)}`,
              done: `The pool has forgotten ${meant.master.name}: its record, its flags, and what it held of the billing.`,
              write: async () => {
                const by = master.values("CLUSTER_PEERNAME") ?? "a master";
                await removeMaster(scene.database, { id: meant.master.id, by });
              },
            }
          : null,
    };
  });
}

/** What a verb wants to change. */
interface Wanted {
  /** The peer that it is about; null if it is not known. */
  readonly peerId: string | null;
  /** MASTER_CLUSTER_PEERIDS afterwards. */
  readonly wanted: readonly string[];
  /** True if an adopted writer would have to be changed. */
  readonly isByHand: boolean;
  /** The trusted peers of an adopted writer afterwards. */
  readonly byHand: readonly string[];
  /** The change of the pool's records; null if there is none. */
  readonly registry: {
    readonly question: string;
    /** What a dry run says in place of the question. */
    readonly planned: string;
    readonly done: string;
    readonly write: () => Promise<void>;
  } | null;
}

async function change(
  verb: string,
  flags: TrustFlags,
  world: World,
  decide: (scene: Scene) => Promise<Wanted>,
): Promise<VerbExit> {
  const { host, reporter } = world;
  const { layout } = await readInstalledMaster(world, flags.baseDir);
  const since = host.clock.now().toISOString();
  const { node, machine } = lockNames(layout.baseDir);
  const holder = { pid: world.pid, verb, since };
  const lock = flags.dryRun ? null : await takeLocks(world, [node, machine], holder);
  try {
    await refuseOtherBaseDir(host, "master", layout.baseDir);
    const master = await readInstalledMaster(world, flags.baseDir);
    return await withMasterDatabase(world, master, "trust", async (database) => {
      const scene = await readScene(world, master, database);
      const wish = await decide(scene);
      const isOurs = scene.writer.place.kind === "ours";
      const bootstrap = bootstrapFor(scene, wish);
      const writer = isOurs ? await planTrust(world, master, { peers: wish.wanted, bootstrap }) : null;
      const restarts = writer?.isNeeded === true;
      await confirm(flags, world, [
        ...(wish.registry === null ? [] : [wish.registry.question]),
        ...(restarts ? ["This restarts ipfs-cluster of this master, for up to a minute. Go on?"] : []),
      ]);
      if (!flags.dryRun) await wish.registry?.write();
      const outcome = restarts
        ? await finish(wish, () => writer.apply({ dryRun: flags.dryRun, since }))
        : null;
      await reporter.close();
      const byHand = !isOurs && wish.isByHand ? describeByHand(scene.writer, wish.byHand) : [];
      const isIdle = wish.registry === null && !restarts && byHand.length === 0;
      const after = flags.dryRun || isIdle ? scene.trust : await readPoolTrust(database, scene.pool);
      const rest =
        isIdle || flags.dryRun ? [] : describeRest(after, { verb, ownId: scene.ownId, peerId: wish.peerId });
      const registry = flags.dryRun ? wish.registry?.planned : wish.registry?.done;
      reporter.result({
        data: {
          verb,
          peerId: wish.peerId,
          dryRun: flags.dryRun,
          registry: registry ?? null,
          changes: outcome?.changes ?? [],
          plan: outcome?.plan ?? [],
          byHand,
          rest,
        },
        lines: isIdle
          ? ["Nothing to do: it is so already."]
          : [
              ...(registry === undefined ? [] : wrap(registry)),
              ...(restarts
                ? [
                    flags.dryRun
                      ? "This would restart ipfs-cluster of this master with the new list."
                      : "The writer of this master has the new list, and works.",
                  ]
                : []),
              ...(byHand.length === 0
                ? []
                : [
                    "fula-node did not create this ipfs-cluster, so it changes nothing there.",
                    "By hand:",
                    ...byHand,
                  ]),
              ...rest,
              ...(flags.dryRun ? ["Dry run: nothing was changed."] : []),
            ],
      });
      return byHand.length > 0 || (flags.dryRun && !isIdle) ? "pending" : "ok";
    });
  } finally {
    await lock?.release();
  }
}

async function readScene(world: World, master: InstalledMaster, database: PostgresPool): Promise<Scene> {
  const { values } = master;
  const pool = values("CLUSTERNAME") ?? "";
  const [trust, writer, { id }] = await Promise.all([
    readPoolTrust(database, pool),
    readWriterTrust(world.host),
    openOwnCluster(world, master).identity(),
  ]);
  return { master, database, pool, ownId: values("MASTER_ID") ?? null, ownPeer: id, trust, writer };
}

function savedPeers({ master }: Scene): readonly string[] {
  return peersIn(master.values("MASTER_CLUSTER_PEERIDS") ?? "");
}

/** The address that the writer connects to: not that of a peer which it stops to trust, but then one of another master. */
function bootstrapFor({ master, trust, ownId }: Scene, { peerId, wanted }: Wanted): string {
  const saved = master.values("MASTER_CLUSTER_BOOTSTRAP") ?? "";
  if (peerId === null || wanted.includes(peerId) || !saved.endsWith(`/p2p/${peerId}`)) return saved;
  const others = trust.masters.filter(
    ({ id, peer }) => id !== ownId && peer !== null && wanted.includes(peer.peerId),
  );
  return others.flatMap(({ peer }) => peer?.addresses ?? [])[0] ?? "";
}

function peerOf(meant: Meant): string | null {
  if (meant.kind === "peer") return meant.peerId;
  if (meant.kind === "master") return meant.master.peer?.peerId ?? null;
  return meant.kind === "removed" ? meant.removed.peerId : null;
}

/** Throws (`usage`) if it is not clear which peer is meant. */
function clear(
  meant: Meant,
  given: string,
  { trust, ownId }: Scene,
): Exclude<Meant, { readonly kind: "several" | "nobody" }> {
  if (meant.kind === "several")
    throw usage(`Several masters have the name ${given}.`, `Give one of these: ${meant.ids.join(", ")}.`);
  if (meant.kind !== "nobody") return meant;
  const names = [...trust.masters.filter(({ id }) => id !== ownId), ...trust.removed].map(({ name }) => name);
  throw usage(
    `${JSON.stringify(given.slice(0, 80))} is neither a peer id nor the name of a master of this pool.`,
    names.length === 0 ? "The pool has no other master." : `The other masters are: ${names.join(", ")}.`,
  );
}

/** What a dry run adds for a master that may still run. */
function describeHeard({ heartbeatAt, isHeard }: PoolMaster, { stillRuns = false }: TrustFlags): string {
  if (!isHeard || stillRuns) return "";
  return ` It was last seen at ${heartbeatAt}, so it may still run: the real run needs --still-runs.`;
}

/** A master that may still run is removed only by an explicit consent. */
async function confirmSilent(
  { name, heartbeatAt, isHeard }: PoolMaster,
  { stillRuns = false, dryRun }: TrustFlags,
  { questions }: World,
): Promise<void> {
  if (!isHeard || stillRuns || dryRun) return;
  const what = `The master ${name} was last seen at ${heartbeatAt}, so it may still run.`;
  if (
    questions !== null &&
    (await questions.confirm(`${name} was last seen at ${heartbeatAt}. Remove it all the same?`, false))
  )
    return;
  throw new OperatorError({
    exit: "preflight",
    what,
    why: "Its services stop within a minute once it is removed, and what it pins later reaches nobody.",
    remedy: `If it still works: fula-node leave there. To remove it from here all the same, run again with --still-runs.`,
  });
}

async function confirm(
  { yes, dryRun }: TrustFlags,
  { questions }: World,
  asked: readonly string[],
): Promise<void> {
  if (yes || dryRun || asked.length === 0) return;
  if (questions === null)
    throw new OperatorError({
      exit: "preflight",
      what: `Confirmation required: ${asked.join(" ")}`,
      why: "There is no terminal to ask on.",
      remedy: "Look at --dry-run, then run again with --yes.",
    });
  for (const question of asked)
    if (!(await questions.confirm(question, true)))
      throw new OperatorError({ exit: "pending", what: "You answered no.", remedy: "Run it again later." });
}

/** After a change of the pool's records, an error must not say that nothing was changed. */
async function finish<Result>({ registry }: Wanted, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (thrown) {
    if (registry === null || !(thrown instanceof OperatorError) || thrown.changed !== undefined) throw thrown;
    throw thrown.withChanged(`${registry.done} Running the same command again continues with the writer.`);
  }
}

function usage(what: string, remedy?: string): OperatorError {
  return new OperatorError({ exit: "usage", what, ...(remedy === undefined ? {} : { remedy }) });
}
