import type { Evidence } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { parseEnvFile } from "../settings/env-file.ts";
import { isOurs } from "../settings/master-layout.ts";
import { type NodeContext, poll, readValues } from "../settings/node-context.ts";
import type { Rendered } from "./compose-render.ts";
import type { Container } from "./engine.ts";

/** One of our compose projects, rendered. */
export interface Project extends Rendered {
  readonly name: string;
  readonly directory: string;
  readonly file: string;
  /** Scripts that the document mounts, beside it. */
  readonly scripts: readonly { readonly path: string; readonly text: string }[];
}

/** A service and the container that it runs in. */
export interface Service {
  readonly service: string;
  readonly container: string;
}

/** How one service's container stands. */
export interface ServiceState extends Service {
  readonly state: "running" | "absent" | "stopped" | "changed" | "unhealthy" | "foreign";
  /** For a person: what is wrong, or what it is. */
  readonly detail: string;
  /** True for a foreign container that Compose itself takes for this service's, and so would replace. */
  readonly claimable: boolean;
}

/** What of the package is installed and goes into the service image: what `npm pack` ships. */
export const PACKAGE_ENTRIES = [
  "package.json",
  "bin",
  "dist",
  "compose",
  "migrations",
  "LICENSE",
  "README.md",
  "CHANGELOG.md",
];

/** The label by which a service image, and a container made from it, tells the package's hash. */
export const PACKAGE_LABEL = "land.fx.fula-node.package";

const CONFIG_HASH = "com.docker.compose.config-hash";
/** The label by which Compose says whose a container, volume or network is. */
export const PROJECT = "com.docker.compose.project";
const SERVICE = "com.docker.compose.service";

/** Looks at the containers of these services and compares them with the project as rendered. */
export async function lookAtServices(
  host: HostReader,
  context: NodeContext,
  project: Project,
  services: readonly Service[],
  profiles: readonly string[],
): Promise<readonly ServiceState[]> {
  const containers = await Promise.all(services.map(({ container }) => host.docker.container(container)));
  if (containers.every((container) => container === null)) {
    return services.map((service) => ({
      ...service,
      state: "absent",
      detail: "no such container",
      claimable: false,
    }));
  }
  const { name, text, directory } = project;
  const environment = await composeEnvironment(host, context);
  const [hashes, images, packageHash] = await Promise.all([
    host.docker.composeHashes({ name, text, directory, profiles, environment }),
    Promise.all(
      containers.map(async (container) =>
        container === null ? null : await host.docker.image(container.image),
      ),
    ),
    host.files.hashTree(context.packageDir, PACKAGE_ENTRIES),
  ]);
  return services.map((service, index) =>
    judge(service, containers[index] ?? null, {
      hash: hashes[service.service],
      imageId: images[index]?.id,
      packageHash,
      project: name,
    }),
  );
}

/** The name under which an older compose file is kept; the same for the same content. */
export function keptName(project: Project, text: string, hash: (text: string) => string): string {
  return `${project.file}.${hash(text).slice(0, 12)}.old`;
}

/** The scripts of a project that are missing on disk or differ. */
export async function staleScripts(host: HostReader, project: Project): Promise<readonly string[]> {
  const onDisk = await Promise.all(project.scripts.map(({ path }) => host.files.readText(path)));
  return project.scripts.filter(({ text }, index) => onDisk[index] !== text).map(({ path }) => path);
}

/** Writes what differs of a project's scripts and compose file, and keeps an older compose file beside it. */
export async function writeCompose(host: Host, project: Project, keep: string | null): Promise<void> {
  const stale = await staleScripts(host, project);
  for (const { path, text } of project.scripts.filter((script) => stale.includes(script.path)))
    await host.files.writeAtomic(path, text, { mode: 0o755 });
  const text = await host.files.readText(project.file);
  if (text === project.text) return;
  if (text !== null && keep !== null) await host.files.writeAtomic(keep, text, { mode: 0o600 });
  await host.files.writeAtomic(project.file, project.text, { mode: 0o644 });
}

/** The states as evidence, one entry a container. */
export function evidenceOf(states: readonly ServiceState[]): Evidence {
  return Object.fromEntries(states.map(({ container, state, detail }) => [container, `${state}: ${detail}`]));
}

/** What is wrong with them, each as a sentence. */
export function driftOf(states: readonly ServiceState[]): readonly string[] {
  return states
    .filter(({ state }) => state !== "running")
    .map(({ container, detail }) => `${container}: ${detail}`);
}

/**
 * Waits until every container is healthy, judged by looking at each one: Compose's exit code is no
 * proof. Throws (`unhealthy`) with what the failing one says of itself.
 */
export async function waitHealthy(
  host: HostReader,
  services: readonly Service[],
  deadlineMs: number,
): Promise<void> {
  for (const { container: name } of services) {
    const last: { container: Container | null } = { container: null };
    const healthy = await poll(host, deadlineMs, async () => {
      last.container = await host.docker.container(name);
      const { status, health } = last.container ?? {};
      if (status === "running" && (health === "healthy" || health === null)) return true;
      return status === "exited" || status === "dead" ? false : null;
    });
    if (healthy !== true) throw await describeSick(host, name, last.container);
  }
}

/** The values for compose's `${KEY}`: what `.env` holds, and what this run would put there. */
async function composeEnvironment(
  host: HostReader,
  context: NodeContext,
): Promise<Readonly<Record<string, string>>> {
  const file = parseEnvFile((await host.files.readText(context.layout.envFile)) ?? "");
  const values: Record<string, string> = {};
  for (const { key, value } of file.ok ? file.entries : []) if ("text" in value) values[key] = value.text;
  const current = await readValues(host, context);
  for (const { key, minted } of context.specs) {
    const value = current(key) ?? (minted === undefined ? undefined : "not minted yet");
    if (value !== undefined) values[key] = value;
  }
  return { ...values, FULA_NODE_VERSION: context.version };
}

/** What a container would be made from today, and the project it would be made in. */
interface Wanted {
  readonly project: string;
  readonly hash: string | undefined;
  readonly imageId: string | undefined;
  readonly packageHash: string | null;
}

function judge(service: Service, container: Container | null, wanted: Wanted): ServiceState {
  const as = (state: ServiceState["state"], detail: string): ServiceState => ({
    ...service,
    state,
    detail,
    claimable: false,
  });
  if (container === null) return as("absent", "no such container");
  const { labels, status, health, image } = container;
  const project = labels[PROJECT];
  if (!isOurs(container) || project !== wanted.project) {
    const home = project === undefined ? "no compose project" : `compose project ${project}`;
    const claimable = project === wanted.project && labels[SERVICE] === service.service;
    const mark = isOurs(container) ? "another kind of node" : "no label of ours";
    return { ...as("foreign", `image ${image}, ${home}, ${mark}`), claimable };
  }
  if (status !== "running") return as("stopped", `it is ${status}`);
  if (wanted.hash !== undefined && labels[CONFIG_HASH] !== wanted.hash) {
    return as("changed", "it was made from other settings");
  }
  const built = labels[PACKAGE_LABEL];
  if (
    (wanted.imageId ?? container.imageId) !== container.imageId ||
    (built ?? wanted.packageHash) !== wanted.packageHash
  ) {
    return as("changed", "it was made from an older image");
  }
  if (health === "unhealthy") return as("unhealthy", "its healthcheck fails");
  return as("running", `running since ${container.startedAt}`);
}

async function describeSick(
  host: HostReader,
  name: string,
  container: Container | null,
): Promise<OperatorError> {
  if (container === null) {
    return new OperatorError({
      exit: "unhealthy",
      what: `The container ${name} is not there.`,
      remedy: "Run again.",
    });
  }
  const { status, health, healthOutput, exitCode } = container;
  const log = (await host.docker.logs(name, 12)).trim();
  return new OperatorError({
    exit: "unhealthy",
    what: `${name} does not work: it is ${status}${status === "running" ? `, health ${health ?? "unknown"}` : `, exit code ${exitCode}`}.`,
    ...(log === "" ? {} : { why: `Its log ends with:\n${log}` }),
    remedy: `${healthOutput === "" ? "" : `Its healthcheck says: ${healthOutput.trim()}. `}See \`docker logs ${name}\`; when the cause is mended, run again.`,
  });
}
