import type { PinOptions, WholePin } from "./pin.ts";

/** The request to the cluster that restores a pin, or the reason why no request can. */
export type PinPlan =
  | { readonly kind: "pin"; readonly path: string }
  | { readonly kind: "not-restorable"; readonly why: NotRestorableReason };

/** Why a REST call cannot restore a pin. These texts are printed, and are keys in the output of `--json`. */
export type NotRestorableReason =
  | "made by the cluster itself for sharded content"
  | "its type is not known to this tool"
  | "its expiry has passed"
  | "its expiry can't be read"
  | "its replication factors are not valid"
  | "its shard size can't be sent"
  | "its origins can't be sent"
  | "its metadata can't be sent"
  | "its name or metadata is not valid Unicode"
  | "its CID can't be read"
  | "its name and metadata are too large for this server"
  | "the pin that is there is recursive, and it would have to be unpinned first";

const OWN_TYPES = new Set(["meta-pin", "clusterdag-pin", "shard-pin"]);
const CID = /^(Qm[1-9A-HJ-NP-Za-km-z]{44}|[bBzZfFkKuUmM][A-Za-z0-9_+/=-]{8,})$/;
const ORIGIN = /^(\/[a-z0-9-]+(\/[^/,\s]+)?)+\/p2p\/[1-9A-HJ-NP-Za-km-z]{20,}$/;
const LONE_SURROGATE = /\p{Surrogate}/u;
/** The limit of ipfs-cluster. */
const MAX_ORIGINS = 10;

/**
 * Creates the path and query of the `POST` that pins this CID again with all its options (api/types.go,
 * PinOptions.FromQuery). The check is done here and not left to the server, because the server pins the CID
 * even if it answers 400 to an invalid option (restapi.go, ParseCidOrFail). A direct pin uses /pins/ipfs/,
 * because /pins/{cid} would make it recursive without any message.
 */
export function planPin(pin: WholePin, now: Date): PinPlan {
  const why = findObstacle(pin, now);
  if (why !== null) return { kind: "not-restorable", why };
  const path = pin.options.mode === "direct" ? `/pins/ipfs/${pin.cid}` : `/pins/${pin.cid}`;
  return { kind: "pin", path: `${path}?${queryOf(pin)}` };
}

function findObstacle(pin: WholePin, now: Date): NotRestorableReason | null {
  const { name, metadata, origins, expireAt, shardSize } = pin.options;
  if (OWN_TYPES.has(pin.type)) return "made by the cluster itself for sharded content";
  if (pin.type !== "pin") return "its type is not known to this tool";
  if (!CID.test(pin.cid)) return "its CID can't be read";
  if (!areFactorsValid(pin.options)) return "its replication factors are not valid";
  if (!Number.isSafeInteger(shardSize) || shardSize < 0) return "its shard size can't be sent";
  if (expireAt !== null) {
    const at = Date.parse(expireAt);
    if (Number.isNaN(at) || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(expireAt))
      return "its expiry can't be read";
    if (at <= now.getTime()) return "its expiry has passed";
  }
  if (origins.length > MAX_ORIGINS || !origins.every(isSendableOrigin)) return "its origins can't be sent";
  const keys = Object.keys(metadata);
  const values = Object.values(metadata);
  if (keys.includes("") || !values.every((value) => typeof value === "string"))
    return "its metadata can't be sent";
  if ([name, ...keys, ...values].some((text) => LONE_SURROGATE.test(text)))
    return "its name or metadata is not valid Unicode";
  return null;
}

/** True for an origin that the cluster accepts: a multiaddr that ends with a peer id. */
export function isSendableOrigin(origin: string): boolean {
  return ORIGIN.test(origin);
}

function areFactorsValid({ replicationMin: min, replicationMax: max }: PinOptions): boolean {
  if (!Number.isSafeInteger(min) || !Number.isSafeInteger(max)) return false;
  if (min === -1 || max === -1) return min === max;
  return min >= 0 && max >= 0 && (max === 0 || min <= max);
}

function queryOf({ options, allocations }: WholePin): string {
  const { name, mode, replicationMin, replicationMax, shardSize, metadata, origins, expireAt } = options;
  let query = `name=${encodeURIComponent(name)}&mode=${mode}`;
  if (replicationMin !== 0) query += `&replication-min=${replicationMin}`;
  if (replicationMax !== 0) query += `&replication-max=${replicationMax}`;
  if (shardSize > 0) query += `&shard-size=${shardSize}`;
  if (expireAt !== null) query += `&expire-at=${encodeURIComponent(expireAt)}`;
  for (const key in metadata)
    query += `&meta-${encodeURIComponent(key)}=${encodeURIComponent(String(metadata[key]))}`;
  if (origins.length > 0) query += `&origins=${encodeURIComponent(origins.join(","))}`;
  if (allocations.length > 0) query += `&user-allocations=${encodeURIComponent(allocations.join(","))}`;
  return query;
}
