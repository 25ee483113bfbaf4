import type { World } from "../world.ts";
import { OperatorError } from "../errors.ts";
import { lookUpPool } from "../federation/pool-lookup.ts";
import type { Learnt } from "../federation/trust.ts";
import type { Settings } from "../settings/settings.ts";

const PUBLIC_POOLS = "https://pools.fx.land/pools";

/**
 * Asks the pool API whom to obey: where settings lack it, or where POOL_API is set, since a node that was
 * told by it once notices what it says later. Its address is learnt too, so that it stands in `.env`. Null
 * where nothing is to be asked. A pool that does not answer is an error only where something is lacking.
 */
export async function learnFromPool(
  { host, reporter }: World,
  settings: Settings,
  options: { readonly allowHttp: boolean; readonly isKnown: boolean },
): Promise<Learnt | null> {
  const name = settings.get("CLUSTERNAME")?.value;
  const given = settings.get("POOL_API")?.value;
  if (given === undefined && (options.isKnown || name === undefined)) return null;
  const url = given ?? `${PUBLIC_POOLS}/${encodeURIComponent(name ?? "")}`;
  try {
    const { trustedPeers, bootstrap } = await lookUpPool(host.http, url, {
      allowHttp: options.allowHttp,
      allowFlag: "--allow-http-pool",
    });
    const count = trustedPeers.length === 1 ? "one master" : `${trustedPeers.length} masters`;
    reporter.note(
      `The pool API ${url} names ${count} to obey: ${trustedPeers.join(", ")}; found at ${bootstrap}`,
    );
    return {
      source: `The pool API ${url}`,
      isSigned: false,
      values: new Map([
        ["MASTER_CLUSTER_PEERIDS", trustedPeers.join(",")],
        ["MASTER_CLUSTER_BOOTSTRAP", bootstrap],
        ["POOL_API", url],
      ]),
    };
  } catch (thrown) {
    const isAway = thrown instanceof OperatorError && thrown.exit === "unavailable";
    if (!isAway || !options.isKnown) throw thrown;
    const text = `${thrown.what} What .env has stays.`;
    reporter.listen({ type: "warning", text });
    return null;
  }
}
