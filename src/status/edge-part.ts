import { lookAtEdge } from "../edge/look.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { Values } from "../settings/context.ts";
import { edgeOf } from "../settings/edge.ts";
import { NAMES } from "../settings/layout.ts";
import { type Containers, faultOfContainer, judgeContainerAlone } from "./judge-docker.ts";
import type { Ask } from "./look-at-node.ts";
import { type Judged, LATE, REPAIR_MASTER } from "./part.ts";

/** The edge of a master: its container, and what it answers to a request for its name. Null without PUBLIC_HOST. */
export async function lookAtEdgePart(
  host: HostReader,
  given: { readonly values: Values; readonly containers: Promise<Containers>; readonly ask: Ask },
): Promise<Judged | null> {
  const edge = edgeOf(given.values);
  if (edge === null) return null;
  const [known, seen] = await Promise.all([
    given.containers,
    given.ask(() => lookAtEdge(host, edge)).catch(whyNot),
  ]);
  const stopped = faultOfContainer(known, NAMES.edge, REPAIR_MASTER);
  if (stopped !== null) return stopped;
  if (known !== null && !known.has(NAMES.edge))
    return judgeContainerAlone(known, NAMES.edge, {
      repair: REPAIR_MASTER,
      required: true,
      now: host.clock.now(),
    });
  const why = seen === LATE ? "it did not answer in time" : seen;
  if (typeof why === "string") return { state: "unknown", summary: why, todo: null, evidence: {} };
  const { sentence, ...judged } = why;
  return { ...judged, summary: sentence };
}

/** Docker did not give the log. A bug is thrown on. */
function whyNot(thrown: unknown): string {
  if (thrown instanceof OperatorError) return thrown.what;
  throw thrown;
}
