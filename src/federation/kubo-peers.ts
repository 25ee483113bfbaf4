import type { HostReader } from "../host.ts";

const PEERS = "http://127.0.0.1:5001/api/v0/swarm/peers";

/** How many other kubos this node's kubo is connected to; null where it does not answer. */
export async function countKuboPeers(host: HostReader): Promise<number | null> {
  const answer = await host.http.json(PEERS, { method: "POST", timeoutMs: 10_000 });
  if (answer?.status !== 200) return null;
  const peers = (answer.body as { Peers?: unknown } | null)?.Peers ?? [];
  return Array.isArray(peers) ? peers.length : null;
}
