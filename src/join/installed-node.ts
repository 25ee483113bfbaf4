import type { Cluster } from "../cluster/client.ts";
import { homeOf, isOurCompose, PROJECT_LABEL, WRITER_SCRIPTS } from "../docker/compose-document.ts";
import type { Container } from "../docker/engine.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { isOurCron } from "../machine/crontab.ts";
import type { Values } from "../settings/context.ts";
import { parseEnvFile } from "../settings/env-file.ts";
import {
  baseDirFlag,
  CRON_FILES,
  DUMP_FILE,
  DUMP_IS_RESTORED,
  isOurs,
  MASTER_BASE_DIR,
  masterLayout,
  type MasterLayout,
  NAMES,
  STORAGE_BASE_DIR,
  STORAGE_NAMES,
  storageLayout,
} from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { type PostgresTarget, postgresTarget } from "../settings/postgres-target.ts";
import type { SettingSpec } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import { canonicalBaseDir, requireMaster, requireRoot, resolveBaseDir } from "./base-dir.ts";
import type { JoinDeps } from "./join-run.ts";
import { readMasterSettings, warnOfIgnored } from "./settings-source.ts";

/** The two kinds of node. */
export type NodeKind = "master" | "storage-node";

/**
 * One thing on the machine that shows which node this is. `installed`: it runs, or a join created it to run.
 * `configured`: a file with the configuration of a node. `remains`: something that stays after `leave`.
 */
interface Sign {
  readonly what: string;
  readonly weight: "remains" | "configured" | "installed";
  /** True if fula-node created it; false if the bash scripts or something else did. */
  readonly isOurs: boolean;
}

/** Everything on the machine that belongs to one kind of node. */
export interface NodeSigns {
  readonly kind: NodeKind;
  /** The directory where it was found. If no file of it was found, the given or the default directory. */
  readonly baseDir: string;
  readonly signs: readonly Sign[];
  /** Its containers that fula-node created; for a master, also those of the writer. */
  readonly containers: readonly Container[];
}

/** Which node this machine is. */
interface InstalledNode {
  /** `both` is a contradiction: the signs of both kinds have the same weight. */
  readonly answer: NodeKind | "none" | "both";
  /** The node of the answer. For `none`, the node that a join would create there, without signs. */
  readonly found: NodeSigns;
  /** The other kind and its signs; null if a base directory was given. */
  readonly other: NodeSigns | null;
}

const WEIGHTS: readonly Sign["weight"][] = ["remains", "configured", "installed"];
const KINDS = ["master", "storage-node"] as const;
const HOMES: Readonly<Record<NodeKind, string>> = {
  master: MASTER_BASE_DIR,
  "storage-node": STORAGE_BASE_DIR,
};
const PROJECTS: Readonly<Record<NodeKind, readonly [main: string, ...others: string[]]>> = {
  master: [NAMES.masterProject, NAMES.writerProject],
  "storage-node": [STORAGE_NAMES.project],
};
/** Containers that belong to a master even without Compose's labels. kubo and ipfs-cluster are missing: both kinds have containers with these names. */
const MASTER_CONTAINERS: readonly string[] = [NAMES.postgres, NAMES.pinningApi, NAMES.webui, NAMES.gateway];
const WRITER_DIR = "/opt/fula-writer";

/**
 * Detects which node this machine is. `status`, `leave` and the joins all use this rule. It looks at the default
 * base directories, at the base directories of our containers, and at our compose projects in Docker. Installed
 * things outweigh configuration files, and these outweigh what remains after `leave`. If a base directory is
 * given, only the node in that directory counts.
 */
export async function findInstalledNode(host: HostReader, given?: string): Promise<InstalledNode> {
  const { docker } = host;
  const baseDir = given === undefined ? undefined : await resolveBaseDir(host, given, MASTER_BASE_DIR);
  const [containers, volumes, networks] = await Promise.all([
    docker.containers(),
    docker.listVolumes(),
    docker.listNetworks(),
  ]);
  const own = (kind: NodeKind) => containers.filter((one) => isOurs(one) && isOfProject(kind, one));
  const places = await Promise.all(
    (await placesToLook(host, own, baseDir)).map(([kind, directory]) => lookAtPlace(host, directory, kind)),
  );
  const kinds = baseDir === undefined ? KINDS : places.map(({ kind }) => kind);
  const nodes = await Promise.all(
    kinds.map(async (kind): Promise<NodeSigns> => {
      const [place] = byWeight(places.filter((one) => one.kind === kind && one.signs.length > 0));
      const home = place?.baseDir ?? baseDir ?? HOMES[kind];
      const signs = [
        ...containers
          .filter((one) => isContainerOf(kind, one))
          .map((one) => sign(`the container ${one.name}`, "installed", own(kind).includes(one))),
        ...(place?.signs ?? []),
        ...(kind === "master" ? await lookBesideMaster(host, home) : []),
        ...volumes
          .filter((one) => isOurs(one) && isOfProject(kind, one))
          .map(({ name }) => sign(`the volume ${name}`, "remains")),
        ...networks
          .filter((one) => isOurs(one) && isOfProject(kind, one))
          .map(({ name }) => sign(`the network ${name}`, "remains")),
      ];
      return { kind, baseDir: home, signs, containers: own(kind) };
    }),
  );
  const [found, other = null] = byWeight(nodes);
  if (found === undefined) throw new TypeError("no directory was looked at");
  if (found.signs.length === 0) return { answer: "none", found, other };
  const isClear = other === null || weightOf(found) > weightOf(other);
  return { answer: isClear ? found.kind : "both", found, other };
}

/** The name of the kind, for messages. */
export function nameOf(kind: NodeKind): string {
  return kind === "master" ? "master" : "storage node";
}

/** The error (`preflight`) for a machine with signs of two nodes, with the evidence. */
export function twoNodes(nodes: readonly NodeSigns[], remedy: string): OperatorError {
  const homes = nodes.map(({ kind, baseDir }) => `the ${nameOf(kind)} in ${baseDir}`);
  const evidence = nodes.map(
    ({ kind, signs }) => `signs of a ${nameOf(kind)}: ${signs.map(({ what }) => what).join(", ")}`,
  );
  return new OperatorError({
    exit: "preflight",
    what: `This machine has parts of two nodes: ${homes.join(" and ")}.`,
    ...(nodes.every(({ signs }) => signs.length > 0) ? { why: `It has ${evidence.join("; ")}.` } : {}),
    remedy,
  });
}

/**
 * Throws (`foreign`) if this machine is a node of the other kind: both kinds need the same kubo, ipfs-cluster and ports.
 * What stays after `leave` is no obstacle.
 */
export async function refuseOtherKind(host: HostReader, wanted: NodeKind): Promise<void> {
  const { answer, found, other } = await findInstalledNode(host);
  if (answer === wanted) return;
  const signs = [found, other].flatMap((node) => (node === null || node.kind === wanted ? [] : node.signs));
  const inTheWay = signs.filter(({ weight }) => weight !== "remains");
  if (inTheWay.length === 0) return;
  const kind = wanted === "master" ? "storage-node" : "master";
  throw new OperatorError({
    exit: "foreign",
    what: `This machine is a ${nameOf(kind)}, so it can't also be a ${nameOf(wanted)}.`,
    why: `It has ${inTheWay.map(({ what }) => what).join(", ")}; a ${nameOf(wanted)} needs the same kubo, ipfs-cluster and ports.`,
    remedy: remedyFor(kind, inTheWay),
  });
}

/** What `leave` keeps is in the way too: only the operator moves settings, which may be the only copy of a secret. */
function remedyFor(kind: NodeKind, inTheWay: readonly Sign[]): string {
  const installed = inTheWay.filter(({ weight }) => weight === "installed");
  if (installed.length === 0)
    return "Use another machine. Or move what is listed to a safe place (it may have the only copy of a secret), then run again.";
  return installed.some(({ isOurs: ours }) => ours)
    ? `Use another machine. Or, if this ${nameOf(kind)} is not needed here any more: fula-node leave. It keeps data and settings; then move these to a safe place.`
    : "Use another machine. fula-node did not create what is listed, so only its owner can decide about it.";
}

/** The directories to look at, each with the kind to assume if no file in it shows the kind. The directories of our containers come first. */
async function placesToLook(
  host: HostReader,
  own: (kind: NodeKind) => readonly Container[],
  baseDir: string | undefined,
): Promise<readonly (readonly [NodeKind, string])[]> {
  if (baseDir !== undefined) return [[baseDir === STORAGE_BASE_DIR ? "storage-node" : "master", baseDir]];
  const homes = KINDS.flatMap((kind) =>
    own(kind)
      .filter(({ labels }) => labels[PROJECT_LABEL] === PROJECTS[kind][0])
      .map((one) => [kind, homeOf(one) ?? HOMES[kind]] as const),
  );
  // An earlier version kept the name that was given to it: a link, for example.
  const canonical = await Promise.all(
    homes.map(async ([kind, home]) => [kind, (await canonicalBaseDir(host, home)) ?? home] as const),
  );
  const all = [...canonical, ...KINDS.map((kind) => [kind, HOMES[kind]] as const)];
  return all.filter(([, one], index) => all.findIndex(([, directory]) => directory === one) === index);
}

/** Finds the signs of a node in a base directory. A directory without such signs is not ours, whatever is in it. */
export async function lookAtPlace(
  host: HostReader,
  baseDir: string,
  byDefault: NodeKind,
): Promise<{ readonly kind: NodeKind; readonly baseDir: string; readonly signs: readonly Sign[] }> {
  const layout = storageLayout(baseDir);
  const [compose, env, journal, cli] = await Promise.all([
    readIfThere(host, layout.composeFile),
    readIfThere(host, layout.envFile),
    host.files.stat(layout.journal),
    host.files.readLink(layout.cliCurrent),
  ]);
  const keys = keysOf(env ?? "");
  const signs = [
    env === null ? null : sign(layout.envFile, "configured", keys.has("FULA_NODE_VERSION")),
    compose === null ? null : signOfCompose(layout.composeFile, compose),
    cli === null ? null : sign(layout.cliCurrent, "installed"),
    journal === null ? null : sign(layout.journal, "remains"),
  ].filter((one) => one !== null);
  return { kind: kindIn(compose ?? "", keys) ?? byDefault, baseDir, signs };
}

/** The kind according to the files in a base directory: a node may be in the default directory of the other kind. */
function kindIn(compose: string, keys: ReadonlySet<string>): NodeKind | null {
  const [, project] = /^name: (\S+)$/m.exec(compose) ?? [];
  const named = KINDS.find((kind) => PROJECTS[kind][0] === project);
  if (named !== undefined) return named;
  const has = (own: readonly SettingSpec[], others: readonly SettingSpec[]) =>
    own.some(({ key }) => keys.has(key) && !others.some((other) => other.key === key));
  if (has(STORAGE_SETTINGS, MASTER_SETTINGS)) return "storage-node";
  return has(MASTER_SETTINGS, STORAGE_SETTINGS) ? "master" : null;
}

/** The signs of a master outside its base directory: cron files, and a writer in the default directory. */
async function lookBesideMaster(host: HostReader, baseDir: string): Promise<readonly Sign[]> {
  const command = ` ${masterLayout(baseDir).cliCurrent}/bin/fula-node.js `;
  const file = `${WRITER_DIR}/docker-compose.yml`;
  const scripts = Object.values(WRITER_SCRIPTS).map((name) => `${WRITER_DIR}/${name}`);
  const found = await Promise.all([
    ...Object.values(CRON_FILES).map(async (path) => {
      const text = (await readIfThere(host, path)) ?? "";
      return isOurCron(text) && text.includes(command) ? sign(path, "installed") : null;
    }),
    readIfThere(host, file).then((text) => (text === null ? null : signOfCompose(file, text))),
    ...scripts.map(async (path) => ((await host.files.stat(path)) === null ? null : sign(path, "remains"))),
  ]);
  return found.filter((one) => one !== null);
}

function sign(what: string, weight: Sign["weight"], ours = true): Sign {
  return { what, weight, isOurs: ours };
}

function signOfCompose(path: string, text: string): Sign {
  return isOurCompose(text) ? sign(path, "installed") : sign(path, "configured", false);
}

function isContainerOf(kind: NodeKind, container: Container): boolean {
  return isOfProject(kind, container) || (kind === "master" && MASTER_CONTAINERS.includes(container.name));
}

/** True for anything in a compose project of that kind of node, no matter who created it. */
export function isOfProject(kind: NodeKind, { labels }: Pick<Container, "labels">): boolean {
  return PROJECTS[kind].includes(labels[PROJECT_LABEL] ?? "");
}

/** Sorts by weight, the highest first. The order of equal weights stays. */
function byWeight<Weighed extends Pick<NodeSigns, "signs">>(some: readonly Weighed[]): readonly Weighed[] {
  return some.toSorted((a, b) => weightOf(b) - weightOf(a));
}

function weightOf({ signs }: Pick<NodeSigns, "signs">): number {
  return Math.max(-1, ...signs.map(({ weight }) => WEIGHTS.indexOf(weight)));
}

/** The keys of a `.env`; none if it is not valid. */
function keysOf(text: string): ReadonlySet<string> {
  const file = parseEnvFile(text);
  return new Set(file.ok ? file.entries.map(({ key }) => key) : []);
}

/** The text of a file; null if there is no such file; empty if it can't be read. Code that needs the text reports that error itself. */
async function readIfThere({ files }: HostReader, path: string): Promise<string | null> {
  try {
    return await files.readText(path);
  } catch (thrown) {
    if (thrown instanceof OperatorError) return "";
    throw thrown;
  }
}

/** An installed master: its paths, and its settings from `.env`. */
export interface InstalledMaster {
  readonly layout: MasterLayout;
  readonly values: Values;
}

/** Throws (`settings`) for the directory of a storage node: its settings are valid ones of a master, with defaults for the rest. */
async function refuseStorageNode(host: HostReader, { baseDir }: MasterLayout): Promise<void> {
  if ((await lookAtPlace(host, baseDir, "master")).kind === "master") return;
  throw new OperatorError({
    exit: "settings",
    what: `${baseDir} is the directory of a storage node, so no master is installed there.`,
    remedy: "Run this command on a master of its pool.",
  });
}

/** Reads the settings of an installed master. Throws (`settings`) if there is no master or its settings are invalid. */
export async function readInstalledMaster(
  deps: Pick<JoinDeps, "host" | "hostname" | "environment" | "reporter" | "version">,
  baseDir: string | undefined,
): Promise<InstalledMaster> {
  requireRoot(deps.host, "the settings contain secrets");
  const layout = masterLayout(await resolveBaseDir(deps.host, baseDir, MASTER_BASE_DIR));
  await requireMaster(deps.host, layout);
  await refuseStorageNode(deps.host, layout);
  const resolved = await readMasterSettings(deps, layout.envFile, "none");
  const { settings, problems } = resolved;
  warnOfIgnored(deps, resolved);
  if (problems.length > 0) {
    throw new OperatorError({ exit: "settings", what: "Some settings are missing or invalid.", problems });
  }
  return { layout, values: (key) => settings.get(key)?.value };
}

/**
 * Opens a client for the master's own cluster peer. After `deadlineMs`, or once `signal` is aborted, every request that is
 * still running fails as unavailable.
 */
export function openOwnCluster(
  deps: Pick<JoinDeps, "openCluster">,
  { values }: InstalledMaster,
  options: {
    readonly deadlineMs?: number;
    readonly signal?: AbortSignal;
    readonly connections?: number;
  } = {},
): Cluster {
  const { deadlineMs, connections } = options;
  const signal = options.signal ?? (deadlineMs === undefined ? undefined : AbortSignal.timeout(deadlineMs));
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  return deps.openCluster({
    endpoint: values("IPFS_CLUSTER_API_ADDR") ?? "",
    ...(signal === undefined ? {} : { signal }),
    ...(connections === undefined ? {} : { connections }),
    ...(basicAuth === undefined ? {} : { basicAuth }),
  });
}

/**
 * The id of a cluster in snapshots: a hash of its secret, from which the secret can't be recovered. Null if the
 * settings have no secret.
 */
export function clusterIdOf(deps: Pick<JoinDeps, "hash">, { values }: InstalledMaster): string | null {
  const secret = values("CLUSTER_SECRET");
  return secret === undefined || secret === ""
    ? null
    : deps.hash(`fula-node cluster id\n${secret.toLowerCase()}`);
}

/** The connection to the master's database. Throws (`settings`) if there is no password. */
export function databaseOf({ layout, values }: InstalledMaster): PostgresTarget {
  const target = postgresTarget(values);
  if (target !== null) return target;
  throw new OperatorError({
    exit: "settings",
    what: `${layout.envFile} has no POSTGRES_PASSWORD.`,
    remedy: "Run join-as-master again: it recovers the password, or prints how to get it back.",
  });
}

/** Throws (`preflight`) while the database of a backup is not restored: what is written meanwhile would be in its place. */
export async function refuseUnfinishedRestore(
  { files }: Pick<HostReader, "files">,
  { baseDir, fromBackupDir: directory }: Pick<MasterLayout, "baseDir" | "fromBackupDir">,
): Promise<void> {
  if ((await files.stat(`${directory}/${DUMP_FILE}`)) === null) return;
  if ((await files.stat(`${directory}/${DUMP_IS_RESTORED}`)) !== null) return;
  throw new OperatorError({
    exit: "preflight",
    what: "A backup is being restored on this machine: this master is not whole yet.",
    remedy: `Finish that first: fula-node join-as-master${baseDirFlag(baseDir)}`,
  });
}

/**
 * Throws (`preflight`) while a change of a secret is not finished: only `secret rotate` knows which of the two values each
 * part of this master uses.
 */
export async function refuseUnfinishedRotation(
  { files, system }: Pick<HostReader, "files" | "system">,
  { baseDir, rotation: path }: MasterLayout,
): Promise<void> {
  // Without root the file can't be read, and the verb refuses to run anyway.
  const text = system.uid() === 0 ? await files.readText(path) : null;
  if (text === null) return;
  // Rarely there, and its schema takes long to load.
  const { parseRotation, unfinishedRotation } = await import("../settings/rotation.ts");
  const rotation = parseRotation(text, path);
  if (rotation !== null) throw unfinishedRotation(rotation, baseDirFlag(baseDir));
}
