import { Hono } from "hono";
import type { IncomingMessage } from "node:http";
import type { PostgresPool } from "../database/postgres.ts";
import {
  MAX_ANNOUNCEMENT_BYTES,
  readAnnouncement,
  type Reading,
  readRelease,
} from "../federation/announcement-reader.ts";
import {
  type Announcement,
  announcementText,
  type Release,
  releaseText,
  type Signed,
} from "../federation/announcement.ts";
import { isSignedBy } from "../federation/node-identity.ts";
import { isNodeName, suggestNodeNames } from "../settings/node-name.ts";
import {
  announceName,
  type AnnounceOutcome,
  listNames,
  type NodeEntry,
  readName,
  releaseName,
  type ReleaseOutcome,
  WINDOW_SECONDS,
} from "../federation/registry.ts";
import { whileDatabaseAnswers } from "./health.ts";
import { noPool } from "./pool-api.ts";
import { clientOf, createRateLimit, type RateLimit } from "./rate-limit.ts";
import { type App, type Call, failure, hasApiKey, json, readJson, unauthorized } from "./server.ts";

/** What the node API is told. */
export interface NodesApiOptions {
  /** The pool whose names this master keeps; what a client calls its pool only has to agree. */
  readonly pool: string | null;
  readonly namesPerOwner: number;
  /** Of announcements and releases, by client; the default is for nodes, which announce themselves rarely. */
  readonly limit?: RateLimit;
  /**
   * Whether this request may announce, beyond its signature: gives the reason where it may not. A signature
   * proves who holds a key, and keys are free; the cluster's secret is public. A master that wants only
   * invited nodes asks for a token of theirs here. Left out: any key may.
   */
  readonly whyRefused?: (request: IncomingMessage, announcement: Announcement) => Promise<string | null>;
}

/** A handler that also gets the pool of this master. */
type Work = (call: Call, own: string) => Promise<Response>;

const NODES = "/api/v1/nodes";
const LIMIT: RateLimit = { burst: 30, perMinute: 10 };
const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;

/**
 * The pool's directory of nodes.
 *
 * - `POST /api/v1/nodes` announces one; its signature is its credential (federation/announcement.ts).
 * - `DELETE /api/v1/nodes/NAME` gives a name back, signed likewise.
 * - `GET /api/v1/nodes/NAME` is open to anybody who knows the name: a node asks it before it has any account.
 * - `GET /api/v1/nodes?after=NAME&limit=N` lists all of them, for an API key.
 */
export function nodesApi(
  database: Pick<PostgresPool, "query">,
  log: (line: string) => void,
  options: NodesApiOptions,
): App {
  const { pool, namesPerOwner, limit = LIMIT } = options;
  const waitSeconds = createRateLimit(limit, () => performance.now());
  const guarded =
    (work: Work) =>
    async (call: Call): Promise<Response> =>
      pool === null ? noPool() : whileDatabaseAnswers(log, () => work(call, pool));
  const limited =
    (work: Work) =>
    async (call: Call): Promise<Response> => {
      const seconds = waitSeconds(clientOf(call.env.incoming));
      return seconds > 0 ? tooMany(seconds) : guarded(work)(call);
    };
  const app: App = new Hono();
  app.post(
    NODES,
    limited(async ({ env: { incoming } }, own) => {
      const read = await readSigned(incoming, own, readAnnouncement, announcementText);
      if (read instanceof Response) return read;
      const why = (await options.whyRefused?.(incoming, read.message)) ?? null;
      if (why !== null) return failure(403, "refused", why);
      const outcome = await announceName(database, read, namesPerOwner);
      if (outcome.outcome === "DescriptorInTheWay")
        log(`nodes: ${read.message.name} is held by nobody, but has a descriptor; it was not given away`);
      return announceReply(read.message, outcome, namesPerOwner);
    }),
  );
  app.delete(
    `${NODES}/:name`,
    limited(async ({ env, req }, own) => {
      const read = await readSigned(env.incoming, own, readRelease, releaseText);
      if (read instanceof Response) return read;
      if (read.message.name !== req.param("name"))
        return failure(400, "other-name", "The path names another node than the body.");
      return releaseReply(read.message, await releaseName(database, read.message));
    }),
  );
  app.get(
    `${NODES}/:name`,
    guarded(async ({ req }, own) => {
      const name = req.param("name") ?? "";
      const entry = isNodeName(name) ? await readName(database, own, name) : null;
      if (entry === null) return failure(404, "no-such-node", "No node has that name.");
      return json(200, { pool: own, ...publicEntry(entry) });
    }),
  );
  app.get(
    NODES,
    guarded(async ({ env: { incoming } }, own) => {
      if (!(await hasApiKey(database, incoming.headers))) return unauthorized();
      const page = readPage(incoming.url ?? "");
      if (page === null)
        return failure(400, "bad-page", `limit must be 1 to ${MAX_PAGE}, after a node's name.`);
      const found = await listNames(database, own, { ...page, limit: page.limit + 1 });
      const nodes = found.slice(0, page.limit);
      const next = found.length > page.limit ? (nodes.at(-1)?.name ?? null) : null;
      return json(200, { pool: own, nodes: nodes.map(publicEntry), next });
    }),
  );
  return app;
}

/** Everything that can be said without the database: form, pool, signature. */
async function readSigned<Message extends Announcement | Release>(
  request: IncomingMessage,
  pool: string,
  read: (body: unknown) => Reading<Message>,
  textOf: (message: Message) => string,
): Promise<Signed<Message> | Response> {
  const body = await readJson(request, { maxBytes: MAX_ANNOUNCEMENT_BYTES });
  if (body instanceof Response) return body;
  const signed = read(body.json);
  if ("problems" in signed) {
    const { problems } = signed;
    return failure(400, "bad-announcement", problems.join(" "), { problems });
  }
  const { message, signature } = signed;
  if (message.pool !== pool)
    return failure(409, "other-pool", `This master keeps the names of pool ${pool}.`);
  if (!isSignedBy(message.peerId, textOf(message), signature))
    return failure(401, "bad-signature", "The signature is not that peer id's over this announcement.");
  return signed;
}

function readPage(url: string): { readonly after: string | null; readonly limit: number } | null {
  const query = new URLSearchParams(url.split("?", 2)[1] ?? "");
  const after = query.get("after");
  const given = query.get("limit") ?? String(DEFAULT_PAGE);
  const limit = Number(given);
  const isPage =
    /^[1-9][0-9]{0,3}$/.test(given) && limit <= MAX_PAGE && (after === null || isNodeName(after));
  return isPage ? { after, limit } : null;
}

/** Tells a node what became of its announcement. */
function announceReply(
  { name, pool, peerId }: Announcement,
  outcome: AnnounceOutcome,
  quota: number,
): Response {
  switch (outcome.outcome) {
    case "Reserved":
      return json(201, { ...outcome, pool, name, peerId });
    case "AlreadyOwned":
      return json(200, { ...outcome, pool, name, peerId });
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
function releaseReply(release: Release, outcome: ReleaseOutcome): Response {
  const { name } = release;
  if (outcome === "OutsideWindow") return outsideWindow({});
  if (outcome === "Released") return json(200, { outcome, pool: release.pool, name });
  return failure(409, "not-released", `${name} is not this key's, or it was announced since.`);
}

function outsideWindow(more: Readonly<Record<string, unknown>>): Response {
  const why = `It was signed more than ${WINDOW_SECONDS / 60} minutes before or after the master's time.`;
  return failure(409, "outside-window", why, more);
}

/** A node as answers have it: with the signature, so that the reader can check what the node said. */
function publicEntry({ name, peerId, addresses, reservedAt, announcedAt, signature }: NodeEntry) {
  return {
    name,
    peerId,
    addresses,
    reservedAt: reservedAt.toISOString(),
    time: announcedAt.toISOString(),
    signature,
  };
}

/** For a client that announces too often. */
function tooMany(seconds: number): Response {
  const headers = { "retry-after": String(seconds), connection: "close" };
  return failure(429, "too-many", "Too many announcements from this address.", {}, headers);
}
