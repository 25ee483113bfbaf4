import { Hono } from "hono";
import type { IncomingMessage } from "node:http";
import type { PostgresPool } from "../database/postgres.ts";
import {
  MAX_ANNOUNCEMENT_BYTES,
  readAnnouncement,
  type Reading,
  readRelease,
  readTrustStatement,
} from "../federation/announcement-reader.ts";
import {
  type Announcement,
  announcementText,
  publicKeyOf,
  type Release,
  releaseText,
  type Signed,
  type TrustStatement,
  trustText,
} from "../federation/announcement.ts";
import {
  findInvite,
  holdsFor,
  type InviteRecord,
  NO_INVITE,
  refusalOf,
} from "../federation/invite-records.ts";
import { parseRegistration, registrationText } from "../federation/invite.ts";
import { isSignedBy } from "../federation/node-identity.ts";
import {
  announceName,
  type AnnounceOutcome,
  countNamesOf,
  listNames,
  type NodeEntry,
  readName,
  readTrustOf,
  recordTrust,
  releaseName,
  type ReleaseOutcome,
  WINDOW_SECONDS,
} from "../federation/registry.ts";
import { parseVerifyingKey } from "../machine/signing.ts";
import { isNodeName, suggestNodeNames } from "../settings/node-name.ts";
import { type Authenticate, fullCaller } from "./caller.ts";
import { whileDatabaseAnswers } from "./health.ts";
import { noPool } from "./pool-api.ts";
import { clientOf, createRateLimit, type RateLimit } from "./rate-limit.ts";
import { type App, type Call, failure, json, readJson } from "./server.ts";

/** The options of the node API. */
export interface NodesApiOptions {
  /** The pool whose names this master stores. The pool in a request must be the same. */
  readonly pool: string | null;
  readonly namesPerOwner: number;
  /** Limits announcements and releases per client. The default suits nodes, which announce themselves rarely. */
  readonly limit?: RateLimit;
  /**
   * `invite`: a name is registered only for a node that shows an invite of a master of this pool. A signature only
   * proves that the sender has a key, and anyone can create a key; the cluster's secret is public. `open`: for anybody.
   */
  readonly registration: "invite" | "open";
  /** Who may list all nodes. */
  readonly authenticate: Authenticate;
}

/** A handler that also gets the pool of this master. */
type PoolHandler = (call: Call, ownPool: string) => Promise<Response>;

const NODES = "/api/v1/nodes";
const NOT_SHOWN = { isGiven: false, record: null } as const;
const LIMIT: RateLimit = { burst: 30, perMinute: 10 };
const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;

/**
 * The pool's directory of nodes.
 *
 * - `POST /api/v1/nodes` announces one; its signature is its credential (federation/announcement.ts). A name that the
 *   key does not own yet also needs an invite, unless registration is open: `Authorization: Fula-Invite ID.SIGNATURE`.
 * - `DELETE /api/v1/nodes/NAME` releases a name; it is signed in the same way.
 * - `POST /api/v1/nodes/NAME/trust` says which cluster peers a node trusts; it is signed in the same way, and only the owner of
 *   the name may. The owner reads it in `trusts` of `GET /api/v1/nodes/NAME`, which masters before 0.4.0 do not have.
 * - `GET /api/v1/nodes/NAME` needs no account: a node calls it before it has one. With `?pool=POOL&peer=PEERID`, and an
 *   invite in the same header, the answer about a free name also says whether an announcement would be refused, and why
 *   (`refusal`): a join asks that before it changes anything. `peer` is left out by a node that has no key yet.
 *   The owner of a name learns whether its invite is `unused`: then it announces itself again.
 * - `GET /api/v1/nodes?after=NAME&limit=N` lists all nodes; it needs an API key.
 */
export function nodesApi(
  database: Pick<PostgresPool, "query">,
  log: (line: string) => void,
  options: NodesApiOptions,
): App {
  const { pool, namesPerOwner, registration, authenticate, limit = LIMIT } = options;
  const waitSeconds = createRateLimit(limit, () => performance.now());
  const guarded =
    (work: PoolHandler) =>
    async (call: Call): Promise<Response> =>
      pool === null ? noPool() : whileDatabaseAnswers(log, () => work(call, pool));
  const limited =
    (work: PoolHandler) =>
    async (call: Call): Promise<Response> => {
      const seconds = waitSeconds(clientOf(call.env.incoming));
      return seconds > 0 ? tooMany(seconds) : guarded(work)(call);
    };
  const app: App = new Hono();
  app.post(
    NODES,
    limited(async ({ env: { incoming } }, ownPool) => {
      const read = await readSigned(incoming, ownPool, readAnnouncement, announcementText);
      if (read instanceof Response) return read;
      const shown = await readShownInvite(database, ownPool, incoming.headers.authorization);
      const inviteId = shown.record?.id ?? null;
      const outcome = await announceName(database, read, namesPerOwner, {
        isOpen: registration === "open",
        inviteId,
      });
      if (outcome.outcome === "NotInvited") {
        if (!shown.isGiven) return failure(403, NO_INVITE.code, NO_INVITE.error);
        const record = inviteId === null ? null : await findInvite(database, ownPool, inviteId);
        const { code, error } = refusalOf(record, read.message, new Date());
        return failure(403, code, error);
      }
      if (outcome.outcome === "DescriptorInTheWay")
        log(`nodes: ${read.message.name} has no owner but has a descriptor; the name was not reserved`);
      return announceReply(read.message, outcome, namesPerOwner);
    }),
  );
  app.delete(
    `${NODES}/:name`,
    limited(async ({ env, req }, ownPool) => {
      const read = await readSigned(env.incoming, ownPool, readRelease, releaseText);
      if (read instanceof Response) return read;
      if (read.message.name !== req.param("name")) return otherName();
      return releaseReply(read.message, await releaseName(database, read.message));
    }),
  );
  app.post(
    `${NODES}/:name/trust`,
    limited(async ({ env, req }, ownPool) => {
      const read = await readSigned(env.incoming, ownPool, readTrustStatement, trustText);
      if (read instanceof Response) return read;
      const { message } = read;
      if (message.name !== req.param("name")) return otherName();
      const outcome = await recordTrust(database, message);
      if (outcome === "OutsideWindow") return outsideWindow({});
      if (outcome === "NotOwner")
        return failure(403, "not-owner", `${message.name} does not belong to this key.`);
      return outcome === "NotNewer"
        ? notNewer(message.name)
        : json(200, { outcome, pool: ownPool, name: message.name });
    }),
  );
  app.get(
    `${NODES}/:name`,
    guarded(async ({ req, env: { incoming } }, ownPool) => {
      const name = req.param("name") ?? "";
      const claimed = req.query("pool");
      if (claimed !== undefined && claimed !== ownPool) return otherPool(ownPool);
      const entry = isNodeName(name) ? await readName(database, ownPool, name) : null;
      const peer = req.query("peer") ?? "";
      const peerId = publicKeyOf(peer) === null ? null : peer;
      const { authorization } = incoming.headers;
      if (entry !== null) {
        const isItsOwn = claimed !== undefined && peerId === entry.peerId;
        const { record } = isItsOwn ? await readShownInvite(database, ownPool, authorization) : NOT_SHOWN;
        const isNew = record?.boundPeer === null && holdsFor(record, { name, peerId }, new Date());
        const trusts = isItsOwn ? { trusts: await readTrustOf(database, ownPool, entry.peerId) } : {};
        const more = { ...trusts, ...(isNew ? { invite: "unused" } : {}) };
        return json(200, { pool: ownPool, ...publicEntry(entry), ...more });
      }
      const foreseen =
        claimed === undefined
          ? {}
          : { refusal: await foresee(database, options, { pool: ownPool, name, peerId, authorization }) };
      return failure(404, "no-such-node", "No node has that name.", {
        registration,
        pool: ownPool,
        ...foreseen,
      });
    }),
  );
  app.get(
    NODES,
    guarded(async ({ env: { incoming } }, ownPool) => {
      const caller = await fullCaller(authenticate, incoming);
      if (caller instanceof Response) return caller;
      const page = readPage(incoming.url ?? "");
      if (page === null)
        return failure(400, "bad-page", `limit must be 1 to ${MAX_PAGE}, and after must be a node's name.`);
      const found = await listNames(database, ownPool, { ...page, limit: page.limit + 1 });
      const nodes = found.slice(0, page.limit);
      const next = found.length > page.limit ? (nodes.at(-1)?.name ?? null) : null;
      return json(200, { pool: ownPool, nodes: nodes.map(publicEntry), next });
    }),
  );
  return app;
}

/** The checks that need no database: format, pool, signature. */
async function readSigned<Message extends Announcement | Release | TrustStatement>(
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
  if (message.pool !== pool) return otherPool(pool);
  if (!isSignedBy(message.peerId, textOf(message), signature))
    return failure(401, "bad-signature", "The signature of this request is not valid for that peer id.");
  return signed;
}

function otherName(): Response {
  return failure(400, "other-name", "The name in the path differs from the name in the body.");
}

function notNewer(name: string): Response {
  return failure(409, "not-newer", `This key has already sent a newer message about ${name}. Sign again.`);
}

function otherPool(pool: string): Response {
  return failure(409, "other-pool", `This master manages the names of pool ${pool}.`);
}

/** Why an announcement of this free name would be refused now. Null: it would not. Writes nothing. */
async function foresee(
  database: Pick<PostgresPool, "query">,
  { registration, namesPerOwner }: Pick<NodesApiOptions, "registration" | "namesPerOwner">,
  {
    pool,
    authorization,
    ...node
  }: {
    readonly pool: string;
    readonly name: string;
    readonly peerId: string | null;
    readonly authorization: string | undefined;
  },
): Promise<{ readonly code: string; readonly error: string } | null> {
  if (registration === "invite") {
    const { isGiven, record } = await readShownInvite(database, pool, authorization);
    if (!isGiven) return NO_INVITE;
    const now = new Date();
    if (record === null || !holdsFor(record, node, now)) return refusalOf(record, node, now);
  }
  const { peerId } = node;
  const names = peerId === null ? 0 : await countNamesOf(database, pool, peerId);
  return names >= namesPerOwner ? { code: "over-quota", error: overQuota(namesPerOwner) } : null;
}

function overQuota(quota: number): string {
  return `This key already has the maximum number of names (${quota}).`;
}

/**
 * The invite that a request shows. The record is null if there is none, or if its signature is not valid: the id alone is
 * not a secret. The key to check it with comes from the record, so that a master also accepts the invites of the other
 * masters that share its database, and needs no signing key.
 */
async function readShownInvite(
  database: Pick<PostgresPool, "query">,
  pool: string,
  authorization: string | undefined,
): Promise<{ readonly isGiven: boolean; readonly record: InviteRecord | null }> {
  const [, text] = /^fula-invite (.{1,200})$/i.exec(authorization ?? "") ?? [];
  const shown = text === undefined ? null : parseRegistration(text);
  if (shown === null) return { isGiven: text !== undefined, record: null };
  const record = await findInvite(database, pool, shown.id);
  if (record === null) return { isGiven: true, record };
  const key = parseVerifyingKey(record.verifyingKey, "the invite's key");
  const signed = Buffer.from(registrationText({ id: shown.id, pool }), "utf8");
  const isValid = key.verify(signed, Buffer.from(shown.signature, "base64url"));
  return { isGiven: true, record: isValid ? record : null };
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

/** The response to an announcement. */
function announceReply(
  { name, pool, peerId }: Announcement,
  outcome: Exclude<AnnounceOutcome, { readonly outcome: "NotInvited" }>,
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
      return notNewer(name);
    case "OverQuota":
      return failure(403, "over-quota", overQuota(quota), { quota });
    case "DescriptorInTheWay":
      break;
  }
  const inconsistent = `The data of the name ${name} is inconsistent. See the master's log.`;
  return failure(500, "descriptor-in-the-way", inconsistent);
}

/** The response to a release. */
function releaseReply(release: Release, outcome: ReleaseOutcome): Response {
  const { name } = release;
  if (outcome === "OutsideWindow") return outsideWindow({});
  if (outcome === "Released") return json(200, { outcome, pool: release.pool, name });
  return failure(
    409,
    "not-released",
    `${name} does not belong to this key, or was announced again in the meantime.`,
  );
}

function outsideWindow(more: Readonly<Record<string, unknown>>): Response {
  const why = `The signing time differs from the master's time by more than ${WINDOW_SECONDS / 60} minutes.`;
  return failure(409, "outside-window", why, more);
}

/** A node in responses. It includes the signature, so that the reader can check the data. */
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

/** The response to a client that sends too many requests. */
function tooMany(seconds: number): Response {
  const headers = { "retry-after": String(seconds), connection: "close" };
  return failure(429, "too-many", "Too many announcements from this address.", {}, headers);
}
