import { type Log, messageOf } from "../errors.ts";
import type { HttpReader } from "../machine/http.ts";
import { dialable, isInSubnets } from "../settings/address.ts";

/** Returns the addresses of this master's kubo, which clients connect to so that it gets their content. */
export type ReadDelegates = () => Promise<readonly string[]>;

/** The specification's limit. */
const MAX_DELEGATES = 20;
const FRESH_MS = 60_000;
const RETRY_MS = 5_000;
const TIMEOUT_MS = 2_000;

/**
 * Asks kubo for its addresses, and keeps the answer for a minute. Only the first requests wait for it; later ones get the
 * last known addresses. While kubo does not answer, there are none, or the last known ones.
 */
export function createDelegates(
  http: Pick<HttpReader, "json">,
  kuboUrl: string,
  {
    nowMs,
    bridgeSubnets,
    log,
  }: {
    readonly nowMs: () => number;
    /** The subnets of this machine's container bridges. */
    readonly bridgeSubnets: () => Promise<readonly string[]>;
    readonly log: Log;
  },
): ReadDelegates {
  let known: readonly string[] | null = null;
  let askAgainMs = Number.NEGATIVE_INFINITY;
  let asking: Promise<readonly string[]> | null = null;

  /** Without them the addresses are still of use. */
  async function bridgesOrNone(): Promise<readonly string[]> {
    try {
      return await bridgeSubnets();
    } catch (thrown) {
      log(`delegates: the container networks of this machine are not known: ${messageOf(thrown)}`);
      return [];
    }
  }

  async function ask(): Promise<readonly string[]> {
    const answer = await http.json(`${kuboUrl}/api/v0/id`, { method: "POST", timeoutMs: TIMEOUT_MS });
    const { Addresses: addresses } = (answer?.body ?? {}) as { readonly Addresses?: unknown };
    if (answer?.status === 200 && Array.isArray(addresses)) {
      const texts = addresses.filter((one): one is string => typeof one === "string");
      known = pickDelegates(texts, await bridgesOrNone());
      askAgainMs = nowMs() + FRESH_MS;
    } else {
      if (known === null)
        log("delegates: kubo did not report its addresses; requests are accepted without them", "warn");
      known ??= [];
      askAgainMs = nowMs() + RETRY_MS;
    }
    return known;
  }

  return async () => {
    if (asking === null && nowMs() >= askAgainMs)
      asking = ask().finally(() => {
        asking = null;
      });
    return known ?? (await asking) ?? [];
  };
}

const PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/**
 * The addresses that other machines can dial, as invites choose them, over any transport but not through a relay. A client
 * tries them one after the other, and waits long for one in a container network of this machine. Private ones are used only
 * if there are no others, as in a laboratory.
 */
export function pickDelegates(addresses: readonly string[], bridges: readonly string[]): readonly string[] {
  const { addresses: outside } = dialable(addresses, bridges, hostOf);
  const everywhere = outside.filter((address) => !isInSubnets(hostOf(address) ?? "", PRIVATE));
  return [...new Set(everywhere.length > 0 ? everywhere : outside)].slice(0, MAX_DELEGATES);
}

/** A kubo without addresses reports its bare `/p2p/ID`: clients would search for that, and wait. */
function hostOf(address: string): string | null {
  const [, host = ""] = /^\/(?:ip[46]|dns(?:4|6|addr)?)\/([^/]+)\//.exec(address) ?? [];
  if (host === "" || host === "localhost") return null;
  return address.includes("/p2p/") && !address.includes("/p2p-circuit") ? host : null;
}
