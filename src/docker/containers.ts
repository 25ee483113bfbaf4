import type { Evidence, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findEntry } from "../settings/env-file.ts";
import { isOurs } from "../settings/layout.ts";
import { type NodeContext, poll, readEnvFile, readValues } from "../settings/context.ts";
import { VERSION_KEY } from "../settings/settings.ts";
import { namedKeys } from "./compose-render.ts";
import { PACKAGE_ENTRIES, type Project, writeCompose } from "./compose-project.ts";
import {
  changesOf,
  type ContainerChange,
  type Desired,
  driftOf,
  findingOf,
  foreignContainers,
  judgeContainer,
  type Judgement,
  type Seen,
  type Service,
  type ServiceState,
} from "./container-finding.ts";
import type { Container } from "./engine.ts";

/** Judges containers by their states. */
export type Judge = (states: readonly ServiceState[]) => Judgement;

/** The containers of a compose project that one step keeps running. */
export interface ContainersSpec {
  readonly id: string;
  readonly title: string;
  readonly touches: string;
  desired(host: HostReader): Desired | Promise<Desired>;
  /** Reads everything else that the step needs, besides its containers. The returned judge is pure. */
  survey(host: HostReader): Promise<Judge>;
  /** Called only if all containers run. Why they must be restarted; null if they need no restart. */
  whyRestart?(host: HostReader): Promise<string | null>;
  /** What replaces the containers: an external database, or a writer that fula-node did not create. */
  readonly inPlace?: {
    isUsed(host: HostReader): Promise<boolean>;
    probe(host: HostReader): Promise<Finding<Seen>>;
  };
  /** The summary of `up`. By default it names the containers. */
  readonly describeUp?: (up: readonly Service[]) => string;
  readonly healthyDeadlineMs?: number;
  /** Tests that the healthy containers work. Throws an OperatorError (`unhealthy`) if they do not. */
  verify(host: HostReader): Promise<void>;
}

const HEALTHY_DEADLINE_MS = 180_000;
const ANSWER_DEADLINE_MS = 60_000;
/** The text of the file that is written next to an adopted writer's data. */
const TAKEN_OVER_TEXT =
  "kubo/ and ipfs-cluster/ existed before fula-node adopted them (--adopt writer). fula-node never removes them.\n";

/** A step that keeps containers of a compose project running as its compose file says. */
export function containers(
  context: NodeContext,
  project: Project,
  spec: ContainersSpec,
): StepSpec<Seen, ContainerChange> {
  const { id, title, touches, inPlace } = spec;
  return {
    id,
    title,
    touches,

    async probe(host) {
      if (inPlace !== undefined && (await inPlace.isUsed(host))) return await inPlace.probe(host);
      const desired = await spec.desired(host);
      const [states, missingImages, judge] = await Promise.all([
        inspectServices(host, context, project, desired),
        findMissingImages(host, desired.images),
        spec.survey(host),
      ]);
      const isRunning = states.every(({ state }) => state === "running");
      const whyRestart = isRunning ? ((await spec.whyRestart?.(host)) ?? null) : null;
      return findingOf({ states, judgement: judge(states), desired, missingImages, whyRestart });
    },

    plan: ({ seen }) => changesOf(seen, spec.describeUp ?? nameContainers),

    async apply(change, host, report) {
      const { name, file } = project;
      const { envFile } = context.layout;
      if (change.kind === "pull-image") await host.docker.pull(change.image, report);
      else if (change.kind === "restart") await host.docker.restart(change.container);
      else if (change.kind === "remove-container") await host.docker.removeContainer(change.container);
      else if (change.kind === "write-compose") await writeCompose(host, project, change.keep);
      else if (change.kind === "mark-taken-over")
        await host.files.writeAtomic(change.path, TAKEN_OVER_TEXT, { mode: 0o644 });
      else {
        const { services, profiles = [] } = change;
        const environment = await composeEnvironment(host, context, project);
        await host.docker.composeUp({ name, file, envFile, profiles, environment }, services, report);
      }
    },

    async verify(host) {
      if (inPlace === undefined || !(await inPlace.isUsed(host))) {
        const { services } = await spec.desired(host);
        await waitHealthy(host, services, spec.healthyDeadlineMs ?? HEALTHY_DEADLINE_MS);
      }
      await spec.verify(host);
    },
  };
}

/** The images that these settings name; none if an archive provides them (the step images). */
export function imagesToPull(
  { settings, imagesArchive }: NodeContext,
  keys: readonly string[],
): readonly string[] {
  return imagesArchive === null ? keys.map((key) => settings.get(key)?.value ?? "") : [];
}

/** The images of the list that are not on this machine. */
export async function findMissingImages(
  host: HostReader,
  images: readonly string[],
): Promise<readonly string[]> {
  const present = await Promise.all(images.map((image) => host.docker.image(image)));
  return images.filter((_, index) => present[index] === null);
}

/** Checks one or more containers until there is no fault. After the deadline, throws (`unhealthy`) with the last fault. */
export async function waitUntilItWorks(
  host: HostReader,
  name: string,
  findFault: () => Promise<string | null>,
  remedy = `See \`docker logs ${name}\`, fix the cause, then run again.`,
): Promise<void> {
  const last: { fault: string | null } = { fault: null };
  const works = await poll(host, ANSWER_DEADLINE_MS, async () => {
    last.fault = await findFault();
    return last.fault === null ? true : null;
  });
  if (works === true) return;
  throw new OperatorError({
    exit: "unhealthy",
    what: `${name} does not work: ${last.fault ?? ""}.`,
    remedy,
  });
}

/**
 * Checks the names that a container of a storage node uses: the volume with its data (fula-node did not create it
 * if it has no fula-node label), and the systemd unit that runs the same program without a container (upstream's way).
 */
export async function surveyNames(
  host: HostReader,
  names: { readonly container: string; readonly volume: string; readonly unit: string },
): Promise<Judge> {
  const [unit, volume, container] = await Promise.all([
    host.system.unit(names.unit),
    host.docker.volume(names.volume),
    host.docker.container(names.container),
  ]);
  if (unit !== null && unit.loaded) {
    const why = `The systemd unit ${unit.name} runs the same program on this machine.`;
    return judgeNames({ evidence: { [unit.name]: unit.execStart }, why, claimable: false });
  }
  const isKnown = container !== null && isOurs(container);
  if (volume === null || isOurs(volume) || isKnown) return judgeNames(null);
  return judgeNames({
    evidence: { [volume.name]: `no fula-node label, at ${volume.mountpoint}` },
    why: `The volume ${volume.name} exists without a fula-node label, so this node did not create it.`,
    claimable: true,
  });
}

/** Judges a container of a storage node. `conflict` is anything else that uses one of its names. */
export function judgeNames(
  conflict: { readonly evidence: Evidence; readonly why: string; readonly claimable: boolean } | null,
): Judge {
  const remedy = "If it is not needed, move it away.";
  return (states) => {
    const foreign = foreignContainers(states, remedy);
    if (conflict === null) return { obstacle: foreign };
    const { evidence, why, claimable } = conflict;
    return { evidence, obstacle: foreign ?? { why, remedy, claim: claimable ? driftOf(states) : null } };
  };
}

function nameContainers(up: readonly Service[]): string {
  return `start ${up.map(({ container }) => container).join(", ")}`;
}

/** Compares the containers of these services with the rendered project. */
async function inspectServices(
  host: HostReader,
  context: NodeContext,
  project: Project,
  { services, profiles = [] }: Desired,
): Promise<readonly ServiceState[]> {
  const { name, text, directory } = project;
  const found = await Promise.all(services.map(({ container }) => host.docker.container(container)));
  if (found.every((container) => container === null))
    return services.map((service) => judgeContainer(service, null, { project: name, packageHash: null }));
  const planned = Object.fromEntries(
    context.specs.flatMap(({ key, generated }) =>
      generated === undefined ? [] : [[key, "not generated yet"]],
    ),
  );
  const environment = { ...planned, ...(await composeEnvironment(host, context, project)) };
  const [hashes, images, packageHash] = await Promise.all([
    host.docker.composeHashes({ name, text, directory, profiles, environment }),
    Promise.all(
      found.map(async (container) => (container === null ? null : await host.docker.image(container.image))),
    ),
    host.files.hashTree(context.packageDir, PACKAGE_ENTRIES),
  ]);
  return services.map((service, index) =>
    judgeContainer(service, found[index] ?? null, {
      project: name,
      hash: hashes[service.service],
      imageId: images[index]?.id,
      packageHash,
    }),
  );
}

/**
 * The values of the variables that the document names: settings as this run uses them, other keys as `.env` has
 * them. Every other key of `.env` stays away from Compose, which would act on some of them (COMPOSE_PROFILES).
 */
async function composeEnvironment(
  host: HostReader,
  context: NodeContext,
  { document }: Project,
): Promise<Readonly<Record<string, string>>> {
  const [file, current] = await Promise.all([
    readEnvFile(host, context.layout.envFile),
    readValues(host, context),
  ]);
  const values: Record<string, string> = {};
  for (const key of namedKeys(document)) {
    const entry = findEntry(file, key)?.value;
    const written = entry !== undefined && "text" in entry ? entry.text : undefined;
    const value = key === VERSION_KEY ? context.version : (current(key) ?? written);
    if (value !== undefined) values[key] = value;
  }
  return values;
}

/**
 * Waits until every container is healthy. It inspects each one, because Compose's exit code proves nothing.
 * Throws (`unhealthy`) with the log and the healthcheck output of the failing one.
 */
async function waitHealthy(
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
    if (healthy !== true) throw await describeUnhealthy(host, name, last.container);
  }
}

async function describeUnhealthy(
  host: HostReader,
  name: string,
  container: Container | null,
): Promise<OperatorError> {
  if (container === null) {
    return new OperatorError({
      exit: "unhealthy",
      what: `The container ${name} is missing.`,
      remedy: "Run again.",
    });
  }
  const { status, health, healthOutput, exitCode } = container;
  const log = (await host.docker.logs(name, 12)).trim();
  return new OperatorError({
    exit: "unhealthy",
    what: `${name} does not work: its status is ${status}${status === "running" ? `, health ${health ?? "unknown"}` : `, exit code ${exitCode}`}.`,
    ...(log === "" ? {} : { why: `Its log ends with:\n${log}` }),
    remedy: `${healthOutput === "" ? "" : `Its healthcheck printed: ${healthOutput.trim()}. `}See \`docker logs ${name}\`, fix the cause, then run again.`,
  });
}
