import { OperatorError } from "../errors.ts";
import type { Clock } from "../machine/clock.ts";
import { HttpClient, HttpFailure, parseJson, readWhole } from "../machine/http-client.ts";
import { type HttpReader, NEW_INVITE, tlsFaultIn } from "../machine/http.ts";
import { suggestNodeNames, validateNodeName } from "../settings/node-name.ts";
import {
  announceableAddresses,
  type Announcement,
  announcementText,
  type Release,
  releaseText,
} from "./announcement.ts";
import type { NodeIdentity } from "./node-identity.ts";

/** Writes to the node directory of one master. */
export interface NodesClient {
  /** Base URL, without a trailing slash. */
  readonly url: string;
  send(method: "POST" | "DELETE", path: string, body: unknown, authorization?: string): Promise<NodesAnswer>;
}

/** A master's answer (`body` is null if it is not JSON), or why there is no answer. */
export type NodesAnswer =
  | { readonly status: number; readonly body: unknown }
  | { readonly failure: string; readonly isTls?: boolean };

/** What is needed to announce a node. */
export interface AnnounceDeps {
  readonly client: NodesClient;
  readonly identity: NodeIdentity;
  readonly clock: Pick<Clock, "now">;
}

/** A name that this node's key owns. */
export interface HeldName {
  readonly pool: string;
  readonly name: string;
  /** `Reserved`: this announcement reserved the name. */
  readonly outcome: "Reserved" | "AlreadyOwned";
  readonly reservation: string;
}

const TIMEOUT_MS = 20_000;
/** A master's answers are never longer. */
const MAX_ANSWER_BYTES = 65_536;

/**
 * Creates a client for a master's API at its STORAGE_API_URL. It sends nothing yet and follows no redirect. Each
 * request has a limit of 20 seconds and its own connection, so no request is sent twice.
 */
export function openNodesClient(
  storageApiUrl: string,
  {
    timeoutMs = TIMEOUT_MS,
    proxy = null,
    ca = null,
  }: { readonly timeoutMs?: number; readonly proxy?: string | null; readonly ca?: string | null } = {},
): NodesClient {
  const url = storageApiUrl.replace(/\/+$/, "");
  return {
    url,
    async send(method, path, message, authorization) {
      const client = new HttpClient({
        url,
        connections: 1,
        connectTimeoutMs: timeoutMs,
        proxy,
        ca: ca ?? undefined,
      });
      const body = Buffer.from(JSON.stringify(message), "utf8");
      const headers = {
        accept: "application/json",
        "content-type": "application/json",
        ...(authorization === undefined ? {} : { authorization }),
      };
      try {
        const request = { method, path, headers, body };
        const { status, text } = await client.exchange(request, readWhole(MAX_ANSWER_BYTES), timeoutMs);
        return { status, body: parseJson(text) };
      } catch (thrown) {
        if (!(thrown instanceof HttpFailure)) throw thrown;
        const tlsFault = tlsFaultIn(thrown);
        return tlsFault === null ? { failure: thrown.message } : { failure: tlsFault, isTls: true };
      } finally {
        client.close();
      }
    },
  };
}

/**
 * Announces the node to its master under a name. Announcing again is safe and updates the addresses. Addresses
 * that can't be dialled directly (no port, through a relay, of another peer) are left out.
 *
 * `invite` is the node's NODE_INVITE. A master asks for it when it registers the name; a later one is only marked as used.
 *
 * Throws an OperatorError: `settings` (invalid name, no address, another pool, quota reached, no invite that holds),
 * `foreign` (the name belongs to another key), `preflight` (this machine's clock is wrong), `integrity` (the master
 * rejects the signature), `unavailable` (the master or its database), `drift` (any other refusal).
 */
export async function announceName(
  { client, identity, clock }: AnnounceDeps,
  request: {
    readonly pool: string;
    readonly name: string;
    readonly addresses: readonly string[];
    readonly invite: string | null;
  },
): Promise<HeldName> {
  const { pool, name, invite } = request;
  const { peerId } = identity;
  const fault = validateNodeName(name);
  if (fault !== null) throw badName(fault);
  const addresses = announceableAddresses(request.addresses, peerId);
  if (addresses.length === 0) throw noAddress(request.addresses.length);
  const announcement: Announcement = { name, peerId, addresses, time: clock.now().toISOString(), pool };
  const signature = identity.sign(announcementText(announcement));
  const authorization = invite === null ? undefined : `Fula-Invite ${invite}`;
  const answer = await client.send("POST", "/api/v1/nodes", { ...announcement, signature }, authorization);
  if ("failure" in answer) throw noAnswer(client, answer, "--no-register");
  const { outcome, reservation } = fieldsOf(answer.body);
  const isOwned =
    (answer.status === 201 && outcome === "Reserved") ||
    (answer.status === 200 && outcome === "AlreadyOwned");
  if (isOwned && typeof reservation === "string") return { pool, name, outcome, reservation };
  throw refused(client, announcement, answer);
}

/** Releases the node's name when it leaves the pool. False if the name does not belong to this key. Throws the same errors as announceName. */
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
  if ("failure" in answer) throw noAnswer(client, answer, "--no-release");
  if (answer.status === 200) return true;
  if (fieldsOf(answer.body)["code"] === "not-released") return false;
  throw refused(client, message, answer);
}

/** The master's directory entry for a name (GET /api/v1/nodes/NAME). */
export interface NameEntry {
  readonly peerId: string;
  readonly addresses: readonly string[];
  /** True if the invite of the claim is new to the master: it has not seen the node since. */
  readonly hasNewInvite: boolean;
  /** The cluster peers that the node said it trusts; null if it has not. Undefined: an older master, which does not ask. */
  readonly trusts: readonly string[] | null | undefined;
}

/** What a master's directory says about a name. */
export interface NameLookup {
  /** Null if the name is free. */
  readonly entry: NameEntry | null;
  /** True if the name is free and the master registers it only for a node with an invite. */
  readonly needsInvite: boolean;
  /** Why the master would not register the free name for the claim that was sent; null if it would, or does not say. */
  readonly refusal: { readonly code: string; readonly error: OperatorError } | null;
}

/** What a node would announce a name with. */
export interface NameClaim {
  readonly pool: string;
  /** Null: it has no key yet. */
  readonly peerId: string | null;
  /** Its NODE_INVITE. */
  readonly invite: string | null;
}

/** The flag that lets a command continue without the directory. Errors name it. */
type BypassFlag = "--no-register" | "--no-release";

/**
 * Asks the master at its storage API URL who owns a name. Throws `unavailable` if there is no usable answer; the error
 * names `flag`. With a claim, also whether the master would register the name for it; nothing is registered. Throws
 * `settings` if it is the master of another pool. Masters before 0.3.0 do not judge a claim.
 */
export async function lookUpName(
  http: Pick<HttpReader, "json">,
  url: string,
  name: string,
  flag: BypassFlag,
  claim: NameClaim | null = null,
): Promise<NameLookup> {
  const address = `${url}/api/v1/nodes/${name}`;
  const answer = await http.json(`${address}${queryOf(claim)}`, {
    timeoutMs: TIMEOUT_MS,
    isRemote: true,
    ...(claim === null || claim.invite === null ? {} : { authorization: `Fula-Invite ${claim.invite}` }),
  });
  const { code, peerId, addresses, registration, refusal, invite, trusts } = fieldsOf(answer?.body);
  const refusedFor = (body: unknown, status: number) =>
    refused(
      { url },
      { name, pool: claim?.pool ?? "", peerId: claim?.peerId ?? "", time: "" },
      { status, body },
    );
  if (answer?.status === 404 && code === "no-such-node") {
    const refusalCode = claim === null ? undefined : fieldsOf(refusal)["code"];
    return {
      entry: null,
      needsInvite: registration === "invite",
      refusal:
        typeof refusalCode === "string" ? { code: refusalCode, error: refusedFor(refusal, 403) } : null,
    };
  }
  if (answer?.status === 200 && typeof peerId === "string" && Array.isArray(addresses)) {
    const hasNewInvite = invite === "unused";
    const stated = trusts === null ? null : Array.isArray(trusts) ? textsIn(trusts) : undefined;
    const entry = { peerId, addresses: textsIn(addresses), hasNewInvite, trusts: stated };
    return { entry, needsInvite: false, refusal: null };
  }
  if (answer?.status === 409 && code === "other-pool") throw refusedFor(answer.body, answer.status);
  throw new OperatorError({
    exit: "unavailable",
    what: `The master's node directory gave no usable answer: ${address} ${answer === null ? "does not respond" : `responded with HTTP status ${answer.status}`}.`,
    remedy: `Check that STORAGE_API_URL is correct and reachable from this machine, then run again. To continue without the directory, use ${flag}.`,
  });
}

function textsIn(values: readonly unknown[]): readonly string[] {
  return values.filter((each): each is string => typeof each === "string");
}

function queryOf(claim: NameClaim | null): string {
  if (claim === null) return "";
  const peer = claim.peerId === null ? "" : `&peer=${encodeURIComponent(claim.peerId)}`;
  return `?pool=${encodeURIComponent(claim.pool)}${peer}`;
}

type Fields = Readonly<Record<string, unknown>>;

/** The fields of an answer. Empty if it is not a JSON object. */
function fieldsOf(body: unknown): Fields {
  return typeof body === "object" && body !== null && !Array.isArray(body) ? (body as Fields) : {};
}

/** The error for a master that can't be reached. `flag` continues without it. */
function noAnswer(
  { url }: NodesClient,
  { failure, isTls = false }: { readonly failure: string; readonly isTls?: boolean },
  flag: BypassFlag,
): OperatorError {
  if (isTls)
    return new OperatorError({
      exit: "unavailable",
      what: `TLS with ${url} failed: ${failure}.`,
      why: "The address or the CA of the master may have changed.",
      remedy: `${NEW_INVITE} To continue without the directory, use ${flag}.`,
    });
  return new OperatorError({
    exit: "unavailable",
    what: `The master at ${url} does not respond, so the node's name could not be checked or changed.`,
    why: `${failure}.`,
    remedy: `Check that STORAGE_API_URL is correct and reachable from this machine, then run again. To continue without the directory, use ${flag}.`,
  });
}

/** The error for an answer that is neither a reservation nor a release. */
function refused(
  { url }: Pick<NodesClient, "url">,
  { name, pool, peerId, time }: Pick<Announcement, "name" | "pool" | "peerId" | "time">,
  { status, body }: { readonly status: number; readonly body: unknown },
): OperatorError {
  const { code, error, suggestions, masterTime } = fieldsOf(body);
  // The master's message is shown, but limited in length and on one line.
  const reason =
    typeof error === "string"
      ? error.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 300)
      : `HTTP status ${status}`;
  if (code === "taken-by-other") return taken(name, pool, suggestions);
  if (code === "outside-window") return wrongClock(time, masterTime);
  if (code === "other-pool" || code === "over-quota")
    return new OperatorError({
      exit: "settings",
      what: `The master refused the name ${name}: ${reason}`,
      remedy: REMEDIES[code],
    });
  if (typeof code === "string" && code.startsWith("invite-")) return notInvited(name, reason, code);
  if (code === "bad-signature")
    return new OperatorError({
      exit: "integrity",
      what: `The master at ${url} rejected this node's signature.`,
      why: `The signature was made with the key of ${peerId} over exactly the data that was sent.`,
      remedy: "Something on the way changes requests. Use an https URL for the master, then run again.",
    });
  if (status >= 500 || status === 429 || status === 408 || code === "not-newer")
    return new OperatorError({
      exit: "unavailable",
      what: `The master at ${url} could not process the name ${name}: ${reason}`,
      remedy: "Run again later. If the error stays, ask the master's operator to check the log of webui.",
    });
  return new OperatorError({
    exit: "drift",
    what: `The master at ${url} refused the name ${name}: ${reason}`,
    remedy:
      "Check that STORAGE_API_URL is the storage API of a master of this pool. If it is, ask the master's operator.",
  });
}

/** The error for a node that has no invite, or none that holds. */
export function notInvited(name: string, reason: string, code: string): OperatorError {
  const ask =
    "Ask the master's operator for an invite (fula-node invite create), then run again with --invite";
  return new OperatorError({
    exit: "settings",
    what: `The master does not register the name ${name}: ${reason}`,
    remedy:
      code === "invite-other-name"
        ? "Use the name of the invite (--set CLUSTER_PEERNAME=NAME), or ask the master's operator for another invite. To join without a registered name, use --no-register."
        : `${ask}. To join without a registered name, use --no-register.`,
  });
}

const REMEDIES = {
  "other-pool": "Set CLUSTERNAME and STORAGE_API_URL of the same pool.",
  "over-quota":
    "Release a name that this node no longer needs, or ask the master's operator to raise NODE_NAMES_PER_OWNER.",
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
    why: "A name belongs to the key that announced it first. This node has a different key.",
    remedy: `Choose another name, such as ${names.join(", ")}. If this machine is that node, restore its cluster data (identity.json).`,
  });
}

function wrongClock(time: string, masterTime: unknown): OperatorError {
  const masterMs = typeof masterTime === "string" ? Date.parse(masterTime) : Number.NaN;
  const seconds = Math.round((Date.parse(time) - masterMs) / 1000);
  const by = Number.isNaN(seconds)
    ? ""
    : ` by ${Math.abs(seconds)} seconds (this machine is ${seconds > 0 ? "ahead" : "behind"})`;
  return new OperatorError({
    exit: "preflight",
    what: `This machine's clock differs from the master's${by}, so the master rejected the request as out of date.`,
    remedy:
      "Set the clock (apt-get install systemd-timesyncd, then timedatectl set-ntp true), then run again.",
  });
}

/** The error for an invalid node name. */
function badName(fault: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: fault,
    remedy:
      "Use a name such as berlin-1: 1 to 64 characters of a-z and 0-9, with single dashes between them.",
  });
}

/** The error for a node without a usable address. `count`: how many unusable addresses it has. */
function noAddress(count: number): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: "This node has no address at which other nodes can reach it.",
    why:
      count === 0
        ? "Its cluster peer reports no address."
        : `None of its ${count} addresses has a tcp or quic port and its own peer id.`,
    remedy:
      "Check that ipfs-cluster runs on this machine and listens on a port (CLUSTER_LISTENMULTIADDRESS).",
  });
}
