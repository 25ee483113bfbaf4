import { isBuiltImage } from "./kept-service.ts";
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
  /** The other base directory whose node it is a part of. */
  readonly home?: string;
  /** True for a foreign container that `--adopt` takes over. */
  readonly claimable: boolean;
  /** True for a foreign container that stays as it is once it is adopted. */
  readonly stays?: boolean;
  /** The image of an adopted service that ours is to replace. */
  readonly replaces?: string;
  /** What its restart policy shall be instead of the one that it has. */
  readonly restartPolicy?: { readonly from: string; readonly to: string };
  /** True if it must be unpaused, whatever else is to be done. */
  readonly isPaused?: boolean;
}

/** What a container is compared with. */
export interface Wanted {
  readonly project: string;
  readonly hash?: string | undefined;
  readonly imageId?: string | undefined;
  readonly packageHash: string | null;
  /** The restart policy in the compose file. */
  readonly restartPolicy?: string;
  /** The directory that the container was created from, if it is not the project's. */
  readonly elsewhere?: string | null;
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
    const { restartPolicy: to } = wanted;
    const stays = !["absent", "foreign", "changed", "dead"].includes(state);
    const from = container?.restartPolicy;
    const policy =
      stays && from !== undefined && to !== undefined && from !== to ? { restartPolicy: { from, to } } : {};
    return { ...service, state, detail, claimable: false, ...isPaused, ...policy, ...more };
  };
  if (container === null) return judged("absent", "no such container");
  const { labels, image } = container;
  const ownProject = labels[PROJECT_LABEL];
  const isItsOwn = ownProject === project && labels[COMPOSE_SERVICE] === service.service;
  const replaces = isOwnService && !isBuiltImage(image) ? { replaces: image } : {};
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
  const { elsewhere = null } = wanted;
  if (elsewhere !== null) return judged("foreign", `part of the node in ${elsewhere}`, { home: elsewhere });
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

const CONFIG_HASH = "com.docker.compose.config-hash";
const COMPOSE_SERVICE = "com.docker.compose.service";
