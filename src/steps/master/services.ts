import { PROJECT_LABEL } from "../../docker/compose-document.ts";
import type { Project } from "../../docker/compose-project.ts";
import type { Service } from "../../docker/container-state.ts";
import { type Desired, foreignContainers, type Judge, startOf } from "../../docker/container-finding.ts";
import { decideUpdater } from "../../docker/compose-project.ts";
import { OWN_IMAGE } from "../../docker/kept-service.ts";
import { containers, imagesToPull } from "../../docker/containers.ts";
import type { AnyStep } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { isOurs, NAMES } from "../../settings/layout.ts";
import { type MasterContext, poll, readValues } from "../../settings/context.ts";

const ALWAYS_DESIRED: readonly Service[] = [
  { service: "pinning-api", container: NAMES.pinningApi },
  { service: "webui", container: NAMES.webui },
];

/** The services that are always there, with the settings of their ports and of their images. */
const PORTS = [
  { service: "pinning-api", portKey: "PINNING_API_PORT", imageKey: "PINNING_API_IMAGE" },
  { service: "webui", portKey: "WEBUI_PORT", imageKey: "WEBUI_IMAGE" },
] as const;

/** For a service that was adopted: nothing else says when it is ready. */
const ADOPTED_DEADLINE_MS = 60_000;

/** What upstream's services do and ours do not yet. */
export const LOSSES: Readonly<Record<string, string>> = {
  "pinning-api": "Ours has no passwords (/auth), and its /admin routes only read.",
  webui: "Ours has no web pages for accounts, no sign-in, no API keys to create there, and no payments.",
};

/** Pinning API and storage API, the gateway if its image is on this box, and the updater if AUTO_UPDATE is on. */
export function services(context: MasterContext, project: Project): AnyStep {
  return containers(context, project, {
    id: "services",
    title: "services",
    touches:
      "Starts `fula-pinning-api` and `fula-pinning-webui` on 127.0.0.1, `fula-gateway-1` if its image is on this box, and the updater if AUTO_UPDATE is true and one of them has an image that fula-node does not build.",
    desired: (host) => desiredServices(host, context),
    survey: (host) => surveyUpdater(host, context, project),
    describeLoss: (service) => LOSSES[service] ?? "",
    describeUp: (up) => startOf(up, ({ service }) => service),
    healthyDeadlineMs: 120_000,

    async verify(host) {
      const values = await readValues(host, context);
      for (const { service, portKey } of PORTS) {
        const isOwn = imageOf(context, service) === OWN_IMAGE;
        const url = `http://127.0.0.1:${values(portKey) ?? ""}/health`;
        const ask = () => host.http.json(url, { timeoutMs: 10_000 });
        // Upstream's services have no such route and no healthcheck: any answer but an error shows that they work.
        const works = (reply: Awaited<ReturnType<typeof ask>>) =>
          reply !== null && (isOwn ? isHealthy(reply) : reply.status < 500);
        const answer = isOwn ? await ask() : await pollLast(host, ADOPTED_DEADLINE_MS, ask, works);
        if (works(answer)) continue;
        if (isOwn && answer?.status === 200) throw strangerAt(url, values(portKey) ?? "");
        throw new OperatorError({
          exit: "unhealthy",
          what: `${url} ${answer === null ? "does not answer" : `answers ${answer.status}: ${JSON.stringify(answer.body)}`}.`,
          remedy: isOwn
            ? "The answer names the part that fails. Repair it, then run again."
            : `If the adopted service listens on another port, set it: --set ${portKey}=PORT. Otherwise see its log.`,
        });
      }
    },
  });
}

/** Another program on the port may answer 200, too, while ours can't start. */
function isHealthy({ status, body }: { readonly status: number; readonly body: unknown }): boolean {
  return status === 200 && (body as { readonly status?: unknown } | null)?.status === "ok";
}

function strangerAt(url: string, port: string): OperatorError {
  return new OperatorError({
    exit: "unhealthy",
    what: `${url} is answered by another program, not by our service.`,
    remedy: `See which one (ss -ltnp 'sport = :${port}'), stop it, then run again.`,
  });
}

/** Asks until an answer is right or the deadline has passed, and returns the last answer. */
async function pollLast<T>(
  host: HostReader,
  deadlineMs: number,
  ask: () => Promise<T>,
  isRight: (answer: T) => boolean,
): Promise<T> {
  const last: { answer: T } = { answer: await ask() };
  await poll(host, deadlineMs, async () => {
    if (isRight(last.answer)) return true;
    last.answer = await ask();
    return isRight(last.answer) ? true : null;
  });
  return last.answer;
}

async function desiredServices(host: HostReader, context: MasterContext): Promise<Desired> {
  const gateway = await host.docker.image(context.settings.get("GATEWAY_IMAGE")?.value ?? "");
  const { runs: updater } = await decideUpdater(host, context.settings);
  return {
    services: [
      ...ALWAYS_DESIRED,
      ...(gateway === null ? [] : [{ service: "fula-gateway", container: NAMES.gateway }]),
      ...(updater ? [{ service: "updater", container: NAMES.updater }] : []),
    ],
    profiles: [...(gateway === null ? [] : ["gateway"]), ...(updater ? ["updater"] : [])],
    images: updater ? imagesToPull(context, ["UPDATER_IMAGE"]) : [],
    serviceImages: context.imagesArchive === null ? customImagesOf(context) : {},
  };
}

function customImagesOf(context: MasterContext): Readonly<Record<string, string>> {
  const images = PORTS.map(({ service }) => [service, imageOf(context, service)] as const);
  return Object.fromEntries(images.filter(([, image]) => image !== OWN_IMAGE));
}

function imageOf({ settings }: MasterContext, service: string): string {
  const key = PORTS.find((one) => one.service === service)?.imageKey ?? "";
  return settings.get(key)?.value ?? OWN_IMAGE;
}

/** A running updater keeps replacing other containers even after AUTO_UPDATE is turned off, so it is removed. */
async function surveyUpdater(host: HostReader, context: MasterContext, project: Project): Promise<Judge> {
  const { runs } = await decideUpdater(host, context.settings);
  const updater = runs ? null : await host.docker.container(NAMES.updater);
  const isUnwanted = updater !== null && isOurs(updater) && updater.labels[PROJECT_LABEL] === project.name;
  return (states) => ({
    obstacle: foreignContainers(states, "If it is not needed, stop it and rename or remove it."),
    remove: isUnwanted ? [updater.name] : [],
  });
}
