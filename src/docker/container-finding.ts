import type { Change, Evidence, Finding } from "../engine/step.ts";
import { isOurs } from "../settings/layout.ts";
import { PROJECT_LABEL } from "./compose-document.ts";
import { PACKAGE_LABEL } from "./compose-project.ts";
import type { Container } from "./engine.ts";

/** A service and its container. */
export interface Service {
  readonly service: string;
  readonly container: string;
}

/** The state of one service's container. */
export interface ServiceState extends Service {
  readonly state: "running" | "absent" | "stopped" | "changed" | "unhealthy" | "foreign";
  /** A description for people: what is wrong, or what it is. */
  readonly detail: string;
  /** True for a foreign container that Compose treats as this service's, and so would replace. */
  readonly claimable: boolean;
}

/** The services that a step keeps running, and their images and profiles. */
export interface Desired {
  readonly services: readonly Service[];
  /** The images to pull if they are not on this machine. */
  readonly images: readonly string[];
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
}

/** Nothing to do. */
export const NOTHING: Seen = { missingImages: [], remove: [], prepare: [], up: [], restart: [] };

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
  | (Change & { readonly kind: "remove-container"; readonly container: string });

/** The finding that follows from the states and the judgement. */
export function findingOf(options: {
  readonly states: readonly ServiceState[];
  readonly judgement: Judgement;
  readonly desired: Desired;
  readonly missingImages: readonly string[];
  /** Why running containers must be restarted; null if they need no restart. */
  readonly whyRestart: string | null;
}): Finding<Seen> {
  const { judgement, desired, missingImages, whyRestart } = options;
  const { obstacle, drift: otherDrift = [], prepare = [], remove = [], isPresent = false } = judgement;
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
  const seen: Seen = {
    missingImages,
    ...(profiles === undefined ? {} : { profiles }),
    remove,
    prepare,
    up: states.filter(({ state }) => state !== "running" && state !== "unhealthy"),
    restart: states.filter(({ state }) => state === "unhealthy").map(({ container }) => container),
  };
  if (obstacle !== null) {
    const { why, remedy, claim: drift } = obstacle;
    const claim = drift === null ? {} : { claim: { state: "drifted", seen, drift, evidence } as const };
    return { state: "foreign", evidence, why, remedy, ...claim };
  }
  const drift = [
    ...otherDrift,
    ...driftOf(states),
    ...remove.map((name) => `${name} is running, but the settings do not ask for it`),
  ];
  if (drift.length === 0) return { state: "ours", seen, evidence };
  if (!isPresent && states.every(({ state }) => state === "absent"))
    return { state: "absent", seen, evidence };
  return { state: "drifted", seen, drift, evidence };
}

/** The changes, in order. Images are pulled only if containers are to be created. */
export function changesOf(
  { missingImages, profiles, remove, prepare, up, restart }: Seen,
  describeUp: (up: readonly Service[]) => string,
): readonly ContainerChange[] {
  const pulls = up.length > 0 ? missingImages : [];
  return [
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

/** Compares a service's container with what fula-node would create now. */
export function judgeContainer(
  service: Service,
  container: Container | null,
  wanted: {
    readonly project: string;
    readonly hash?: string | undefined;
    readonly imageId?: string | undefined;
    readonly packageHash: string | null;
  },
): ServiceState {
  const { project, hash, imageId, packageHash } = wanted;
  const judged = (state: ServiceState["state"], detail: string, claimable = false): ServiceState => ({
    ...service,
    state,
    detail,
    claimable,
  });
  if (container === null) return judged("absent", "no such container");
  const { labels, status, health, image } = container;
  const ownProject = labels[PROJECT_LABEL];
  if (!isOurs(container) || ownProject !== project) {
    const place = ownProject === undefined ? "no compose project" : `compose project ${ownProject}`;
    const mark = isOurs(container) ? "another kind of node" : "no fula-node label";
    const claimable = ownProject === project && labels[COMPOSE_SERVICE] === service.service;
    return judged("foreign", `image ${image}, ${place}, ${mark}`, claimable);
  }
  if (status !== "running") return judged("stopped", `its status is ${status}`);
  if (hash !== undefined && labels[CONFIG_HASH] !== hash)
    return judged("changed", "it was created with other settings");
  const built = labels[PACKAGE_LABEL];
  if ((imageId ?? container.imageId) !== container.imageId || (built ?? packageHash) !== packageHash)
    return judged("changed", "it was created from an older image");
  if (health === "unhealthy") return judged("unhealthy", "its healthcheck fails");
  return judged("running", `running since ${container.startedAt}`);
}

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
