import { parse } from "yaml";
import { type ComposeValue, WRITER_SCRIPTS } from "../docker/compose-document.ts";
import type { Project } from "../docker/compose-project.ts";
import {
  type Fragments,
  MASTER_FRAGMENTS,
  type MasterOptions,
  parseFragment,
  renderMaster,
  renderWriter,
  supportsStartInterval,
  WRITER_FRAGMENTS,
} from "../docker/compose-render.ts";
import { customServices, isAdopted, type KeptService } from "../docker/kept-service.ts";
import { readEdgeFiles } from "../edge/files.ts";
import type { AnyStep } from "../engine/step.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { digestOf } from "../machine/file-reader.ts";
import { chooseNode } from "../machine/node-program.ts";
import type { MasterContext } from "../settings/context.ts";
import { isOurs, type MasterLayout, NAMES, POSTGRES_TLS_FILES } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { databaseSslOf, isDatabaseElsewhere, postgresBindOf } from "../settings/postgres-target.ts";
import { GENERATED_AUTH, MASTER_RECOVERABLE, withClusterSecret } from "../settings/secrets.ts";
import type { Settings } from "../settings/settings.ts";
import { masterSteps } from "../steps/master.ts";
import { isWriterOurs } from "../steps/master/writer.ts";
import { ADOPTIONS, customImages, filesOfKept, findKept } from "./adopted-services.ts";
import type { JoinDeps } from "./join-run.ts";

/** Builds the steps of a master from its settings. Reads from the machine, and changes nothing. */
export async function prepareMaster(
  deps: Pick<JoinDeps, "host" | "version" | "packageDir" | "nodePath" | "hash">,
  desired: {
    readonly layout: MasterLayout;
    readonly settings: Settings;
    readonly provisionWriter: boolean;
    readonly imagesArchive: string | null;
    /** The steps that the operator adopts. */
    readonly adopt?: readonly string[];
  },
): Promise<{ readonly steps: readonly AnyStep[]; readonly context: MasterContext }> {
  const { host, version, packageDir, nodePath, hash } = deps;
  const { layout, provisionWriter, imagesArchive, adopt = [] } = desired;
  const [volume, kept, node, stage] = await Promise.all([
    findDatabaseVolume(host, layout),
    findKept(host, { adoption: ADOPTIONS.master, layout, adopt: new Set(adopt), settings: desired.settings }),
    chooseNode(host, { running: nodePath, script: `${packageDir}/bin/fula-node.js` }),
    host.files.stat(layout.fromBackupDir),
  ]);
  const base: MasterContext = {
    layout,
    provisionWriter,
    imagesArchive,
    specs: MASTER_SETTINGS,
    recoverable: MASTER_RECOVERABLE,
    settings: withClusterSecret(desired.settings, hash),
    version,
    packageDir,
    // Without a fit one, the preflight of a join has failed, or the operator ignores it.
    nodePath: node.path ?? nodePath,
    postgresVolume: volume.volume,
    isRestoring: stage !== null,
    hash,
  };
  const projects = await renderProjects({ host, ...base, volume, kept });
  const context = await withClusterAuth(host, base, projects.writer);
  return { steps: masterSteps(context, projects), context };
}

const AUTH = "CLUSTER_BASIC_AUTH";

/** The ipfs-cluster of a writer of ours gets a password, if everything here that calls it can send one. */
async function withClusterAuth(
  host: HostReader,
  context: MasterContext,
  writer: Project,
): Promise<MasterContext> {
  if (!(await isWriterOurs(host, context, writer))) return context;
  if ((await findCallersWithoutPassword(host, context.settings)).length > 0)
    return { ...context, recoverable: context.recoverable.filter(({ key }) => key !== AUTH) };
  const specs = context.specs.map((spec) =>
    spec.key === AUTH ? { ...spec, generated: GENERATED_AUTH } : spec,
  );
  return { ...context, specs };
}

/** The settings of images that call ipfs-cluster's REST API and can't send CLUSTER_BASIC_AUTH: upstream's. */
async function findCallersWithoutPassword(host: HostReader, settings: Settings): Promise<readonly string[]> {
  const services = customServices(settings).map(({ key }) => key);
  const gateway = await host.docker.image(settings.get(GATEWAY)?.value ?? "");
  return gateway === null ? services : [GATEWAY, ...services];
}

const GATEWAY = "GATEWAY_IMAGE";

/**
 * A problem if ipfs-cluster requires a password that an image on this machine can't send. Only for a writer of ours: the
 * operator of another one decides about its password.
 */
export async function findAuthConflicts(
  host: HostReader,
  { settings, isOurWriter }: { readonly settings: Settings; readonly isOurWriter: boolean },
): Promise<readonly Problem[]> {
  if (!isOurWriter || !settings.has(AUTH)) return [];
  const keys = await findCallersWithoutPassword(host, settings);
  return keys.map((key) => ({
    subject: key,
    what: `${key} is ${settings.get(key)?.value ?? ""}, which can't send ${AUTH} to ipfs-cluster.`,
    remedy: `Remove the line ${AUTH} from .env: with that image, none is generated. Or use the service of fula-node.`,
  }));
}

const DATA_PATH = "/var/lib/postgresql/data";

/** The volume of the database, and whether something other than fula-node created it. */
interface DatabaseVolume {
  readonly volume: string;
  readonly external: boolean;
}

/**
 * Finds the volume of the database: the one that the container mounts, else the one in our compose file, else our
 * default. fula-node did not create a volume without our label, so Compose must neither create nor relabel it.
 */
export async function findDatabaseVolume(host: HostReader, layout: MasterLayout): Promise<DatabaseVolume> {
  const container = await host.docker.container(NAMES.postgres);
  const mount = container?.mounts.find(
    ({ type, destination }) => type === "volume" && destination === DATA_PATH,
  );
  const name =
    mount?.name ?? namedInFile(await host.files.readText(layout.composeFile)) ?? NAMES.postgresVolume;
  const volume = await host.docker.volume(name);
  return { volume: name, external: volume !== null && !isOurs(volume) };
}

/** Renders the compose projects of a master from the fragments of the running package. */
async function renderProjects(options: {
  readonly host: HostReader;
  readonly packageDir: string;
  readonly layout: MasterLayout;
  readonly settings: Settings;
  readonly version: string;
  readonly hash: (text: string) => string;
  readonly volume: DatabaseVolume;
  readonly kept: ReadonlyMap<string, KeptService>;
}): Promise<{ readonly master: Project; readonly writer: Project }> {
  const { host, packageDir, layout, settings, version, hash, volume, kept } = options;
  const engine = await host.docker.version();
  const common = { version, hash, startInterval: supportsStartInterval(engine?.apiVersion ?? null) };
  const scripts = {
    kubo: await readShipped(host, packageDir, WRITER_SCRIPTS.kubo),
    "ipfs-cluster": await readShipped(host, packageDir, WRITER_SCRIPTS["ipfs-cluster"]),
  };
  const elsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
  const writerDir = settings.get("WRITER_DIR")?.value ?? "/opt/fula-writer";
  const values = (key: string) => settings.get(key)?.value;
  const { caddyfile } = await readEdgeFiles(host, { layout, values, hash });
  const adopted = [...kept].filter(([, one]) => isAdopted(one));
  return {
    master: {
      ...renderMaster(await readFragments(host, packageDir, MASTER_FRAGMENTS), {
        ...common,
        postgres: elsewhere ? null : { ...volume, ...bindOf(values, layout) },
        ...databaseTlsOf(settings),
        kept: new Map(adopted.filter(([service]) => !(elsewhere && service === "postgres"))),
        images: customImages(settings),
        edge: caddyfile,
      }),
      name: NAMES.masterProject,
      directory: layout.baseDir,
      file: layout.composeFile,
      scripts: filesOfKept(adopted.map(([, service]) => service)),
      kept,
    },
    writer: {
      ...renderWriter(await readFragments(host, packageDir, WRITER_FRAGMENTS), { ...common, scripts }),
      name: NAMES.writerProject,
      directory: writerDir,
      file: `${writerDir}/docker-compose.yml`,
      scripts: [
        { path: `${writerDir}/${WRITER_SCRIPTS.kubo}`, text: scripts.kubo },
        { path: `${writerDir}/${WRITER_SCRIPTS["ipfs-cluster"]}`, text: scripts["ipfs-cluster"] },
      ],
    },
  };
}

/** Nothing for `true` and `false`: the fragments pass them on, as they do since 0.1.0. */
function databaseTlsOf(settings: Settings): Pick<MasterOptions, "databaseTls"> {
  const values = (key: string) => settings.get(key)?.value;
  const mode = databaseSslOf(values);
  const ca = values("POSTGRES_SSL_CA") ?? null;
  const hasSavedCa = settings.has("POSTGRES_CA");
  if (mode === false || (values("POSTGRES_SSL") === "true" && ca === null && !hasSavedCa)) return {};
  return { databaseTls: { mode, ca, hasSavedCa } };
}

/** Where other machines reach the database of this one. */
function bindOf(
  values: (key: string) => string | undefined,
  { postgresTlsDir }: MasterLayout,
): { readonly bind?: { readonly address: string; readonly directory: string } } {
  const address = postgresBindOf(values);
  return address === null
    ? {}
    : { bind: { address, directory: `${postgresTlsDir}/${POSTGRES_TLS_FILES.directory}` } };
}

/** The database volume in a compose file of ours; null if the file is not valid or has no such volume. */
function namedInFile(text: string | null): string | null {
  if (text === null || !text.startsWith("# fula-node compose ")) return null;
  try {
    const document = parse(text) as { volumes?: { pgdata?: { name?: unknown } } };
    const name = document.volumes?.pgdata?.name;
    return typeof name === "string" ? name : null;
  } catch {
    return null;
  }
}

/** Reads a file of the package's compose/. Throws (`integrity`) if it is missing. */
export async function readShipped(host: HostReader, packageDir: string, name: string): Promise<string> {
  const path = `${packageDir}/compose/${name}`;
  const text = await host.files.readText(path);
  if (text !== null) return text;
  throw new OperatorError({
    exit: "integrity",
    what: `The package is incomplete: ${path} is missing.`,
    remedy: "Install fula-node again.",
  });
}

/** The fragments as the build has parsed them, by the sha256 of their texts (scripts/build.mjs). */
const PARSED_FRAGMENTS = "dist/fragments.json";

/**
 * Reads the package's compose fragments with these names. Throws (`integrity`) if one is missing. A text that the build
 * has not parsed, because it ran from its sources or somebody changed it, is parsed here, which takes a tenth of a second.
 */
export async function readFragments<Name extends string>(
  host: HostReader,
  packageDir: string,
  names: readonly Name[],
): Promise<Fragments<Name>> {
  const [built, ...texts] = await Promise.all([
    host.files.readText(`${packageDir}/${PARSED_FRAGMENTS}`),
    ...names.map((name) => readShipped(host, packageDir, `${name}.yml`)),
  ]);
  const known = JSON.parse(built ?? "{}") as Readonly<Record<string, ComposeValue>>;
  const parsed = names.map((name, index) => {
    const text = texts[index] ?? "";
    return [name, parseFragment(text, known[digestOf(text)])] as const;
  });
  return Object.fromEntries(parsed) as Fragments<Name>;
}
