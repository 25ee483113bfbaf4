import type { Cluster } from "../cluster/client.ts";
import type { NodesNow } from "../pinset/sweep/findings.ts";
import { OWN_IMAGE, SERVICE_IMAGES } from "../docker/kept-service.ts";
import {
  findUnclearKeys,
  readMasterSettings,
  readSavedSettings,
  warnOfIgnored,
} from "../join/settings-source.ts";
import { isLoopback } from "../machine/proxy.ts";
import { multiaddrToUrl } from "../settings/address.ts";
import type { Values } from "../settings/context.ts";
import type { EnvFile } from "../settings/env-file.ts";
import { MASTER_BASE_DIR, masterLayout, type MasterLayout, NAMES } from "../settings/layout.ts";
import { isDatabaseElsewhere } from "../settings/postgres-target.ts";
import type { Settings } from "../settings/settings.ts";
import { decimalBytes } from "../units.ts";
import { lookAtBilling } from "./billing-part.ts";
import { collectNotes, collectParts, type Monotonic, type NoteSpec, type PartSpec } from "./collect.ts";
import { crossCheck, type PartRelations } from "./cross-check.ts";
import { lookAtDatabase } from "./database-part.ts";
import { judgeServed, lookAtEdgePart } from "./edge-part.ts";
import { type Containers, faultOfContainer, judgeContainerAlone } from "./judge-docker.ts";
import { failedChecks, judgeApi, judgeWriter } from "./judge-master.ts";
import { isPending, type StepsSeen } from "./judge-steps.ts";
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
  type StatusDeps,
  titleOf,
  whyRefused,
} from "./look-at-node.ts";
import { type Judged, LATE, REPAIR_MASTER } from "./part.ts";
import {
  countPins,
  DRILLS_PART,
  type Heartbeats,
  lookAtCron,
  lookAtBackup,
  lookAtDrills,
  lookAtSnapshots,
  lookAtSweep,
  readFindings,
  readHeartbeats,
  surveyNow,
} from "./pinset-parts.ts";
import { lookAtSettings } from "./settings-part.ts";
import { lookAtMasters } from "./masters-part.ts";

/** Looks at a master: its parts, and what is shown below them. */
export async function lookAtMaster(
  { baseDir, docker, containers }: Given,
  deps: StatusDeps,
  clock: Monotonic,
): Promise<Found> {
  const layout = masterLayout(baseDir);
  const resolved = await readMasterSettings(deps, layout.envFile, "none");
  const { settings, problems } = resolved;
  warnOfIgnored(deps, resolved);
  const saved = await readSavedSettings(deps, layout.envFile);
  const prepared = { layout, settings, provisionWriter: false, imagesArchive: null };
  const steps = lookAtSteps(
    async () => {
      // Loaded here, with every step, while the parts ask their questions.
      const { prepareMaster } = await import("../join/prepare-master.ts");
      refuseProblems([...problems, ...(await findUnclearKeys(deps, saved, "master"))]);
      return (await prepareMaster(deps, prepared)).steps;
    },
    deps.host,
    clock,
  );
  const node = openMasterNode(deps, { layout, settings, saved, docker, containers, steps }, clock);
  const [parts, notes, seen, heartbeats] = await Promise.all([
    collectParts(masterParts(node), clock),
    collectNotes(masterNotes(node), clock),
    steps,
    orNull(() => node.heartbeats),
  ]);
  const value = (key: string) => settings.get(key)?.value;
  return {
    kind: "master",
    baseDir,
    title: titleOf("master", value, baseDir, MASTER_BASE_DIR),
    parts: crossCheck(judgeServed(parts, APIS), seen, relationsOf(value)),
    notes,
    remark: null,
    data: { ...dataOf(seen), heartbeats, pending: seen.items.some(isPending) },
  };
}

/** An installed master, and what every part may ask. */
interface MasterNode {
  readonly deps: Pick<StatusDeps, "host" | "hash" | "openCluster" | "openSnapshots" | "readVerifyingKey">;
  readonly layout: MasterLayout;
  readonly values: Values;
  /** `.env`. */
  readonly saved: EnvFile & { ok: true };
  readonly ask: Ask;
  readonly clock: Monotonic;
  readonly docker: AskedDocker;
  readonly containers: Promise<Containers>;
  readonly steps: Promise<StepsSeen>;
  readonly heartbeats: Promise<Heartbeats>;
  readonly nodesNow: Promise<NodesNow | null>;
}

/** A writer or a database on another machine does not need this Docker. */
function relationsOf(values: Values): PartRelations {
  const url = multiaddrToUrl(values("IPFS_CLUSTER_API_ADDR") ?? "");
  const isWriterHere = url !== null && isLoopback(new URL(url).hostname);
  return {
    inDocker: [
      ...(isWriterHere ? ["writer"] : []),
      ...(isDatabaseElsewhere(values) ? [] : ["database"]),
      ...APIS,
      "edge",
      "gateway",
      "updater",
    ],
    shownBy: {
      docker: ["Docker"],
      writer: ["writer"],
      postgres: ["database"],
      migrations: ["database"],
      flags: ["database"],
      services: [...APIS, "gateway", "updater"],
      edge: ["edge"],
      "edge-known": ["edge"],
      "signing-key": ["snapshots"],
      cron: ["cron"],
      "snapshot-cron": ["cron"],
      "sweep-cron": ["cron"],
      "drill-cron": ["cron"],
      "backup-cron": ["cron"],
      "first-snapshot": ["snapshots"],
    },
    needs: Object.fromEntries(APIS.map((name) => [name, "database"])),
    repair: REPAIR_MASTER,
  };
}

const APIS: readonly string[] = ["pinning API", "storage API"];

/** What the parts of a master share. */
function openMasterNode(
  deps: MasterNode["deps"],
  given: Pick<MasterNode, "layout" | "saved" | "docker" | "containers" | "steps"> & {
    readonly settings: Settings;
  },
  clock: Monotonic,
): MasterNode {
  const { settings, ...shared } = given;
  const values: Values = (key) => settings.get(key)?.value;
  const heartbeats = readHeartbeats(deps, shared.layout);
  const ask = askWithin(clock);
  const writer = { deps, values };
  const nodesNow = surveyNow({ deps, layout: shared.layout, values, ask }, (signal) =>
    openCluster(writer, signal),
  );
  return { deps, ...shared, values, ask, clock, heartbeats, nodesNow };
}

/**
 * The parts of a master, in the order of the screen. A new part is one more entry: its name, and how to look at it.
 * A subject's own judgement ({state, sentence, todo}) is added to an existing part with withRemarks.
 */
function masterParts(node: MasterNode): readonly PartSpec[] {
  const { docker, values } = node;
  return [
    dockerPart(docker, REPAIR_MASTER),
    { name: "writer", look: (signal) => lookAtWriter(node, signal) },
    { name: "database", look: () => lookAtDatabase(node) },
    {
      name: "pinning API",
      look: () => lookAtApi(node, "pinning-api", values("PINNING_API_PORT") ?? "", "/pins?limit=1"),
    },
    {
      name: "storage API",
      look: (signal) =>
        lookAtApi(node, "webui", values("WEBUI_PORT") ?? "", "/api/v1/storage", openCluster(node, signal)),
    },
    { name: "billing", look: () => lookAtBilling(node.deps.host, node) },
    { name: "masters", look: () => lookAtMasters(node.deps.host, node) },
    { name: "edge", look: () => lookAtEdgePart(node.deps.host, { ...node, hash: node.deps.hash }) },
    { name: "gateway", look: () => lookAtContainer(node, NAMES.gateway, false) },
    {
      name: "updater",
      look: async () =>
        values("AUTO_UPDATE") === "true" ? await lookAtContainer(node, NAMES.updater, true) : null,
    },
    { name: "snapshots", look: () => lookAtSnapshots(node) },
    { name: "sweep", look: () => lookAtSweep(node) },
    { name: "cron", look: () => lookAtCron(node) },
    { name: "backup", look: () => lookAtBackup(node) },
    { name: DRILLS_PART, look: () => lookAtDrills(node) },
    {
      name: "settings",
      look: async () =>
        lookAtSettings(node.deps.host, node.layout, await node.steps, values("ALERT_COMMAND")),
    },
  ];
}

/** What the screen shows below the parts, as far as it is known. Each is asked side by side with the parts. */
function masterNotes(node: MasterNode): readonly NoteSpec[] {
  return [
    { name: "Pins", find: () => countPins(node) },
    { name: "Space", find: () => describeSpace(node) },
    { name: "Nodes", find: () => listNodes(node) },
  ];
}

async function lookAtWriter(node: MasterNode, signal: AbortSignal): Promise<Judged> {
  const { deps, values, ask, containers } = node;
  const kuboAddress = values("IPFS_API_ADDR") ?? "";
  const peer = openCluster(node, signal);
  const [known, kubo, cluster, peers] = await Promise.all([
    containers,
    getJson(deps.host, ask, `${multiaddrToUrl(kuboAddress) ?? ""}/api/v0/id`, "POST"),
    ask(() => peer.identity()).catch(whyRefused),
    ask(() => peer.peers()).catch(whyRefused),
  ]);
  const faults = [NAMES.kubo, NAMES.cluster].flatMap(
    (name) => faultOfContainer(known, name, REPAIR_MASTER) ?? [],
  );
  const clusterAddress = values("IPFS_CLUSTER_API_ADDR") ?? "";
  const judged = judgeWriter({ kuboAddress, kubo, clusterAddress, cluster, peers }, REPAIR_MASTER);
  // A writer that works may run elsewhere, beside old containers with these names.
  return judged.state === "ok" ? judged : (together(faults) ?? judged);
}

/** Faults as one, as bad as the worst. Null if there is none. */
function together(faults: readonly Judged[]): Judged | null {
  const worst = faults.find(({ state }) => state === "down") ?? faults[0];
  if (worst === undefined) return null;
  return {
    ...worst,
    summary: faults.map(({ summary }) => summary).join("; "),
    evidence: Object.fromEntries(
      faults.flatMap(({ evidence }, index) =>
        Object.entries(evidence).map(([key, value]) => [index === 0 ? key : `${key} ${index + 1}`, value]),
      ),
    ),
  };
}

/** The client closes when the part is over. */
function openCluster({ deps, values }: Pick<MasterNode, "deps" | "values">, signal: AbortSignal): Cluster {
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  return deps.openCluster({
    endpoint: values("IPFS_CLUSTER_API_ADDR") ?? "",
    signal,
    ...(basicAuth === undefined ? {} : { basicAuth }),
  });
}

async function lookAtApi(
  { deps, ask, containers, values }: MasterNode,
  service: keyof typeof SERVICE_IMAGES,
  port: string,
  path: string,
  cluster: Cluster | null = null,
): Promise<Judged> {
  const address = `127.0.0.1:${port}`;
  const container = service === "webui" ? NAMES.webui : NAMES.pinningApi;
  const image = values(SERVICE_IMAGES[service]) ?? OWN_IMAGE;
  const [known, health, answer, peer] = await Promise.all([
    containers,
    getJson(deps.host, ask, `http://${address}/health`),
    getJson(deps.host, ask, `http://${address}${path}`),
    cluster === null ? null : ask(() => cluster.identity()).catch(whyRefused),
  ]);
  const clusterFault = typeof peer === "string" ? peer : null;
  const isAbsent = known !== null && !known.has(container);
  const judged = judgeApi(
    {
      address,
      otherImage: image === OWN_IMAGE ? null : image,
      health,
      route: { path, answer },
      clusterFault,
    },
    isAbsent ? REPAIR_MASTER : `docker logs ${container}`,
  );
  // What its health says itself says more than that Docker's healthcheck fails.
  const isSaid = judged.state !== "ok" && health !== LATE && failedChecks(health?.body).length > 0;
  return isSaid ? judged : (faultOfContainer(known, container, REPAIR_MASTER) ?? judged);
}

async function lookAtContainer(node: MasterNode, name: string, required: boolean): Promise<Judged | null> {
  const now = node.deps.host.clock.now();
  return judgeContainerAlone(await node.containers, name, { repair: REPAIR_MASTER, required, now });
}

async function describeSpace({ deps, layout, ask }: MasterNode): Promise<string | null> {
  const space = await ask(() => deps.host.files.space(layout.baseDir));
  if (space === LATE) return null;
  const used = decimalBytes(space.totalBytes - space.freeBytes);
  return `this box ${used} used of ${decimalBytes(space.totalBytes)}`;
}

async function listNodes(node: MasterNode): Promise<string | null> {
  const { nodes } = await readFindings(node);
  return nodes.state === "unknown" ? null : nodes.sentence;
}
