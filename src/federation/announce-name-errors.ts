import { OperatorError } from "../errors.ts";
import type { Announcement } from "./announcement.ts";
import type { NodesClient } from "./announcer.ts";
import { suggestNodeNames, whyNoNodeName } from "./node-name.ts";

type Fields = Readonly<Record<string, unknown>>;

/** The fields of an answer; none where it is no JSON object. */
export function fieldsOf(body: unknown): Fields {
  return typeof body === "object" && body !== null && !Array.isArray(body) ? (body as Fields) : {};
}

/** The error for a master that can't be reached; `flag` is the way round it. */
export function silent(
  { url }: NodesClient,
  why: string,
  flag: "--no-register" | "--no-release",
): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The master at ${url} does not answer, so the node's name could not be settled.`,
    why: `${why}.`,
    remedy: `See that STORAGE_API_URL is right and reachable from here, then run again; or use ${flag}.`,
  });
}

/** The error for an answer that is neither a name nor a release. */
export function refused(
  { url }: NodesClient,
  { name, pool, peerId, time }: Pick<Announcement, "name" | "pool" | "peerId" | "time">,
  { status, body }: { readonly status: number; readonly body: unknown },
): OperatorError {
  const { code, error, suggestions, masterTime } = fieldsOf(body);
  // What the master says is shown, but only so much of it, and on one line.
  const said =
    typeof error === "string" ? error.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 300) : `it answers ${status}`;
  if (code === "taken-by-other") return taken(name, pool, suggestions);
  if (code === "outside-window") return wrongClock(time, masterTime);
  if (code === "other-pool" || code === "over-quota")
    return new OperatorError({
      exit: "settings",
      what: `The name ${name} can't be had: ${said}`,
      remedy: REMEDIES[code],
    });
  if (code === "bad-signature")
    return new OperatorError({
      exit: "integrity",
      what: `The master at ${url} takes this node's signature for false.`,
      why: `It was made with the key of ${peerId}, over exactly what was sent.`,
      remedy: "Something between here and there alters requests: reach the master by https, then run again.",
    });
  if (status >= 500 || status === 429 || status === 408 || code === "not-newer")
    return new OperatorError({
      exit: "unavailable",
      what: `The master at ${url} could not settle the name ${name}: ${said}`,
      remedy: "Run again later; if it stays so, ask the master's operator to look into the webui's log.",
    });
  return new OperatorError({
    exit: "drift",
    what: `The master at ${url} refuses the name ${name}: ${said}`,
    remedy:
      "See that STORAGE_API_URL leads to a master's storage API of this pool; the master's operator can tell more.",
  });
}

const REMEDIES = {
  "other-pool": "Give the CLUSTERNAME and the STORAGE_API_URL of one and the same pool.",
  "over-quota":
    "Give back a name that this node no longer needs, or ask the master's operator to raise NODE_NAMES_PER_OWNER.",
} as const;

function taken(name: string, pool: string, suggestions: unknown): OperatorError {
  const given = Array.isArray(suggestions) ? suggestions : [];
  const usable = given.filter(
    (each): each is string => typeof each === "string" && whyNoNodeName(each) === null,
  );
  const names = (usable.length > 0 ? usable : suggestNodeNames(name)).slice(0, 3);
  return new OperatorError({
    exit: "foreign",
    what: `The name ${name} belongs to another node of pool ${pool}.`,
    why: "A name belongs to the key that announced it first; this node's key is another.",
    remedy: `Choose another name, such as ${names.join(", ")}. If this box is that node: put its cluster's data (identity.json) back.`,
  });
}

function wrongClock(time: string, masterTime: unknown): OperatorError {
  const there = typeof masterTime === "string" ? Date.parse(masterTime) : Number.NaN;
  const seconds = Math.round((Date.parse(time) - there) / 1000);
  const by = Number.isNaN(seconds)
    ? ""
    : ` by ${Math.abs(seconds)} seconds (this box is ${seconds > 0 ? "ahead" : "behind"})`;
  return new OperatorError({
    exit: "preflight",
    what: `This box's clock and the master's differ${by}, so the announcement counts as out of date.`,
    remedy: "Set the clock (timedatectl set-ntp true), then run again.",
  });
}

/** The error for a text that can't be a node's name. */
export function badName(fault: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: fault,
    remedy:
      "Give a name such as berlin-1: 1 to 64 characters of a-z and 0-9, with single dashes between them.",
  });
}

/** The error for a node that can't say where it is; `given` addresses were of no use. */
export function noAddress(given: number): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: "This node has no address that others could reach it at.",
    why:
      given === 0
        ? "Its cluster peer names none."
        : `None of its ${given} addresses has a tcp or quic port and its own peer id.`,
    remedy: "See that ipfs-cluster runs here and listens on a port (CLUSTER_LISTENMULTIADDRESS).",
  });
}
