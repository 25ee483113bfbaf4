import { OperatorError } from "../errors.ts";
import { HttpClient, HttpFailure, parseJson, readWhole } from "../machine/http-client.ts";
import {
  announceable,
  type Announcement,
  announcementText,
  type Release,
  releaseText,
} from "./announcement.ts";
import type { NodeIdentity } from "./node-identity.ts";
import { suggestNodeNames, validateNodeName } from "../settings/node-name.ts";
import type { Clock } from "../machine/clock.ts";
import type { HttpReader } from "../machine/http.ts";

/** Writes to the directory of names of one master. */
export interface NodesClient {
  /** Where it is, without a slash at its end. */
  readonly url: string;
  send(method: "POST" | "DELETE", path: string, body: unknown): Promise<NodesAnswer>;
}

/** What a master answers (a body that is no JSON is null), or why nothing of it can be had. */
export type NodesAnswer = { readonly status: number; readonly body: unknown } | { readonly silence: string };

/** With what a node announces itself. */
export interface AnnounceDeps {
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

const TIMEOUT_MS = 20_000;
/** A master sends no longer answer. */
const MAX_ANSWER_BYTES = 65_536;

/**
 * Opens the way to a master's API at its STORAGE_API_URL; nothing is sent yet, and no redirect is followed. Each
 * exchange has 20 seconds and a connection of its own, so that nothing is sent twice.
 */
export function openNodesClient(storageApiUrl: string, timeoutMs: number = TIMEOUT_MS): NodesClient {
  const url = storageApiUrl.replace(/\/+$/, "");
  return {
    url,
    async send(method, path, message) {
      const client = new HttpClient({ url, connections: 1, connectTimeoutMs: timeoutMs });
      const body = Buffer.from(JSON.stringify(message), "utf8");
      const headers = { accept: "application/json", "content-type": "application/json" };
      try {
        const request = { method, path, headers, body };
        const { status, text } = await client.exchange(request, readWhole(MAX_ANSWER_BYTES), timeoutMs);
        return { status, body: parseJson(text) };
      } catch (thrown) {
        if (!(thrown instanceof HttpFailure)) throw thrown;
        return { silence: thrown.message };
      } finally {
        client.close();
      }
    },
  };
}

/**
 * Announces the node to its master under a name; again is safe, and renews the addresses. Those that can't
 * be dialled as they stand (without a port, through a relay, another peer's) are left out.
 *
 * Throws an OperatorError: `settings` (a name that can't be one, no address, another pool, the quota),
 * `foreign` (another key's name), `preflight` (this box's clock), `integrity` (the master takes the signature
 * for false), `unavailable` (the master or its database), `drift` (anything else that it refuses).
 */
export async function announceName(
  hands: AnnounceDeps,
  wish: { readonly pool: string; readonly name: string; readonly addresses: readonly string[] },
): Promise<HeldName> {
  const { client, identity, clock } = hands;
  const { pool, name } = wish;
  const { peerId } = identity;
  const fault = validateNodeName(name);
  if (fault !== null) throw badName(fault);
  const addresses = announceable(wish.addresses, peerId);
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
  { client, identity, clock }: AnnounceDeps,
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

/** What the master's directory says of a name (GET /api/v1/nodes/NAME). */
export interface NameEntry {
  readonly peerId: string;
  readonly addresses: readonly string[];
}

/** The flag by which a command goes on without the directory; errors name it. */
type WayRound = "--no-register" | "--no-release";

/**
 * Asks the master at its storage API's URL who has a name: null for a free one. Throws `unavailable` where it
 * can't be asked; `flag` is the way round that the error names.
 */
export async function lookUpName(
  http: HttpReader,
  url: string,
  name: string,
  flag: WayRound,
): Promise<NameEntry | null> {
  const address = `${url}/api/v1/nodes/${name}`;
  const answer = await http.json(address, { timeoutMs: TIMEOUT_MS });
  const { code, peerId, addresses } = fieldsOf(answer?.body);
  if (answer?.status === 404 && code === "no-such-node") return null;
  if (answer?.status === 200 && typeof peerId === "string" && Array.isArray(addresses))
    return { peerId, addresses: addresses.filter((each): each is string => typeof each === "string") };
  throw new OperatorError({
    exit: "unavailable",
    what: `The master's directory of names gives no usable answer: ${address} ${answer === null ? "does not answer" : `answers ${answer.status}`}.`,
    remedy: `See that STORAGE_API_URL is right and reachable from here, then run again; or use ${flag}.`,
  });
}

type Fields = Readonly<Record<string, unknown>>;

/** The fields of an answer; none where it is no JSON object. */
function fieldsOf(body: unknown): Fields {
  return typeof body === "object" && body !== null && !Array.isArray(body) ? (body as Fields) : {};
}

/** The error for a master that can't be reached; `flag` is the way round it. */
function silent({ url }: NodesClient, why: string, flag: WayRound): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The master at ${url} does not answer, so the node's name could not be settled.`,
    why: `${why}.`,
    remedy: `See that STORAGE_API_URL is right and reachable from here, then run again; or use ${flag}.`,
  });
}

/** The error for an answer that is neither a name nor a release. */
function refused(
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
    (each): each is string => typeof each === "string" && validateNodeName(each) === null,
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
function badName(fault: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: fault,
    remedy:
      "Give a name such as berlin-1: 1 to 64 characters of a-z and 0-9, with single dashes between them.",
  });
}

/** The error for a node that can't say where it is; `given` addresses were of no use. */
function noAddress(given: number): OperatorError {
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
