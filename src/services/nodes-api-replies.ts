import type { Announcement, Release } from "../federation/announcement.ts";
import { suggestNodeNames } from "../federation/node-name.ts";
import {
  type AnnounceOutcome,
  type NodeEntry,
  type ReleaseOutcome,
  WINDOW_SECONDS,
} from "../federation/registry.ts";
import type { Reply } from "./router.ts";

/** Tells a node what became of its announcement. */
export function announceReply(
  { name, pool, peerId }: Announcement,
  outcome: AnnounceOutcome,
  quota: number,
): Reply {
  switch (outcome.outcome) {
    case "Reserved":
      return { status: 201, body: { ...outcome, pool, name, peerId } };
    case "AlreadyOwned":
      return { status: 200, body: { ...outcome, pool, name, peerId } };
    case "TakenByOther": {
      const suggestions = suggestNodeNames(name);
      return failure(409, "taken-by-other", `The name ${name} belongs to another key.`, { suggestions });
    }
    case "OutsideWindow":
      return outsideWindow({ masterTime: outcome.databaseTime.toISOString() });
    case "NotNewer":
      return failure(409, "not-newer", `This key has said something newer of ${name} already; sign again.`);
    case "OverQuota":
      return failure(403, "over-quota", `This key holds as many names as it may (${quota}).`, { quota });
    case "DescriptorInTheWay":
      break;
  }
  const disorder = `The name ${name} is in disorder; the master's log says how.`;
  return failure(500, "descriptor-in-the-way", disorder);
}

/** Tells a node what became of its release. */
export function releaseReply(release: Release, outcome: ReleaseOutcome): Reply {
  const { name } = release;
  if (outcome === "OutsideWindow") return outsideWindow({});
  if (outcome === "Released") return { status: 200, body: { outcome, pool: release.pool, name } };
  return failure(409, "not-released", `${name} is not this key's, or it was announced since.`);
}

function outsideWindow(more: Readonly<Record<string, unknown>>): Reply {
  const why = `It was signed more than ${WINDOW_SECONDS / 60} minutes before or after the master's time.`;
  return failure(409, "outside-window", why, more);
}

/** A node as answers have it: with the signature, so that the reader can check what the node said. */
export function shown({ name, peerId, addresses, reservedAt, announcedAt, signature }: NodeEntry) {
  return {
    name,
    peerId,
    addresses,
    reservedAt: reservedAt.toISOString(),
    time: announcedAt.toISOString(),
    signature,
  };
}

/** An error: `code` is for programs, `error` for people. */
export function failure(
  status: number,
  code: string,
  error: string,
  more: Readonly<Record<string, unknown>> = {},
): Reply {
  return { status, body: { error, code, ...more } };
}

/** For a client that announces too often. */
export function tooMany(seconds: number): Reply {
  const reply = failure(429, "too-many", "Too many announcements from this address.");
  return { ...reply, headers: { "retry-after": String(seconds), connection: "close" } };
}

/** For a master that was not told its pool. */
export const NO_POOL = failure(503, "no-pool", "This master has no CLUSTERNAME, so it keeps no node names.");
