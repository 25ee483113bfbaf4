import { PROJECT_LABEL } from "../../docker/compose-document.ts";
import type { Project } from "../../docker/compose-project.ts";
import { type Desired, foreignContainers, type Judge } from "../../docker/container-finding.ts";
import type { Service } from "../../docker/container-state.ts";
import { containers, imagesToPull, waitUntilItWorks } from "../../docker/containers.ts";
import { LOG } from "../../edge/judge.ts";
import { lookAtEdge } from "../../edge/look.ts";
import type { AnyStep } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { type MasterContext, readValues } from "../../settings/context.ts";
import { edgeOf } from "../../settings/edge.ts";
import { isOurs, NAMES } from "../../settings/layout.ts";

const EDGE: Service = { service: "edge", container: NAMES.edge };
const NOTHING: Desired = { services: [], images: [], profiles: [] };

/** The proxy that other machines reach. Without PUBLIC_HOST there is none. */
export function edge(context: MasterContext, project: Project): AnyStep {
  const isOn = context.settings.has("PUBLIC_HOST");
  return containers(context, project, {
    id: "edge",
    title: "edge",
    touches:
      "If PUBLIC_HOST is set, starts `fula-edge`, which serves `/pins`, `/api/v1/` and `/status` to other machines on the ports 80 and 443, certificates on a volume.",
    desired: () =>
      isOn
        ? { services: [EDGE], profiles: ["edge"], images: imagesToPull(context, ["EDGE_IMAGE"]) }
        : NOTHING,
    survey: (host) => surveyUnwanted(host, project, isOn),
    data: isOn ? [{ ...EDGE, volume: NAMES.edgeVolume }] : [],

    async verify(host, report) {
      const wanted = edgeOf(await readValues(host, context));
      if (wanted === null) return;
      await waitUntilItWorks(
        host,
        NAMES.edge,
        async () => {
          const { state, sentence, todo } = await lookAtEdge(host, wanted);
          if (state !== "down") return null;
          return todo === null || todo === LOG ? sentence : `${sentence}. What to do: ${todo}`;
        },
        {
          remedy: `Other machines must reach ${wanted.host} on the ports 80 and 443, and the CA must be reachable from here. See \`docker logs ${NAMES.edge}\`, fix the cause, then run again.`,
          report,
        },
      );
    },
  });
}

/** Without PUBLIC_HOST, a running edge would go on serving to other machines, so it is removed. Its volume stays. */
async function surveyUnwanted(host: HostReader, project: Project, isOn: boolean): Promise<Judge> {
  const found = isOn ? null : await host.docker.container(NAMES.edge);
  const isUnwanted = found !== null && isOurs(found) && found.labels[PROJECT_LABEL] === project.name;
  return (states) => ({
    obstacle: foreignContainers(states, "If it is not needed, stop it and rename or remove it."),
    remove: isUnwanted ? [found.name] : [],
  });
}
