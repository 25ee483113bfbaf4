import type { Change, Consent, Evidence, Finding } from "../engine/step.ts";
import { isOurs } from "../settings/layout.ts";
import { PROJECT_LABEL, SPEC_LABEL } from "./compose-document.ts";
import { PACKAGE_LABEL } from "./compose-project.ts";
import type { Container } from "./engine.ts";

/** A service and its container. */
export interface Service {
  readonly service: string;
  readonly container: string;
}

/** The state of one service's container. */
export interface ServiceState extends Service {
  readonly state: "running" | "absent" | "stopped" | "changed" | "unhealthy" | "paused" | "dead" | "foreign";
  /** A description for people: what is wrong, or what it is. */
  readonly detail: string;
  /** True for a foreign container that `--adopt` takes over. */
  readonly claimable: boolean;
  /** True for a foreign container that stays as it is once it is adopted. */
  readonly stays?: boolean;
  /** The image of an adopted service that ours is to replace. */
  readonly replaces?: string;
  /** True if it must be unpaused, whatever else is to be done. */
  readonly isPaused?: boolean;
}

/** The services that a step keeps running, and their images and profiles. */
export interface Desired {
  readonly services: readonly Service[];
  /** The images to pull if they are not on this machine. */
  readonly images: readonly string[];
  /** The same, by the service: pulled only if that service's container is created. */
  readonly serviceImages?: Readonly<Record<string, string>>;
  /** The Compose profiles to enable. Omitted for a project without profiles. */
  readonly profiles?: readonly string[];
}

/** Why the containers must not be changed. */
export interface Obstacle {
  readonly why: string;
  readonly remedy: string;
  /** The drift that `--adopt STEP` would repair. Null if it cannot be adopted. */
  readonly claim: readonly string[] | null;
}

/** What a step knows in addition to the states of its containers. */
export interface Judgement {
  /** Added to the states of the containers. */
  readonly evidence?: Evidence;
  /** Null if there is none. */
  readonly obstacle: Obstacle | null;
  /** Other differences. They are listed before those of the containers. */
  readonly drift?: readonly string[];
  /** Files to write before containers start. */
  readonly prepare?: readonly FileChange[];
  /** Our containers to remove, because the settings no longer ask for them. */
  readonly remove?: readonly string[];
  /** True if parts of it exist even without containers. Then the state is never `absent`. */
  readonly isPresent?: boolean;
}

/** What a probe saw of a step's containers. The plan depends only on this. */
export interface Seen {
  readonly missingImages: readonly string[];
  readonly profiles?: readonly string[];
  readonly remove: readonly string[];
  readonly prepare: readonly FileChange[];
  readonly up: readonly Service[];
  /** Containers to restart. */
  readonly restart: readonly string[];
  /** Paused containers, which continue. */
  readonly unpause: readonly string[];
}

/** Nothing to do. */
export const NOTHING: Seen = {
  missingImages: [],
  remove: [],
  prepare: [],
  up: [],
  restart: [],
  unpause: [],
};

/** A file that a step writes itself, if the step compose-file does not write it. */
export type FileChange =
  | (Change & { readonly kind: "write-compose"; readonly path: string; readonly keep: string | null })
  | (Change & { readonly kind: "mark-taken-over"; readonly path: string });

/** A change of a step's containers or files. */
export type ContainerChange =
  | FileChange
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & {
      readonly kind: "up";
      readonly services: readonly string[];
      readonly profiles?: readonly string[];
    })
  | (Change & { readonly kind: "restart"; readonly container: string })
  | (Change & { readonly kind: "unpause"; readonly container: string })
  | (Change & { readonly kind: "remove-container"; readonly container: string });

/** The finding that follows from the states and the judgement. */
export function findingOf(options: {
  readonly states: readonly ServiceState[];
  readonly judgement: Judgement;
  /** What has a name that a new container needs; see findNameConflicts. */
  readonly conflict: Obstacle | null;
  readonly desired: Desired;
  readonly missingImages: readonly string[];
  /** Why running containers must be restarted; null if they need no restart. */
  readonly whyRestart: string | null;
  /** What is lost if our service replaces one that was adopted, as a sentence. */
  readonly describeLoss?: ((service: string) => string) | undefined;
}): Finding<Seen> {
  const { judgement, desired, whyRestart } = options;
  const { drift: otherDrift = [], prepare = [], remove = [], isPresent = false } = judgement;
  const { profiles } = desired;
  const evidence: Evidence = {
    ...evidenceOf(options.states),
    ...(profiles === undefined ? {} : { profiles: profiles.join(" ") || "none" }),
    ...judgement.evidence,
  };
  const states =
    whyRestart === null
      ? options.states
      : options.states.map((state) => ({ ...state, state: "unhealthy", detail: whyRestart }) as const);
  const up = states.filter(
    ({ state, stays }) => !["running", "unhealthy", "paused"].includes(state) && stays !== true,
  );
  const { images, serviceImages = {} } = desired;
  const needed = new Set([...images, ...up.flatMap(({ service }) => serviceImages[service] ?? [])]);
  const dead = states.filter(({ state }) => state === "dead").map(({ container }) => container);
  const seen: Seen = {
    missingImages: options.missingImages.filter((image) => needed.has(image)),
    ...(profiles === undefined ? {} : { profiles }),
    remove: [...remove, ...dead],
    prepare,
    up,
    restart: states.filter(({ state }) => state === "unhealthy").map(({ container }) => container),
    unpause: states.filter(({ isPaused }) => isPaused === true).map(({ container }) => container),
  };
  const obstacle = joinObstacles(judgement.obstacle, up.length > 0 ? options.conflict : null);
  const consents = states.flatMap((state) => replacementOf(state, options.describeLoss));
  const confirmed = consents.length === 0 ? {} : { consents };
  if (obstacle !== null) {
    const { why, remedy, claim: drift } = obstacle;
    if (drift === null) return { state: "foreign", evidence, why, remedy };
    const isDone = changesOf(seen, () => "").length === 0;
    const claim = isDone
      ? ({ state: "ours", seen, evidence } as const)
      : ({ state: "drifted", seen, drift, evidence, ...confirmed } as const);
    return { state: "foreign", evidence, why, remedy, claim };
  }
  const drift = [
    ...otherDrift,
    ...driftOf(states),
    ...remove.map((name) => `${name} is running, but the settings do not ask for it`),
  ];
  if (drift.length === 0) return { state: "ours", seen, evidence };
  if (!isPresent && states.every(({ state }) => state === "absent"))
    return { state: "absent", seen, evidence };
  return { state: "drifted", seen, drift, evidence, ...confirmed };
}

/** A conflict of names can't be adopted, so nothing else can while it is there. */
function joinObstacles(obstacle: Obstacle | null, conflict: Obstacle | null): Obstacle | null {
  if (obstacle === null || conflict === null) return obstacle ?? conflict;
  return {
    why: `${obstacle.why} ${conflict.why}`,
    remedy: `${obstacle.remedy} ${conflict.remedy}`,
    claim: null,
  };
}

function replacementOf(
  { service, container, replaces }: ServiceState,
  describeLoss: ((service: string) => string) | undefined,
): readonly Consent[] {
  if (replaces === undefined) return [];
  return [
    {
      flag: `--replace ${service}`,
      question:
        `Replace ${container} (${replaces}) by the service of fula-node? ${describeLoss?.(service) ?? ""}`.trim(),
      byDefault: false,
      explicit: true,
      remedy: `Run again with --replace ${service}. Or keep what runs: leave out the image setting, or set it to ${replaces}.`,
    },
  ];
}

/** The changes, in order. Images are pulled only if containers are to be created. */
export function changesOf(
  { missingImages, profiles, remove, prepare, up, restart, unpause }: Seen,
  describeUp: (up: readonly Service[]) => string,
): readonly ContainerChange[] {
  const pulls = up.length > 0 ? missingImages : [];
  return [
    ...unpause.map((container) => ({ kind: "unpause", summary: `unpause ${container}`, container }) as const),
    ...remove.map(
      (container) => ({ kind: "remove-container", summary: `remove ${container}`, container }) as const,
    ),
    ...pulls.map((image) => ({ kind: "pull-image", summary: `pull ${image}`, image }) as const),
    ...prepare,
    ...(up.length === 0
      ? []
      : [
          {
            kind: "up",
            summary: describeUp(up),
            services: up.map(({ service }) => service),
            ...(profiles === undefined ? {} : { profiles }),
          } as const,
        ]),
    ...restart.map((container) => ({ kind: "restart", summary: `restart ${container}`, container }) as const),
  ];
}

/** The obstacle if fula-node did not create some of the containers; null if it created all of them. */
export function foreignContainers(states: readonly ServiceState[], remedy: string): Obstacle | null {
  const foreign = states.filter(({ state }) => state === "foreign");
  if (foreign.length === 0) return null;
  return {
    why: foreign
      .map(({ container, detail }) => `fula-node did not create the container ${container} (${detail}).`)
      .join(" "),
    remedy,
    claim: foreign.every(({ claimable }) => claimable) ? driftOf(states) : null,
  };
}

/** What a container is compared with. */
export interface Wanted {
  readonly project: string;
  readonly hash?: string | undefined;
  readonly imageId?: string | undefined;
  readonly packageHash: string | null;
  /** For a service that keeps an adopted container. */
  readonly kept?:
    | {
        /** True if it was adopted before, or by an earlier step of this run. */
        readonly isRecorded: boolean;
        /** Why it must be created again; null if it need not be. */
        readonly whyChanged: string | null;
        /** The hash of its definition in our compose file. */
        readonly spec: string | undefined;
      }
    | undefined;
  /** True if the service is one that fula-node builds, so that another image would be replaced. */
  readonly isOwnService?: boolean;
  /** True if this kind of node keeps adopted containers: then one that was not examined can't be adopted. */
  readonly keepsAdopted?: boolean;
}

/** Compares a service's container with what fula-node would create now. */
export function judgeContainer(service: Service, container: Container | null, wanted: Wanted): ServiceState {
  const { project, hash, imageId, packageHash, kept, isOwnService = false, keepsAdopted = false } = wanted;
  const judged = (
    state: ServiceState["state"],
    detail: string,
    more: Partial<ServiceState> = {},
  ): ServiceState => {
    const isPaused = container?.status === "paused" && state !== "foreign" ? { isPaused: true } : {};
    return { ...service, state, detail, claimable: false, ...isPaused, ...more };
  };
  if (container === null) return judged("absent", "no such container");
  const { labels, image } = container;
  const ownProject = labels[PROJECT_LABEL];
  const isItsOwn = ownProject === project && labels[COMPOSE_SERVICE] === service.service;
  const replaces = isOwnService && !OWN_IMAGES.test(image) ? { replaces: image } : {};
  if (!isOurs(container) || ownProject !== project) {
    const place = ownProject === undefined ? "no compose project" : `compose project ${ownProject}`;
    const mark = isOurs(container) ? "another kind of node" : "no fula-node label";
    const isKept = isItsOwn && !isOurs(container) && kept !== undefined;
    if (!isKept || !kept.isRecorded) {
      const stays = isKept && !isOwnService ? { stays: true } : {};
      const claimable = isItsOwn && (isKept || !keepsAdopted);
      return judged("foreign", `image ${image}, ${place}, ${mark}`, { claimable, ...stays, ...replaces });
    }
    if (isOwnService) return judged("changed", `it was adopted with the image ${image}`, replaces);
    if (kept.whyChanged !== null) return judged("changed", kept.whyChanged);
    return judgeStatus(container, judged, { stopped: "unhealthy", running: `adopted, image ${image}` });
  }
  if (isOwnService && replaces.replaces !== undefined) return judged("changed", `it runs ${image}`, replaces);
  const isStarted = ["running", "paused", "restarting"].includes(container.status);
  if (isStarted && hash !== undefined && labels[CONFIG_HASH] !== hash)
    return judged("changed", "it was created with other settings");
  if (isStarted && kept !== undefined && !isOwnService) {
    if (kept.whyChanged !== null) return judged("changed", kept.whyChanged);
    if (labels[SPEC_LABEL] !== kept.spec) return judged("changed", "it was created with another definition");
  }
  const built = labels[PACKAGE_LABEL];
  const isOlder =
    (imageId ?? container.imageId) !== container.imageId || (built ?? packageHash) !== packageHash;
  if (isStarted && isOlder) return judged("changed", "it was created from an older image");
  return judgeStatus(container, judged, {
    stopped: "stopped",
    running: `running since ${container.startedAt}`,
  });
}

/** Every state of a container that Docker knows (moby, container/state.go). A stopped container that stays is started again. */
function judgeStatus(
  { status, health, exitCode, oomKilled, restartCount }: Container,
  judged: (state: ServiceState["state"], detail: string) => ServiceState,
  as: { readonly stopped: "stopped" | "unhealthy"; readonly running: string },
): ServiceState {
  const memory = oomKilled ? "; the kernel ended it because memory ran out" : "";
  switch (status) {
    case "running":
      return health === "unhealthy"
        ? judged("unhealthy", "its healthcheck fails")
        : judged("running", as.running);
    case "paused":
      return judged("paused", "it is paused");
    case "restarting":
      return judged(
        "unhealthy",
        `it ends again and again: ${restartCount} restarts, exit code ${exitCode}${memory}`,
      );
    case "removing":
    case "dead":
      return judged("dead", `its removal did not finish (status ${status})`);
    case "created":
      return judged(as.stopped, "its status is created: it was never started");
    case "exited":
    default:
      return judged(as.stopped, `its status is ${status} (exit code ${exitCode})${memory}`);
  }
}

/** The images that fula-node builds. */
const OWN_IMAGES = /^fula-node:/;

const CONFIG_HASH = "com.docker.compose.config-hash";
const COMPOSE_SERVICE = "com.docker.compose.service";

/** The states as evidence, one entry per container. */
function evidenceOf(states: readonly ServiceState[]): Evidence {
  return Object.fromEntries(states.map(({ container, state, detail }) => [container, `${state}: ${detail}`]));
}

/** What is wrong, one line per container. */
export function driftOf(states: readonly ServiceState[]): readonly string[] {
  return states
    .filter(({ state }) => state !== "running")
    .map(({ container, detail }) => `${container}: ${detail}`);
}
