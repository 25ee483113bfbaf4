import { badName, fieldsOf, noAddress, refused, silent } from "./announce-name-errors.ts";
import {
  type Announcement,
  announcementText,
  type Release,
  releaseText,
  whyNoNodeAddress,
} from "./announcement.ts";
import type { NodeIdentity, NodesClient } from "./announcer.ts";
import { whyNoNodeName } from "./node-name.ts";
import type { Clock } from "../machine/clock.ts";

/** With what a node announces itself. */
export interface AnnounceHands {
  readonly client: NodesClient;
  readonly identity: NodeIdentity;
  readonly clock: Pick<Clock, "now">;
}

/** A name that this node's key holds now. */
export interface HeldName {
  readonly pool: string;
  readonly name: string;
  /** `Reserved`: by this very announcement. */
  readonly outcome: "Reserved" | "AlreadyOwned";
  readonly reservation: string;
}

const MAX_ADDRESSES = 16;

/**
 * Announces the node to its master under a name; again is safe, and renews the addresses. Those that can't
 * be dialled as they stand (without a port, through a relay, another peer's) are left out.
 *
 * Throws an OperatorError: `settings` (a name that can't be one, no address, another pool, the quota),
 * `foreign` (another key's name), `preflight` (this box's clock), `integrity` (the master takes the signature
 * for false), `unavailable` (the master or its database), `drift` (anything else that it refuses).
 */
export async function announceName(
  hands: AnnounceHands,
  wish: { readonly pool: string; readonly name: string; readonly addresses: readonly string[] },
): Promise<HeldName> {
  const { client, identity, clock } = hands;
  const { pool, name } = wish;
  const { peerId } = identity;
  const fault = whyNoNodeName(name);
  if (fault !== null) throw badName(fault);
  const addresses = wish.addresses
    .filter((address) => whyNoNodeAddress(address, peerId) === null)
    .slice(0, MAX_ADDRESSES);
  if (addresses.length === 0) throw noAddress(wish.addresses.length);
  const announcement: Announcement = { name, peerId, addresses, time: clock.now().toISOString(), pool };
  const signature = identity.sign(announcementText(announcement));
  const answer = await client.send("POST", "/api/v1/nodes", { ...announcement, signature });
  if ("silence" in answer) throw silent(client, answer.silence, "--no-register");
  const { outcome, reservation } = fieldsOf(answer.body);
  const isHeld =
    (answer.status === 201 && outcome === "Reserved") ||
    (answer.status === 200 && outcome === "AlreadyOwned");
  if (isHeld && typeof reservation === "string") return { pool, name, outcome, reservation };
  throw refused(client, announcement, answer);
}

/** Gives the node's name back, as leaving the pool does. False where it was not this key's. Throws as announceName does. */
export async function giveBackName(
  { client, identity, clock }: AnnounceHands,
  { pool, name }: { readonly pool: string; readonly name: string },
): Promise<boolean> {
  const message: Release = {
    name,
    peerId: identity.peerId,
    time: clock.now().toISOString(),
    pool,
    reservation: null,
  };
  const signature = identity.sign(releaseText(message));
  const answer = await client.send("DELETE", `/api/v1/nodes/${name}`, { ...message, signature });
  if ("silence" in answer) throw silent(client, answer.silence, "--no-release");
  if (answer.status === 200) return true;
  if (fieldsOf(answer.body)["code"] === "not-released") return false;
  throw refused(client, message, answer);
}
