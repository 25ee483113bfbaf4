import type { ClusterReader } from "../cluster/client.ts";
import { countLines } from "../machine/line-scanner.ts";
import { messageOf, OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { MasterCount } from "./pinset-sync.ts";

const PEERS = "http://127.0.0.1:5001/api/v0/swarm/peers";

/** How many other kubos this node's kubo is connected to; null where it does not answer. */
export async function countKuboPeers(host: HostReader): Promise<number | null> {
  const answer = await host.http.json(PEERS, { method: "POST", timeoutMs: 10_000 });
  if (answer?.status !== 200) return null;
  const peers = (answer.body as { Peers?: unknown } | null)?.Peers ?? [];
  return Array.isArray(peers) ? peers.length : null;
}

/** How many pins a peer's own pinset has; null where its list did not come whole, since a part is no count. */
export async function countPins(cluster: Pick<ClusterReader, "list">): Promise<number | null> {
  let pins = 0;
  try {
    await cluster.list("allocations", (lines) => {
      pins += countLines(lines);
    });
    return pins;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

/** A long pinset is counted while this waits. */
const TIMEOUT_MS = 20_000;

/**
 * Asks a master's API how many pins the pool has (GET /api/v1/pool). Only the count of a peer that this node
 * obeys is taken; a master that can't tell is no error.
 */
export async function askMasterCount(
  host: HostReader,
  storageApiUrl: string,
  trusted: readonly string[],
): Promise<MasterCount> {
  const url = `${storageApiUrl.replace(/\/+$/, "")}/api/v1/pool`;
  try {
    const answer = await host.http.json(url, { timeoutMs: TIMEOUT_MS });
    if (answer === null) return { unknown: `${url} does not answer` };
    if (answer.status !== 200) return { unknown: `${url} answers ${answer.status}` };
    return readCount(answer.body, url, trusted);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { unknown: `${url} can't be asked: ${thrown.why ?? messageOf(thrown)}` };
  }
}

function readCount(body: unknown, url: string, trusted: readonly string[]): MasterCount {
  const { peerId, pins, countedAt } = (body ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof peerId !== "string" || typeof pins !== "number" || !Number.isSafeInteger(pins) || pins < 0)
    return { unknown: `${url} gives no count` };
  const at = new Date(typeof countedAt === "string" ? countedAt : Number.NaN);
  if (Number.isNaN(at.getTime())) return { unknown: `${url} does not tell when it counted` };
  return trusted.includes(peerId)
    ? { pins, countedAt: at }
    : { unknown: `${url} counts for ${peerId.slice(0, 80)}, which this node does not obey` };
}
