import type { Evidence, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { parseEnvFile } from "../settings/env-file.ts";
import { isOurs } from "../settings/layout.ts";
import { type NodeContext, poll, readValues } from "../settings/context.ts";
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

/** The containers of a compose project that one step keeps up. */
export interface ContainersSpec {
  readonly id: string;
  readonly title: string;
  readonly touches: string;
  desired(host: HostReader): Desired | Promise<Desired>;
  /** Reads what else is to be known, beside the look at the containers; the judge that it gives is pure. */
  survey(host: HostReader): Promise<Judge>;
  /** Asked only while all of them run: why they are restarted nevertheless; null: they are not. */
  whyRestart?(host: HostReader): Promise<string | null>;
  /** What does their work in their place: a database elsewhere, a writer that somebody else made. */
  readonly inPlace?: {
    isUsed(host: HostReader): Promise<boolean>;
    probe(host: HostReader): Promise<Finding<Seen>>;
  };
  /** The summary of `up`; left out, it names the containers. */
  readonly describeUp?: (up: readonly Service[]) => string;
  readonly healthyDeadlineMs?: number;
  /** Asks for their work, once they are healthy; throws an OperatorError (`unhealthy`) if it is not done. */
  verify(host: HostReader): Promise<void>;
}

const HEALTHY_DEADLINE_MS = 180_000;
const ANSWER_DEADLINE_MS = 60_000;
/** What is written beside the writer's data if it was taken over. */
const TAKEN_OVER_TEXT =
  "kubo/ and ipfs-cluster/ were here before fula-node took them over (--adopt writer): it never removes them.\n";

/** A step that keeps containers of a compose project running as rendered. */
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
        lookAtServices(host, context, project, desired),
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
        await host.docker.composeUp({ name, file, envFile, profiles }, services, report);
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

/** The images that these settings name; none if an archive brings them (the step images). */
export function imagesToPull(
  { settings, imagesArchive }: NodeContext,
  keys: readonly string[],
): readonly string[] {
  return imagesArchive === null ? keys.map((key) => settings.get(key)?.value ?? "") : [];
}

/** Those of these images that are not on this machine. */
export async function findMissingImages(
  host: HostReader,
  images: readonly string[],
): Promise<readonly string[]> {
  const present = await Promise.all(images.map((image) => host.docker.image(image)));
  return images.filter((_, index) => present[index] === null);
}

/** Asks a container, or a named group of them, until there is no fault. Throws (`unhealthy`) with the last one. */
export async function waitUntilItWorks(
  host: HostReader,
  name: string,
  findFault: () => Promise<string | null>,
  remedy = `See \`docker logs ${name}\`; when the cause is mended, run again.`,
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
 * Surveys the names that a container of a storage node takes: the volume with its data (one without our label
 * is somebody else's), and the unit under which upstream runs the same program without a container.
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
    const why = `The unit ${unit.name} runs the same program on this machine.`;
    return judgeNames({ evidence: { [unit.name]: unit.execStart }, why, claimable: false });
  }
  const isKnown = container !== null && isOurs(container);
  if (volume === null || isOurs(volume) || isKnown) return judgeNames(null);
  return judgeNames({
    evidence: { [volume.name]: `no label of ours, at ${volume.mountpoint}` },
    why: `The volume ${volume.name} is here without a label of ours: a node made it that is not this one.`,
    claimable: true,
  });
}

/** Judges a container of a storage node that nothing but another container can be in the way of. */
export function judgeNames(
  intruder: { readonly evidence: Evidence; readonly why: string; readonly claimable: boolean } | null,
): Judge {
  const remedy = "Move it away if it is not needed.";
  return (states) => {
    const foreign = foreignContainers(states, remedy);
    if (intruder === null) return { obstacle: foreign };
    const { evidence, why, claimable } = intruder;
    return { evidence, obstacle: foreign ?? { why, remedy, claim: claimable ? driftOf(states) : null } };
  };
}

function nameContainers(up: readonly Service[]): string {
  return `bring ${up.map(({ container }) => container).join(", ")} up`;
}

/** Looks at the containers of these services and compares them with the project as rendered. */
async function lookAtServices(
  host: HostReader,
  context: NodeContext,
  { name, text, directory }: Project,
  { services, profiles = [] }: Desired,
): Promise<readonly ServiceState[]> {
  const found = await Promise.all(services.map(({ container }) => host.docker.container(container)));
  if (found.every((container) => container === null))
    return services.map((service) => judgeContainer(service, null, { project: name, packageHash: null }));
  const environment = await composeEnvironment(host, context);
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

/** The values for compose's `${KEY}`: what `.env` holds, and what this run would put there. */
async function composeEnvironment(
  host: HostReader,
  context: NodeContext,
): Promise<Readonly<Record<string, string>>> {
  const file = parseEnvFile((await host.files.readText(context.layout.envFile)) ?? "");
  const values: Record<string, string> = {};
  for (const { key, value } of file.ok ? file.entries : []) if ("text" in value) values[key] = value.text;
  const current = await readValues(host, context);
  for (const { key, generated } of context.specs) {
    const value = current(key) ?? (generated === undefined ? undefined : "not minted yet");
    if (value !== undefined) values[key] = value;
  }
  return { ...values, FULA_NODE_VERSION: context.version };
}

/**
 * Waits until every container is healthy, judged by looking at each one: Compose's exit code is no
 * proof. Throws (`unhealthy`) with what the failing one says of itself.
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
    if (healthy !== true) throw await describeSick(host, name, last.container);
  }
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
