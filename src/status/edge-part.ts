import { FILES, hostIn } from "../edge/caddyfile.ts";
import { findOutdated } from "../edge/known.ts";
import { lookAtEdge } from "../edge/look.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { Values } from "../settings/context.ts";
import { edgeOf } from "../settings/edge.ts";
import { isOurs, type MasterLayout, NAMES } from "../settings/layout.ts";
import type { TimedPart } from "./collect.ts";
import { type Containers, faultOfContainer, judgeContainerAlone } from "./judge-docker.ts";
import type { Ask } from "./look-at-node.ts";
import { type Judged, LATE, type Remark, REPAIR_MASTER, withRemarks } from "./part.ts";

/** What the look at the edge of a master needs. */
interface Given {
  readonly layout: Pick<MasterLayout, "edgeDir" | "edgeKnown">;
  readonly values: Values;
  readonly containers: Promise<Containers>;
  readonly ask: Ask;
  /** Lower-case hex sha256. */
  readonly hash: (text: string) => string;
}

/**
 * The edge of a master: its container, what it answers to requests for its name, and who has its old address. Null without
 * PUBLIC_HOST, and without an edge that still runs.
 */
export async function lookAtEdgePart(host: HostReader, given: Given): Promise<Judged | null> {
  const edge = edgeOf(given.values);
  const served = hostIn((await host.files.readText(`${given.layout.edgeDir}/${FILES.caddyfile}`)) ?? "");
  if (edge === null)
    return judgeSwitchedOff(await given.containers, served, await given.ask(() => compareKnown(host, given)));
  const name = served ?? edge.host;
  const [known, seen, remark] = await Promise.all([
    given.containers,
    given.ask(() => lookAtEdge(host, { ...edge, host: name })).catch(whyNot),
    given.ask(() => compareKnown(host, given)),
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
  if (typeof why === "string")
    return { state: "unknown", summary: why, todo: `docker logs ${NAMES.edge}`, evidence: {} };
  const { sentence, ...judged } = why;
  const sentenceOfChange = `it serves ${name} until the next join, but PUBLIC_HOST is ${edge.host} now`;
  const remarks: readonly (Remark | null)[] = [
    name === edge.host ? null : { state: "attention", sentence: sentenceOfChange, todo: REPAIR_MASTER },
  ];
  const own = withRemarks(
    { ...judged, summary: sentence },
    remarks.filter((one) => one !== null),
  );
  return remark === LATE || remark === null ? own : withPending(own, remark);
}

/** The edge's own state comes first: what others still have to do says nothing of it. */
function withPending(own: Judged, { sentence, state, todo }: Remark): Judged {
  const summary = `${own.summary}; ${sentence}`;
  // It must work first.
  if (own.state === "down") return { ...own, summary, todo: own.todo ?? todo };
  const todos = [own.todo, todo].filter((one) => one !== null);
  return { ...own, state, summary, todo: todos.length === 0 ? null : [...new Set(todos)].join("; ") };
}

/** An edge that runs on after its setting was removed. */
function judgeSwitchedOff(
  known: Containers,
  served: string | null,
  pending: Remark | null | typeof LATE,
): Judged | null {
  const container = known?.get(NAMES.edge);
  if (container === undefined || !isOurs(container) || container.status !== "running")
    return pending === null || pending === LATE
      ? null
      : { state: pending.state, summary: pending.sentence, todo: pending.todo, evidence: {} };
  return {
    state: "attention",
    summary: `PUBLIC_HOST is not set, but the edge still runs${served === null ? "" : ` and serves ${served}`}`,
    todo: `to remove it: ${REPAIR_MASTER}`,
    evidence: { container: `${container.name}, image ${container.image}` },
  };
}

/** Who has an old address or CA of the edge, or would have one after the next join. */
async function compareKnown(host: HostReader, { layout, values, hash }: Given): Promise<Remark | null> {
  const found = await findOutdated(host, { path: layout.edgeKnown, values, hash });
  return found && { state: "attention", ...found };
}

/** An edge in front of services that do not work is of no use, also while it works itself. */
export function judgeServed(parts: readonly TimedPart[], served: readonly string[]): readonly TimedPart[] {
  const down = parts.flatMap(({ name, state }) => (served.includes(name) && state === "down" ? [name] : []));
  if (down.length === 0) return parts;
  return parts.map((part): TimedPart =>
    part.name === "edge" && part.state === "ok"
      ? {
          ...part,
          state: "attention",
          summary: `the edge works, but it can't reach ${down.map((name) => `the ${name}`).join(" and ")}`,
          todo: "repair that first: see its own line",
        }
      : part,
  );
}

/** Docker did not give the log. A bug is thrown on. */
function whyNot(thrown: unknown): string {
  if (thrown instanceof OperatorError) return thrown.what;
  throw thrown;
}
