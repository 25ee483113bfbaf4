import { EXIT_CODES, OperatorError, type VerbExit } from "../errors.ts";
import { resolveBaseDir } from "../join/base-dir.ts";
import { clusterIdOf, openOwnCluster, readInstalledMaster } from "../join/installed-node.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import { diffPinsets, type PinDifference } from "../pinset/snapshot/diff.ts";
import { type ListedSnapshot, listSnapshots } from "../pinset/snapshot/list.ts";
import type { SnapshotFile } from "../pinset/snapshot/store.ts";
import { takeSnapshot } from "../pinset/snapshot/take.ts";
import { checkChain, liveSource, type PinsetSource, type Sha256, snapshotSource, type VerifiedSnapshot, verifySnapshot } from "../pinset/snapshot/verify.ts";
import { CRON_PERIODS_MS, lockNames, MASTER_BASE_DIR, masterLayout, type MasterLayout } from "../settings/layout.ts";
import { age } from "../units.ts";
import type { World } from "../world.ts";

/** Ends a run that hangs, so that it does not hold the lock for ever. */
const DEADLINE_MS = 3 * 3_600_000;

/** `snapshot take`: takes a signed snapshot of the pinset. Cron runs it. */
export async function snapshotTake(flags: { readonly baseDir?: string }, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  const { layout, values } = master;
  const lock = await world.takeLock(lockNames(layout.baseDir).snapshot, {
    pid: world.pid,
    verb: "snapshot take",
    since: host.clock.now().toISOString(),
  });
  try {
    await world.rotateLog(layout.snapshotLog);
    const channels = await world.openChannels({
      log: layout.alertLog,
      command: values("ALERT_COMMAND"),
      pool: values("CLUSTERNAME") ?? "",
    });
    const result = await takeSnapshot({
      cluster: openOwnCluster(world, master, { deadlineMs: DEADLINE_MS }),
      store: await world.openSnapshots(layout.snapshotsDir),
      key: await world.readSigningKey(layout.signingKey),
      clock: host.clock,
      alerts: world.openAlerts(layout.alertLog),
      heartbeat: {
        files: host.files,
        clock: host.clock,
        path: layout.snapshotHeartbeat,
        channels,
        watched: { path: layout.sweepHeartbeat, everyMs: CRON_PERIODS_MS.sweep },
      },
      clusterName: values("CLUSTERNAME") ?? "",
      clusterId: clusterIdOf(world, master),
      keep: Number(values("KEEP")),
      dropShare: Number(values("SNAPSHOT_DROP_PERCENT")) / 100,
      toolVersion: world.version,
      report: (line) => reporter.note(line),
    });
    reporter.result({
      data: { verb: "snapshot take", ...result },
      lines: [`${host.clock.now().toISOString()} ${result.summary}`],
    });
    return result.exit === "pending" ? "pending" : "ok";
  } finally {
    await lock.release();
  }
}

/** `snapshot list`: verifies every snapshot completely and lists them. Throws (`integrity`) after the list if one of them is not valid. */
export async function snapshotList(
  flags: SnapshotFlags & { readonly dir?: string },
  world: World,
): Promise<VerbExit> {
  const directory = flags.dir ?? (await snapshotLayout(world, flags)).snapshotsDir;
  const files = await world.listSnapshotFiles(directory);
  const listed =
    files.length === 0
      ? []
      : await listSnapshots(files, await readSnapshotKey(world, flags), {
          sha256: await sha256Of(world, flags),
          now: world.host.clock.now(),
        });
  world.reporter.result({
    data: { verb: "snapshot list", directory, snapshots: listed },
    lines:
      listed.length === 0
        ? [`There are no snapshots in ${directory}.`]
        : world.reporter.table(listed.map(rowOf)),
  });
  const refused = listed.filter(({ verdict }) => verdict !== "verified");
  if (refused.length === 0) return "ok";
  throw new OperatorError({
    exit: refused.every(({ verdict }) => verdict === "newer") ? "newer" : "integrity",
    what: `${refused.length} of ${listed.length} snapshots in ${directory} could not be verified.`,
    why: "Such a snapshot cannot be restored. Retention never removes it, because it may be evidence.",
    remedy: "Find out what happened to these snapshots, then move them away.",
    problems: refused.map(({ name, why }) => ({ subject: name, what: why ?? "" })),
  });
}

function rowOf(snapshot: ListedSnapshot): readonly string[] {
  const { name, verdict, count, order, drop, ageMs, layout } = snapshot;
  const result = verdict === "verified" ? "verified" : `refused (${EXIT_CODES[verdict]})`;
  const chain = layout === "upstream" ? "upstream's format" : (order ?? "");
  const dropped = drop === null ? "" : `, dropped from ${drop.from} to ${drop.to}`;
  return [
    name,
    result,
    ageMs === null ? "" : age(ageMs),
    count === null ? "" : `${count} pins`,
    `${chain}${dropped}`,
  ];
}

/** `snapshot verify FILE`: reports that a snapshot is complete and genuine, or throws an error that says what is wrong. */
export async function snapshotVerify(given: string, flags: SnapshotFlags, world: World): Promise<VerbExit> {
  const { file, manifest, count, sizeBytes, keyId, order } = await openVerified(world, flags, given);
  const taken = manifest === null ? "" : `, taken ${manifest.created_at} on ${manifest.peer.name}`;
  const lines = [
    `Verified: ${file.name}: ${count} pins, ${sizeBytes} bytes, signed with key ${keyId}${taken}.`,
  ];
  if (manifest === null)
    lines.push("It is in upstream's format, which does not say which cluster it belongs to.");
  else {
    const { previous, drop } = manifest;
    if (order.state === "linked") lines.push(`It follows ${previous?.name}, which is here and matches.`);
    if (order.state === "gap" && previous !== null)
      lines.push(`It follows ${previous.name}, which is not here.`);
    if (order.state === "first") lines.push("It is the first snapshot of its chain.");
    if (drop !== null)
      lines.push(
        `Warning: since the previous snapshot, the pinset had shrunk from ${drop.from} to ${drop.to} pins.`,
      );
    if (manifest.clock_went_back) lines.push("Since the previous snapshot, the clock was set back.");
  }
  world.reporter.result({
    data: {
      verb: "snapshot verify",
      verdict: "verified",
      name: file.name,
      layout: file.layout,
      count,
      sizeBytes,
      keyId,
      order: manifest === null ? null : order.state,
      manifest,
    },
    lines,
  });
  return "ok";
}

/** The name of the cluster's current pinset on the command line. */
const LIVE = "live";
const SIGNS = { "only-left": "-", "only-right": "+", differs: "~" } as const;

/** `snapshot diff A B|live`: reports how two pinsets differ; `pending` if they do. Snapshots are verified first. */
export async function snapshotDiff(
  given: readonly [string, string],
  flags: SnapshotFlags & { readonly limit: string },
  world: World,
): Promise<VerbExit> {
  if (!/^\d{1,6}$/.test(flags.limit))
    throw new OperatorError({
      exit: "usage",
      what: `--limit is ${JSON.stringify(flags.limit)}; it must be a number.`,
    });
  const workspace = await world.openWorkspace();
  const open = async (one: string): Promise<PinsetSource> => {
    if (one !== LIVE) return snapshotSource(await openVerified(world, flags, one));
    return liveSource(openOwnCluster(world, await readInstalledMaster(world, flags.baseDir)), workspace);
  };
  const left = await open(given[0]);
  const right = await open(given[1]);
  const diff = await diffPinsets(left, right, { workspace, limit: Number(flags.limit) });
  await left.close();
  await right.close();
  const { onlyLeft, onlyRight, differing, same } = diff;
  const examples = diff.examples.length;
  const unnamed = onlyLeft + onlyRight + differing - examples;
  world.reporter.result({
    data: { verb: "snapshot diff", ...diff },
    lines: [
      `--- ${diff.left}`,
      `+++ ${diff.right}`,
      ...diff.examples.map(lineOf),
      ...(unnamed > 0 ? [`... and ${unnamed} more (--limit shows more of each kind)`] : []),
      `${onlyLeft} only in ${diff.left}, ${onlyRight} only in ${diff.right}, ${differing} with other options, ${same} equal.`,
    ],
  });
  return diff.exit === "pending" ? "pending" : "ok";
}

function lineOf({ kind, cid, name, changes }: PinDifference): string {
  const more = kind === "differs" ? changes.join("; ") : name;
  return `${SIGNS[kind]} ${cid}${more === "" ? "" : `  ${more}`}`;
}

/** The flags for the place of the snapshots and for the key that verifies them. */
export interface SnapshotFlags {
  readonly baseDir?: string;
  /** PEM of a public or private ed25519 key. */
  readonly key?: string;
}

/** The paths of a master. This needs neither root nor an installed master: a copy of the snapshots and the public key are enough. */
export async function snapshotLayout(
  { host }: Pick<World, "host">,
  { baseDir }: SnapshotFlags,
): Promise<MasterLayout> {
  return masterLayout(await resolveBaseDir(host, baseDir, MASTER_BASE_DIR));
}

/** The key that verifies signatures: the one from `--key`, or else this master's. */
export async function readSnapshotKey(world: World, flags: SnapshotFlags): Promise<VerifyingKey> {
  const layout = await snapshotLayout(world, flags);
  return world.readVerifyingKey(
    flags.key === undefined ? [layout.verifyingKey, layout.signingKey] : [flags.key],
  );
}

/** Finds a snapshot by its path, or by its name in this master's own directory, and verifies it completely. */
export async function openVerified(
  world: World,
  flags: SnapshotFlags,
  given: string,
): Promise<VerifiedSnapshot> {
  const key = await readSnapshotKey(world, flags);
  const file = await openGiven(world, flags, given);
  const neighbours = await world.listSnapshotFiles(file.directory);
  const sha256 = await sha256Of(world, flags);
  return verifySnapshot(file, key, { sha256, order: checkChain(neighbours, key, sha256) });
}

/** The function that hashes bytes. */
export async function sha256Of(world: World, flags: SnapshotFlags): Promise<Sha256> {
  const store = await world.openSnapshots((await snapshotLayout(world, flags)).snapshotsDir);
  return (bytes) => store.sha256(bytes);
}

async function openGiven(world: World, flags: SnapshotFlags, given: string): Promise<SnapshotFile> {
  try {
    return await world.openSnapshotFile(given);
  } catch (thrown) {
    const elsewhere = thrown instanceof OperatorError && thrown.exit === "usage" && !given.includes("/");
    if (!elsewhere) throw thrown;
    return world.openSnapshotFile(`${(await snapshotLayout(world, flags)).snapshotsDir}/${given}`);
  }
}
