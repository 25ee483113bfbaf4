import { EXIT_CODES, OperatorError, type VerbExit } from "../errors.ts";
import { requireMaster, requireRoot, resolveBaseDir } from "../join/base-dir.ts";
import { clusterIdOf, openOwnCluster, readInstalledMaster } from "../join/installed-node.ts";
import { refuseRemoved } from "../join/master-database.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import { commandFailure } from "../pinset/alerts.ts";
import { diffPinsets, type PinDifference } from "../pinset/snapshot/diff.ts";
import { checkChain, trustedKeys } from "../pinset/snapshot/links.ts";
import { type ListedSnapshot, listSnapshots } from "../pinset/snapshot/list.ts";
import type { Manifest } from "../pinset/snapshot/manifest.ts";
import { type ChainMemory, parseMemory } from "../pinset/snapshot/memory.ts";
import type { SnapshotFile } from "../pinset/snapshot/store.ts";
import { type TakeResult, takeSnapshot } from "../pinset/snapshot/take.ts";
import {
  liveSource,
  type PinsetSource,
  type Sha256,
  snapshotSource,
  type VerifiedSnapshot,
  verifySnapshot,
} from "../pinset/snapshot/verify.ts";
import {
  CRON_PERIODS_MS,
  lockNames,
  MASTER_BASE_DIR,
  masterLayout,
  type MasterLayout,
} from "../settings/layout.ts";
import { judgeStored, readHeartbeats } from "../status/pinset-parts.ts";
import { hang } from "../ui/text.ts";
import { age, capitalised, countOf, decimalBytes, utcSeconds } from "../units.ts";
import type { World } from "../world.ts";

/** Ends a run that hangs, so that it does not hold the lock for ever. */
const DEADLINE_MS = 3 * 3_600_000;

/** `snapshot take`: takes a signed snapshot of the pinset. Cron runs it. */
export async function snapshotTake(
  flags: { readonly baseDir?: string; readonly accept: boolean },
  world: World,
): Promise<VerbExit> {
  const { host, reporter } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  await refuseRemoved(world.host, master);
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
      channels,
      heartbeat: {
        files: host.files,
        clock: host.clock,
        path: layout.snapshotHeartbeat,
        channels,
        watched: { path: layout.sweepHeartbeat, everyMs: CRON_PERIODS_MS.sweep },
      },
      workspace: await world.openWorkspace(),
      memory: { files: host.files, path: layout.snapshotMemory },
      accept: flags.accept,
      clusterName: values("CLUSTERNAME") ?? "",
      clusterId: clusterIdOf(world, master),
      keep: Number(values("KEEP")),
      dropShare: Number(values("SNAPSHOT_DROP_PERCENT")) / 100,
      toolVersion: world.version,
      report: (line) => reporter.note(line),
    });
    reporter.result({
      data: { verb: "snapshot take", ...result },
      lines: takenLines(result, host.clock.now()),
    });
    // An alarm ends the run with `pending` anyway.
    const failure = commandFailure(result.alarm);
    if (failure !== null) reporter.listen({ type: "warning", text: failure.what });
    return result.exit;
  } finally {
    await lock.release();
  }
}

function takenLines({ summary, alarms, verdict }: TakeResult, now: Date): readonly string[] {
  const [headline = ""] = summary.split("; alarm: ");
  const remedies: readonly string[] = {
    dropped: [
      "If nobody removed these pins on purpose, read:",
      "docs/lost-pinset.md",
      "If this pinset is right: fula-node snapshot take --accept",
    ],
    restarted: ["Look for the cause. If it is right: fula-node snapshot take --accept"],
    damaged: ["Find out what happened to it, then move it away: fula-node snapshot list"],
    first: [],
    steady: [],
    accepted: ["Later snapshots are compared with this one."],
  }[verdict];
  const utc = utcSeconds(now);
  return [
    `${utc} ${headline}`,
    ...alarms.flatMap((alarm) => below(`Alarm: ${alarm}`)),
    ...remedies.map((line) => `  ${line}`),
  ];
}

/** A sentence below a headline. */
function below(sentence: string): readonly string[] {
  return hang("  ", sentence);
}

/** `snapshot list`: verifies every snapshot completely and lists them. Throws (`integrity`) after the list if one of them is not valid. */
export async function snapshotList(
  flags: SnapshotFlags & { readonly dir?: string },
  world: World,
): Promise<VerbExit> {
  const layout = await snapshotLayout(world, flags);
  const directory = flags.dir ?? layout.snapshotsDir;
  if (flags.dir === undefined) requireRoot(world.host, "the snapshots of a master are root's");
  const files = await world.listSnapshotFiles(directory);
  // Snapshots stay after `leave`, so they may be there without a master.
  if (flags.dir === undefined && files.length === 0) await requireMaster(world.host, layout);
  const listed =
    files.length === 0
      ? []
      : await listSnapshots(files, await readSnapshotKeys(world, flags), {
          sha256: await sha256Of(world, flags),
          now: world.host.clock.now(),
          removed: flags.dir === undefined ? await readRemoved(world, layout) : null,
        });
  world.reporter.result({
    data: { verb: "snapshot list", directory, snapshots: listed },
    lines:
      listed.length === 0
        ? [`There are no snapshots in ${directory}.`]
        : world.reporter.table(listed.map(rowOf)),
  });
  const refused = listed.filter(({ verdict }) => verdict !== "verified");
  if (refused.length === 0) return flags.dir === undefined ? await refuseLost(world, layout, listed) : "ok";
  throw new OperatorError({
    exit: refused.every(({ verdict }) => verdict === "newer") ? "newer" : "integrity",
    what: `${refused.length} of ${listed.length} snapshots in ${directory} could not be verified.`,
    why: "Such a snapshot cannot be restored. Retention never removes it, because it may be evidence.",
    remedy: "Find out what happened to these snapshots, then move them away.",
    problems: refused.map(({ name, why }) => ({ subject: name, what: why ?? "" })),
  });
}

/**
 * Nothing of this master's own snapshots may be gone without a word. Throws (`unhealthy`) if it took some and has none; `pending` if
 * it has others. `status` judges by the same facts.
 */
async function refuseLost(
  world: World,
  layout: MasterLayout,
  listed: readonly ListedSnapshot[],
): Promise<VerbExit> {
  const { snapshot } = await readHeartbeats(world, layout);
  const { state, sentence, todo, isLost } = await judgeStored(world, layout, snapshot);
  if (state === "down" && isLost)
    throw new OperatorError({
      exit: "unhealthy",
      what: `The snapshots of this master are gone: ${sentence}.`,
      ...(todo === null ? {} : { remedy: `${capitalised(todo)}.` }),
    });
  // A restart of the chain says why numbers are missing before it.
  const isMissing = state === "attention" && listed.some(({ missing }) => missing !== null && missing > 0);
  if (!isLost && !isMissing) return "ok";
  const text = `Snapshots are missing: ${sentence}.${todo === null ? "" : ` What to do: ${todo}.`}`;
  world.reporter.listen({ type: "warning", text });
  return "pending";
}

/** The numbers that retention removed. Only this master's own record knows them. */
async function readRemoved(
  { host }: World,
  { snapshotMemory }: MasterLayout,
): Promise<ChainMemory["removed"]> {
  const memory = parseMemory(await host.files.readText(snapshotMemory));
  return memory === null || memory === "damaged" ? null : memory.removed;
}

function rowOf(snapshot: ListedSnapshot): readonly string[] {
  const { name, verdict, count, order, missing, drop, ageMs, layout } = snapshot;
  const result = verdict === "verified" ? "verified" : `refused (${EXIT_CODES[verdict]})`;
  const chain = layout === "upstream" ? "upstream's format" : (order ?? "");
  const marks = [
    ...(chain === "" ? [] : [chain]),
    ...(missing === null || missing === 0 ? [] : [`${missing} missing before it`]),
    ...(snapshot.restarted ? ["restarted"] : []),
    ...(drop === null ? [] : [lossOf(drop)]),
    ...(snapshot.accepted ? ["accepted"] : []),
  ];
  return [
    name,
    result,
    ageMs === null ? "" : age(ageMs),
    count === null ? "" : countOf(count, "pin"),
    marks.join(", "),
  ];
}

/** `snapshot verify FILE`: reports that a snapshot is complete and genuine, or throws an error that says what is wrong. */
export async function snapshotVerify(given: string, flags: SnapshotFlags, world: World): Promise<VerbExit> {
  const { file, manifest, count, sizeBytes, keyId, order } = await openVerified(world, flags, given);
  const sentences = [`It is signed with the key ${keyId}.`];
  if (manifest === null)
    sentences.push("It is in upstream's format, which does not say which cluster it belongs to.");
  else {
    const { previous, drop, restart, key_rotation: rotation } = manifest;
    sentences.push(`It was taken at ${manifest.created_at} on ${manifest.peer.name}.`);
    if (order.state === "linked") sentences.push(`It follows ${previous?.name}, which is here and matches.`);
    if (order.state === "gap" && previous !== null)
      sentences.push(`It follows ${previous.name}, which is not here.`);
    if (order.state === "first") sentences.push("It is the first snapshot of its chain.");
    if (rotation !== undefined)
      sentences.push(`It is the first one with its key, which replaced ${rotation.from_key_id}.`);
    if (restart !== undefined) sentences.push(`Warning: the chain was restarted here: ${restart.why}.`);
    if (drop !== null) sentences.push(dropWarning(drop, previous?.name ?? "the previous snapshot"));
    if (manifest.accepted === true) sentences.push("The operator accepted this pinset as right.");
    if (manifest.clock_went_back) sentences.push("Since the previous snapshot, the clock was set back.");
  }
  const lines = [
    `Verified: ${file.name}: ${countOf(count, "pin")}, ${decimalBytes(sizeBytes)}.`,
    ...sentences.flatMap(below),
  ];
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
    if (one !== LIVE) return snapshotSource(await openVerified(world, flags, one), workspace);
    return liveSource(openOwnCluster(world, await readInstalledMaster(world, flags.baseDir)), workspace);
  };
  const diff = await using(
    () => open(given[0]),
    (left) =>
      using(
        () => open(given[1]),
        (right) => diffPinsets(left, right, { workspace, limit: Number(flags.limit) }),
      ),
  );
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
      `${onlyLeft} only in ${diff.left}`,
      `${onlyRight} only in ${diff.right}`,
      `${differing} with other options, ${same} equal`,
    ],
  });
  return diff.exit === "pending" ? "pending" : "ok";
}

/** Opens a source, and closes it in any case. */
async function using<Result>(
  open: () => Promise<PinsetSource>,
  use: (source: PinsetSource) => Promise<Result>,
): Promise<Result> {
  const source = await open();
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

/** A CID is never shortened, so that it can be copied. `--json` has the whole name. */
function lineOf({ kind, cid, name, changes }: PinDifference): string {
  const more = kind === "differs" ? changes.join("; ") : name;
  if (more === "") return `${SIGNS[kind]} ${cid}`;
  const room = Math.max(12, 80 - cid.length - 4);
  return `${SIGNS[kind]} ${cid}  ${more.length > room ? `${more.slice(0, room - 1)}…` : more}`;
}

function lossOf({ from, to, removed }: Drop): string {
  return removed === undefined ? `dropped from ${from} to ${to}` : `${removed} of ${from} gone`;
}

function dropWarning({ from, to, removed, reference }: Drop, previous: string): string {
  return removed === undefined
    ? `Warning: since ${previous}, the pinset had shrunk from ${from} to ${to} pins.`
    : `Warning: ${removed} of the ${from} pins of ${reference ?? previous} were gone.`;
}

type Drop = NonNullable<Manifest["drop"]>;

/** The flags for the place of the snapshots and for the key that verifies them. */
export interface SnapshotFlags {
  readonly baseDir?: string;
  /** PEM files of public or private ed25519 keys; empty: the keys of this master. */
  readonly key: readonly string[];
}

/** The paths of a master. This needs neither root nor an installed master: a copy of the snapshots and the public key are enough. */
export async function snapshotLayout(
  { host }: Pick<World, "host">,
  { baseDir }: { readonly baseDir?: string },
): Promise<MasterLayout> {
  return masterLayout(await resolveBaseDir(host, baseDir, MASTER_BASE_DIR));
}

/** The keys that verify signatures: the ones from `--key`, or else this master's, with those that it replaced. */
export async function readSnapshotKeys(world: World, flags: SnapshotFlags): Promise<readonly VerifyingKey[]> {
  if (flags.key.length > 0) return Promise.all(flags.key.map((path) => world.readVerifyingKey([path])));
  const layout = await snapshotLayout(world, flags);
  const current = await world.readVerifyingKey([layout.verifyingKey, layout.signingKey]);
  return trustedKeys(current, parseMemory(await world.host.files.readText(layout.snapshotMemory)));
}

/** Finds a snapshot by its path, or by its name in this master's own directory, and verifies it completely. */
export async function openVerified(
  world: World,
  flags: SnapshotFlags,
  given: string,
): Promise<VerifiedSnapshot> {
  const keys = await readSnapshotKeys(world, flags);
  const file = await openGiven(world, flags, given);
  const neighbours = await world.listSnapshotFiles(file.directory);
  const sha256 = await sha256Of(world, flags);
  return verifySnapshot(file, keys, { sha256, order: checkChain(neighbours, keys, sha256) });
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
