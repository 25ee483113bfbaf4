import type { Cluster } from "../cluster/client.ts";
import { optionsKey, readWholePin } from "../cluster/pin.ts";
import { messageOf, OperatorError } from "../errors.ts";
import { clusterIdOf } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import type { Clock } from "../machine/clock.ts";
import type { SigningKey, VerifyingKey } from "../machine/signing.ts";
import type { AlarmChannels } from "../pinset/alerts.ts";
import { DRILL_LIFE_MS } from "../pinset/drill-mark.ts";
import { restoreSnapshot } from "../pinset/restore/restore.ts";
import { checkChain } from "../pinset/snapshot/links.ts";
import { snapshotFiles } from "../pinset/snapshot/manifest.ts";
import type { SnapshotFile, SnapshotStore } from "../pinset/snapshot/store.ts";
import { takeSnapshot, type TakeResult } from "../pinset/snapshot/take.ts";
import { type VerifiedSnapshot, verifySnapshot } from "../pinset/snapshot/verify.ts";
import type { PinsetWorkspace } from "../pinset/workspace.ts";
import { countOf, decimalBytes, duration } from "../units.ts";
import {
  type ContentDeps,
  copiesOf,
  type DrillContent,
  makeContent,
  openDrillCluster,
  pinContent,
  removeContents,
  stoppable,
  until,
} from "./drill-content.ts";
import { DrillFinding, outcomeOf } from "./drill-finding.ts";
import type { Drill, DrillContext } from "./drill.ts";
import { keepClear } from "./keep-clear.ts";
import { askedPin, onlyPinOf, withProgress } from "./one-pin.ts";
import { SPOILINGS, withSpoiledCopy } from "./spoiled-copy.ts";

/** What the drill needs. */
export interface SnapshotDrillDeps extends ContentDeps, Pick<JoinDeps, "environment" | "hash" | "version"> {
  openWorkspace(): Promise<PinsetWorkspace>;
  openSnapshots(directory: string): Promise<SnapshotStore>;
  openSnapshotFile(path: string): Promise<SnapshotFile>;
  listSnapshotFiles(directory: string): Promise<readonly SnapshotFile[]>;
  openChannels(given: {
    readonly log: string;
    readonly command: string | undefined;
    readonly pool: string;
  }): Promise<AlarmChannels>;
  readSigningKey(path: string): Promise<SigningKey>;
  readVerifyingKey(paths: readonly string[]): Promise<VerifyingKey>;
}

/** What is rehearsed: the same functions that the verbs call. */
interface SnapshotWork {
  readonly take: typeof takeSnapshot;
  readonly verify: typeof verifySnapshot;
  readonly restore: typeof restoreSnapshot;
}

/** The drill's pin lives so long at most, whatever becomes of the drill. */
const LIFE_MS = DRILL_LIFE_MS;
/** So long ipfs-cluster may take to pin or to unpin the drill's block, which the master's kubo has already. */
const CLUSTER_MS = 45_000;
/** A new snapshot and a damaged copy of it may be that much larger than the last snapshot. */
const GROWTH = 1.2;
/** So much stays free on each disk. */
const RESERVE_BYTES = 256 * 1000 ** 2;
const LOOK = "run fula-node status, and repair what does not work; then run the drill again";

/** Creates the drill; `work` is what a test replaces to see it fail. */
export function createSnapshotDrill(
  work: SnapshotWork = { take: takeSnapshot, verify: verifySnapshot, restore: restoreSnapshot },
): Drill<SnapshotDrillDeps> {
  return {
    id: "D6",
    title: "snapshot",
    proves:
      "A snapshot of the live pinset can be taken, signed and verified, a damaged one is refused, and a pin that is gone comes back from it.",
    isScheduled: true,
    deadlineMs: 120_000,

    async run(deps, context) {
      const evidence: Record<string, string> = {};
      const { clock } = deps.host;
      await checkSpace(deps, context.master.layout);
      const cluster = openDrillCluster(deps, context.master, context.stop);
      const given: Given = {
        deps,
        context,
        work,
        evidence,
        cluster: withProgress(cluster, clock, context.report),
        clock: stoppable(clock, context.stop),
      };
      try {
        return await outcomeOf(evidence, () => prove(given));
      } finally {
        cluster.close();
      }
    },

    cleanUp: (deps, given) => removeContents(deps, given),
  };
}

/** The drill of `snapshot take`, `verify` and `restore`. */
export const snapshotDrill = createSnapshotDrill();

interface Given {
  readonly deps: SnapshotDrillDeps;
  readonly context: DrillContext;
  readonly work: SnapshotWork;
  readonly evidence: Record<string, string>;
  readonly cluster: Cluster;
  readonly clock: Clock;
}

async function prove(given: Given): Promise<{ readonly state: "passed"; readonly summary: string }> {
  const { deps, context, cluster, clock, evidence } = given;
  const { master, report, stop } = context;
  await keepClear(clock, "snapshot", report);
  const content = await makeContent(deps, master, "snapshot");
  const place = await makePlace(given, content);
  stop.throwIfAborted();
  const copies = { min: 0, max: 0, peers: [] };
  await pinContent(deps, { master, cluster }, content, { copies, lifeMs: LIFE_MS });
  evidence["the drill's pin"] = `${content.name}, ${content.cid}`;
  await untilStored(given, content.cid);
  const pinned = readWholePin(await cluster.allocation(content.cid));

  report(`taking a snapshot of the pinset into ${place}`);
  const takenMs = clock.monotonicMs();
  const taken = await take(given, content, place);
  const took = duration(clock.monotonicMs() - takenMs);
  evidence["taken"] = `${countOf(taken.count, "pin")}, ${decimalBytes(taken.sizeBytes)}, in ${took}`;
  const snapshot = await verify(given, `${place}/snapshots`, taken.name);
  evidence["verified"] = `signed with the key ${snapshot.keyId}`;
  stop.throwIfAborted();
  await refuseSpoiled(given, place, taken.name);

  report("unpinning the drill's pin, and restoring it");
  const outcome = await cluster.unpin(content.cid);
  if (outcome === "absent")
    throw new DrillFinding("somebody else unpinned the drill's pin", { todo: "run the drill again" });
  const isGone = async () => (await copiesOf(cluster, content.cid)).size === 0;
  if (!(await until(clock, CLUSTER_MS, isGone)))
    throw new DrillFinding(
      `nodes still had the drill's content ${duration(CLUSTER_MS)} after it was unpinned`,
      { todo: LOOK },
    );
  const unpinnedMs = clock.monotonicMs();
  await restore(given, content, snapshot);
  const restored = readWholePin(await cluster.allocation(content.cid));
  if (restored === null)
    throw new DrillFinding("the restore ended well, but the pin is not in the pinset again", {
      todo: REPORT,
    });
  if (pinned === null || optionsKey(restored.options) !== optionsKey(pinned.options))
    throw new DrillFinding("the pin came back with other options than it had", { todo: REPORT });
  await untilStored(given, content.cid);
  const back = duration(clock.monotonicMs() - unpinnedMs);
  evidence["restored"] = `in the pinset and stored again after ${back}`;
  const what = `${countOf(taken.count, "pin")}, ${decimalBytes(taken.sizeBytes)}`;
  return {
    state: "passed",
    summary: `took and verified a snapshot (${what}), ${SPOILINGS.length} damaged copies of it were refused, and the pin that was gone came back in ${back}`,
  };
}

const REPORT = "report it with the output of fula-node drill D6 --json";

/**
 * Where the snapshots of the drill go: below the operator's, because another disk would prove nothing about theirs. Before
 * there are any, the drill's own directory is on the disk on which they will be. It is made before anything is pinned.
 */
async function makePlace({ deps, context }: Given, content: DrillContent): Promise<string> {
  const { files } = deps.host;
  const { snapshotsDir } = context.master.layout;
  if ((await files.stat(snapshotsDir)) === null) return content.directory;
  const place = `${snapshotsDir}/${content.name}`;
  await files.makeDirectory(place, { mode: 0o700 });
  return place;
}

async function untilStored({ cluster, clock }: Given, cid: string): Promise<void> {
  const isStored = async () => (await copiesOf(cluster, cid)).size > 0;
  if (await until(clock, CLUSTER_MS, isStored)) return;
  throw new DrillFinding(`no node had the drill's content ${duration(CLUSTER_MS)} after it was pinned`, {
    todo: LOOK,
  });
}

/** With everything of its own: the operator's snapshots, chain, heartbeat and alarms do not know of it. */
async function take(
  { deps, context, work, cluster }: Given,
  { directory }: DrillContent,
  place: string,
): Promise<TakeResult> {
  const { files, clock } = deps.host;
  const { master, report } = context;
  const { values, layout } = master;
  const pool = values("CLUSTERNAME") ?? "";
  const taken = await work.take({
    cluster,
    store: await deps.openSnapshots(`${place}/snapshots`),
    key: await deps.readSigningKey(layout.signingKey),
    clock,
    channels: await deps.openChannels({ log: `${directory}/alerts.log`, command: undefined, pool }),
    heartbeat: { files, clock, path: `${directory}/heartbeat.json` },
    workspace: await deps.openWorkspace(),
    memory: { files, path: `${directory}/chain.json` },
    accept: false,
    clusterName: pool,
    clusterId: clusterIdOf(deps, master),
    keep: 1,
    dropShare: Number(values("SNAPSHOT_DROP_PERCENT")) / 100,
    toolVersion: deps.version,
    report,
  });
  if (taken.exit === "ok") return taken;
  throw new DrillFinding(
    `the first snapshot in an empty directory raised an alarm: ${taken.alarms.join(" ")}`,
    { todo: REPORT },
  );
}

async function verify(given: Given, directory: string, name: string): Promise<VerifiedSnapshot> {
  try {
    return await verifyIn(given, directory, name);
  } catch (thrown) {
    if (!isRefusal(thrown)) throw thrown;
    const { signingKey, verifyingKey } = given.context.master.layout;
    throw new DrillFinding(`the snapshot that was just taken was refused: ${messageOf(thrown)}`, {
      todo: `check that ${verifyingKey} is the public key of ${signingKey}: openssl pkey -in ${signingKey} -pubout`,
    });
  }
}

/** As `snapshot verify` does, with the key that the operator gives away. */
async function verifyIn(
  { deps, context, work }: Given,
  directory: string,
  name: string,
): Promise<VerifiedSnapshot> {
  const { layout } = context.master;
  const keys = [await deps.readVerifyingKey([layout.verifyingKey, layout.signingKey])];
  const store = await deps.openSnapshots(directory);
  const sha256 = (bytes: Uint8Array): string => store.sha256(bytes);
  const order = checkChain(await deps.listSnapshotFiles(directory), keys, sha256);
  return work.verify(await deps.openSnapshotFile(`${directory}/${name}`), keys, { sha256, order });
}

async function refuseSpoiled(given: Given, place: string, name: string): Promise<void> {
  const { context, evidence } = given;
  const { body, manifest, signature } = snapshotFiles(name);
  const files = { bodyFile: body, manifestFile: manifest, signatureFile: signature };
  const snapshot = { directory: `${place}/snapshots`, ...files };
  for (const how of SPOILINGS) {
    context.stop.throwIfAborted();
    const why = await withSpoiledCopy(snapshot, `${place}/spoiled`, how, async (copy) => {
      try {
        await verifyIn(given, copy, name);
        return null;
      } catch (thrown) {
        if (isRefusal(thrown)) return messageOf(thrown);
        throw thrown;
      }
    });
    if (why === null)
      throw new DrillFinding(`a damaged snapshot was accepted as genuine (${how})`, { todo: REPORT });
    evidence[`refused: ${how}`] = why;
  }
}

function isRefusal(thrown: unknown): boolean {
  return thrown instanceof OperatorError && thrown.exit === "integrity";
}

/** Of the snapshot and of the pinset, the restore sees the drill's pin alone: what somebody unpinned meanwhile stays unpinned. */
async function restore(
  { deps, context, work, cluster, clock }: Given,
  { cid, directory }: DrillContent,
  snapshot: VerifiedSnapshot,
): Promise<void> {
  const { master } = context;
  const result = await work.restore({
    snapshot,
    cluster: askedPin(cluster, cid),
    workspace: onlyPinOf(await deps.openWorkspace(), cid),
    clock,
    clusterId: clusterIdOf(deps, master),
    clusterName: master.values("CLUSTERNAME") ?? "",
    fromOtherCluster: false,
    repairOptions: false,
    dryRun: false,
    concurrency: 1,
    notes: { files: deps.host.files, directory: `${directory}/restore` },
    report: () => {},
    progress: () => {},
  });
  if (result.before.missing === 0)
    throw new DrillFinding("the snapshot does not have the pin that was there when it was taken", {
      todo: REPORT,
    });
  if (result.exit !== "ok" || result.run?.pinned !== 1)
    throw new DrillFinding(`the pin was not restored: ${result.summary}`, { todo: LOOK });
}

/** The last snapshot of this master says how large one is. Without one, the disk is checked while it is written, as always. */
async function checkSpace(
  deps: SnapshotDrillDeps,
  { baseDir, snapshotsDir }: DrillContext["master"]["layout"],
): Promise<void> {
  const snapshots = await (await deps.openSnapshots(snapshotsDir)).list();
  const bytes = Math.ceil(GROWTH * (snapshots.at(-1)?.bodyBytes ?? 0));
  const hasOwnPlace = (await deps.host.files.stat(snapshotsDir)) !== null;
  const places = [
    { path: hasOwnPlace ? snapshotsDir : baseDir, needed: 3 * bytes + RESERVE_BYTES },
    { path: deps.environment["TMPDIR"] ?? "/var/tmp", needed: bytes + RESERVE_BYTES },
  ];
  for (const { path, needed } of places) {
    const { freeBytes } = await deps.host.files.space(path);
    if (freeBytes >= needed) continue;
    throw new OperatorError({
      exit: "unavailable",
      what: `${path} has ${decimalBytes(freeBytes)} free, and the drill needs ${decimalBytes(needed)} there for a snapshot.`,
      remedy: "Free some space there, then run this again.",
    });
  }
}
