import type { Change, Consent, Evidence, Finding } from "../engine/step.ts";
import { CONTAINER_USER } from "../settings/layout.ts";
import type { Service, ServiceState } from "./container-state.ts";

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

/** A data directory that others than its container may enter, or that belongs to another user. */
export type OpenData = {
  readonly service: string;
  readonly container: string;
  readonly path: string;
  readonly uid: number;
  readonly mode: number;
};

/** What is known about the data of some containers. */
export interface DataSurvey {
  readonly open: readonly OpenData[];
  /** File systems that are mounted below the data and belong to another user. fula-node does not change these. */
  readonly mounts: readonly string[];
}

/** The mode of data directories: only the owner may enter. */
export const PRIVATE_MODE = 0o700;

/** True if the container must stop while the data gets another owner. */
export function hasOtherOwner({ uid }: OpenData): boolean {
  return uid !== CONTAINER_USER.uid;
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

/** Judges containers by their states. */
export type Judge = (states: readonly ServiceState[]) => Judgement;

/** A service to start; `state` tells one whose container is made anew. */
export type Starting = Service & Partial<Pick<ServiceState, "state">>;

/** What a probe saw of a step's containers. The plan depends only on this. */
export interface Seen {
  readonly missingImages: readonly string[];
  readonly profiles?: readonly string[];
  readonly remove: readonly string[];
  readonly prepare: readonly FileChange[];
  readonly up: readonly Starting[];
  /** Containers to restart. */
  readonly restart: readonly string[];
  /** Paused containers, which continue. */
  readonly unpause: readonly string[];
  /** Containers that get another restart policy. */
  readonly policies: readonly { readonly container: string; readonly policy: string }[];
  /** Data that belongs to another user than the containers', or that others can enter. */
  readonly data: readonly OpenData[];
}

/** Nothing to do. */
export const NOTHING: Seen = {
  missingImages: [],
  remove: [],
  prepare: [],
  up: [],
  restart: [],
  unpause: [],
  policies: [],
  data: [],
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
  | (Change & { readonly kind: "close-data"; readonly data: OpenData })
  | (Change & { readonly kind: "restart"; readonly container: string })
  | (Change & { readonly kind: "unpause"; readonly container: string })
  | (Change & {
      readonly kind: "set-restart-policy";
      readonly container: string;
      readonly policy: string;
    })
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
  readonly data: DataSurvey;
}): Finding<Seen> {
  const { judgement, desired, whyRestart, data } = options;
  const { drift: otherDrift = [], prepare = [], remove = [], isPresent = false } = judgement;
  const { profiles } = desired;
  const evidence: Evidence = {
    ...evidenceOf(options.states),
    ...(profiles === undefined ? {} : { profiles: profiles.join(" ") || "none" }),
    ...judgement.evidence,
  };
  const states = options.states.map((state): ServiceState => {
    if (whyRestart !== null) return { ...state, state: "unhealthy", detail: whyRestart };
    const runs = state.state === "running" || state.state === "unhealthy";
    const mustStop = data.open.some((one) => one.container === state.container && hasOtherOwner(one));
    return runs && mustStop ? { ...state, state: "changed", detail: "its data has another owner" } : state;
  });
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
    policies: states.flatMap(({ container, restartPolicy }) =>
      restartPolicy === undefined ? [] : [{ container, policy: restartPolicy.to }],
    ),
    // The start of a new container gives it its data (prepareData). Compose may have made its volume with an earlier one.
    data: data.open.filter(
      (one) => !up.some(({ container, state }) => container === one.container && state === "absent"),
    ),
  };
  const obstacle = joinObstacles(
    judgement.obstacle ?? mountedBelow(data),
    up.length > 0 ? options.conflict : null,
  );
  const consents = states.flatMap((state) => replacementOf(state, options.describeLoss));
  const confirmed = consents.length === 0 ? {} : { consents };
  if (obstacle !== null) {
    const { why, remedy, claim: drift } = obstacle;
    if (drift === null) return { state: "foreign", evidence, why, remedy };
    const all = [...drift, ...data.open.map(describeOpenData)];
    const isDone = changesOf(seen, () => "").length === 0;
    const claim = isDone
      ? ({ state: "ours", seen, evidence } as const)
      : ({ state: "drifted", seen, drift: all, evidence, ...confirmed } as const);
    return { state: "foreign", evidence, why, remedy, claim };
  }
  const drift = [
    ...otherDrift,
    ...data.open.map(describeOpenData),
    ...driftOf(states),
    ...states.flatMap(({ container, restartPolicy: policy }) =>
      policy === undefined ? [] : [`${container}: restart policy ${policy.from} -> ${policy.to}`],
    ),
    ...remove.map((name) => `${name} is running, but the settings do not ask for it`),
  ];
  if (drift.length === 0) return { state: "ours", seen, evidence };
  // Without services there is nothing to create: what is left is to be removed.
  if (!isPresent && states.length > 0 && states.every(({ state }) => state === "absent"))
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

/** What Compose does to these containers: one that differs is made anew. */
export function startOf(up: readonly Starting[], name: (service: Service) => string): string {
  const namesOf = (isAnew: boolean): string =>
    up
      .filter(({ state }) => (state === "changed") === isAnew)
      .map(name)
      .join(", ");
  const started = namesOf(false);
  const anew = namesOf(true);
  return [started && `start ${started}`, anew && `create ${anew} again`]
    .filter((part) => part !== "")
    .join(", ");
}

/** The changes, in order. Images are pulled only if containers are to be created. */
export function changesOf(
  { missingImages, profiles, remove, prepare, up, restart, unpause, policies, data }: Seen,
  describeUp: (up: readonly Starting[]) => string,
): readonly ContainerChange[] {
  const pulls = up.length > 0 ? missingImages : [];
  return [
    ...unpause.map((container) => ({ kind: "unpause", summary: `unpause ${container}`, container }) as const),
    ...policies.map(
      ({ container, policy }) =>
        ({
          kind: "set-restart-policy",
          summary: `set the restart policy of ${container} to ${policy}`,
          container,
          policy,
        }) as const,
    ),
    ...remove.map(
      (container) => ({ kind: "remove-container", summary: `remove ${container}`, container }) as const,
    ),
    ...pulls.map((image) => ({ kind: "pull-image", summary: `pull ${image}`, image }) as const),
    ...prepare,
    ...data.map(
      (one) =>
        ({
          kind: "close-data",
          summary: hasOtherOwner(one)
            ? `stop ${one.container}, give ${one.path} to its own user (it belongs to uid ${one.uid})`
            : `make ${one.path} accessible to its container only`,
          data: one,
        }) as const,
    ),
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

/** What is wrong with data, in a line for the plan. */
function describeOpenData(data: OpenData): string {
  return hasOtherOwner(data)
    ? `owner of ${data.path} ${data.uid} -> ${CONTAINER_USER.uid} (restart)`
    : `mode of ${data.path} ${data.mode.toString(8)} -> ${PRIVATE_MODE.toString(8)}`;
}

/** The obstacle if other file systems are mounted inside the data: their owner is not changed. */
function mountedBelow({ mounts }: DataSurvey): Obstacle | null {
  if (mounts.length === 0) return null;
  const { uid, gid } = CONTAINER_USER;
  return {
    why: `${mounts.join(", ")} is mounted inside the data, and its files do not belong to uid ${uid}. fula-node does not change the owner of other file systems.`,
    remedy: `Stop the container, run: chown -R ${uid}:${gid} ${mounts.join(" ")}. Then run again.`,
    claim: null,
  };
}

/** The obstacle if fula-node did not create some of the containers; null if it created all of them. */
export function foreignContainers(states: readonly ServiceState[], remedy: string): Obstacle | null {
  const foreign = states.filter(({ state }) => state === "foreign");
  if (foreign.length === 0) return null;
  const homes = [...new Set(foreign.flatMap(({ home }) => home ?? []))];
  return {
    why: foreign
      .map(({ container, detail, home }) =>
        home === undefined
          ? `fula-node did not create the container ${container} (${detail}).`
          : `The container ${container} belongs to the node in ${home}.`,
      )
      .join(" "),
    remedy: homes.length === 0 ? remedy : `Use that node: --base-dir ${homes.join(" or ")}.`,
    claim: foreign.every(({ claimable }) => claimable) ? driftOf(states) : null,
  };
}

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
