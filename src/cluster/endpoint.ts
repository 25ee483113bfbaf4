import { OperatorError } from "../errors.ts";

/** Where an ipfs-cluster REST API listens. */
export interface ClusterEndpoint {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** A unix socket instead of host and port. */
  readonly socketPath: string | null;
  /** True where the bytes never leave this machine: loopback, or a unix socket. */
  readonly local: boolean;
}

const HOST_PROTOCOLS = new Set(["ip4", "ip6", "dns", "dns4", "dns6"]);

/**
 * Reads an endpoint given as a multiaddr (`/ip4/127.0.0.1/tcp/9094`, `/dns4/h/tcp/443/https`,
 * `/unix/run/api.sock`) or as a URL (`http://127.0.0.1:9094`). Throws an OperatorError (settings)
 * for anything else, and for credentials inside the URL, which would end up in logs.
 */
export function parseClusterEndpoint(text: string): ClusterEndpoint {
  return text.startsWith("/") ? fromMultiaddr(text) : fromUrl(text);
}

/** The endpoint as a person reads it, without credentials. */
export function describeEndpoint(endpoint: ClusterEndpoint): string {
  if (endpoint.socketPath !== null) return `unix:${endpoint.socketPath}`;
  const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
  return `${endpoint.secure ? "https" : "http"}://${host}:${endpoint.port}`;
}

function fromMultiaddr(text: string): ClusterEndpoint {
  const parts = text.split("/").slice(1);
  if (parts[0] === "unix") {
    return {
      secure: false,
      host: "localhost",
      port: 0,
      socketPath: `/${parts.slice(1).join("/")}`,
      local: true,
    };
  }
  const [protocol, host, transport, portText, ...rest] = parts;
  const port = readPort(portText);
  const suffix = rest.filter((part) => part !== "").join("/");
  const known = ["", "http", "https", "tls/http"].includes(suffix);
  if (protocol === undefined || !HOST_PROTOCOLS.has(protocol)) throw notAnEndpoint(text);
  if (host === undefined || host === "" || transport !== "tcp" || port === null || !known)
    throw notAnEndpoint(text);
  const secure = suffix === "https" || suffix === "tls/http";
  return { secure, host, port, socketPath: null, local: isLoopback(host) };
}

function fromUrl(text: string): ClusterEndpoint {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) throw notAnEndpoint(text);
  if (url.username !== "" || url.password !== "") {
    throw new OperatorError({
      exit: "settings",
      what: "The cluster's address holds a user name or a password.",
      why: "An address is printed in messages and logs.",
      remedy: "Give the credentials as their own setting.",
    });
  }
  if (url.pathname !== "/" || url.search !== "") throw notAnEndpoint(text);
  const secure = url.protocol === "https:";
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return {
    secure,
    host,
    port: url.port === "" ? (secure ? 443 : 80) : Number(url.port),
    socketPath: null,
    local: isLoopback(host),
  };
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function readPort(text: string | undefined): number | null {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return null;
  const port = Number(text);
  return port > 0 && port < 65536 ? port : null;
}

function notAnEndpoint(text: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `"${text}" is no address of a cluster's REST API.`,
    remedy: "Give a multiaddr such as /ip4/127.0.0.1/tcp/9094, or a URL such as http://127.0.0.1:9094.",
  });
}
