import type { HostReader } from "../host.ts";
import type { TlsAnswer } from "../machine/tls.ts";
import { pemOfCertificates } from "../settings/certificates.ts";
import type { Edge } from "../settings/edge.ts";
import { NAMES } from "../settings/layout.ts";
import { findPrivateCa } from "./files.ts";
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
