import { PROJECT_LABEL } from "../../docker/compose-document.ts";
import type { Project } from "../../docker/compose-project.ts";
import { type Desired, foreignContainers, type Service } from "../../docker/container-finding.ts";
import { containers, imagesToPull, type Judge } from "../../docker/containers.ts";
import type { AnyStep } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { isOurs, NAMES } from "../../settings/layout.ts";
import { type MasterContext, readValues } from "../../settings/context.ts";

const ALWAYS_DESIRED: readonly Service[] = [
  { service: "pinning-api", container: NAMES.pinningApi },
  { service: "webui", container: NAMES.webui },
];

/** Pinning API and storage API, the gateway if its image is on this box, and the updater if AUTO_UPDATE is on. */
export function services(context: MasterContext, project: Project): AnyStep {
  return containers(context, project, {
    id: "services",
    title: "services",
    touches:
      "Starts `fula-pinning-api` and `fula-pinning-webui` on 127.0.0.1, `fula-gateway-1` if its image is on this box, and the updater if AUTO_UPDATE is true.",
    desired: (host) => desiredServices(host, context),
    survey: (host) => surveyUpdater(host, context, project),
    describeUp: (up) => `start ${up.map(({ service }) => service).join(", ")}`,
    healthyDeadlineMs: 120_000,

    async verify(host) {
      const values = await readValues(host, context);
      for (const key of ["PINNING_API_PORT", "WEBUI_PORT"]) {
        const url = `http://127.0.0.1:${values(key) ?? ""}/health`;
        const answer = await host.http.json(url, { timeoutMs: 10_000 });
        if (answer?.status === 200) continue;
        throw new OperatorError({
          exit: "unhealthy",
          what: `${url} ${answer === null ? "does not answer" : `answers ${answer.status}: ${JSON.stringify(answer.body)}`}.`,
          remedy: "The answer names the part that fails. Repair it, then run again.",
        });
      }
    },
  });
}

async function desiredServices(host: HostReader, context: MasterContext): Promise<Desired> {
  const gateway = await host.docker.image(context.settings.get("GATEWAY_IMAGE")?.value ?? "");
  const updater = hasUpdater(context);
  return {
    services: [
      ...ALWAYS_DESIRED,
      ...(gateway === null ? [] : [{ service: "fula-gateway", container: NAMES.gateway }]),
      ...(updater ? [{ service: "updater", container: NAMES.updater }] : []),
    ],
    profiles: [...(gateway === null ? [] : ["gateway"]), ...(updater ? ["updater"] : [])],
    images: updater ? imagesToPull(context, ["UPDATER_IMAGE"]) : [],
  };
}

/** A running updater keeps replacing other containers even after AUTO_UPDATE is turned off, so it is removed. */
async function surveyUpdater(host: HostReader, context: MasterContext, project: Project): Promise<Judge> {
  const updater = hasUpdater(context) ? null : await host.docker.container(NAMES.updater);
  const isUnwanted = updater !== null && isOurs(updater) && updater.labels[PROJECT_LABEL] === project.name;
  return (states) => ({
    obstacle: foreignContainers(states, "If it is not needed, stop it and rename or remove it."),
    remove: isUnwanted ? [updater.name] : [],
  });
}

function hasUpdater({ settings }: MasterContext): boolean {
  return settings.get("AUTO_UPDATE")?.value === "true";
}
