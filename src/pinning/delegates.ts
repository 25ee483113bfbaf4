import type { Log } from "../errors.ts";
import type { HttpReader } from "../machine/http.ts";
import { isInSubnets } from "../settings/address.ts";

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
  { nowMs, log }: { readonly nowMs: () => number; readonly log: Log },
): ReadDelegates {
  let known: readonly string[] | null = null;
  let askAgainMs = Number.NEGATIVE_INFINITY;
  let asking: Promise<readonly string[]> | null = null;

  async function ask(): Promise<readonly string[]> {
    const answer = await http.json(`${kuboUrl}/api/v0/id`, { method: "POST", timeoutMs: TIMEOUT_MS });
    const { Addresses: addresses } = (answer?.body ?? {}) as { readonly Addresses?: unknown };
    if (answer?.status === 200 && Array.isArray(addresses)) {
      known = pickDelegates(addresses.filter((one): one is string => typeof one === "string"));
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

const LOCAL = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::/128"];
const PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/**
 * The addresses that other machines can dial: none of this machine only, and none through a relay. Private ones are used
 * only if there are no others, as in a laboratory.
 */
export function pickDelegates(addresses: readonly string[]): readonly string[] {
  const outside = addresses.filter((address) => isOutside(address, LOCAL));
  const everywhere = outside.filter((address) => isOutside(address, PRIVATE));
  return [...new Set(everywhere.length > 0 ? everywhere : outside)].slice(0, MAX_DELEGATES);
}

function isOutside(address: string, subnets: readonly string[]): boolean {
  const [, kind = "", host = ""] = address.split("/");
  if (!address.includes("/p2p/") || address.includes("/p2p-circuit")) return false;
  return kind.startsWith("dns") ? host !== "localhost" : !isInSubnets(host, subnets);
}
