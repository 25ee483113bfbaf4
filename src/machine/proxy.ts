/** Variables of a process, by name. */
type Environment = Readonly<Record<string, string | undefined>>;

const DEFAULT_PORTS: Readonly<Record<string, number>> = { "https:": 443, "http:": 80 };

/**
 * The proxy for requests to a URL, as curl(1) takes it from the environment: HTTPS_PROXY for https, HTTP_PROXY for http,
 * else ALL_PROXY; the name in small letters goes first. Null for this machine's own addresses, for what NO_PROXY names
 * (a host with its sub-domains, with or without a port, or `*`), and without a proxy over http or https. The result may
 * contain a password: it must never be printed.
 */
export function proxyFor(url: string, env: Environment): string | null {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target === null || isLoopback(target.hostname) || isExcluded(target, read(env, "no_proxy")))
    return null;
  const given = read(env, `${target.protocol.slice(0, -1)}_proxy`) || read(env, "all_proxy");
  const proxy = given === "" || given.includes("://") ? given : `http://${given}`;
  if (!URL.canParse(proxy)) return null;
  return DEFAULT_PORTS[new URL(proxy).protocol] === undefined ? null : proxy;
}

function read(env: Environment, name: string): string {
  return (env[name] ?? env[name.toUpperCase()] ?? "").trim();
}

/** True for a host name, as in a URL, that means this machine. */
export function isLoopback(hostname: string): boolean {
  return /^(?:(?:.*\.)?localhost|127(?:\.\d+){3}|\[::1\]|\[::ffff:7f[0-9a-f]{2}:[0-9a-f]+\])$/i.test(
    hostname,
  );
}

function isExcluded({ hostname, port, protocol }: URL, noProxy: string): boolean {
  const own = hostname.replaceAll(/^\[|\]$/g, "").toLowerCase();
  const ownPort = port === "" ? DEFAULT_PORTS[protocol] : Number(port);
  return noProxy
    .split(/[,\s]+/)
    .filter((entry) => entry !== "")
    .some((entry) => {
      if (entry === "*") return true;
      // An address of IPv6 with a port has brackets.
      const [, name = entry, onlyPort] = /^(\[.*\]|[^:]*):(\d+)$/.exec(entry) ?? [];
      if (onlyPort !== undefined && Number(onlyPort) !== ownPort) return false;
      const host = name.replaceAll(/^\[|\]$|^\*?\./g, "").toLowerCase();
      return own === host || own.endsWith(`.${host}`);
    });
}
