import type { ClusterReader, PeerIdentity } from "../../cluster/client.ts";
import type { ExitName } from "../../errors.ts";
import type { Clock } from "../../machine/clock.ts";
import type { Files } from "../../machine/file-writer.ts";
import type { SigningKey } from "../../machine/signing.ts";
import { countOf, decimalBytes, utcSeconds } from "../../units.ts";
import { type AlarmChannels, type AlarmKind, type AlarmSent, raiseAlarm } from "../alerts.ts";
import { type HeartbeatDeps, parseHeartbeat, withHeartbeat } from "../heartbeat.ts";
import { historyPath, parseSnapshotHistory, recordHistory, type SnapshotPoint } from "../history.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { type BodyRecord, bodyRecordOf, checkBodies } from "./bodies.ts";
import { type Erosion, measureErosion } from "./erosion.ts";
import { type ChainLink, readLinks, trustedKeys } from "./links.ts";
import {
  DIGEST_ALGORITHM,
  type Manifest,
  MANIFEST_FORMAT,
  MANIFEST_VERSION,
  serialiseManifest,
  snapshotFiles,
  snapshotName,
} from "./manifest.ts";
import {
  type ChainEnd,
  type ChainMemory,
  type Continuity,
  endOf,
  findMissing,
  joinNumbers,
  judgeContinuity,
  type Numbers,
  parseMemory,
  serialiseMemory,
} from "./memory.ts";
import { prune } from "./prune.ts";
import { isDrop } from "./retention.ts";
import type { BodyFacts, SnapshotStore } from "./store.ts";
import { endorses } from "./verify.ts";

/** What taking a snapshot needs. */
export interface TakeOptions {
  readonly cluster: ClusterReader;
  readonly store: SnapshotStore;
  readonly key: SigningKey;
  readonly clock: Pick<Clock, "now">;
  /** The ways on which an alarm leaves. */
  readonly channels: AlarmChannels;
  readonly heartbeat: HeartbeatDeps;
  /** Disk space to compare the pinset with an earlier one. */
  readonly workspace: PinsetWorkspace;
  /** Where the end of the chain is remembered, outside of the snapshots' directory. */
  readonly memory: { readonly files: Pick<Files, "readText" | "writeAtomic">; readonly path: string };
  /** The operator says that the present pinset is right, whatever it lacks. */
  readonly accept: boolean;
  /** The name of the cluster, and its id; null if the id is not known. */
  readonly clusterName: string;
  readonly clusterId: string | null;
  /** How many snapshots retention keeps; see chooseExpired. */
  readonly keep: number;
  /** The share of pins of the largest snapshot that may disappear without an alert: 0.1 is 10 %. */
  readonly dropShare: number;
  readonly toolVersion: string;
  readonly report: (line: string) => void;
}

/** A snapshot that was taken. */
export interface TakeResult {
  /** `pending` if there was an alarm: too many pins are gone, the chain was restarted, or a snapshot is damaged. */
  readonly exit: Extract<ExitName, "ok" | "pending">;
  readonly verdict: "first" | "steady" | "accepted" | "dropped" | "restarted" | "damaged";
  readonly summary: string;
  readonly name: string;
  /** The path of the body. Manifest and signature are in the same directory. */
  readonly file: string;
  readonly count: number;
  readonly sizeBytes: number;
  /** How many pins the previous snapshot has; null if there is none. */
  readonly before: number | null;
  /** The snapshot that it was compared with, and how many of its pins are gone; null if there is none. */
  readonly compared: Erosion | null;
  /** One sentence for each alarm. */
  readonly alarms: readonly string[];
  /** What became of the alarms; null if there was none. */
  readonly alarm: AlarmSent | null;
  /** Snapshots that retention removed. */
  readonly removed: readonly string[];
  /** For the heartbeat. */
  readonly facts: { readonly bodies: BodyRecord };
}

/**
 * Writes a signed snapshot of the desired pinset (what the cluster lists as allocations). If the list is not
 * complete or the disk fails, it throws an OperatorError (unavailable) and leaves no snapshot. The caller holds
 * the lock.
 */
export function takeSnapshot(options: TakeOptions): Promise<TakeResult> {
  return withHeartbeat(options.heartbeat, "snapshot take", () => take(options));
}

async function take(options: TakeOptions): Promise<TakeResult> {
  const { cluster, store, key, clock } = options;
  const memory = parseMemory(await options.memory.files.readText(options.memory.path));
  const stored = await store.list();
  const chain = readLinks(stored, trustedKeys(key, memory), (bytes) => store.sha256(bytes));
  const newest = chain.links.at(-1) ?? null;
  const last = parseHeartbeat(await options.heartbeat.files.readText(options.heartbeat.path));
  const continuity = judgeContinuity(memory, newest, {
    keyId: key.id,
    succeeds: (earlier, later) => later === key.id && endorsementOfKey(memory, earlier, key) !== null,
    wasTaken: typeof last?.last_good_at === "string",
  });
  const faults = new Map(chain.faults.map(({ name, why }) => [name, why]));
  const known = bodyRecordOf(last?.facts);
  const peer = await cluster.identity();
  const startedAt = clock.now();
  const before = endOf(memory, newest);
  // Also the names of those that may be gone: put back, such a one would not fit beside another of its name.
  const spoken = [before?.name, ...chain.links.map(({ manifest: { previous } }) => previous?.name)];
  const name = freeName(snapshotName(startedAt), new Set([...stored.map((one) => one.name), ...spoken]));
  const draft = await store.begin(name);
  let manifest: Manifest;
  let erosion: Erosion | null;
  let end: ChainEnd;
  try {
    await cluster.list("allocations", (lines) => draft.write(lines));
    const body = await draft.finish();
    erosion = await measureErosion(
      chain.links,
      { digest: body.digest, read: (takeLines) => draft.read(takeLines) },
      { workspace: options.workspace, reportFault: (fault) => void faults.set(fault.name, fault.why) },
    );
    manifest = describe(options, {
      name,
      startedAt,
      peer,
      body,
      erosion,
      continuity,
      newest,
      memory,
      last: before,
    });
    const bytes = Buffer.from(serialiseManifest(manifest), "utf8");
    await draft.commit(bytes, key.sign(bytes));
    end = { name, sequence: manifest.sequence, manifestSha256: store.sha256(bytes), keyId: key.id };
  } catch (thrown) {
    await draft.discard();
    throw thrown;
  }
  const bodies = await checkBodies(store, chain.links, known, clock.now());
  for (const { name: damaged, why } of bodies.faults) if (!faults.has(damaged)) faults.set(damaged, why);
  const found = { manifest, continuity, accept: options.accept };
  const alarms = [...alarmsOf(found), ...[...faults].map(damageAlarm)];
  // A damaged body raises one alarm. Until it is moved away, each run says so.
  const isNew = ([damaged]: readonly [string, string]) => !known.damaged.includes(damaged);
  let alarm = await raise(options, [...alarmsOf(found), ...[...faults].filter(isNew).map(damageAlarm)]);
  const remembered = memory === null || memory === "damaged" ? null : memory;
  const present = [...chain.links.map(({ sequence }) => sequence), end.sequence];
  // What is gone before the first record, or with the operator's consent, is not missed later.
  const recorded = options.accept ? null : (remembered?.removed ?? null);
  const gone = joinNumbers([...(recorded ?? findMissing(present, [])), ...(remembered?.removed ?? [])]);
  const remember = (removing: readonly Numbers[]): Promise<void> => {
    const removedNumbers = joinNumbers([...gone, ...removing]);
    const retiredKeys = remembered?.retiredKeys ?? [];
    const text = serialiseMemory({ last: end, retiredKeys, removed: removedNumbers });
    return options.memory.files.writeAtomic(options.memory.path, text, { mode: 0o644 });
  };
  await remember([]);
  const removed: string[] = [];
  if (continuity.state !== "restarted") {
    const pruned = await prune(options, { memory, known: faults, remember });
    removed.push(...pruned.removed);
    const more = pruned.faults.map(({ name: damaged, why }) => damageAlarm([damaged, why]));
    const sent = await raise(options, more);
    if (alarm?.command !== "failed") alarm = sent ?? alarm;
    alarms.push(...more);
  }
  await recordHistory(options.memory.files, historyPath(options.heartbeat.path), {
    parse: parseSnapshotHistory,
    points: [...chain.links.map((link) => link.manifest), manifest].map(pointOf),
  });
  return describeResult(store, {
    manifest,
    erosion,
    continuity,
    newest,
    removed,
    alarms,
    alarm,
    facts: { bodies: bodies.record },
  });
}

/** What the history keeps of a snapshot. Those that are still there fill a history that begins. */
function pointOf({ created_at: at, pins, body }: Manifest): SnapshotPoint {
  return { at, pins: pins.count, bytes: body.size_bytes };
}

/** What an alarm says in the log (without the time), and to people. */
interface Alarm {
  readonly kind: AlarmKind;
  readonly line: string;
  readonly sentence: string;
}

/** The only place that raises the alarms of a snapshot: several of them are one alarm, of the first one's kind. */
async function raise(
  { channels, clock, report }: TakeOptions,
  alarms: readonly Alarm[],
): Promise<AlarmSent | null> {
  const [first] = alarms;
  if (first === undefined) return null;
  const at = clock.now();
  const utc = utcSeconds(at);
  for (const { sentence } of alarms) report(`Alarm: ${sentence}`);
  return raiseAlarm(channels, {
    kind: first.kind,
    at,
    summary: alarms.map(({ sentence }) => sentence).join(" "),
    counts: { alarms: alarms.length },
    worst: alarms.map(({ kind, sentence }) => ({ kind, sentence })),
    lines: alarms.map(({ line }) => `${utc} ${line}`),
  });
}

function alarmsOf({
  manifest: { name, drop },
  continuity,
  accept,
}: {
  readonly manifest: Manifest;
  readonly continuity: Continuity;
  readonly accept: boolean;
}): readonly Alarm[] {
  const alarms: Alarm[] = [];
  if (drop !== null)
    alarms.push({
      kind: "pinset-dropped",
      line: `pinset-dropped snapshot=${name} pins=${drop.to} before=${drop.from} removed=${drop.removed} reference=${drop.reference}`,
      sentence: `${drop.removed} of the ${countOf(drop.from, "pin")} of ${drop.reference} are gone.`,
    });
  if (continuity.state === "restarted" && !accept)
    alarms.push({
      kind: "chain-restarted",
      line: `snapshot-chain-restarted snapshot=${name} expected=${continuity.expected ?? "unknown"} why=${JSON.stringify(continuity.why)}`,
      sentence: `the chain of snapshots was restarted: ${continuity.why}.`,
    });
  return alarms;
}

function damageAlarm([name, why]: readonly [string, string]): Alarm {
  return {
    kind: "snapshot-damaged",
    line: `snapshot-damaged snapshot=${JSON.stringify(name)} why=${JSON.stringify(why)}`,
    sentence: `${name} is not valid, and stays as it is: ${why}`,
  };
}

function describe(
  options: TakeOptions,
  seen: {
    readonly name: string;
    readonly startedAt: Date;
    readonly peer: PeerIdentity;
    readonly body: BodyFacts;
    readonly erosion: Erosion | null;
    readonly continuity: Continuity;
    readonly last: ChainEnd | null;
    readonly newest: ChainLink | null;
    readonly memory: ChainMemory | null | "damaged";
  },
): Manifest {
  const { name, startedAt, peer, body, continuity, last, newest } = seen;
  const endorsement =
    last === null || last.keyId === options.key.id
      ? null
      : endorsementOfKey(seen.memory, last.keyId, options.key);
  return {
    format: MANIFEST_FORMAT,
    version: MANIFEST_VERSION,
    name,
    sequence: last === null ? 1 : last.sequence + 1,
    created_at: startedAt.toISOString(),
    cluster: { id: options.clusterId, name: options.clusterName },
    peer: { id: peer.id, name: peer.peername, version: peer.version },
    pins: { count: body.count, by_type: body.byType },
    digest: { algorithm: DIGEST_ALGORITHM, value: body.digest },
    body: {
      file: snapshotFiles(name).body,
      encoding: "gzip",
      size_bytes: body.sizeBytes,
      plain_bytes: body.plainBytes,
      sha256: body.sha256,
    },
    previous: last === null ? null : { name: last.name, manifest_sha256: last.manifestSha256 },
    drop: options.accept ? null : dropOf(seen.erosion, body.count, options.dropShare),
    clock_went_back: newest !== null && startedAt.getTime() < Date.parse(newest.manifest.created_at),
    ...(options.accept ? { accepted: true } : {}),
    ...(continuity.state === "restarted"
      ? { restart: { expected: continuity.expected, why: continuity.why } }
      : {}),
    ...(endorsement === null || last === null
      ? {}
      : { key_rotation: { from_key_id: last.keyId, endorsement } }),
    tool: { name: "fula-node", version: options.toolVersion },
    key_id: options.key.id,
  };
}

function dropOf(erosion: Erosion | null, to: number, share: number): Manifest["drop"] {
  if (erosion === null) return null;
  const { from, removed, reference } = erosion;
  const remaining = to === 0 ? 0 : from - removed;
  return isDrop(from, remaining, share) ? { from, to, removed, reference } : null;
}

/** The signature with which a retired key named this one as its successor; null if there is no valid one. */
function endorsementOfKey(
  memory: ChainMemory | null | "damaged",
  earlierId: string,
  key: SigningKey,
): string | null {
  if (memory === null || memory === "damaged") return null;
  const earlier = trustedKeys(key, memory).find(({ id }) => id === earlierId);
  const named = memory.retiredKeys.find(
    ({ keyId, successorId }) => keyId === earlierId && successorId === key.id,
  );
  if (earlier === undefined || named === undefined) return null;
  return endorses(earlier, key, named.endorsement) ? named.endorsement : null;
}

function describeResult(
  store: SnapshotStore,
  seen: {
    readonly manifest: Manifest;
    readonly erosion: Erosion | null;
    readonly continuity: Continuity;
    readonly newest: ChainLink | null;
    readonly removed: readonly string[];
    readonly alarms: readonly Alarm[];
    readonly alarm: AlarmSent | null;
    readonly facts: TakeResult["facts"];
  },
): TakeResult {
  const { manifest, erosion, newest, removed } = seen;
  const alarms = seen.alarms.map(({ sentence }) => sentence);
  const { count } = manifest.pins;
  const before = newest?.manifest.pins.count ?? null;
  const { state } = seen.continuity;
  const change =
    before !== null ? `${before} before` : state === "first" ? "the first" : "the first of a new chain";
  const summary = `${manifest.name}: ${countOf(count, "pin")} (${change}), ${decimalBytes(manifest.body.size_bytes)}`;
  return {
    exit: alarms.length > 0 ? "pending" : "ok",
    verdict: verdictOf(seen),
    summary: [summary, ...alarms.map((alarm) => `alarm: ${alarm.replace(/\.$/, "")}`)].join("; "),
    name: manifest.name,
    file: `${store.directory}/${manifest.body.file}`,
    count,
    sizeBytes: manifest.body.size_bytes,
    before,
    compared: erosion,
    alarms,
    alarm: seen.alarm,
    removed,
    facts: seen.facts,
  };
}

function verdictOf(seen: {
  readonly manifest: Manifest;
  readonly continuity: Continuity;
  readonly alarms: readonly Alarm[];
}): TakeResult["verdict"] {
  if (seen.manifest.drop !== null) return "dropped";
  if (seen.manifest.accepted !== true && seen.continuity.state === "restarted") return "restarted";
  if (seen.alarms.length > 0) return "damaged";
  if (seen.manifest.accepted === true) return "accepted";
  return seen.continuity.state === "first" ? "first" : "steady";
}

function freeName(preferred: string, taken: ReadonlySet<string | undefined>): string {
  let name = preferred;
  for (let copy = 2; taken.has(name); copy++) name = `${preferred}-${copy}`;
  return name;
}
