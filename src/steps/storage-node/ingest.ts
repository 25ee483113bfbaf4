import { bracketed } from "../../settings/address.ts";
import type { Project } from "../../docker/compose-project.ts";
import { judgeNames } from "../../docker/name-conflicts.ts";
import { containers, waitUntilItWorks } from "../../docker/containers.ts";
import type { AnyStep } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { STORAGE_NAMES } from "../../settings/layout.ts";
import { readValues } from "../../settings/context.ts";
import type { StorageContext } from "../../federation/storage-context.ts";

/** The verified ingest of a storage node. */
export function ingest(context: StorageContext, project: Project): AnyStep {
  const { ingest: container } = STORAGE_NAMES;
  return containers(context, project, {
    id: "ingest",
    title: "verified ingest",
    touches: "Starts `fula-ingest` on INGEST_BIND and INGEST_PORT.",
    // It runs the service image, which another step builds.
    desired: () => ({ services: [{ service: "ingest", container }], images: [] }),
    survey: () => Promise.resolve(judgeNames(null)),
    verify: (host, report) => waitUntilItWorks(host, container, () => findFault(host, context), { report }),
  });
}

async function findFault(host: HostReader, context: StorageContext): Promise<string | null> {
  const values = await readValues(host, context);
  const bind = values("INGEST_BIND") ?? "::";
  const address = ["0.0.0.0", "::"].includes(bind) ? "127.0.0.1" : bind;
  const url = `http://${bracketed(address)}:${values("INGEST_PORT") ?? "3601"}/health`;
  const answer = await host.http.json(url, { timeoutMs: 10_000 });
  if (answer?.status === 200) return null;
  return answer === null
    ? `${url} does not answer`
    : `${url} answers ${answer.status}: ${JSON.stringify(answer.body)}`;
}
