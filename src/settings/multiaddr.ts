import { parseTcpMultiaddr } from "./address.ts";

/** Turns a TCP multiaddr into the http URL of the API behind it; null for anything else. */
export function multiaddrToUrl(multiaddr: string): string | null {
  const parts = parseTcpMultiaddr(multiaddr);
  if (parts === null) return null;
  const { kind, host, port, scheme } = parts;
  return `${scheme ?? "http"}://${kind === "ip6" ? `[${host}]` : host}:${port}`;
}
