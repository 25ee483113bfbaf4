/** Turns a TCP multiaddr into the http URL of the API behind it; null for anything else. */
export function multiaddrToUrl(multiaddr: string): string | null {
  const match =
    /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/([0-9]+)(?:\/(http|https))?(?:\/p2p\/[^/]+)?$/.exec(multiaddr);
  if (match === null) return null;
  const [, kind, host = "", port = "", scheme = "http"] = match;
  return `${scheme}://${kind === "ip6" ? `[${host}]` : host}:${port}`;
}
