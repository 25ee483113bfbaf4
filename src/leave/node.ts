import { isOurCompose } from "../docker/compose-render.ts";
import { PROJECT } from "../docker/compose-services.ts";
import type { Container } from "../docker/engine.ts";
import { OperatorError } from "../errors.ts";
import { findDatabaseVolume } from "../join/master-projects.ts";
import { checkBaseDir } from "../join/run.ts";
import { readSavedSettings } from "../join/settings-source.ts";
import { type EnvFile, findEntry, parseEnvFile } from "../settings/env-file.ts";
import {
  CRON_FILES,
  isOurs,
  MASTER_BASE_DIR,
  masterLayout,
  NAMES,
  STORAGE_BASE_DIR,
  STORAGE_NAMES,
  storageLayout,
} from "../settings/master-layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import type { Values } from "../settings/node-context.ts";
import type { SettingSpec } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import type { World } from "../world.ts";
import { masterFates, type Part, storageFates } from "./policy.ts";
import { type LeavingNode, surveyNode, type Thing } from "./survey.ts";

type Kind = LeavingNode["kind"];

/** A node on this box, with the settings that `.env` has of it, or else their defaults. */
export interface FoundNode {
  readonly node: LeavingNode;
  readonly values: Values;
}

const CONFIG_FILES = "com.docker.compose.project.config_files";

/**
 * Finds the node that is to leave. Throws `settings` where there is none, and `preflight` where it can't be
 * told which: both kinds have things here, or the containers belong to another base directory.
 */
export async function findLeavingNode(
  world: World,
  baseDir: string | undefined,
  purged: ReadonlySet<Part>,
): Promise<FoundNode> {
  const candidates =
    baseDir === undefined
      ? [
          await openNode(world, "master", MASTER_BASE_DIR),
          await openNode(world, "storage-node", STORAGE_BASE_DIR),
        ]
      : [await openGiven(world, checkBaseDir(baseDir, `${MASTER_BASE_DIR} or ${STORAGE_BASE_DIR}`))];
  const surveys = await Promise.all(candidates.map(({ node }) => surveyNode(world.host, node, purged)));
  const having = (isSign: (thing: Thing) => boolean) =>
    candidates.filter((_, index) => surveys[index]?.things.some(isSign));
  // An image is of no kind. An empty directory may be all that a killed leave has left.
  const present = having(({ kind }) => kind !== "image" && kind !== "directory");
  const [found, other] = present.length > 0 ? present : having(({ kind }) => kind === "directory");
  if (other !== undefined) throw both(candidates);
  if (found === undefined) throw none(candidates);
  await refuseOtherHome(world, found.node);
  return found;
}

/** Reads a directory's own marks before its place: a node may live where the other kind does by default. */
async function openGiven(world: World, baseDir: string): Promise<FoundNode> {
  const { files } = world.host;
  const layout = storageLayout(baseDir);
  const compose = (await files.readText(layout.composeFile)) ?? "";
  const env = parseEnvFile((await files.readText(layout.envFile)) ?? "");
  const has = (own: readonly SettingSpec[], others: readonly SettingSpec[]) =>
    env.ok &&
    own.some(({ key }) => findEntry(env, key) !== undefined && !others.some((other) => other.key === key));
  const isProject = (name: string) =>
    isOurCompose(compose) && compose.split("\n").some((line) => line === `name: ${name}`);
  const isStorage =
    isProject(STORAGE_NAMES.project) ||
    (!isProject(NAMES.masterProject) &&
      (has(STORAGE_SETTINGS, MASTER_SETTINGS) ||
        (!has(MASTER_SETTINGS, STORAGE_SETTINGS) && baseDir === STORAGE_BASE_DIR)));
  return await openNode(world, isStorage ? "storage-node" : "master", baseDir);
}

async function openNode(world: World, kind: Kind, baseDir: string): Promise<FoundNode> {
  const isMaster = kind === "master";
  const specs: readonly SettingSpec[] = isMaster ? MASTER_SETTINGS : STORAGE_SETTINGS;
  const saved = await readSavedSettings(world, `${baseDir}/.env`);
  const values: Values = (key) => {
    const value = findEntry(saved, key)?.value;
    if (value !== undefined && "text" in value && value.text !== "") return value.text;
    return specs.find((spec) => spec.key === key)?.byDefault;
  };
  const layout = isMaster ? masterLayout(baseDir) : storageLayout(baseDir);
  const node: LeavingNode = isMaster
    ? {
        kind,
        layout,
        fates: masterFates(masterLayout(baseDir)),
        writerDir: await findWriterDir(world, saved, values),
        projects: [NAMES.masterProject, NAMES.writerProject],
        databaseVolumes: await namesOfDatabase(world, baseDir),
        cronFiles: Object.values(CRON_FILES),
        containers: Object.values(NAMES),
      }
    : {
        kind,
        layout,
        fates: storageFates(storageLayout(baseDir)),
        writerDir: null,
        projects: [STORAGE_NAMES.project],
        databaseVolumes: [],
        cronFiles: [],
        containers: Object.values(STORAGE_NAMES),
      };
  return { node, values };
}

/** Upstream's Compose calls the volume after the directory that it was run in. */
async function namesOfDatabase({ host }: World, baseDir: string): Promise<readonly string[]> {
  const { volume } = await findDatabaseVolume(host, masterLayout(baseDir));
  return [volume, NAMES.postgresVolume, `${baseDir.slice(baseDir.lastIndexOf("/") + 1)}_pgdata`];
}

/** The first of the files that Compose writes down as those a container was made from. */
function composeFileOf({ labels }: Pick<Container, "labels">): string | undefined {
  return labels[CONFIG_FILES]?.split(",", 1)[0];
}

/** Where the writer lives: as `.env` has it, or its containers where that is lost. */
async function findWriterDir(
  { host }: World,
  saved: EnvFile & { ok: true },
  values: Values,
): Promise<string | null> {
  if (findEntry(saved, "WRITER_DIR") !== undefined) return values("WRITER_DIR") ?? null;
  const containers = await host.docker.containers();
  const own = containers.find((one) => isOurs(one) && one.labels[PROJECT] === NAMES.writerProject);
  const file = own === undefined ? undefined : composeFileOf(own);
  return file?.replace(/\/[^/]*$/, "") ?? values("WRITER_DIR") ?? null;
}

async function refuseOtherHome({ host }: World, { layout, projects }: LeavingNode): Promise<void> {
  const [project = ""] = projects;
  const containers = await host.docker.containers();
  const elsewhere = containers.find(
    (container) =>
      isOurs(container) &&
      container.labels[PROJECT] === project &&
      composeFileOf(container) !== layout.composeFile,
  );
  if (elsewhere === undefined) return;
  const home = (composeFileOf(elsewhere) ?? "unknown").replace(/\/[^/]*$/, "");
  throw new OperatorError({
    exit: "preflight",
    what: `The container ${elsewhere.name} belongs to the node in ${home}, not to ${layout.baseDir}.`,
    remedy: `Run again with --base-dir ${home}.`,
  });
}

function both(candidates: readonly FoundNode[]): OperatorError {
  const homes = candidates.map(({ node }) => `the ${nameOf(node.kind)} in ${node.layout.baseDir}`);
  return new OperatorError({
    exit: "preflight",
    what: `This box has things of two nodes: ${homes.join(" and ")}.`,
    remedy: "Say which shall leave: --base-dir DIR. One that has left already still has what it kept.",
  });
}

function none(candidates: readonly FoundNode[]): OperatorError {
  const homes = candidates.map(({ node }) => node.layout.baseDir).join(" or ");
  return new OperatorError({
    exit: "settings",
    what: "This box is no node: nothing on it was made by fula-node.",
    why: `No container, volume, network or cron file of ours is here, nor anything of ours in ${homes}.`,
    remedy: "If the node lives elsewhere, give --base-dir DIR.",
  });
}

/** What people call it. */
export function nameOf(kind: Kind): string {
  return kind === "master" ? "master" : "storage node";
}
