import type { Change, Evidence, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { isOurs } from "../settings/master-layout.ts";
import { type NodeContext, poll } from "../settings/node-context.ts";
import {
  evidenceOf,
  lookAtServices,
  type Project,
  type Service,
  type ServiceState,
  waitHealthy,
} from "./compose-services.ts";

interface Seen {
  readonly missingImage: string | null;
  readonly todo: "up" | "restart" | "nothing";
}

type ServiceChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & { readonly kind: "up"; readonly services: readonly string[] })
  | (Change & { readonly kind: "restart"; readonly container: string });

/** One container of a compose project. */
export interface ServiceWish extends Service {
  readonly id: string;
  readonly title: string;
  readonly touches: string;
  /** The setting that names its image; null for the service image, which another step builds. */
  readonly imageKey: string | null;
  /** The named volume that holds its data; one without our label is somebody else's. */
  readonly volume: string | null;
  /** The unit under which upstream runs the same program without a container. */
  readonly unit: string | null;
  /** Asks it to work: null where it does, else why it does not. */
  fault(host: HostReader): Promise<string | null>;
  /** Of one that runs: why it is to be restarted all the same; null where it is not. */
  whyRestart?(host: HostReader): Promise<string | null>;
}

const HEALTHY_DEADLINE_MS = 180_000;
const ANSWER_DEADLINE_MS = 60_000;

/** A step that keeps one container of a compose project running as rendered. */
export function composeService(
  context: NodeContext,
  project: Project,
  wish: ServiceWish,
): StepSpec<Seen, ServiceChange> {
  const { id, title, touches, service, container } = wish;
  const thing: Service = { service, container };
  return {
    id,
    title,
    touches,

    async probe(host): Promise<Finding<Seen>> {
      const [states, missingImage, intruder] = await Promise.all([
        lookAtServices(host, context, project, [thing], []),
        findMissingImage(host, context, wish),
        findIntruder(host, wish),
      ]);
      const evidence: Evidence = { ...evidenceOf(states), ...intruder?.evidence };
      const state = states[0]?.state ?? "absent";
      const ailment = state === "running" ? ((await wish.whyRestart?.(host)) ?? null) : null;
      const todo = ailment === null ? MENDING[state] : "restart";
      const seen: Seen = { missingImage, todo };
      const drift = [`${container}: ${ailment ?? states[0]?.detail ?? ""}`];
      const why = whyForeign(container, states[0]) ?? intruder?.why;
      if (why !== undefined) {
        const claimable = state === "foreign" ? states[0]?.claimable === true : intruder?.claimable === true;
        return {
          state: "foreign",
          evidence,
          why,
          remedy: "Move it away if it is not needed.",
          ...(claimable
            ? { claim: { state: "drifted", seen: { missingImage, todo: "up" }, drift, evidence } as const }
            : {}),
        };
      }
      if (todo === "nothing") return { state: "ours", seen, evidence };
      if (state === "absent") return { state: "absent", seen, evidence };
      return { state: "drifted", seen, drift, evidence };
    },

    plan({ seen: { missingImage, todo } }) {
      if (todo === "nothing") return [];
      if (todo === "restart") return [{ kind: "restart", summary: `restart ${container}`, container }];
      return [
        ...(missingImage === null
          ? []
          : [{ kind: "pull-image", summary: `pull ${missingImage}`, image: missingImage } as const]),
        { kind: "up", summary: `bring ${container} up`, services: [service] },
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") await host.docker.pull(change.image, report);
      else if (change.kind === "restart") await host.docker.restart(change.container);
      else
        await host.docker.composeUp(
          { name: project.name, file: project.file, envFile: context.layout.envFile, profiles: [] },
          change.services,
          report,
        );
    },

    async verify(host) {
      await waitHealthy(host, [thing], HEALTHY_DEADLINE_MS);
      const last: { fault: string | null } = { fault: null };
      const works = await poll(host, ANSWER_DEADLINE_MS, async () => {
        last.fault = await wish.fault(host);
        return last.fault === null ? true : null;
      });
      if (works === true) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${container} does not work: ${last.fault ?? ""}.`,
        remedy: `See \`docker logs ${container}\`; when the cause is mended, run again.`,
      });
    },
  };
}

const MENDING: Readonly<Record<ServiceState["state"], Seen["todo"]>> = {
  running: "nothing",
  unhealthy: "restart",
  absent: "up",
  stopped: "up",
  changed: "up",
  foreign: "up",
};

function whyForeign(container: string, state: ServiceState | undefined): string | undefined {
  if (state?.state !== "foreign") return undefined;
  return `The container ${container} is not ours (${state.detail}).`;
}

/** Somebody else's data under our volume's name, or the same program as a unit. */
async function findIntruder(
  host: HostReader,
  { container: name, volume: volumeName, unit: unitName }: ServiceWish,
): Promise<{ readonly why: string; readonly claimable: boolean; readonly evidence: Evidence } | null> {
  const [unit, volume, container] = await Promise.all([
    unitName === null ? null : host.system.unit(unitName),
    volumeName === null ? null : host.docker.volume(volumeName),
    host.docker.container(name),
  ]);
  if (unit !== null && unit.loaded) {
    return {
      why: `The unit ${unit.name} runs the same program on this machine.`,
      claimable: false,
      evidence: { [unit.name]: unit.execStart },
    };
  }
  const isKnown = container !== null && isOurs(container);
  if (volume === null || isOurs(volume) || isKnown) return null;
  return {
    why: `The volume ${volume.name} is here without a label of ours: a node made it that is not this one.`,
    claimable: true,
    evidence: { [volume.name]: `no label of ours, at ${volume.mountpoint}` },
  };
}

/** None where an archive brings it (the step images). */
async function findMissingImage(
  host: HostReader,
  { settings, imagesArchive }: NodeContext,
  { imageKey }: ServiceWish,
): Promise<string | null> {
  if (imageKey === null || imagesArchive !== null) return null;
  const image = settings.get(imageKey)?.value ?? "";
  return (await host.docker.image(image)) === null ? image : null;
}
