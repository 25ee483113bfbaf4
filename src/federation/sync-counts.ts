import type { ClusterReader } from "../cluster/client.ts";
import { messageOf, OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { HttpReader } from "../machine/http.ts";
import { countLines } from "../machine/line-scanner.ts";
import type { MasterCount } from "./pinset-sync.ts";

const SWARM = "http://127.0.0.1:5001/api/v0/swarm";
const CONNECT_TIMEOUT_MS = 15_000;
const LOOPBACK = /^\/(?:ip4\/127\.|ip6\/::1\/)/;

/** How many other kubo nodes this node's kubo is connected to. Null if it does not respond. */
export async function countKuboPeers(host: HostReader): Promise<number | null> {
  const answer = await host.http.json(`${SWARM}/peers`, { method: "POST", timeoutMs: 10_000 });
  if (answer?.status !== 200) return null;
  // kubo says null for none, and lists each connection to a peer.
  const { Peers } = (answer.body ?? {}) as { readonly Peers?: unknown };
  if (Peers === null) return 0;
  if (!Array.isArray(Peers)) return null;
  return new Set(Peers.map((one: { readonly Peer?: unknown } | null) => one?.Peer)).size;
}

/**
 * Connects this node's kubo to another one, of which these are the addresses. kubo dials them side by side, so one that
 * leads nowhere, such as that of a Docker network of the other machine, costs no time. Returns why not; null if it did.
 */
export async function connectKubo(host: HostReader, addresses: readonly string[]): Promise<string | null> {
  const reachable = addresses.filter((address) => !LOOPBACK.test(address));
  if (reachable.length === 0) return "the master does not report the addresses of its kubo";
  const args = reachable.map((address) => `arg=${encodeURIComponent(address)}`).join("&");
  const url = `${SWARM}/connect?${args}`;
  const answer = await host.http.json(url, { method: "POST", timeoutMs: CONNECT_TIMEOUT_MS });
  if (answer?.status === 200) return null;
  const message = (answer?.body as { Message?: unknown } | null | undefined)?.Message;
  // kubo gives each address that it dialled a line of its own.
  return typeof message === "string" ? message.replaceAll(/\s*\n\s*/g, " ") : "kubo did not answer";
}

/** How many pins a peer's own pinset has. Null if its list did not arrive completely, since a partial list gives no count. */
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

/** Long, because the master may count a large pinset during the request. */
const TIMEOUT_MS = 20_000;

/**
 * Asks a master's API how many pins the pool has (GET /api/v1/pool). Only the count of a peer that this
 * node trusts is used. A master that can't give a count is not an error.
 */
export async function askMasterCount(
  http: Pick<HttpReader, "json">,
  storageApiUrl: string,
  trusted: readonly string[],
): Promise<MasterCount> {
  const url = `${storageApiUrl.replace(/\/+$/, "")}/api/v1/pool`;
  try {
    const answer = await http.json(url, { timeoutMs: TIMEOUT_MS, isRemote: true });
    if (answer === null) return { unknown: `${url} does not respond` };
    if (answer.status !== 200) return { unknown: `${url} responded with HTTP status ${answer.status}` };
    return readCount(answer.body, url, trusted);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { unknown: `the request to ${url} failed: ${thrown.why ?? messageOf(thrown)}` };
  }
}

function readCount(body: unknown, url: string, trusted: readonly string[]): MasterCount {
  const { peerId, pins, countedAt } = (body ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof peerId !== "string" || typeof pins !== "number" || !Number.isSafeInteger(pins) || pins < 0)
    return { unknown: `${url} returned no count` };
  const at = new Date(typeof countedAt === "string" ? countedAt : Number.NaN);
  if (Number.isNaN(at.getTime())) return { unknown: `${url} did not report the time of its count` };
  return trusted.includes(peerId)
    ? { pins, countedAt: at }
    : { unknown: `${url} reports the count of ${peerId.slice(0, 80)}, which this node does not trust` };
}
