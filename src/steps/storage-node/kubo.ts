import type { Project } from "../../docker/compose-project.ts";
import { surveyNames } from "../../docker/name-conflicts.ts";
import { containers, imagesToPull, waitUntilItWorks } from "../../docker/containers.ts";
import type { AnyStep } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { isAdopted } from "../../docker/kept-service.ts";
import { NAMES, STORAGE_NAMES } from "../../settings/layout.ts";
import { readValues } from "../../settings/context.ts";
import { parseSize } from "../../settings/rules.ts";
import type { StorageContext } from "../../federation/storage-context.ts";

const API = "http://127.0.0.1:5001/api/v0";

/** kubo of a storage node. It stores the blocks, up to KUBO_STORAGE_MAX. */
export function kubo(context: StorageContext, project: Project): AnyStep {
  const { kubo: container, kuboVolume: volume } = STORAGE_NAMES;
  const isKept = isAdopted(project.kept?.get("kubo"));
  return containers(context, project, {
    id: "kubo",
    title: "kubo",
    touches: "Starts `ipfs_host`, data on the volume `fula-storage_kubo-data`, RPC on 127.0.0.1.",
    desired: () => ({
      services: [{ service: "kubo", container }],
      images: imagesToPull(context, ["KUBO_IMAGE"]),
    }),
    data: [{ service: "kubo", container, volume }],
    survey: (host) => surveyNames(host, { container, volume, unit: NAMES.kuboUnit, isKept }),
    verify: (host, report) =>
      waitUntilItWorks(host, container, () => findFault(host, context, isKept), { report }),
  });
}

async function findFault(host: HostReader, context: StorageContext, isKept: boolean): Promise<string | null> {
  const [values, answer] = await Promise.all([
    readValues(host, context),
    host.http.json(`${API}/repo/stat?size-only=true`, { method: "POST", timeoutMs: 10_000 }),
  ]);
  if (answer === null) return "its RPC does not answer on 127.0.0.1:5001";
  const limit = (answer.body as { StorageMax?: unknown } | null)?.StorageMax;
  if (answer.status !== 200 || typeof limit !== "number") return `its RPC answers ${answer.status}`;
  const desired = parseSize(values("KUBO_STORAGE_MAX") ?? "");
  if (isKept && limit !== desired)
    context.report.warning(
      `The adopted kubo has a limit of its own, ${limit} bytes, which holds for uploads. KUBO_STORAGE_MAX does not change it.`,
    );
  return limit === desired || isKept
    ? null
    : `its limit is ${limit} bytes, but the settings say ${desired ?? "nothing"}`;
}
