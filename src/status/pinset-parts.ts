import type { Cluster } from "../cluster/client.ts";
import type { HostReader } from "../host.ts";
import { nodeSourcesOf } from "../join/node-sources.ts";
import { isOurCron } from "../machine/crontab.ts";
import { checkCronLine } from "../machine/node-program.ts";
import type { Heartbeat, HeartbeatHealth } from "../pinset/heartbeat.ts";
import type { FindingsHealth, NodesHealth, NodesNow } from "../pinset/sweep/findings.ts";
import type { SnapshotStanding } from "../pinset/snapshot/standing.ts";
import { backupsOf } from "../settings/master.ts";
import type { Values } from "../settings/context.ts";
import { CRON_FILES, CRON_PERIODS_MS, type MasterLayout } from "../settings/layout.ts";
import { age, grouped } from "../units.ts";
import { type Monotonic, QUERY_MS } from "./collect.ts";
import { judgeCron, type StepsSeen } from "./judge-steps.ts";
import { type Ask, getJson, orNull, orWhy, type StatusDeps } from "./look-at-node.ts";
import { type Judged, LATE, REPAIR_MASTER, withRemarks } from "./part.ts";

/** What the parts of snapshots, sweeps and cron ask. */
interface PinsetNode {
  readonly deps: Pick<StatusDeps, "host" | "openSnapshots" | "readVerifyingKey">;
  readonly layout: MasterLayout;
  readonly values: Values;
  readonly ask: Ask;
  readonly clock: Monotonic;
  readonly steps: Promise<StepsSeen>;
  readonly heartbeats: Promise<Heartbeats>;
  /** Null if the cluster or the database does not say it: its own part shows why. */
  readonly nodesNow: Promise<NodesNow | null>;
}

/** The last runs of the regular operations. */
export type Heartbeats = Readonly<Record<"snapshot" | "sweep", HeartbeatHealth>>;

const COMMANDS = { snapshot: "fula-node snapshot take", sweep: "fula-node sweep" } as const;

/** Reads and judges the heartbeats. */
export async function readHeartbeats(
  { host }: Pick<SnapshotReader, "host">,
  layout: MasterLayout,
): Promise<Heartbeats> {
  // Here and below: schemas take long to load, so the questions are asked first.
  const { assessHeartbeat } = await import("../pinset/heartbeat.ts");
  const now = host.clock.now();
  const assess = async (noun: keyof Heartbeats, path: string): Promise<HeartbeatHealth> => {
    const [text, entry] = await Promise.all([host.files.readText(path), host.files.stat(CRON_FILES[noun])]);
    const everyMs = CRON_PERIODS_MS[noun];
    const operation = { noun, command: COMMANDS[noun], everyMs, scheduledAt: entry?.modifiedAt ?? null };
    return assessHeartbeat(text, operation, now);
  };
  const [snapshot, sweep] = await Promise.all([
    assess("snapshot", layout.snapshotHeartbeat),
    assess("sweep", layout.sweepHeartbeat),
  ]);
  return { snapshot, sweep };
}

/** A regular operation, by its last run. Without cron, the first one does not come. */
async function judgeRun({ steps }: PinsetNode, health: HeartbeatHealth): Promise<Judged> {
  const { state, sentence, todo, heartbeat } = health;
  const evidence: Readonly<Record<string, string>> =
    heartbeat === null ? { "last run": "none" } : { "last run": `${heartbeat.at}: ${heartbeat.summary}` };
  const needsRepair = heartbeat === null && judgeCron(await steps, REPAIR_MASTER).todo === REPAIR_MASTER;
  if (!needsRepair) return { state, summary: sentence, todo, evidence };
  const [noun = sentence] = sentence.split(";", 1);
  return { state: "attention", summary: noun, todo: REPAIR_MASTER, evidence };
}

/** What reads the snapshots of a master. */
type SnapshotReader = Pick<StatusDeps, "openSnapshots" | "readVerifyingKey"> & {
  readonly host: Pick<HostReader, "files" | "clock">;
};

/** The snapshots that are there, compared with what this master remembers, by the heartbeat of the last run that took one. */
export async function judgeStored(
  { host, openSnapshots, readVerifyingKey }: SnapshotReader,
  layout: MasterLayout,
  { heartbeat }: Pick<HeartbeatHealth, "heartbeat">,
): Promise<SnapshotStanding> {
  const [{ parseMemory }, { judgeSnapshots }, { bodyRecordOf }] = await Promise.all([
    import("../pinset/snapshot/memory.ts"),
    import("../pinset/snapshot/standing.ts"),
    import("../pinset/snapshot/bodies.ts"),
  ]);
  const keys = [layout.verifyingKey, layout.signingKey];
  const found = await Promise.all(keys.map((path) => host.files.stat(path)));
  // The step `signing-key` says why, if its key was lost.
  if (found.every((stat) => stat === null))
    return { state: "attention", sentence: "there is no snapshot key", todo: REPAIR_MASTER, isLost: false };
  const store = await openSnapshots(layout.snapshotsDir);
  const [key, files, memory] = await Promise.all([
    readVerifyingKey(keys),
    store.list(),
    host.files.readText(layout.snapshotMemory),
  ]);
  return judgeSnapshots(files, key, {
    memory: parseMemory(memory),
    damaged: bodyRecordOf(heartbeat?.facts).damaged,
    wasTaken: typeof heartbeat?.last_good_at === "string",
    sha256: (bytes) => store.sha256(bytes),
    now: host.clock.now(),
    maxAgeMs: 2 * CRON_PERIODS_MS.snapshot,
  });
}

/** The snapshots that are there, and the last run that took one. */
export async function lookAtSnapshots(node: PinsetNode): Promise<Judged> {
  const { deps, layout, clock, heartbeats } = node;
  const read = async (): Promise<Judged> => {
    const { state, sentence, todo } = await judgeStored(deps, layout, (await heartbeats).snapshot);
    return { state, summary: sentence, todo, evidence: {} };
  };
  const [all, stored] = await Promise.all([heartbeats, orWhy(QUERY_MS, read, clock)]);
  const run = await judgeRun(node, all.snapshot);
  const remark = { state: run.state, sentence: run.summary, todo: run.todo };
  return { ...withRemarks(stored, [remark]), evidence: { ...stored.evidence, ...run.evidence } };
}

/** The last sweep, and what it found. */
export async function lookAtSweep(node: PinsetNode): Promise<Judged> {
  const { sweep } = await node.heartbeats;
  const run = await judgeRun(node, sweep);
  const { pins, nodes: all } = await readFindings(node);
  const nodes = { ...all, sentence: all.problem ?? all.sentence };
  if (sweep.heartbeat === null) return nodes.state === "attention" ? withRemarks(run, [nodes]) : run;
  const judged = withRemarks(run, [pins, nodes]);
  // After a complete sweep, what it found says what to do. After another one, the run itself does.
  const todo = ["ok", "pending"].includes(sweep.heartbeat.outcome) ? (pins.todo ?? nodes.todo) : null;
  return judged.state === "attention" && todo !== null ? { ...judged, todo } : judged;
}

/** What the last sweep found, without the nodes that were forgotten since then. */
export async function readFindings({
  deps,
  layout,
  heartbeats,
  nodesNow,
}: Pick<PinsetNode, "deps" | "layout" | "heartbeats" | "nodesNow">): Promise<{
  readonly pins: FindingsHealth;
  readonly nodes: NodesHealth;
}> {
  const [{ sweep }, live, { assessFindings }, { parseKnownNodes }] = await Promise.all([
    heartbeats,
    nodesNow,
    import("../pinset/sweep/findings.ts"),
    import("../pinset/sweep/known-nodes.ts"),
  ]);
  const known = await orNull(async () =>
    parseKnownNodes(await deps.host.files.readText(layout.knownNodes), layout.knownNodes),
  );
  return assessFindings(sweep.heartbeat, deps.host.clock.now(), {
    forgotten: new Set(known?.forgotten),
    live,
  });
}

/**
 * The nodes of the pool now, by the cluster and the registered names. A sweep comes every half an hour only. Null if one of
 * them does not answer.
 */
export async function surveyNow(
  {
    deps,
    layout,
    values,
    ask,
  }: Pick<PinsetNode, "layout" | "values" | "ask"> & {
    readonly deps: Pick<StatusDeps, "host">;
  },
  open: (signal: AbortSignal) => Cluster,
): Promise<NodesNow | null> {
  const controller = new AbortController();
  const survey = async () => {
    const { surveyNodes } = await import("../pinset/sweep/nodes.ts");
    const { host } = deps;
    const sources = { ...nodeSourcesOf(deps, { layout, values }), files: host.files };
    return surveyNodes(
      { ...sources, cluster: open(controller.signal) },
      { at: host.clock.now(), save: false },
    );
  };
  try {
    const found = await ask(() => orNull(survey));
    return found === LATE || found === null || found.namesFault !== null ? null : found;
  } finally {
    controller.abort();
  }
}

/** The name of the part that says how the drills went. */
export const DRILLS_PART = "drills";

/** When the drills last ran, and whether one failed. Null if none ever ran and cron starts none. */
export async function lookAtDrills({
  deps,
  layout,
}: Pick<PinsetNode, "deps" | "layout">): Promise<Judged | null> {
  const { files, clock } = deps.host;
  const [text, entry, { assessDrills, parseDrillRecord }] = await Promise.all([
    files.readText(layout.drillRecord),
    files.stat(CRON_FILES.drill),
    import("../pinset/drill-record.ts"),
  ]);
  const at = { scheduledAt: entry?.modifiedAt ?? null, now: clock.now(), log: layout.drillLog };
  const health = assessDrills(parseDrillRecord(text), at);
  if (health === null) return null;
  const { sentence, ...rest } = health;
  return { ...rest, summary: sentence };
}

const DAY_MS = 24 * 3_600_000;
const BACKUP = "fula-node backup create";
/** So old may a backup be that somebody makes by hand. */
const BY_HAND_MS = 7 * DAY_MS;

/** When the last backup was made. Null for a master that is younger than a day, and has none. */
export async function lookAtBackup({
  deps,
  layout,
  values,
}: Pick<PinsetNode, "deps" | "layout" | "values">): Promise<Judged | null> {
  const target = backupsOf(values);
  if (target === null) return lookAtBackupByHand(deps.host, layout);
  const { files, clock } = deps.host;
  const [text, entry, { assessHeartbeat }] = await Promise.all([
    files.readText(layout.backupHeartbeat),
    files.stat(CRON_FILES.backup),
    import("../pinset/heartbeat.ts"),
  ]);
  const operation = {
    noun: "backup",
    command: BACKUP,
    everyMs: CRON_PERIODS_MS.backup,
    scheduledAt: entry?.modifiedAt ?? null,
  };
  const { state, sentence, todo, heartbeat } = assessHeartbeat(text, operation, clock.now());
  const gone = await findGone(files, layout, { directory: target.directory, heartbeat });
  if (gone !== null && state === "ok")
    return {
      state: "attention",
      summary: `${sentence}, but ${gone}`,
      todo: `mount the disk of ${target.directory}, then: ${BACKUP}`,
      evidence: { directory: target.directory },
    };
  const summary = state === "ok" && heartbeat !== null ? `${sentence}: ${heartbeat.summary}` : sentence;
  return { state, summary, todo, evidence: { directory: target.directory } };
}

/**
 * Why the newest backup of a directory is not there; null if it is. Its content is looked at when the next one is made. A master that came
 * back from a backup has the record of the old one, and no heartbeat: its disk is often not mounted yet.
 */
async function findGone(
  files: StatusDeps["host"]["files"],
  layout: MasterLayout,
  { directory, heartbeat }: { readonly directory: string; readonly heartbeat: Heartbeat | null },
): Promise<string | null> {
  if (heartbeat !== null && (heartbeat.last_good_at === null || heartbeat.facts?.["by_hand"] === true))
    return null;
  const { parseBackupRecord } = await import("../backup/keep-good.ts");
  const record = parseBackupRecord(await files.readText(layout.backupRecord));
  const here = record.filter((one) => (one.directory ?? directory) === directory);
  const newest = here.toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at)).at(-1);
  if (newest === undefined) return heartbeat === null ? null : `no backup in ${directory} is on record`;
  const found = await files.stat(`${directory}/${newest.name}`);
  if (found === null) return `${newest.name} is not in ${directory}`;
  return found.sizeBytes === newest.bytes ? null : `${newest.name} has another size than it was written with`;
}

/** The last backup of a master that has no BACKUP_DIR. */
async function lookAtBackupByHand(
  { files, clock }: StatusDeps["host"],
  layout: MasterLayout,
): Promise<Judged | null> {
  const [text, key, { CLOCK_TOLERANCE_MS, parseHeartbeat }] = await Promise.all([
    files.readText(layout.backupHeartbeat),
    files.stat(layout.signingKey),
    import("../pinset/heartbeat.ts"),
  ]);
  const now = clock.now();
  const attention = (summary: string, todo: string): Judged => ({
    state: "attention",
    summary,
    todo,
    evidence: {},
  });
  const todo = `${BACKUP} --to DIR --recipient age1..., or each night: set BACKUP_DIR and BACKUP_RECIPIENT`;
  const record = parseHeartbeat(text);
  if (record === null && text !== null)
    return { ...attention("the record of the last backup can't be read", todo), state: "unknown" };
  if (record === null || record.last_good_at === null) {
    const bornMs = key === null ? Infinity : now.getTime() - key.modifiedAt.getTime();
    return bornMs >= 0 && bornMs < DAY_MS ? null : attention("no copy off this box", todo);
  }
  const ageMs = now.getTime() - Date.parse(record.last_good_at);
  if (ageMs < -CLOCK_TOLERANCE_MS)
    return attention("the last copy was made in the future", "check the clock of this machine");
  const how = record.facts?.["by_hand"] === true ? ", by hand" : "";
  // Of a run that failed, the summary says why.
  const what = record.last_good_at === record.at ? `: ${record.summary}` : "";
  const summary = `the last copy was made ${age(Math.max(0, ageMs))} ago${how}${what}`;
  return ageMs > BY_HAND_MS ? attention(summary, todo) : { state: "ok", summary, todo: null, evidence: {} };
}

/** cron itself, and whether its lines still start a program. */
export async function lookAtCron({ deps, steps }: PinsetNode): Promise<Judged> {
  const { drill, backup, ...always } = CRON_FILES;
  const isThere = async (path: string) => isOurCron((await deps.host.files.readText(path)) ?? "");
  const [isScheduled, hasBackups] = await Promise.all([isThere(drill), isThere(backup)]);
  const paths = [...Object.values(always), ...(isScheduled ? [drill] : []), ...(hasBackups ? [backup] : [])];
  const [seen, ...lines] = await Promise.all([steps, ...paths.map((path) => checkCronLine(deps.host, path))]);
  return withRemarks(judgeCron(seen, REPAIR_MASTER, isScheduled), lines);
}

/** What the last sweep found. Before the first one: the count of the storage API, which it keeps for a while. */
export async function countPins(node: PinsetNode): Promise<string | null> {
  const { deps, ask, values } = node;
  const { pins: swept } = await readFindings(node);
  if (swept.state !== "unknown") return swept.sentence;
  const answer = await getJson(deps.host, ask, `http://127.0.0.1:${values("WEBUI_PORT") ?? ""}/api/v1/pool`);
  const { pins } = ((answer === LATE ? null : answer)?.body ?? {}) as { readonly pins?: unknown };
  return typeof pins === "number" ? grouped(pins) : null;
}
