import {
  driftOf,
  evidenceOf,
  lookAtServices,
  PROJECT,
  type Project,
  type Service,
  waitHealthy,
} from "../../docker/compose-services.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import type { MasterContext } from "../../settings/master-context.ts";
import { isOurs, NAMES } from "../../settings/master-layout.ts";
import { readValues } from "../../settings/node-context.ts";

interface Seen {
  readonly profiles: readonly string[];
  readonly missingImages: readonly string[];
  /** Services to bring up, and containers to restart. */
  readonly up: readonly string[];
  readonly restart: readonly string[];
  /** Ours that are no longer wished. */
  readonly remove: readonly string[];
}

type ServicesChange =
  | (Change & { readonly kind: "pull-image"; readonly image: string })
  | (Change & {
      readonly kind: "up";
      readonly services: readonly string[];
      readonly profiles: readonly string[];
    })
  | (Change & { readonly kind: "restart"; readonly container: string })
  | (Change & { readonly kind: "remove-container"; readonly container: string });

const ALWAYS: readonly Service[] = [
  { service: "pinning-api", container: NAMES.pinningApi },
  { service: "webui", container: NAMES.webui },
];
const HEALTHY_DEADLINE_MS = 120_000;

/** Pinning API and storage API; the gateway where its image is here, the updater where it is wished. */
export function services(context: MasterContext, project: Project): StepSpec<Seen, ServicesChange> {
  return {
    id: "services",
    title: "services",
    touches:
      "Brings `fula-pinning-api` and `fula-pinning-webui` up, on 127.0.0.1; `fula-gateway-1` where its image is here, the updater where AUTO_UPDATE is true.",

    async probe(host): Promise<Finding<Seen>> {
      const wanted = await wantedServices(host, context);
      const [states, unwished] = await Promise.all([
        lookAtServices(host, context, project, wanted.services, wanted.profiles),
        findUnwished(host, project, wanted.services),
      ]);
      const evidence = { ...evidenceOf(states), profiles: wanted.profiles.join(" ") || "none" };
      const seen = {
        profiles: wanted.profiles,
        missingImages: wanted.missingImages,
        up: states
          .filter(({ state }) => state !== "running" && state !== "unhealthy")
          .map(({ service }) => service),
        restart: states.filter(({ state }) => state === "unhealthy").map(({ container }) => container),
        remove: unwished,
      };
      const foreign = states.filter(({ state }) => state === "foreign");
      if (foreign.length > 0) {
        return {
          state: "foreign",
          evidence,
          why: foreign
            .map(({ container, detail }) => `The container ${container} is not ours (${detail}).`)
            .join(" "),
          remedy: "Stop and rename or remove it if it is not needed.",
          ...(foreign.every(({ claimable }) => claimable)
            ? { claim: { state: "drifted", seen, drift: driftOf(states), evidence } as const }
            : {}),
        };
      }
      const drift = [
        ...driftOf(states),
        ...unwished.map((name) => `${name} is here, though no setting wishes it`),
      ];
      if (drift.length === 0) return { state: "ours", seen, evidence };
      if (states.every(({ state }) => state === "absent")) return { state: "absent", seen, evidence };
      return { state: "drifted", seen, drift, evidence };
    },

    plan({ seen: { profiles, missingImages, up, restart, remove } }) {
      return [
        ...remove.map(
          (container) => ({ kind: "remove-container", summary: `remove ${container}`, container }) as const,
        ),
        ...(up.length > 0 ? missingImages : []).map(
          (image) => ({ kind: "pull-image", summary: `pull ${image}`, image }) as const,
        ),
        ...(up.length > 0
          ? [{ kind: "up", summary: `bring ${up.join(", ")} up`, services: up, profiles } as const]
          : []),
        ...restart.map(
          (container) => ({ kind: "restart", summary: `restart ${container}`, container }) as const,
        ),
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "pull-image") await host.docker.pull(change.image, report);
      else if (change.kind === "restart") await host.docker.restart(change.container);
      else if (change.kind === "remove-container") await host.docker.removeContainer(change.container);
      else {
        const { profiles } = change;
        await host.docker.composeUp(
          { name: project.name, file: project.file, envFile: context.layout.envFile, profiles },
          change.services,
          report,
        );
      }
    },

    async verify(host) {
      const wanted = await wantedServices(host, context);
      await waitHealthy(host, wanted.services, HEALTHY_DEADLINE_MS);
      const values = await readValues(host, context);
      for (const key of ["PINNING_API_PORT", "WEBUI_PORT"]) {
        const url = `http://127.0.0.1:${values(key) ?? ""}/health`;
        const answer = await host.http.json(url, { timeoutMs: 10_000 });
        if (answer?.status === 200) continue;
        throw new OperatorError({
          exit: "unhealthy",
          what: `${url} ${answer === null ? "does not answer" : `answers ${answer.status}: ${JSON.stringify(answer.body)}`}.`,
          remedy: "The answer names the part that fails; mend that, then run again.",
        });
      }
    },
  };
}

/** The updater goes on renewing others for as long as it runs, whatever the settings say since. */
async function findUnwished(
  host: HostReader,
  project: Project,
  wished: readonly Service[],
): Promise<readonly string[]> {
  if (wished.some(({ container }) => container === NAMES.updater)) return [];
  const updater = await host.docker.container(NAMES.updater);
  const isHere = updater !== null && isOurs(updater) && updater.labels[PROJECT] === project.name;
  return isHere ? [updater.name] : [];
}

async function wantedServices(
  host: HostReader,
  { settings, imagesArchive }: MasterContext,
): Promise<{
  readonly services: readonly Service[];
  readonly profiles: readonly string[];
  readonly missingImages: readonly string[];
}> {
  const [gatewayImage, updaterImage] = [
    settings.get("GATEWAY_IMAGE")?.value ?? "",
    settings.get("UPDATER_IMAGE")?.value ?? "",
  ];
  const updater = settings.get("AUTO_UPDATE")?.value === "true";
  const [gateway, updaterPresent] = await Promise.all([
    host.docker.image(gatewayImage),
    host.docker.image(updaterImage),
  ]);
  return {
    services: [
      ...ALWAYS,
      ...(gateway === null ? [] : [{ service: "fula-gateway", container: NAMES.gateway }]),
      ...(updater ? [{ service: "updater", container: NAMES.updater }] : []),
    ],
    profiles: [...(gateway === null ? [] : ["gateway"]), ...(updater ? ["updater"] : [])],
    missingImages: updater && updaterPresent === null && imagesArchive === null ? [updaterImage] : [],
  };
}
