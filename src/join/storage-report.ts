import type { ClusterReader } from "../cluster/client.ts";
import type { PlanItem } from "../engine/events.ts";
import { describe, look } from "../engine/plan.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { lookUpName } from "../federation/announce-name.ts";
import { OWN_CLUSTER } from "../federation/membership.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import { ageOfCount } from "../federation/pinset-sync.ts";
import { askMasterCount, countKuboPeers, countPins } from "../federation/sync-counts.ts";
import { readContainerEnv, type Values } from "../settings/context.ts";
import { storageLayout } from "../settings/layout.ts";
import { STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import { STORAGE_REQUIRED } from "../settings/storage.ts";
import { decimalBytes } from "../units.ts";
import { type JoinDeps, sentenceOf } from "./join-run.ts";
import { prepareStorageNode } from "./prepare-storage.ts";
import { openStorageSource, readSavedSettings } from "./settings-source.ts";

const NAME_STEP = "node-name";

/** `status` of a storage node: every thing with its state, and how the node fares in its pool. Changes nothing. */
export async function storageStatus(baseDir: string, deps: JoinDeps): Promise<VerbExit> {
  const { host, reporter, version } = deps;
  const layout = storageLayout(baseDir);
  const source = await openStorageSource(deps, await readSavedSettings(deps, layout.envFile));
  const { settings, problems } = source.resolve(new Map());
  const told = await readContainerEnv(host, STORAGE_RECOVERABLE);
  const missing = STORAGE_REQUIRED.filter((key) => !settings.has(key) && !told.has(key)).map((key) => ({
    subject: key,
    what: `${key} is missing.`,
  }));
  if (problems.length + missing.length > 0)
    throw new OperatorError({
      exit: "settings",
      what: "The settings are not as they must be.",
      problems: [...problems, ...missing],
    });
  const steps = await prepareStorageNode(deps, { layout, settings, imagesArchive: null, register: true });
  const values = (key: string) => {
    const setting = settings.get(key);
    const given = setting?.origin === "default" ? undefined : setting?.value;
    return given ?? told.get(key)?.value ?? setting?.value;
  };
  const [items, facts] = await Promise.all([lookAtSteps(steps, deps), lookAtNode(deps, values)]);
  const report = judgeNode(facts);
  const repairable = items.some(({ state, changes }) => state === "foreign" || changes.length > 0);
  const pending = repairable || report.some(({ state }) => state === "attention");
  reporter.result({
    data: { verb: "status", version, kind: "storage-node", baseDir, items, node: facts, report, pending },
    lines: [
      `fula-node ${version}, storage node in ${baseDir}`,
      ...reporter.table(items.map((item) => [item.state, item.step, sentenceOf(item)])),
      ...reporter.table(report.map(({ state, about, sentence }) => [state, about, sentence])),
      repairable
        ? "Something is to be done: run join-as-storage-node."
        : pending
          ? "Something needs your attention: see above, and run join-as-storage-node."
          : concludeReport(report),
    ],
  });
  return pending ? "pending" : "ok";
}

/** Where the master does not answer, its step is left out: the report says so, and the rest is told. */
async function lookAtSteps(
  steps: readonly AnyStep[],
  { host }: Pick<JoinDeps, "host">,
): Promise<readonly PlanItem[]> {
  const lookAt = async (some: readonly AnyStep[]) => describe(await look(some, host, new Set()));
  const things = await lookAt(steps.filter(({ id }) => id !== NAME_STEP));
  try {
    return [...things, ...(await lookAt(steps.filter(({ id }) => id === NAME_STEP)))];
  } catch (thrown) {
    if (thrown instanceof OperatorError && thrown.exit === "unavailable") return things;
    throw thrown;
  }
}

/** A person waits: what can't be told by then is told to be unknown. */
const DEADLINE_MS = 30_000;
const TIMEOUT_MS = 10_000;
const REPO_STAT = "http://127.0.0.1:5001/api/v0/repo/stat?size-only=true";
const UNAUTHORIZED = 401;

/** Looks at what a storage node does. What does not answer is told as unknown; nothing is changed. */
export async function lookAtNode(
  deps: Pick<JoinDeps, "host" | "openCluster">,
  values: Values,
): Promise<NodeFacts> {
  const { host } = deps;
  const trusted = (values("MASTER_CLUSTER_PEERIDS") ?? "").split(",");
  const url = (values("STORAGE_API_URL") ?? "").replace(/\/+$/, "");
  const cluster = deps.openCluster({ endpoint: OWN_CLUSTER, signal: AbortSignal.timeout(DEADLINE_MS) });
  try {
    const [identity, masters, known, statuses, master, kuboPeers, fault, name, disk] = await Promise.all([
      readNodeIdentity(host),
      lookAtMasters(cluster, trusted),
      countPins(cluster),
      countStatuses(cluster),
      lookAtMasterCount(deps, url, trusted),
      countKuboPeers(host),
      checkStorageApi(deps, url),
      lookAtName(deps, url, values("CLUSTER_PEERNAME") ?? ""),
      lookAtDisk(deps),
    ]);
    return {
      pool: values("CLUSTERNAME") ?? "an unknown pool",
      peerId: identity?.peerId ?? null,
      masters,
      trusted,
      kuboPeers,
      pins: { known, statuses, master },
      ingest: {
        address: `${values("INGEST_BIND") ?? ""}:${values("INGEST_PORT") ?? ""}`,
        maxBlockBytes: Number(values("INGEST_MAX_BLOCK_BYTES")),
        mode: values("INGEST_QUOTA_MODE") ?? "strict",
        gate: { url, fault },
      },
      name,
      disk,
    };
  } finally {
    cluster.close();
  }
}

async function lookAtMasters(
  cluster: ClusterReader,
  trusted: readonly string[],
): Promise<NodeFacts["masters"]> {
  return orNull(async () => {
    const [{ id: own }, peers] = await Promise.all([cluster.identity(), cluster.peers()]);
    const byId = new Map(peers.filter(({ error }) => error === "").map((peer) => [peer.id, peer]));
    return trusted.map((id) => {
      const peer = byId.get(id);
      return {
        id,
        name: peer?.peername ?? null,
        countsThisNode: peer?.clusterPeers.includes(own) ?? false,
      };
    });
  });
}

async function lookAtMasterCount(
  { host }: Pick<JoinDeps, "host">,
  url: string,
  trusted: readonly string[],
): Promise<NodeFacts["pins"]["master"]> {
  const master = await askMasterCount(host, url, trusted);
  if ("unknown" in master) return master;
  return { pins: master.pins, ageMs: host.clock.now().getTime() - master.countedAt.getTime() };
}

/** Counts this node's pins by their status, in constant memory. */
async function countStatuses(cluster: ClusterReader): Promise<Readonly<Record<string, number>> | null> {
  const counts: Record<string, number> = {};
  return orNull(async () => {
    await cluster.list("own-status", (block) => {
      for (const line of block.toString("utf8").split("\n")) {
        if (line === "") continue;
        const status = statusOf(line);
        counts[status] = (counts[status] ?? 0) + 1;
      }
    });
    return counts;
  });
}

/** ipfs-cluster's word for one pin's status, from its line in the list. */
function statusOf(line: string): string {
  const peers = /"peer_map":\{"[^"]+":\{.*?"status":"([a-z_]+)"/.exec(line);
  return peers?.[1] ?? UNREADABLE_STATUS;
}

/** An ingest asks with a client's key; without one the answer is 401, from whatever is the storage API. */
async function checkStorageApi({ host }: Pick<JoinDeps, "host">, url: string): Promise<string | null> {
  const answer = await orNull(() => host.http.json(`${url}/api/v1/storage`, { timeoutMs: TIMEOUT_MS }));
  if (answer === null) return "does not answer";
  return answer.status === UNAUTHORIZED ? null : `answers ${answer.status}`;
}

async function lookAtName(
  { host }: Pick<JoinDeps, "host">,
  url: string,
  name: string,
): Promise<NodeFacts["name"]> {
  try {
    const entry = await lookUpName(host.http, url, name, "--no-register");
    return { name, holder: entry?.peerId ?? null };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { unknown: `${name}; ${thrown.what}` };
  }
}

async function lookAtDisk({ host }: Pick<JoinDeps, "host">): Promise<NodeFacts["disk"]> {
  const answer = await orNull(() => host.http.json(REPO_STAT, { method: "POST", timeoutMs: TIMEOUT_MS }));
  const { RepoSize, StorageMax } = (answer?.body ?? {}) as {
    readonly RepoSize?: unknown;
    readonly StorageMax?: unknown;
  };
  return typeof RepoSize === "number" && typeof StorageMax === "number"
    ? { usedBytes: RepoSize, limitBytes: StorageMax }
    : null;
}

async function orNull<T>(ask: () => Promise<T>): Promise<T | null> {
  try {
    return await ask();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

/** What was seen of a storage node beyond what its steps tell; null where it could not be told. */
export interface NodeFacts {
  readonly pool: string;
  /** Its own cluster peer's id. */
  readonly peerId: string | null;
  /** Everybody that it obeys; null where its cluster peer does not answer. */
  readonly masters:
    | readonly {
        readonly id: string;
        /** Null for one that is not connected. */
        readonly name: string | null;
        /** Whether its own list of peers has this node. */
        readonly countsThisNode: boolean;
      }[]
    | null;
  readonly trusted: readonly string[];
  /** How many other kubos its kubo is connected to. */
  readonly kuboPeers: number | null;
  readonly pins: {
    readonly known: number | null;
    /** How many pins are in which status here, by ipfs-cluster's word for it. */
    readonly statuses: Readonly<Record<string, number>> | null;
    /** `ageMs`: how long ago that was counted. */
    readonly master: { readonly pins: number; readonly ageMs: number } | { readonly unknown: string };
  };
  readonly ingest: {
    readonly address: string;
    readonly maxBlockBytes: number;
    readonly mode: string;
    /** The storage API that is asked who may upload, and why it is of no use; null where it answers. */
    readonly gate: { readonly url: string; readonly fault: string | null };
  };
  readonly name: { readonly name: string; readonly holder: string | null } | { readonly unknown: string };
  /** What its repository takes of what it may take. */
  readonly disk: { readonly usedBytes: number; readonly limitBytes: number } | null;
}

/** One line of the report. `attention`: there is something for the operator to do. */
export interface ReportRow {
  readonly about: string;
  readonly state: "ok" | "syncing" | "attention" | "unknown";
  readonly sentence: string;
}

/** Where ipfs-cluster's word for a pin's status is not found in its line. */
export const UNREADABLE_STATUS = "unreadable";

const FULL_SHARE = 0.9;
/** Words of ipfs-cluster (api/types.go, TrackerStatus) for a pin that will not come by itself. */
const BROKEN: readonly string[] = ["pin_error", "unpin_error", "cluster_error", "unexpectedly_unpinned"];
/** Words for a pin that is on its way. */
const UNDER_WAY: readonly string[] = ["pinning", "pin_queued"];

/** Judges what was seen, in the order in which a person reads it. */
export function judgeNode(facts: NodeFacts): readonly ReportRow[] {
  return [
    judgeMasters(facts),
    judgeKubo(facts),
    judgePins(facts),
    judgeIngest(facts),
    judgeGate(facts),
    judgeName(facts),
    judgeDisk(facts),
  ];
}

/** The last line of a report that has nothing for the operator to do: well only where all of it is. */
export function concludeReport(report: readonly ReportRow[]): string {
  const told = (state: ReportRow["state"]) =>
    report.flatMap((row) => (row.state === state ? [`"${row.about}"`] : [])).join(", ");
  const unknown = told("unknown");
  const syncing = told("syncing");
  if (unknown === "" && syncing === "") return "All is as wished.";
  if (unknown === "") return `Nothing is to be done, but this node is still syncing: see ${syncing} above.`;
  const more = syncing === "" ? "" : ` This node is still syncing: see ${syncing} above.`;
  return `Nothing is known to be done, but not everything could be told: see ${unknown} above.${more}`;
}

function judgeMasters({ pool, masters, trusted }: NodeFacts): ReportRow {
  const about = "member";
  if (masters === null) {
    const sentence = `of ${pool}, obeys ${trusted.join(", ")}; ipfs-cluster does not answer`;
    return { about, state: "unknown", sentence };
  }
  const told = masters.map(
    ({ id, name, countsThisNode }) =>
      `${id} (${name === null ? "not connected" : `${name}, ${countsThisNode ? "sees this node" : "does not see this node"}`})`,
  );
  const isMember = masters.some(({ countsThisNode }) => countsThisNode);
  const word = isMember ? "of" : "not of";
  return {
    about,
    state: isMember ? "ok" : "attention",
    sentence: `${word} ${pool}, obeys ${told.join(", ")}`,
  };
}

function judgeKubo({ kuboPeers }: NodeFacts): ReportRow {
  const about = "kubo";
  if (kuboPeers === null) return { about, state: "unknown", sentence: "does not answer" };
  const others = `connected to ${kuboPeers} other${kuboPeers === 1 ? "" : "s"}`;
  return kuboPeers > 0
    ? { about, state: "ok", sentence: others }
    : { about, state: "attention", sentence: `${others}: no content arrives` };
}

function judgePins({ pins: { known, statuses, master } }: NodeFacts): ReportRow {
  const about = "pins";
  if (known === null)
    return { about, state: "unknown", sentence: "ipfs-cluster did not list its pins whole" };
  const first = compareCounts(known, master);
  if (statuses === null)
    return { about, state: "unknown", sentence: `${first}; which are pinned was not told in time` };
  const { pinned = 0, ...others } = statuses;
  const isApart = "pins" in master && known !== master.pins;
  const more = Object.entries(others).map(([status, count]) => `, ${count} ${status}`);
  const has = (words: readonly string[]) => words.some((word) => (statuses[word] ?? 0) > 0);
  const sentence = `${first}; ${pinned} pinned${more.join("")}`;
  if (has(BROKEN)) return { about, state: "attention", sentence };
  if ("unknown" in master || has([UNREADABLE_STATUS])) return { about, state: "unknown", sentence };
  return { about, state: isApart || has(UNDER_WAY) ? "syncing" : "ok", sentence };
}

/** More than the master's is behind, too: what was unpinned meanwhile hides that new ones are missing. */
function compareCounts(known: number, master: NodeFacts["pins"]["master"]): string {
  if ("unknown" in master) return `${known} known here (the master's count is not known: ${master.unknown})`;
  const age = ageOfCount(master.ageMs);
  return known > master.pins
    ? `${known} known here, more than the master's ${master.pins}${age}: not caught up`
    : `${known} of ${master.pins} known here${age}`;
}

function judgeIngest({ ingest: { address, mode, maxBlockBytes } }: NodeFacts): ReportRow {
  const sentence = `${address}, blocks of up to ${maxBlockBytes} bytes, mode ${mode}`;
  return { about: "ingest", state: "ok", sentence };
}

function judgeGate({ ingest: { mode, gate } }: NodeFacts): ReportRow {
  const about = "quota gate";
  if (gate.fault === null) return { about, state: "ok", sentence: `${gate.url} answers` };
  const so = mode === "open" ? "lets every upload in, unmetered" : "refuses every upload";
  return { about, state: "attention", sentence: `${gate.url} ${gate.fault}, so the ingest ${so}` };
}

function judgeName({ name, peerId }: NodeFacts): ReportRow {
  const about = "name";
  if ("unknown" in name) return { about, state: "unknown", sentence: name.unknown };
  if (name.holder === null)
    return { about, state: "attention", sentence: `${name.name} is not announced to the master` };
  if (name.holder !== peerId)
    return { about, state: "attention", sentence: `${name.name} belongs to another node (${name.holder})` };
  return { about, state: "ok", sentence: `${name.name}, announced to the master` };
}

function judgeDisk({ disk }: NodeFacts): ReportRow {
  const about = "storage";
  if (disk === null) return { about, state: "unknown", sentence: "kubo does not tell" };
  const { usedBytes, limitBytes } = disk;
  const share = limitBytes > 0 ? usedBytes / limitBytes : 1;
  const sentence = `${decimalBytes(usedBytes)} of ${decimalBytes(limitBytes)} used (${(share * 100).toFixed(1)} %)`;
  return { about, state: share >= FULL_SHARE ? "attention" : "ok", sentence };
}
