import type { Change, Evidence, Finding } from "../engine/step.ts";
import { isOurs } from "../settings/layout.ts";
import { PACKAGE_LABEL, PROJECT } from "./compose-project.ts";
import type { Container } from "./engine.ts";

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

/** The services that a step keeps up, and what they are made from. */
export interface Desired {
  readonly services: readonly Service[];
  /** The images to pull if they are not on this machine. */
  readonly images: readonly string[];
  /** The profiles of Compose to switch on; left out for a project without profiles. */
  readonly profiles?: readonly string[];
}

/** Why the containers may not be touched. */
export interface Obstacle {
  readonly why: string;
  readonly remedy: string;
  /** The drift that `--adopt STEP` would repair; null: it can't be adopted. */
  readonly claim: readonly string[] | null;
}

/** What a step knows beyond the states of its containers. */
export interface Judgement {
  /** Beside the states of the containers. */
  readonly evidence?: Evidence;
  /** Null: nothing is in the way. */
  readonly obstacle: Obstacle | null;
  /** What else differs: named before what is wrong with the containers. */
  readonly drift?: readonly string[];
  /** Files to write before containers are brought up. */
  readonly prepare?: readonly FileChange[];
  /** Containers of ours to remove: no setting asks for them any more. */
  readonly remove?: readonly string[];
  /** True if something of it is there even without any container: then it is never absent. */
  readonly isBegun?: boolean;
}

/** What a probe saw of a step's containers: all that its plan is made from. */
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

/** What a step writes beside its containers, if it does not leave that to the step compose-file. */
export type FileChange =
  | (Change & { readonly kind: "write-compose"; readonly path: string; readonly keep: string | null })
  | (Change & { readonly kind: "mark-taken-over"; readonly path: string });

/** What is done to containers. */
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

/** Turns the states and what else the step knows into its finding. */
export function findingOf(options: {
  readonly states: readonly ServiceState[];
  readonly judgement: Judgement;
  readonly desired: Desired;
  readonly missingImages: readonly string[];
  /** Why containers that run are restarted nevertheless; null: they are not. */
  readonly whyRestart: string | null;
}): Finding<Seen> {
  const { judgement, desired, missingImages, whyRestart } = options;
  const { obstacle, drift: otherDrift = [], prepare = [], remove = [], isBegun = false } = judgement;
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
    ...remove.map((name) => `${name} is here, though no setting wishes it`),
  ];
  if (drift.length === 0) return { state: "ours", seen, evidence };
  if (!isBegun && states.every(({ state }) => state === "absent")) return { state: "absent", seen, evidence };
  return { state: "drifted", seen, drift, evidence };
}

/** The changes in their order. Images are pulled only for containers that are to be made. */
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

/** The obstacle that containers are which we did not make; null if there is none among them. */
export function foreignContainers(states: readonly ServiceState[], remedy: string): Obstacle | null {
  const foreign = states.filter(({ state }) => state === "foreign");
  if (foreign.length === 0) return null;
  return {
    why: foreign
      .map(({ container, detail }) => `The container ${container} is not ours (${detail}).`)
      .join(" "),
    remedy,
    claim: foreign.every(({ claimable }) => claimable) ? driftOf(states) : null,
  };
}

/** Compares a service's container with what it would be made from today. */
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
  const as = (state: ServiceState["state"], detail: string, claimable = false): ServiceState => ({
    ...service,
    state,
    detail,
    claimable,
  });
  if (container === null) return as("absent", "no such container");
  const { labels, status, health, image } = container;
  const home = labels[PROJECT];
  if (!isOurs(container) || home !== project) {
    const place = home === undefined ? "no compose project" : `compose project ${home}`;
    const mark = isOurs(container) ? "another kind of node" : "no label of ours";
    const claimable = home === project && labels[COMPOSE_SERVICE] === service.service;
    return as("foreign", `image ${image}, ${place}, ${mark}`, claimable);
  }
  if (status !== "running") return as("stopped", `it is ${status}`);
  if (hash !== undefined && labels[CONFIG_HASH] !== hash)
    return as("changed", "it was made from other settings");
  const built = labels[PACKAGE_LABEL];
  if ((imageId ?? container.imageId) !== container.imageId || (built ?? packageHash) !== packageHash)
    return as("changed", "it was made from an older image");
  if (health === "unhealthy") return as("unhealthy", "its healthcheck fails");
  return as("running", `running since ${container.startedAt}`);
}

const CONFIG_HASH = "com.docker.compose.config-hash";
const COMPOSE_SERVICE = "com.docker.compose.service";

/** The states as evidence, one entry a container. */
function evidenceOf(states: readonly ServiceState[]): Evidence {
  return Object.fromEntries(states.map(({ container, state, detail }) => [container, `${state}: ${detail}`]));
}

/** What is wrong with them, each as a sentence. */
export function driftOf(states: readonly ServiceState[]): readonly string[] {
  return states
    .filter(({ state }) => state !== "running")
    .map(({ container, detail }) => `${container}: ${detail}`);
}
