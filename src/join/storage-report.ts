import type { ClusterReader } from "../cluster/client.ts";
import type { PlanItem } from "../engine/events.ts";
import { describe, look } from "../engine/plan.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { lookUpName } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import { ageOfCount } from "../federation/pinset-sync.ts";
import { OWN_CLUSTER } from "../federation/storage-context.ts";
import { askMasterCount, countKuboPeers, countPins } from "../federation/sync-counts.ts";
import { readContainerEnv, type Values } from "../settings/context.ts";
import { storageLayout } from "../settings/layout.ts";
import { STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import { STORAGE_REQUIRED, STORAGE_SETTINGS } from "../settings/storage.ts";
import { decimalBytes } from "../units.ts";
import { type JoinDeps, sentenceOf } from "./join-run.ts";
import { prepareStorageNode } from "./prepare-storage.ts";
import { findUnclearKeys, openStorageSource, readSavedSettings, warnOfIgnored } from "./settings-source.ts";

const NAME_STEP = "node-name";

/** `status` of a storage node: the state of every step, and the state of the node in its pool. Changes nothing. */
export async function storageStatus(baseDir: string, deps: JoinDeps): Promise<VerbExit> {
  const { host, reporter, version } = deps;
  const layout = storageLayout(baseDir);
  const saved = await readSavedSettings(deps, layout.envFile);
  const resolved = (await openStorageSource(deps, saved)).resolve("none");
  const { settings } = resolved;
  warnOfIgnored(deps, resolved);
  const problems = [...resolved.problems, ...(await findUnclearKeys(deps, saved, "storage-node"))];
  const recovered = await readContainerEnv(host, {
    recoverable: STORAGE_RECOVERABLE,
    specs: STORAGE_SETTINGS,
    saved,
  });
  const missing = STORAGE_REQUIRED.filter((key) => !settings.has(key) && !recovered.has(key)).map((key) => ({
    subject: key,
    what: `${key} is missing.`,
  }));
  if (problems.length + missing.length > 0)
    throw new OperatorError({
      exit: "settings",
      what: "Some settings are missing or invalid.",
      problems: [...problems, ...missing],
    });
  const steps = await prepareStorageNode(deps, { layout, settings, imagesArchive: null, register: true });
  const values = (key: string) => {
    const setting = settings.get(key);
    const given = setting?.origin === "default" ? undefined : setting?.value;
    return given ?? recovered.get(key)?.value ?? setting?.value;
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
        ? "Changes are pending. Run join-as-storage-node."
        : pending
          ? "Something needs attention, see above. Then run join-as-storage-node."
          : concludeReport(report),
    ],
  });
  return pending ? "pending" : "ok";
}

/** If the master does not answer, the step that needs it is left out. The report says so, and the other steps are still shown. */
async function lookAtSteps(
  steps: readonly AnyStep[],
  { host }: Pick<JoinDeps, "host">,
): Promise<readonly PlanItem[]> {
  const lookAt = async (some: readonly AnyStep[]) => describe(await look(some, host, new Set()));
  const items = await lookAt(steps.filter(({ id }) => id !== NAME_STEP));
  try {
    return [...items, ...(await lookAt(steps.filter(({ id }) => id === NAME_STEP)))];
  } catch (thrown) {
    if (thrown instanceof OperatorError && thrown.exit === "unavailable") return items;
    throw thrown;
  }
}

/** The operator waits for the report, so everything that takes longer is reported as unknown. */
const DEADLINE_MS = 30_000;
const TIMEOUT_MS = 10_000;
const REPO_STAT = "http://127.0.0.1:5001/api/v0/repo/stat?size-only=true";
const UNAUTHORIZED = 401;

/** Collects the state of a storage node. Anything that does not answer becomes unknown. Changes nothing. */
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
  return nullIfFailed(async () => {
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
  return nullIfFailed(async () => {
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

/** The status of one pin in ipfs-cluster's terms, from its line in the list. */
function statusOf(line: string): string {
  const peers = /"peer_map":\{"[^"]+":\{.*?"status":"([a-z_]+)"/.exec(line);
  return peers?.[1] ?? UNREADABLE_STATUS;
}

/** The ingest sends a client's key. Without a key, a working storage API answers 401. */
async function checkStorageApi({ host }: Pick<JoinDeps, "host">, url: string): Promise<string | null> {
  const answer = await nullIfFailed(() =>
    host.http.json(`${url}/api/v1/storage`, { timeoutMs: TIMEOUT_MS, isRemote: true }),
  );
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
  const answer = await nullIfFailed(() =>
    host.http.json(REPO_STAT, { method: "POST", timeoutMs: TIMEOUT_MS }),
  );
  const { RepoSize, StorageMax } = (answer?.body ?? {}) as {
    readonly RepoSize?: unknown;
    readonly StorageMax?: unknown;
  };
  return typeof RepoSize === "number" && typeof StorageMax === "number"
    ? { usedBytes: RepoSize, limitBytes: StorageMax }
    : null;
}

async function nullIfFailed<T>(ask: () => Promise<T>): Promise<T | null> {
  try {
    return await ask();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

/** The state of a storage node beyond its steps; null for everything unknown. */
export interface NodeFacts {
  readonly pool: string;
  /** The id of its own cluster peer. */
  readonly peerId: string | null;
  /** The masters that it trusts; null if its cluster peer does not answer. */
  readonly masters:
    | readonly {
        readonly id: string;
        /** Null for a master that is not connected. */
        readonly name: string | null;
        /** True if this node is in the master's list of peers. */
        readonly countsThisNode: boolean;
      }[]
    | null;
  readonly trusted: readonly string[];
  /** The number of other kubo nodes that its kubo is connected to. */
  readonly kuboPeers: number | null;
  readonly pins: {
    readonly known: number | null;
    /** The number of pins on this node by status, in ipfs-cluster's terms. */
    readonly statuses: Readonly<Record<string, number>> | null;
    /** `ageMs`: the age of the count. */
    readonly master: { readonly pins: number; readonly ageMs: number } | { readonly unknown: string };
  };
  readonly ingest: {
    readonly address: string;
    readonly maxBlockBytes: number;
    readonly mode: string;
    /** The storage API, which decides who may upload. `fault`: why it can't be used; null if it answers. */
    readonly gate: { readonly url: string; readonly fault: string | null };
  };
  readonly name: { readonly name: string; readonly holder: string | null } | { readonly unknown: string };
  /** Used space and limit of its repository. */
  readonly disk: { readonly usedBytes: number; readonly limitBytes: number } | null;
}

/** One line of the report. `attention`: the operator has to do something. */
export interface ReportRow {
  readonly about: string;
  readonly state: "ok" | "syncing" | "attention" | "unknown";
  readonly sentence: string;
}

/** The status of a pin whose line contains no status of ipfs-cluster. */
export const UNREADABLE_STATUS = "unreadable";

const FULL_SHARE = 0.9;
/** Statuses of ipfs-cluster (api/types.go, TrackerStatus) for a pin that does not recover by itself. */
const BROKEN: readonly string[] = ["pin_error", "unpin_error", "cluster_error", "unexpectedly_unpinned"];
/** Statuses for a pin that is being fetched or waits for it. */
const UNDER_WAY: readonly string[] = ["pinning", "pin_queued"];

/** Turns the facts into the lines of the report, in reading order. */
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

/** The last line of a report without anything to do. It says up to date only if every line is ok. */
export function concludeReport(report: readonly ReportRow[]): string {
  const rowsIn = (state: ReportRow["state"]) =>
    report.flatMap((row) => (row.state === state ? [`"${row.about}"`] : [])).join(", ");
  const unknown = rowsIn("unknown");
  const syncing = rowsIn("syncing");
  if (unknown === "" && syncing === "") return "Everything is up to date.";
  if (unknown === "") return `Nothing to do. This node is still syncing: see ${syncing} above.`;
  const more = syncing === "" ? "" : ` This node is still syncing: see ${syncing} above.`;
  return `Some things could not be checked: see ${unknown} above.${more}`;
}

function judgeMasters({ pool, masters, trusted }: NodeFacts): ReportRow {
  const about = "member";
  if (masters === null) {
    const sentence = `of ${pool}, trusts ${trusted.join(", ")}; ipfs-cluster does not answer`;
    return { about, state: "unknown", sentence };
  }
  const described = masters.map(
    ({ id, name, countsThisNode }) =>
      `${id} (${name === null ? "not connected" : `${name}, ${countsThisNode ? "sees this node" : "does not see this node"}`})`,
  );
  const isMember = masters.some(({ countsThisNode }) => countsThisNode);
  const prefix = isMember ? "of" : "not of";
  return {
    about,
    state: isMember ? "ok" : "attention",
    sentence: `${prefix} ${pool}, trusts ${described.join(", ")}`,
  };
}

function judgeKubo({ kuboPeers }: NodeFacts): ReportRow {
  const about = "kubo";
  if (kuboPeers === null) return { about, state: "unknown", sentence: "does not answer" };
  const others = `connected to ${kuboPeers} other node${kuboPeers === 1 ? "" : "s"}`;
  return kuboPeers > 0
    ? { about, state: "ok", sentence: others }
    : { about, state: "attention", sentence: `${others}: it receives no content` };
}

function judgePins({ pins: { known, statuses, master } }: NodeFacts): ReportRow {
  const about = "pins";
  if (known === null)
    return { about, state: "unknown", sentence: "ipfs-cluster did not send a complete list of pins" };
  const first = compareCounts(known, master);
  if (statuses === null)
    return { about, state: "unknown", sentence: `${first}; their status did not arrive in time` };
  const { pinned = 0, ...others } = statuses;
  const isDifferent = "pins" in master && known !== master.pins;
  const more = Object.entries(others).map(([status, count]) => `, ${count} ${status}`);
  const has = (some: readonly string[]) => some.some((status) => (statuses[status] ?? 0) > 0);
  const sentence = `${first}; ${pinned} pinned${more.join("")}`;
  if (has(BROKEN)) return { about, state: "attention", sentence };
  if ("unknown" in master || has([UNREADABLE_STATUS])) return { about, state: "unknown", sentence };
  return { about, state: isDifferent || has(UNDER_WAY) ? "syncing" : "ok", sentence };
}

/** More pins than the master also means not up to date: pins that were removed there meanwhile may hide that new ones are missing here. */
function compareCounts(known: number, master: NodeFacts["pins"]["master"]): string {
  if ("unknown" in master) return `${known} known here (the master's count is unknown: ${master.unknown})`;
  const age = ageOfCount(master.ageMs);
  return known > master.pins
    ? `${known} known here, more than the ${master.pins} of the master${age}: not in sync`
    : `${known} of ${master.pins} known here${age}`;
}

function judgeIngest({ ingest: { address, mode, maxBlockBytes } }: NodeFacts): ReportRow {
  const sentence = `${address}, blocks of up to ${maxBlockBytes} bytes, mode ${mode}`;
  return { about: "ingest", state: "ok", sentence };
}

function judgeGate({ ingest: { mode, gate } }: NodeFacts): ReportRow {
  const about = "quota gate";
  if (gate.fault === null) return { about, state: "ok", sentence: `${gate.url} answers` };
  const effect = mode === "open" ? "accepts every upload without a quota check" : "refuses every upload";
  return { about, state: "attention", sentence: `${gate.url} ${gate.fault}, so the ingest ${effect}` };
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
  if (disk === null) return { about, state: "unknown", sentence: "kubo does not report it" };
  const { usedBytes, limitBytes } = disk;
  const share = limitBytes > 0 ? usedBytes / limitBytes : 1;
  const sentence = `${decimalBytes(usedBytes)} of ${decimalBytes(limitBytes)} used (${(share * 100).toFixed(1)} %)`;
  return { about, state: share >= FULL_SHARE ? "attention" : "ok", sentence };
}
