import type { ClusterReader } from "../cluster/client.ts";
import { readSpace } from "../cluster/kubo-space.ts";
import { OperatorError } from "../errors.ts";
import { lookUpName } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import { checkOwnPins, RECOVER_INTERVAL_MS } from "../federation/own-pins.ts";
import { ownClusterTarget, storageApiCaOf } from "../federation/storage-context.ts";
import { askMasterCount, countKuboPeers, countPins } from "../federation/sync-counts.ts";
import type { JoinDeps } from "../join/join-run.ts";
import {
  findUnclearKeys,
  openStorageSource,
  readSavedSettings,
  warnOfIgnored,
} from "../join/settings-source.ts";
import { trusting } from "../machine/http.ts";
import { bracketed, isListenable } from "../settings/address.ts";
import { readContainerEnv, type Values } from "../settings/context.ts";
import { STORAGE_BASE_DIR, STORAGE_NAMES, storageLayout } from "../settings/layout.ts";
import { parseSize } from "../settings/rules.ts";
import { STORAGE_RECOVERABLE } from "../settings/secrets.ts";
import { STORAGE_REQUIRED, STORAGE_SETTINGS } from "../settings/storage.ts";
import { collectParts, type Monotonic, type PartSpec, within } from "./collect.ts";
import { crossCheck, type PartRelations } from "./cross-check.ts";
import { type Containers, faultOfContainer } from "./judge-docker.ts";
import { askStorageApi, faultOfGate, type GateAnswer, judgeGate } from "./gate-part.ts";
import { isPending, judgeSettings, type StepsSeen } from "./judge-steps.ts";
import {
  judgeDisk,
  judgeElsewhere,
  judgeIngest,
  judgeKubo,
  judgeMasters,
  judgeName,
  judgePins,
  judgeUnapplied,
  type NodeFacts,
  partOf,
  type ReportRow,
} from "./judge-storage.ts";
import {
  type Ask,
  type AskedDocker,
  askWithin,
  dataOf,
  dockerPart,
  type Found,
  getJson,
  type Given,
  lookAtSteps,
  orNull,
  refuseProblems,
  titleOf,
} from "./look-at-node.ts";
import { type Judged, LATE, type Late, REPAIR_STORAGE } from "./part.ts";

/** Looks at a storage node: its parts. */
export async function lookAtStorage(
  { baseDir, docker, containers, host }: Given,
  deps: JoinDeps,
  clock: Monotonic,
): Promise<Found> {
  const layout = storageLayout(baseDir);
  const saved = await readSavedSettings(deps, layout.envFile);
  const resolved = (await openStorageSource({ ...deps, host }, saved)).resolve("none");
  const { settings, problems } = resolved;
  warnOfIgnored(deps, resolved);
  const isLost = (key: string) => !settings.has(key);
  const recovered = STORAGE_REQUIRED.some(isLost)
    ? await readContainerEnv(host, { recoverable: STORAGE_RECOVERABLE, specs: STORAGE_SETTINGS, saved })
    : new Map<string, { readonly value: string }>();
  const values: Values = (key) => {
    const setting = settings.get(key);
    const given = setting?.origin === "default" ? undefined : setting?.value;
    return given ?? recovered.get(key)?.value ?? setting?.value;
  };
  const missing = STORAGE_REQUIRED.filter((key) => values(key) === undefined);
  const prepared = { layout, settings, imagesArchive: null, register: true };
  const steps = lookAtSteps(
    async () => {
      // Loaded here, with every step, while the parts ask their questions.
      const { prepareStorageNode } = await import("../join/prepare-storage.ts");
      refuseProblems([
        ...problems,
        ...(await findUnclearKeys(deps, saved, "storage-node")),
        ...missing.map((key) => ({ subject: key, what: `${key} is missing.` })),
      ]);
      return await prepareStorageNode(deps, prepared);
    },
    deps.host,
    clock,
  );
  const { parts: specs, found } = storageParts({ deps, values, clock, docker, containers, steps });
  const [parts, seen] = await Promise.all([collectParts(specs, clock), steps]);
  const { facts, report } = found();
  const isSyncing = report.some(({ state }) => state === "syncing");
  return {
    kind: "storage-node",
    baseDir,
    title: titleOf("storage node", values, baseDir, STORAGE_BASE_DIR),
    parts: crossCheck(parts, withoutName(seen), RELATIONS),
    notes: [],
    remark: isSyncing ? "this node is still syncing" : null,
    data: {
      ...dataOf(seen),
      node: facts,
      report,
      pending: seen.items.some(isPending) || report.some(({ state }) => state === "attention"),
    },
  };
}

const RELATIONS: PartRelations = {
  inDocker: ["member", "kubo", "pins", "ingest", "storage"],
  shownBy: {
    docker: ["Docker"],
    kubo: ["kubo"],
    "cluster-follower": ["member"],
    ingest: ["ingest"],
    membership: ["member"],
    "node-name": ["name"],
  },
  repair: REPAIR_STORAGE,
};

/** An installed storage node, and what every part may ask. */
interface StorageNode {
  readonly deps: Pick<JoinDeps, "host" | "openCluster">;
  readonly values: Values;
  readonly clock: Monotonic;
  readonly docker: AskedDocker;
  readonly containers: Promise<Containers>;
  readonly steps: Promise<StepsSeen>;
}

/** What the parts found, for `--json`: it fills while they look. What is not known is null. */
interface StorageFindings {
  readonly facts: NodeFacts;
  readonly report: readonly ReportRow[];
}

/** A list of a large pinset takes longer than any other question. */
const LISTS_MS = 30_000;
/** ipfs-cluster needs some time to pin again what it found missing. */
const SETTLE_MS = RECOVER_INTERVAL_MS + 3 * 60_000;
const KUBO = "http://127.0.0.1:5001";

/** The parts of a storage node, in the order of the screen, and what they found. A new part is one more entry. */
function storageParts(node: StorageNode): {
  readonly parts: readonly PartSpec[];
  readonly found: () => StorageFindings;
} {
  const { deps, values, clock, docker, containers, steps } = node;
  const { host } = deps;
  const ask = askWithin(clock);
  const trusted = (values("MASTER_CLUSTER_PEERIDS") ?? "").split(",");
  const url = (values("STORAGE_API_URL") ?? "").replace(/\/+$/, "");
  const http = trusting(host.http, storageApiCaOf(values));
  const rows = new Map<string, ReportRow>();
  const facts = { ...nothingKnown(values, trusted, url) };
  const report = (row: ReportRow): Judged => {
    rows.set(row.about, row);
    return partOf(row);
  };
  /** A container that does not run says more than what is missing because of that. */
  const unlessStopped = async (container: string, judged: Judged): Promise<Judged> => {
    const known = await containers;
    const isAbsent = known !== null && !known.has(container);
    // Nobody can read the log of a container that is not there.
    if (isAbsent && judged.state !== "ok") return { ...judged, todo: REPAIR_STORAGE };
    return faultOfContainer(known, container, REPAIR_STORAGE) ?? judged;
  };
  const gateAnswer = askStorageApi(http, url, ask);
  const named = lookAtName(http, url, values, ask);
  const openCluster = (signal: AbortSignal) => deps.openCluster({ ...ownClusterTarget(values), signal });
  const parts: readonly PartSpec[] = [
    dockerPart(docker, REPAIR_STORAGE),
    {
      name: "member",
      look: async (signal) => {
        [facts.masters, facts.name] = await Promise.all([
          lookAtMasters(openCluster(signal), trusted, ask),
          named,
        ]);
        return await unlessStopped(STORAGE_NAMES.cluster, report(judgeMasters(facts)));
      },
    },
    {
      name: "kubo",
      look: async () => {
        const peers = await ask(() => countKuboPeers(host));
        facts.kuboPeers = peers === LATE ? null : peers;
        return await unlessStopped(STORAGE_NAMES.kubo, report(judgeKubo(facts.kuboPeers)));
      },
    },
    {
      name: "pins",
      deadlineMs: LISTS_MS + 1_000,
      look: async (signal) => {
        facts.pins = await lookAtPins(deps, openCluster(signal), {
          http,
          url,
          trusted,
          ask,
          clock,
          gateAnswer,
          containers,
        });
        return report(judgePins(facts.pins));
      },
    },
    {
      name: "ingest",
      look: async () => {
        const bind = values("INGEST_BIND") ?? "";
        // A server elsewhere would answer for itself.
        if (!isListenable(bind, host.system.addresses()))
          return await unlessStopped(STORAGE_NAMES.ingest, report(judgeElsewhere(bind)));
        const health = await getJson(host, ask, `http://${loopback(facts.ingest.address)}/health`);
        const isChanged = health === null && isDrifted(await steps, "ingest");
        const judged = isChanged ? judgeUnapplied(facts.ingest) : judgeIngest(facts.ingest, health);
        return await unlessStopped(STORAGE_NAMES.ingest, report(judged));
      },
    },
    {
      name: "quota gate",
      look: async () => {
        const fault = faultOfGate(await gateAnswer);
        facts.ingest = { ...facts.ingest, gate: { url, fault } };
        return report(judgeGate(facts.ingest));
      },
    },
    {
      name: "name",
      look: async () => {
        const [own, name] = await Promise.all([ask(() => orNull(() => readNodeIdentity(host))), named]);
        facts.peerId = own === LATE || own === null ? null : own.peerId;
        facts.name = name;
        return report(judgeName(facts));
      },
    },
    {
      name: "storage",
      look: async () => {
        facts.disk = await lookAtDisk(host, values, ask);
        return report(judgeDisk(facts.disk, facts.ingest.maxBlockBytes));
      },
    },
    { name: "settings", look: async () => judgeSettings(withoutName(await steps), REPAIR_STORAGE) },
  ];
  const found = (): StorageFindings => ({
    facts,
    report: parts.flatMap(({ name }) => rows.get(name) ?? []),
  });
  return { parts, found };
}

function isDrifted({ items }: StepsSeen, id: string): boolean {
  return items.some(({ step, state }) => step === id && state === "drifted");
}

/** The part `name` says itself that the master does not answer. */
function withoutName({ items, unchecked }: StepsSeen): StepsSeen {
  return { items, unchecked: unchecked.filter(({ step }) => step !== "node-name") };
}

type Writable<Shape> = { -readonly [Key in keyof Shape]: Shape[Key] };

function nothingKnown(values: Values, trusted: readonly string[], url: string): Writable<NodeFacts> {
  return {
    pool: values("CLUSTERNAME") ?? "an unknown pool",
    peerId: null,
    masters: null,
    trusted,
    kuboPeers: null,
    pins: {
      known: null,
      statuses: null,
      isSettling: false,
      master: { unknown: "it did not answer in time" },
    },
    ingest: {
      address: `${bracketed(values("INGEST_BIND") ?? "")}:${values("INGEST_PORT") ?? ""}`,
      maxBlockBytes: Number(values("INGEST_MAX_BLOCK_BYTES")),
      mode: values("INGEST_QUOTA_MODE") ?? "strict",
      gate: { url, fault: "did not answer in time" },
    },
    name: { unknown: `${values("CLUSTER_PEERNAME") ?? ""}; the master did not answer in time` },
    disk: null,
  };
}

/** The address for a request from this machine: `0.0.0.0` and `::` mean all addresses. */
function loopback(address: string): string {
  return address.replace(/^(?:0\.0\.0\.0|::|\[::\]):(?=\d+$)/, "127.0.0.1:");
}

async function lookAtMasters(
  cluster: Pick<ClusterReader, "identity" | "peers">,
  trusted: readonly string[],
  ask: Ask,
): Promise<NodeFacts["masters"]> {
  const answers = await ask(() => orNull(() => Promise.all([cluster.identity(), cluster.peers()])));
  if (answers === LATE || answers === null) return null;
  const [{ id: own }, peers] = answers;
  const byId = new Map(peers.filter(({ error }) => error === "").map((peer) => [peer.id, peer]));
  return trusted.map((id) => {
    const peer = byId.get(id);
    return { id, name: peer?.peername ?? null, countsThisNode: peer?.clusterPeers.includes(own) ?? false };
  });
}

/** A peer that does not even say who it is sends no list either, so that is asked first. */
async function lookAtPins(
  { host }: Pick<JoinDeps, "host">,
  cluster: Pick<ClusterReader, "identity" | "list" | "ownStatus">,
  given: {
    readonly http: StorageHttp;
    readonly url: string;
    readonly trusted: readonly string[];
    readonly ask: Ask;
    readonly clock: Monotonic;
    readonly gateAnswer: Promise<GateAnswer>;
    readonly containers: Promise<Containers>;
  },
): Promise<NodeFacts["pins"]> {
  const { http, url, trusted, ask, clock, gateAnswer, containers } = given;
  const listed = <Answer>(list: () => Promise<Answer>) => within(LISTS_MS, list, clock);
  const own = async () => {
    const self = await ask(() => orNull(() => cluster.identity()));
    if (self === LATE || self === null) return [null, null] as const;
    return await Promise.all([
      listed(() => countPins(cluster)),
      listed(() => orNull(() => checkOwnPins(cluster))),
    ]);
  };
  // A master may take long to count. One that does not even answer a short question is not waited for.
  const silent = new Promise<Late>((resolve) => {
    gateAnswer.then(
      (answer) => {
        if (answer === LATE) resolve(LATE);
      },
      // The part of the storage API reports it.
      () => {},
    );
  });
  const [[known, statuses], counted] = await Promise.all([
    own(),
    Promise.race([listed(() => askMasterCount(http, url, trusted)), silent]),
  ]);
  const master: NodeFacts["pins"]["master"] =
    counted === LATE
      ? { unknown: `${url} did not answer in time` }
      : "unknown" in counted
        ? counted
        : { pins: counted.pins, ageMs: host.clock.now().getTime() - counted.countedAt.getTime() };
  const startedAt = Date.parse((await containers)?.get(STORAGE_NAMES.cluster)?.startedAt ?? "");
  const isSettling = host.clock.now().getTime() - startedAt < SETTLE_MS;
  return {
    known: known === LATE ? null : known,
    statuses: statuses === LATE ? null : statuses,
    isSettling,
    master,
  };
}

type StorageHttp = ReturnType<typeof trusting>;

async function lookAtName(
  http: StorageHttp,
  url: string,
  values: Values,
  ask: Ask,
): Promise<NodeFacts["name"]> {
  const [name, pool] = [values("CLUSTER_PEERNAME") ?? "", values("CLUSTERNAME") ?? ""];
  const hasInvite = values("NODE_INVITE") !== undefined;
  try {
    const claim = { pool, peerId: null, invite: null };
    const found = await ask(() => lookUpName(http, url, name, "--no-register", claim));
    if (found === LATE) return { unknown: `${name}; the master did not answer in time` };
    const { entry, needsInvite } = found;
    const [holder, removed] = [entry?.peerId ?? null, entry?.removed ?? []];
    return { name, holder, lacksInvite: needsInvite && !hasInvite, removed };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    if (thrown.exit === "settings") return { refused: thrown.what };
    const { remedy } = thrown;
    // That flag is for a join.
    const own = remedy?.replace(/ To continue without the directory, use .*$/, "");
    return { unknown: `${name}; ${thrown.what}`, ...(own === undefined ? {} : { remedy: own }) };
  }
}

async function lookAtDisk(host: JoinDeps["host"], values: Values, ask: Ask): Promise<NodeFacts["disk"]> {
  const reading = await ask(() => orNull(() => readSpace(host.http, KUBO)));
  if (reading === LATE || reading === null) return null;
  return { ...reading, reserveBytes: parseSize(values("DISK_RESERVE") ?? "") ?? 0 };
}
