import { BlockList, isIPv4, isIPv6 } from "node:net";

/** True for four plain decimal numbers from 0 to 255, without leading zeros. */
export function isIp4(value: string): boolean {
  return isIPv4(value);
}

/** True for an IPv6 address without zone and without an IPv4 tail (RFC 4291, section 2.2, forms 1 and 2). */
export function isIp6(value: string): boolean {
  return isIPv6(value) && !/[.%]/.test(value);
}

/** True for a host name (RFC 1123, plus `_`, which container names use). A name whose last label is a number is not one. */
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

/** The parts of a TCP multiaddr (multiformats/multiaddr); `scheme` and `peer` are null if it has none. */
export interface TcpMultiaddr {
  readonly kind: "ip4" | "ip6" | "dns" | "dns4" | "dns6";
  readonly host: string;
  readonly port: number;
  readonly scheme: "http" | "https" | null;
  readonly peer: string | null;
}

const MULTIADDR =
  /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/([^/]+)(?:\/(http|https|tls\/http))?(?:\/p2p\/([^/]+))?$/;
const SCHEMES: Readonly<Record<string, TcpMultiaddr["scheme"]>> = {
  http: "http",
  https: "https",
  "tls/http": "https",
};
const CHECKS = { ip4: isIp4, ip6: isIp6, dns: isHostName, dns4: isHostName, dns6: isHostName } as const;

const BASE58 = "[1-9A-HJ-NP-Za-km-z]";
const PEER_ID = new RegExp(`^(12D3KooW${BASE58}{44}|Qm${BASE58}{44})$`);

/** True for a libp2p peer id of an Ed25519 (12D3KooW...) or RSA (Qm...) key. */
export function isPeerId(value: string): boolean {
  return PEER_ID.test(value);
}

/**
 * Parses a TCP multiaddr. Returns null for anything else, and for an invalid host, port or peer id. `/tls/http`
 * is the newer form of `/https`.
 */
export function parseTcpMultiaddr(text: string): TcpMultiaddr | null {
  const [, kind, host = "", port = "", scheme, peer = null] = MULTIADDR.exec(text) ?? [];
  if (kind === undefined) return null;
  const known = kind as TcpMultiaddr["kind"];
  if (!CHECKS[known](host) || !isPort(port) || (peer !== null && !isPeerId(peer))) return null;
  return { kind: known, host, port: Number(port), scheme: SCHEMES[scheme ?? ""] ?? null, peer };
}

/** Converts a TCP multiaddr to the http URL of its API; null for anything else. */
export function multiaddrToUrl(multiaddr: string): string | null {
  const parts = parseTcpMultiaddr(multiaddr);
  if (parts === null) return null;
  const { kind, host, port, scheme } = parts;
  return `${scheme ?? "http"}://${kind === "ip6" ? `[${host}]` : host}:${port}`;
}

/**
 * True if an IP address is in one of these networks (CIDR: `172.17.0.0/16`, `fd00::/64`). An entry that is
 * not a valid network is skipped.
 */
export function isInSubnets(address: string, subnets: readonly string[]): boolean {
  const family = familyOf(address);
  if (family === null) return false;
  const networks = new BlockList();
  for (const subnet of subnets) {
    const [, base = "", length = ""] = /^([^/]+)\/([0-9]{1,3})$/.exec(subnet) ?? [];
    // Without the family check, BlockList reports every IPv4 address as part of ::/0.
    if (familyOf(base) === family && Number(length) <= BITS[family])
      networks.addSubnet(base, Number(length), family);
  }
  return networks.check(address, family);
}

const BITS = { ipv4: 32, ipv6: 128 } as const;

function familyOf(address: string): keyof typeof BITS | null {
  if (isIp4(address)) return "ipv4";
  return isIp6(address) ? "ipv6" : null;
}

/** Loopback, link-local and unspecified addresses: other machines cannot use them. */
const LOCAL_SUBNETS = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "0.0.0.0/32", "::/128"];

/** RFC 1918, RFC 6598 and RFC 4193: kubo does not dial these by itself. */
const PRIVATE_SUBNETS = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/** True for an IPv4 address that the internet does not route. */
export function isPrivateAddress(value: string): boolean {
  return isIp4(value) && isInSubnets(value, [...PRIVATE_SUBNETS, "169.254.0.0/16"]);
}

/** The hosts of these multiaddrs, if all of them are private addresses; else null. */
export function onlyPrivateHosts(multiaddrs: readonly string[]): readonly string[] | null {
  const hosts = multiaddrs.map((address) => parseTcpMultiaddr(address)?.host ?? "");
  return hosts.length > 0 && hosts.every((host) => isInSubnets(host, PRIVATE_SUBNETS)) ? hosts : null;
}

/** The addresses of a peer that another machine can use. */
export interface Dialable {
  readonly addresses: readonly string[];
  /** True if every address is in a bridge network of this machine. Other machines can use it only if that network spans machines. */
  readonly isDoubtful: boolean;
}

/**
 * Selects the addresses of a peer that another machine can dial: those that `hostOf` accepts, and that are not local to
 * this machine. Addresses in `bridges` (the subnets of this machine's container bridges) are dropped, unless there are no
 * others. `hostOf` returns the host of an address, or null for one that is not usable; without it, only TCP is.
 */
export function dialable(
  addresses: readonly string[],
  bridges: readonly string[],
  hostOf: (address: string) => string | null = hostOfTcpPeer,
): Dialable {
  const isOutside = (address: string, subnets: readonly string[]): boolean => {
    const host = hostOf(address);
    return host !== null && !isInSubnets(host, subnets);
  };
  const outside = addresses.filter((address) => isOutside(address, LOCAL_SUBNETS));
  const beyond = outside.filter((address) => isOutside(address, bridges));
  return beyond.length > 0
    ? { addresses: beyond, isDoubtful: false }
    : { addresses: outside, isDoubtful: outside.length > 0 };
}

function hostOfTcpPeer(address: string): string | null {
  const parts = parseTcpMultiaddr(address);
  return parts !== null && parts.peer !== null && parts.scheme === null ? parts.host : null;
}

/** True if a URL uses plain http to another host: anyone on the network path could read and change what is sent. */
export function isPlainHttpElsewhere(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol !== "https:" && !["127.0.0.1", "localhost", "[::1]"].includes(hostname);
}

/** True if a server on this machine can listen on that address: all addresses, the loopback, or one of `own`. */
export function isListenable(address: string, own: readonly string[]): boolean {
  const subnets = [
    "127.0.0.0/8",
    "::1/128",
    "0.0.0.0/32",
    "::/128",
    ...own.map((one) => `${one}/${isIp4(one) ? 32 : 128}`),
  ];
  return address === "localhost" || isInSubnets(address, subnets);
}

/** A host as it stands before a port: an IPv6 address in brackets. */
export function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
