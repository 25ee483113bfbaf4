import { OperatorError } from "../errors.ts";
import { parseTcpMultiaddr, bracketed } from "../settings/address.ts";

/** The address of an ipfs-cluster REST API. */
export interface ClusterEndpoint {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** The path of a unix socket, if it is used instead of host and port. */
  readonly socketPath: string | null;
  /** True if the data does not leave this machine: loopback, or a unix socket. */
  readonly local: boolean;
}

/**
 * Reads an endpoint given as a multiaddr (`/ip4/127.0.0.1/tcp/9094`, `/dns4/h/tcp/443/https`,
 * `/unix/run/api.sock`) or as a URL (`http://127.0.0.1:9094`). Throws an OperatorError (settings)
 * for anything else, and for credentials inside the URL, because these would appear in logs.
 */
export function parseClusterEndpoint(text: string): ClusterEndpoint {
  return text.startsWith("/") ? fromMultiaddr(text) : fromUrl(text);
}

/** The endpoint as text for people, without credentials. */
export function describeEndpoint(endpoint: ClusterEndpoint): string {
  if (endpoint.socketPath !== null) return `unix:${endpoint.socketPath}`;
  return `${endpoint.secure ? "https" : "http"}://${bracketed(endpoint.host)}:${endpoint.port}`;
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
  const address = parseTcpMultiaddr(text);
  if (address === null || address.peer !== null) throw notAnEndpoint(text);
  const { host, port, scheme } = address;
  return { secure: scheme === "https", host, port, socketPath: null, local: isLoopback(host) };
}

function fromUrl(text: string): ClusterEndpoint {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) throw notAnEndpoint(text);
  if (url.username !== "" || url.password !== "") {
    throw new OperatorError({
      exit: "settings",
      what: "The address of the cluster contains a user name or a password.",
      why: "Addresses are printed in messages and logs.",
      remedy: "Put the credentials in CLUSTER_BASIC_AUTH.",
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

function notAnEndpoint(text: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `"${text}" is not an address of a cluster's REST API.`,
    remedy: "Use a multiaddr such as /ip4/127.0.0.1/tcp/9094, or a URL such as http://127.0.0.1:9094.",
  });
}
