import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { TlsAnswer } from "../machine/tls.ts";
import { pemOfCertificates } from "../settings/certificates.ts";
import { type Edge, edgeOf } from "../settings/edge.ts";
import { NAMES } from "../settings/layout.ts";
import { findPrivateCa } from "./files.ts";
import { findOutdated } from "./known.ts";
import { type EdgeStanding, findCaFault, isLocalName, judgeEdge } from "./judge.ts";

/** Below the time that `status` has for a question, so that a service that hangs is named. */
const TIMEOUT_MS = 4_000;
const DNS_TIMEOUT_MS = 2_000;
/** Enough to hold what the CA said last. */
const LOG_LINES = 300;
/** No service gets it: the edge answers 404. */
const OWN_PATH = "/fula-edge";

/** Asks the edge for its work, as another machine does: requests for its name, one of them for each service behind it. */
export async function lookAtEdge(
  host: Pick<HostReader, "tls" | "docker" | "files" | "system" | "clock">,
  edge: Edge,
): Promise<EdgeStanding> {
  const { tls, docker, clock } = host;
  const ca = await findPrivateCa(host, edge);
  const certificates = ca?.certificates ?? null;
  const roots = certificates === null ? undefined : pemOfCertificates(certificates);
  const ask = (path: string) =>
    tls.ask({ address: "127.0.0.1", port: 443, name: edge.host, path, timeoutMs: TIMEOUT_MS, roots });
  const [answer, log] = await Promise.all([
    ask(OWN_PATH),
    edge.tls.kind === "acme" ? docker.logs(NAMES.edge, LOG_LINES) : "",
  ]);
  const facts = {
    edge,
    answer,
    roots: ca === null ? null : { path: ca.path, isThere: certificates !== null },
    caFault: findCaFault(log),
    nowMs: clock.now().getTime(),
  };
  // A join asks again and again until there is a certificate: what needs one waits for it.
  if (answer.kind !== "answer") return judgeEdge({ ...facts, behind: [], isFindable: null });
  const [pins, storage, isFindable] = await Promise.all([
    ask("/pins?limit=1"),
    ask("/api/v1/pool"),
    canBeFound(host, edge.host),
  ]);
  const behind = [
    { name: "pinning API", fault: faultOf(pins) },
    { name: "storage API", fault: faultOf(storage) },
  ];
  return judgeEdge({ ...facts, behind, isFindable });
}

function faultOf(answer: TlsAnswer): string | null {
  if (answer.kind !== "answer") return `does not answer (${answer.why})`;
  return answer.status >= 500 ? `answers ${answer.status}` : null;
}

/**
 * Whether others can find the address of a name. Null if that is not known: who wrote it into this machine's /etc/hosts
 * may have done so on others, and a name of one word means another one in each network.
 */
async function canBeFound(
  { files, system }: Pick<HostReader, "files" | "system">,
  name: string,
): Promise<boolean | null> {
  if (isLocalName(name) || !name.includes(".")) return null;
  const lines = ((await files.readText("/etc/hosts")) ?? "").split("\n");
  const names = lines.flatMap((line) => (line.split("#", 1)[0] ?? "").trim().split(/\s+/).slice(1));
  return names.includes(name) ? null : await system.isInDns(name, DNS_TIMEOUT_MS);
}

/**
 * What makes the edge of no use to nodes and to who gets an invite, as warnings: what others do not know yet, and what the edge itself
 * lacks. None without an edge.
 */
export async function findEdgeWarnings(
  host: Pick<HostReader, "files" | "docker" | "postgres" | "tls" | "system" | "clock">,
  given: Parameters<typeof findOutdated>[1],
): Promise<readonly string[]> {
  const edge = edgeOf(given.values);
  const found = await Promise.all([
    findOutdated(host, given).catch(whyUnknown),
    edge === null ? null : lookAtEdge(host, edge).catch(whyUnknown),
  ]);
  return found.flatMap((one) => {
    if (one === null || ("state" in one && one.state === "ok")) return [];
    return [
      `The edge of this master: ${one.sentence}.${one.todo === null ? "" : ` What to do: ${one.todo}.`}`,
    ];
  });
}

/** A list that was asked for is shown also while Docker does not answer. A bug is thrown on. */
function whyUnknown(thrown: unknown): { readonly sentence: string; readonly todo: string } {
  if (!(thrown instanceof OperatorError)) throw thrown;
  const what = thrown.what.replace(/\.$/, "");
  return { sentence: `it could not be looked at: ${what}`, todo: "fula-node status" };
}
