import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { accountIdOf } from "../accounts/account-id.ts";
import { readBearer } from "../accounts/api-key.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { decode, isOneOf, MAX_LIMIT, readInstant, readQuery, STATUSES } from "../pinning/pin-filter.ts";
import { whileDatabaseAnswers } from "./health.ts";
import { queryOf, refuseHere as refuse, refuseMethod } from "./pins-routes.ts";
import { createRateLimit, type RateLimit } from "./rate-limit.ts";
import { type App, type Call, json, refuseOtherMethods } from "./server.ts";

/** What the routes of operators need. */
export interface AdminDeps {
  readonly pool: Pick<PostgresPool, "query">;
  readonly log: (line: string) => void;
  readonly version: string;
  readonly systemKey: string;
  /** Limits requests to /admin, and so guesses of the key. */
  readonly limit?: RateLimit;
}

const LIMIT: RateLimit = { burst: 60, perMinute: 60 };
const DEFAULT_LIMIT = 200;
const TIMEOUT_MS = 30_000;

/**
 * Adds the routes of operators, which read and change nothing. They need SYSTEM_KEY, in X-System-Key or as a bearer token
 * (functionland/pinning-service). Only the listener for this machine has them.
 *
 * - `GET /admin/stats`: how many requests have each status, how many accounts have any, and what is left to do.
 * - `GET /admin/storage?limit=N`: bytes and requests in all, and the accounts that store most.
 * - `GET /admin/storage/user/ACCOUNT`: bytes and requests of one account (an id, or an e-mail address).
 * - `GET /admin/pins/pending?after=TIME&before=TIME&username=ACCOUNT&status=STATUS&limit=N`: requests that are not pinned yet.
 * - `GET /admin/pins/needs-size-recalc?limit=N`: pinned requests whose size is not known.
 * - `GET /admin/openapi.json`: all that as an OpenAPI document.
 */
export function addAdminRoutes(app: App, { pool, log, version, systemKey, limit = LIMIT }: AdminDeps): void {
  const digest = digestOf(systemKey);
  const waitSeconds = createRateLimit(limit, () => performance.now());

  const guarded =
    (work: (call: Call) => Promise<Response>) =>
    async (call: Call): Promise<Response> => {
      const seconds = waitSeconds("admin");
      if (seconds > 0)
        return refuse(429, "TOO_MANY_REQUESTS", "There are too many requests to /admin.", {
          "retry-after": String(seconds),
        });
      if (!timingSafeEqual(digest, digestOf(sentKey(call.env.incoming))))
        return refuse(401, "UNAUTHORIZED", "The key in X-System-Key is missing or wrong.");
      return whileDatabaseAnswers(
        log,
        () => work(call),
        (error, headers) => refuse(503, "SERVICE_UNAVAILABLE", error, headers),
      );
    };
  const rowsOf = (sql: string, values: readonly unknown[] = []) =>
    pool.query(sql, values, { timeoutMs: TIMEOUT_MS });

  app.get(
    "/admin/stats",
    guarded(async () => json(200, (await rowsOf(STATS))[0])),
  );
  app.get(
    "/admin/storage",
    guarded(async ({ env }) => {
      const read = readAdminQuery(env.incoming.url);
      if (read instanceof Response) return read;
      return json(200, (await rowsOf(STORAGE, [read.limit]))[0]);
    }),
  );
  app.get(
    "/admin/storage/user/:account",
    guarded(async ({ env }) => {
      const path = (env.incoming.url ?? "").split("?", 1)[0] ?? "";
      const account = accountIdOf(decode(path.slice("/admin/storage/user/".length)) ?? "");
      if (account === null) return refuse(400, "BAD_REQUEST", "That is not an account.");
      return json(200, (await rowsOf(STORAGE_OF, [account]))[0]);
    }),
  );
  app.get(
    "/admin/pins/pending",
    guarded(async ({ env }) => {
      const read = readAdminQuery(env.incoming.url);
      if (read instanceof Response) return read;
      const { after, before, statuses, account, limit: most } = read;
      if (after === null) return refuse(400, "BAD_REQUEST", "after is missing: a time as in RFC 3339.");
      const pins = await rowsOf(PENDING, [after, before, statuses, account, most]);
      return json(200, { count: pins.length, pins });
    }),
  );
  app.get(
    "/admin/pins/needs-size-recalc",
    guarded(async ({ env }) => {
      const read = readAdminQuery(env.incoming.url);
      if (read instanceof Response) return read;
      const pins = await rowsOf(UNSIZED, [read.limit]);
      return json(200, { count: pins.length, pins });
    }),
  );
  app.get(
    "/admin/openapi.json",
    guarded(async () => json(200, (await import("./openapi/pinning-routes.ts")).adminDocument(version))),
  );
  refuseOtherMethods(app, (methods) => guarded(async () => refuseMethod(methods)), "/admin/");
  app.all(
    "/admin/*",
    guarded(async () => refuse(404, "NOT_FOUND", "There is no such route.")),
  );
}

/** The key that a request shows; "" for none. The header comes first, as upstream has it. */
function sentKey({ headers }: IncomingMessage): string {
  const header = headers["x-system-key"];
  if (header !== undefined) return Array.isArray(header) ? "" : header;
  return readBearer(headers.authorization) ?? "";
}

/** Keys of any length compare in the same time by their digests. */
function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

interface AdminQuery {
  readonly after: string | null;
  readonly before: string | null;
  readonly statuses: readonly string[];
  readonly account: string | null;
  readonly limit: number;
}

function readAdminQuery(url: string | undefined): AdminQuery | Response {
  const read = readQuery(queryOf(url), ["after", "before", "status", "username", "limit"]);
  if ("problem" in read) return refuse(400, "BAD_REQUEST", read.problem);
  const { after, before, status = "pending", username, limit = String(DEFAULT_LIMIT) } = read.value;
  const account = username === undefined ? null : accountIdOf(username);
  const times = [after, before].map((time) => (time === undefined ? null : readInstant(time, "down")));
  const isRead =
    /^[1-9][0-9]{0,3}$/.test(limit) &&
    Number(limit) <= MAX_LIMIT &&
    (status === "pending" || isOneOf(STATUSES, status)) &&
    (username === undefined || account !== null) &&
    (times[0] !== null || after === undefined) &&
    (times[1] !== null || before === undefined);
  if (!isRead)
    return refuse(
      400,
      "BAD_REQUEST",
      `One of after, before, status, username and limit (1 to ${MAX_LIMIT}) is not valid.`,
    );
  return {
    after: times[0] ?? null,
    before: times[1] ?? null,
    statuses: status === "pending" ? ["queued", "pinning"] : [status],
    account,
    limit: Number(limit),
  };
}

const STATS = `
  SELECT (SELECT jsonb_object_agg(status, n) FROM (SELECT status, count(*) AS n FROM pins GROUP BY status) s) AS pins,
    (SELECT count(DISTINCT user_id)::int FROM pins WHERE status <> 'deleted') AS accounts,
    (SELECT jsonb_object_agg(action, n) FROM (SELECT action, count(*) AS n FROM pin_work GROUP BY action) w) AS work`;

const STORAGE = `
  WITH accounts AS (
    SELECT user_id, count(*)::int AS pins, coalesce(sum(size), 0) AS bytes FROM pins WHERE status <> 'deleted' GROUP BY user_id
  )
  SELECT coalesce(sum(pins), 0)::int AS pins, coalesce(sum(bytes), 0)::float8 AS bytes, (
    SELECT coalesce(jsonb_agg(to_jsonb(top) ORDER BY top.bytes DESC, top.user_id), '[]') FROM (
      SELECT user_id, pins, bytes FROM accounts ORDER BY bytes DESC, user_id LIMIT $1::int) top) AS accounts
  FROM accounts`;

const STORAGE_OF = `
  SELECT $1::text AS user_id, count(*)::int AS pins, coalesce(sum(size), 0)::float8 AS bytes
  FROM pins WHERE user_id = $1::text AND status <> 'deleted'`;

const COLUMNS = `requestid, user_id, cid, name, status, size::float8 AS size,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created`;

const PENDING = `
  SELECT ${COLUMNS} FROM pins
  WHERE created_at > $1::timestamptz AND ($2::timestamptz IS NULL OR created_at < $2::timestamptz)
    AND status = ANY($3::text[]) AND ($4::text IS NULL OR user_id = $4::text)
  ORDER BY pins.created_at, id LIMIT $5::int`;

const UNSIZED = `
  SELECT ${COLUMNS} FROM pins p
  WHERE status = 'pinned' AND size = 0 AND NOT EXISTS (
    SELECT FROM pins o WHERE o.user_id = p.user_id AND o.cid = p.cid AND o.status <> 'deleted' AND o.size > 0)
  ORDER BY p.created_at, id LIMIT $1::int`;
