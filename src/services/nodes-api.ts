import type { IncomingMessage } from "node:http";
import {
  type Announcement,
  announcementText,
  type Release,
  releaseText,
  type Signed,
} from "../federation/announcement.ts";
import { isSignedBy } from "../federation/node-identity.ts";
import { isNodeName } from "../federation/node-name.ts";
import { announceName, listNames, readName, releaseName } from "../federation/registry.ts";
import {
  MAX_ANNOUNCEMENT_BYTES,
  readAnnouncement,
  type Reading,
  readRelease,
} from "../federation/announcement-reader.ts";
import { announceReply, failure, NO_POOL, releaseReply, shown, tooMany } from "./nodes-api-replies.ts";
import { whileDatabaseAnswers } from "./outage.ts";
import { clientOf, createRateLimit, type RateLimit } from "./rate-limit.ts";
import { readJsonBody } from "./request-body.ts";
import type { Reply, Route } from "./router.ts";
import { hasApiKey, type StorageApiHands, UNAUTHORIZED } from "./storage-api.ts";

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
export function nodesRoutes(hands: StorageApiHands, options: NodesApiOptions): readonly Route[] {
  const { pool: database, log } = hands;
  const { pool, limit = LIMIT } = options;
  const waitSeconds = createRateLimit(limit, () => performance.now());
  const guarded =
    (work: (request: IncomingMessage, pool: string, segment: string) => Promise<Reply>): Route["answer"] =>
    async (request, segment) =>
      pool === null ? NO_POOL : whileDatabaseAnswers(log, () => work(request, pool, segment));
  const limited =
    (work: (request: IncomingMessage, pool: string, segment: string) => Promise<Reply>): Route["answer"] =>
    (request, segment) => {
      const seconds = waitSeconds(clientOf(request));
      return seconds > 0 ? tooMany(seconds) : guarded(work)(request, segment);
    };
  return [
    {
      method: "POST",
      path: "/api/v1/nodes",
      answer: limited(async (request, own) => {
        const read = await readSigned(request, own, readAnnouncement, announcementText);
        if ("status" in read) return read;
        const why = (await options.whyRefused?.(request, read.message)) ?? null;
        if (why !== null) return failure(403, "refused", why);
        const outcome = await announceName(database, read, options.namesPerOwner);
        if (outcome.outcome === "DescriptorInTheWay")
          log(`nodes: ${read.message.name} is held by nobody, but has a descriptor; it was not given away`);
        return announceReply(read.message, outcome, options.namesPerOwner);
      }),
    },
    {
      method: "DELETE",
      path: "/api/v1/nodes/*",
      answer: limited(async (request, own, segment) => {
        const read = await readSigned(request, own, readRelease, releaseText);
        if ("status" in read) return read;
        if (read.message.name !== segment)
          return failure(400, "other-name", "The path names another node than the body.");
        return releaseReply(read.message, await releaseName(database, read.message));
      }),
    },
    {
      method: "GET",
      path: "/api/v1/nodes/*",
      answer: guarded(async (_request, own, segment) => {
        const entry = isNodeName(segment) ? await readName(database, own, segment) : null;
        if (entry === null) return failure(404, "no-such-node", "No node has that name.");
        return { status: 200, body: { pool: own, ...shown(entry) } };
      }),
    },
    {
      method: "GET",
      path: "/api/v1/nodes",
      answer: guarded(async (request, own) => {
        if (!(await hasApiKey(database, request.headers))) return UNAUTHORIZED;
        const page = readPage(request.url ?? "");
        if (page === null)
          return failure(400, "bad-page", `limit must be 1 to ${MAX_PAGE}, after a node's name.`);
        const found = await listNames(database, own, { ...page, limit: page.limit + 1 });
        const nodes = found.slice(0, page.limit);
        const next = found.length > page.limit ? (nodes.at(-1)?.name ?? null) : null;
        return { status: 200, body: { pool: own, nodes: nodes.map(shown), next } };
      }),
    },
  ];
}

/** Everything that can be said without the database: form, pool, signature. */
async function readSigned<Message extends Announcement | Release>(
  request: IncomingMessage,
  pool: string,
  read: (body: unknown) => Reading<Message>,
  textOf: (message: Message) => string,
): Promise<Signed<Message> | Reply> {
  const body = await readJsonBody(request, { maxBytes: MAX_ANNOUNCEMENT_BYTES });
  if ("refused" in body) return body.refused;
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
