import type { HostReader } from "../host.ts";
import type { Edge } from "../settings/edge.ts";
import { NAMES } from "../settings/layout.ts";
import { type EdgeStanding, findCaFault, judgeEdge } from "./judge.ts";

const TIMEOUT_MS = 5_000;
/** Enough to hold what the CA said last. */
const LOG_LINES = 300;

/** Asks the edge for its work, as another machine does: a request for its name, passed on to the storage API. */
export async function lookAtEdge(
  { tls, docker, clock }: Pick<HostReader, "tls" | "docker" | "clock">,
  edge: Edge,
): Promise<EdgeStanding> {
  const [answer, log] = await Promise.all([
    tls.ask({
      address: "127.0.0.1",
      port: 443,
      name: edge.host,
      path: "/api/v1/pool",
      timeoutMs: TIMEOUT_MS,
    }),
    edge.tls.kind === "acme" ? docker.logs(NAMES.edge, LOG_LINES) : "",
  ]);
  return judgeEdge({ edge, answer, caFault: findCaFault(log), nowMs: clock.now().getTime() });
}
