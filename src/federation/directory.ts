import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";

/** What the master's directory says of a name (GET /api/v1/nodes/NAME). */
export interface NameEntry {
  readonly peerId: string;
  readonly addresses: readonly string[];
}

const TIMEOUT_MS = 20_000;

/**
 * Asks the master at its storage API's URL who has a name: null for a free one. Throws `unavailable` where it
 * can't be asked; `flag` is the way round that the error names.
 */
export async function lookUpName(
  host: HostReader,
  url: string,
  name: string,
  flag: "--no-register" | "--no-release",
): Promise<NameEntry | null> {
  const address = `${url}/api/v1/nodes/${name}`;
  const answer = await host.http.json(address, { timeoutMs: TIMEOUT_MS });
  const fields = (answer?.body ?? {}) as Readonly<Record<string, unknown>>;
  if (answer?.status === 404 && fields["code"] === "no-such-node") return null;
  const { peerId, addresses } = fields;
  if (answer?.status === 200 && typeof peerId === "string" && Array.isArray(addresses))
    return { peerId, addresses: addresses.filter((each): each is string => typeof each === "string") };
  throw new OperatorError({
    exit: "unavailable",
    what: `The master's directory of names gives no usable answer: ${address} ${answer === null ? "does not answer" : `answers ${answer.status}`}.`,
    remedy: `See that STORAGE_API_URL is right and reachable from here, then run again; or use ${flag}.`,
  });
}
