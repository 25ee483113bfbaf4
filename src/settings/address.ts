/** True for four plain decimal numbers from 0 to 255, without leading zeros. */
export function isIp4(value: string): boolean {
  const parts = value.split(".");
  return (
    parts.length === 4 && parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)
  );
}

/** True for an IPv6 address without zone and without an IPv4 tail (RFC 4291, section 2.2, forms 1 and 2). */
export function isIp6(value: string): boolean {
  const halves = value.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  const isFull = halves.length === 2 ? groups.length <= 7 : groups.length === 8;
  return isFull && groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group));
}

/** True for a host name (RFC 1123, with _ as container names have it); one that ends in a number is none. */
export function isHostName(value: string): boolean {
  const labels = value.split(".");
  return (
    value.length <= 253 &&
    labels.every((label) => /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/.test(label)) &&
    !/^[0-9]+$/.test(labels.at(-1) ?? "")
  );
}

/** True for a TCP port in plain decimal. */
export function isPort(value: string): boolean {
  return /^[1-9][0-9]{0,4}$/.test(value) && Number(value) <= 65_535;
}

/** The parts of a TCP multiaddr (multiformats/multiaddr); `scheme` and `peer` are null where it has none. */
export interface TcpMultiaddr {
  readonly kind: "ip4" | "ip6" | "dns" | "dns4" | "dns6";
  readonly host: string;
  readonly port: number;
  readonly scheme: "http" | "https" | null;
  readonly peer: string | null;
}

const CHECKS = { ip4: isIp4, ip6: isIp6, dns: isHostName, dns4: isHostName, dns6: isHostName } as const;

const BASE58 = "[1-9A-HJ-NP-Za-km-z]";
const PEER_ID = new RegExp(`^(12D3KooW${BASE58}{44}|Qm${BASE58}{44})$`);

/** True for a libp2p peer id of an Ed25519 (12D3KooW...) or RSA (Qm...) key. */
export function isPeerId(value: string): boolean {
  return PEER_ID.test(value);
}

/** Takes a TCP multiaddr apart; null for anything else, also for a bad host, port or peer id. */
export function parseTcpMultiaddr(text: string): TcpMultiaddr | null {
  const match =
    /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/([^/]+)(?:\/(http|https))?(?:\/p2p\/([^/]+))?$/.exec(text);
  if (match === null) return null;
  const [, kind = "ip4", host = "", port = "", scheme = null, peer = null] = match;
  const known = kind as TcpMultiaddr["kind"];
  if (!CHECKS[known](host) || !isPort(port) || (peer !== null && !isPeerId(peer))) return null;
  return { kind: known, host, port: Number(port), scheme: scheme as TcpMultiaddr["scheme"], peer };
}
