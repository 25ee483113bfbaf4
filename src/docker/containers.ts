import type { Finding, Report, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { type NodeContext, poll, readEnvFile, readValues } from "../settings/context.ts";
import { findEntry } from "../settings/env-file.ts";

import { VERSION_KEY } from "../settings/settings.ts";
import { plainLog } from "../units.ts";
import { type ComposeMap, homeOf, mapAt, SPEC_LABEL } from "./compose-document.ts";
import { NAMES, PACKAGE_ENTRIES } from "../settings/layout.ts";
import { type Project, writeCompose } from "./compose-project.ts";
import { namedKeys } from "./compose-render.ts";
import { closeData, type DataPlace, prepareData, stopContainer, surveyData } from "./container-data.ts";
import { judgeContainer, type Service, type ServiceState } from "./container-state.ts";
import {
  changesOf,
  type ContainerChange,
  type Desired,
  findingOf,
  hasOtherOwner,
  type Seen,
  type Judge,
  startOf,
  type Starting,
} from "./container-finding.ts";
import type { Container } from "./engine.ts";
import {
  isAdopted,
  isBuiltImage,
  type KeptService,
  OWN_IMAGE,
  parseKept,
  whyChanged,
} from "./kept-service.ts";
import { findNameConflicts } from "./name-conflicts.ts";
import { findMissingImages, pullImage } from "./whole-images.ts";

/** The containers of a compose project that one step keeps running. */
export interface ContainersSpec {
  readonly id: string;
  readonly title: string;
  readonly touches: string;
  desired(host: HostReader): Desired | Promise<Desired>;
  /** Reads everything else that the step needs, besides its containers. The returned judge is pure. */
  survey(host: HostReader): Promise<Judge>;
  /** Where the containers have their data. It is theirs alone. */
  readonly data?: readonly DataPlace[];
  /** Called only if all containers run. Why they must be restarted; null if they need no restart. */
  whyRestart?(host: HostReader): Promise<string | null>;
  /** What replaces the containers: an external database, or a writer that fula-node did not create. */
  readonly inPlace?: {
    isUsed(host: HostReader): Promise<boolean>;
    probe(host: HostReader): Promise<Finding<Seen>>;
  };
  /** The summary of `up`. By default it names the containers. */
  readonly describeUp?: (up: readonly Starting[]) => string;
  /** What is lost if our service replaces an adopted one, as a sentence. */
  readonly describeLoss?: (service: string) => string;
  readonly healthyDeadlineMs?: number;
  /** Tests that the healthy containers work. Throws an OperatorError (`unhealthy`) if they do not. `report` gets what it waits for. */
  verify(host: HostReader, report?: Report): Promise<void>;
}

const HEALTHY_DEADLINE_MS = 180_000;
const ANSWER_DEADLINE_MS = 60_000;
const REMOVAL_DEADLINE_MS = 30_000;
/** A container that ends so often while a run waits for it does not recover by itself. */
const MOST_RESTARTS = 3;
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
  // An adopted container keeps its user, and so its data keeps its owner.
  const places = (spec.data ?? []).filter(({ service }) => !isAdopted(project.kept?.get(service)));
  return {
    id,
    title,
    touches,

    async probe(host) {
      if (inPlace !== undefined && (await inPlace.isUsed(host))) return await inPlace.probe(host);
      const desired = await spec.desired(host);
      const [states, missingImages, conflict, judge, data] = await Promise.all([
        inspectServices(host, context, project, desired),
        findMissingImages(host, context, [...desired.images, ...Object.values(desired.serviceImages ?? {})]),
        findNameConflicts(
          host,
          project,
          desired.services.map(({ service }) => service),
        ),
        spec.survey(host),
        surveyData(host, places),
      ]);
      const isRunning = states.every(({ state }) => state === "running");
      const whyRestart = isRunning ? ((await spec.whyRestart?.(host)) ?? null) : null;
      const judgement = judge(states);
      const { describeLoss } = spec;
      return findingOf({
        states,
        conflict,
        judgement,
        desired,
        missingImages,
        whyRestart,
        describeLoss,
        data,
      });
    },

    plan: ({ seen }) => changesOf(seen, spec.describeUp ?? nameContainers),

    async apply(change, host, report) {
      const { name, file } = project;
      const { envFile } = context.layout;
      if (change.kind === "pull-image") await pullImage(host, context, change.image, report);
      else if (change.kind === "restart") await host.docker.restart(change.container);
      else if (change.kind === "unpause") await host.docker.unpause(change.container);
      else if (change.kind === "set-restart-policy")
        await host.docker.setRestartPolicy(change.container, change.policy);
      else if (change.kind === "remove-container") await removeFully(host, change.container);
      else if (change.kind === "write-compose") await writeCompose(host, project, change.keep);
      else if (change.kind === "mark-taken-over")
        await host.files.writeAtomic(change.path, TAKEN_OVER_TEXT, { mode: 0o644 });
      else if (change.kind === "close-data") {
        if (hasOtherOwner(change.data)) await stopContainer(host, change.data.container);
        await closeData(host, change.data, report);
      } else {
        const { services, profiles = [] } = change;
        const environment = await composeEnvironment(host, context, project);
        const compose = { name, file, envFile, profiles, environment };
        await prepareData(host, { compose, places, services }, report);
        await host.docker.composeUp(compose, services, report);
      }
    },

    async verify(host, report) {
      if (inPlace === undefined || !(await inPlace.isUsed(host))) {
        const { services } = await spec.desired(host);
        await waitHealthy(host, services, spec.healthyDeadlineMs ?? HEALTHY_DEADLINE_MS, report);
      }
      await spec.verify(host, report);
    },
  };
}

/** Removes a container. Waits until its name is free, since a removal of another program may be under way. */
async function removeFully(host: Host, container: string): Promise<void> {
  await host.docker.removeContainer(container);
  const isGone = await poll(host, REMOVAL_DEADLINE_MS, async () =>
    (await host.docker.container(container)) === null ? true : null,
  );
  if (isGone === true) return;
  throw new OperatorError({
    exit: "unavailable",
    what: `Docker does not finish the removal of ${container}.`,
    remedy: "Restart Docker (systemctl restart docker), then run again.",
  });
}

/** The images that these settings name; none if an archive provides them (the step images). */
export function imagesToPull(
  { settings, imagesArchive }: NodeContext,
  keys: readonly string[],
): readonly string[] {
  return imagesArchive === null ? keys.map((key) => settings.get(key)?.value ?? "") : [];
}

/**
 * Checks one or more containers until there is no fault. `report` gets each fault. After the deadline, throws
 * (`unhealthy`) with the last fault.
 */
export async function waitUntilItWorks(
  host: HostReader,
  name: string,
  findFault: () => Promise<string | null>,
  {
    remedy = `See \`docker logs ${name}\`, fix the cause, then run again.`,
    report = () => {},
  }: { readonly remedy?: string; readonly report?: Report | undefined } = {},
): Promise<void> {
  const last: { fault: string | null } = { fault: null };
  const works = await poll(host, ANSWER_DEADLINE_MS, async () => {
    last.fault = await findFault();
    if (last.fault !== null) report(`not yet: ${last.fault}`);
    return last.fault === null ? true : null;
  });
  if (works === true) return;
  throw new OperatorError({
    exit: "unhealthy",
    what: `${name} does not work: ${last.fault ?? ""}.`,
    remedy,
  });
}

function nameContainers(up: readonly Starting[]): string {
  return startOf(up, ({ container }) => container);
}

/** Compares the containers of these services with the rendered project. */
async function inspectServices(
  host: HostReader,
  context: NodeContext,
  project: Project,
  { services, profiles = [] }: Desired,
): Promise<readonly ServiceState[]> {
  const { name, text, directory, document, kept } = project;
  const found = await Promise.all(services.map(({ container }) => host.docker.container(container)));
  if (found.every((container) => container === null))
    return services.map((service) => judgeContainer(service, null, { project: name, packageHash: null }));
  const planned = Object.fromEntries(
    context.specs.flatMap(({ key, generated }) =>
      generated === undefined ? [] : [[key, "not generated yet"]],
    ),
  );
  const [known, compose] = await Promise.all([
    composeEnvironment(host, context, project),
    host.docker.composeVersion(),
  ]);
  const environment = { ...planned, ...known };
  // Without Compose nothing can be compared yet. The step docker installs it, and then everything is looked at again.
  const source = { name, text: withoutKept(project) ?? text, directory, profiles, environment };
  const [hashes, images, packageHash, records, elsewhere] = await Promise.all([
    compose === null ? null : host.docker.composeHashes(source),
    Promise.all(
      found.map(async (container) => (container === null ? null : await host.docker.image(container.image))),
    ),
    host.files.hashTree(context.packageDir, PACKAGE_ENTRIES),
    Promise.all(services.map(({ service }) => readRecord(host, kept?.get(service)))),
    Promise.all(found.map((container) => otherHomeOf(host, container, project))),
  ]);
  return services.map((service, index) => {
    const container = found[index] ?? null;
    const definition = mapAt(document.services, service.service);
    const keptService = kept?.get(service.service);
    const isRecorded = records[index] === true;
    const spec = mapAt(definition, "labels")[SPEC_LABEL];
    const isCompared = keptService === undefined || keptService.image === OWN_IMAGE;
    const hash = hashes?.[service.service];
    if (container !== null && isCompared && hashes !== null && hash === undefined) throw noHash(service);
    const whyNot =
      container === null || keptService === undefined
        ? null
        : (whyChanged(keptService, container, environment) ??
          whyNotRenewable(container, mapAt(definition, "labels"), profiles));
    return judgeContainer(service, container, {
      project: name,
      hash,
      imageId: images[index]?.id,
      packageHash,
      elsewhere: elsewhere[index] ?? null,
      restartPolicy: typeof definition["restart"] === "string" ? definition["restart"] : "no",
      keepsAdopted: kept !== undefined,
      isOwnService: typeof definition["image"] === "string" && isBuiltImage(definition["image"]),
      ...(keptService === undefined
        ? {}
        : { kept: { isRecorded, whyChanged: whyNot, spec: typeof spec === "string" ? spec : undefined } }),
    });
  });
}

/** The directory that a container was created from, if it is another one. A writer may be in a directory of its own. */
async function otherHomeOf(
  { files }: HostReader,
  container: Container | null,
  { name, directory }: Project,
): Promise<string | null> {
  const home = container === null ? undefined : homeOf(container);
  if (home === undefined || home === directory || name === NAMES.writerProject) return null;
  const [at, here] = await Promise.all([home, directory].map((one) => files.realPath(one)));
  return (at ?? home) === (here ?? directory) ? null : (at ?? home);
}

/** Without its hash, a container that differs would count as unchanged. */
function noHash({ service, container }: Service): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `docker compose gave no hash for the service ${service}, so ${container} can't be compared with its settings.`,
    remedy: "Upgrade Docker's Compose plugin, then run again.",
  });
}

/** The updater renews only containers with its labels, which an adopted one lacks. Null without the updater. */
function whyNotRenewable(
  container: Container,
  labels: ComposeMap,
  profiles: readonly string[],
): string | null {
  if (!profiles.includes("updater") || labels[UPDATER_LABEL] !== "true") return null;
  return container.labels[UPDATER_LABEL] === "true"
    ? null
    : "it lacks the labels of the updater, which could not renew it";
}

const UPDATER_LABEL = "com.centurylinklabs.watchtower.enable";

async function readRecord(host: HostReader, kept: KeptService | undefined): Promise<boolean> {
  return kept !== undefined && parseKept((await host.files.readText(kept.path)) ?? "") !== null;
}

/**
 * The document for Compose's hashes, without adopted services: these are compared in another way, and Compose refuses a
 * document whose environment files are not written yet. Null if there are none.
 */
function withoutKept({ document, kept }: Project): string | null {
  const names = [...(kept ?? [])].flatMap(([name, one]) => (isAdopted(one) ? [name] : []));
  if (names.length === 0) return null;
  const services = Object.entries(document.services).filter(([name]) => !names.includes(name));
  return JSON.stringify({ ...document, services: Object.fromEntries(services) });
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
  report: Report = () => {},
): Promise<void> {
  for (const { container: name } of services) {
    const last: { container: Container | null } = { container: null };
    let firstCount: number | null = null;
    const healthy = await poll(host, deadlineMs, async () => {
      last.container = await host.docker.container(name);
      const { status, health, restartCount = 0 } = last.container ?? {};
      firstCount ??= restartCount;
      if (status === "running" && (health === "healthy" || health === null)) return true;
      if (status === "exited" || status === "dead" || restartCount - firstCount >= MOST_RESTARTS)
        return false;
      report(`waiting for ${name} to be healthy`);
      return null;
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
  const { status, health, healthOutput, exitCode, restartCount, oomKilled } = container;
  const looping = restartCount > 0 ? `, restarted ${restartCount} times` : "";
  const memory = oomKilled ? "; the kernel ended it because memory ran out" : "";
  const log = plainLog((await host.docker.logs(name, 12)).trim());
  return new OperatorError({
    exit: "unhealthy",
    what: `${name} does not work: its status is ${status}${status === "running" ? `, health ${health ?? "unknown"}` : `, exit code ${exitCode}`}${looping}${memory}.`,
    ...(log === "" ? {} : { why: `Its log ends with:\n${log}` }),
    remedy: `${healthOutput === "" ? "" : `Its healthcheck printed: ${healthOutput.trim()}. `}See \`docker logs ${name}\`, fix the cause, then run again.`,
  });
}
