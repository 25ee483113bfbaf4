import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import { Pool } from "pg";

/**
 * A stand-in for upstream's two services, for the tables, the environment and the ports that they use
 * (functionland/pinning-service): `pinning-api` serves /pins over `sessions` and `pins`, `webui` serves /api/v1/storage
 * over `api_keys`. Neither has /health.
 */
const env = process.env;
const pool = new Pool({
  host: env["POSTGRES_HOST"] ?? "localhost",
  port: Number(env["POSTGRES_PORT"] ?? 5432),
  database: env["POSTGRES_DB"] ?? "pinning_service",
  user: env["POSTGRES_USER"] ?? "pinning_user",
  password: env["POSTGRES_PASSWORD"] ?? "",
});
pool.on("error", () => {});

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

const [, , kind] = process.argv;
const port = Number(kind === "webui" ? (env["WEBUI_PORT"] ?? 3001) : (env["PORT"] ?? 6000));
const serve = kind === "webui" ? serveWebui : servePins;
createServer((request, response) => {
  void serve(request)
    .catch((thrown: unknown): Answer => ({ status: 500, body: { error: { reason: String(thrown) } } }))
    .then(({ status, body }) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
}).listen(port, env["BIND_HOST"] ?? "127.0.0.1");

const UNAUTHORIZED: Answer = { status: 401, body: { error: { reason: "UNAUTHORIZED", details: "" } } };

function hashOf({ headers }: IncomingMessage): string {
  const token = headers.authorization?.replace(/^Bearer /, "") ?? "";
  return createHash("sha256").update(token).digest("hex");
}

async function serveWebui(request: IncomingMessage): Promise<Answer> {
  if (request.url === "/api/health")
    return { status: 200, body: { status: "ok", timestamp: new Date().toISOString() } };
  const [key] = await rows(
    "UPDATE api_keys SET last_used_at = NOW() WHERE key_hash = $1 AND is_deleted = 0 RETURNING user_id",
    [hashOf(request)],
  );
  if (key === undefined) return { status: 401, body: { error: "Invalid API key" } };
  const [use] = await rows(
    "SELECT COALESCE(SUM(size), 0) AS bytes FROM pins WHERE user_id = $1 AND status != 'deleted'",
    [key["user_id"]],
  );
  return { status: 200, body: { currentStorageBytes: Number(use?.["bytes"]), canUpload: true } };
}

async function servePins(request: IncomingMessage): Promise<Answer> {
  const [session] = await rows(
    "SELECT username, user_id FROM sessions WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > NOW())",
    [hashOf(request)],
  );
  if (session === undefined) return UNAUTHORIZED;
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://x");
  const id = pathname.slice("/pins/".length);
  const mine = "(user_id = $1 OR username = $2)";
  const who = [session["user_id"], session["username"]];
  if (request.method === "POST") return addPin(await bodyOf(request), session, hashOf(request));
  if (request.method === "DELETE") {
    const [gone] = await rows(
      `UPDATE pins SET status = 'deleted' WHERE ${mine} AND requestid = $3 AND status != 'deleted' RETURNING cid`,
      [...who, id],
    );
    if (gone === undefined) return { status: 404, body: { error: { reason: "NOT_FOUND" } } };
    const others = await rows("SELECT 1 FROM pins WHERE cid = $1 AND status NOT IN ('deleted', 'failed')", [
      gone["cid"],
    ]);
    if (others.length === 0) await cluster("DELETE", `/pins/${String(gone["cid"])}`);
    return { status: 202, body: {} };
  }
  const statuses = (searchParams.get("status") ?? "queued,pinning,pinned,failed").split(",");
  const found = await rows(
    `SELECT * FROM pins WHERE ${mine} AND status = ANY ($3) ORDER BY created_at DESC, id DESC LIMIT $4`,
    [...who, statuses, Number(searchParams.get("limit") ?? 10)],
  );
  return { status: 200, body: { count: found.length, results: found.map(statusOf) } };
}

async function addPin(pin: Row, session: Row, hash: string): Promise<Answer> {
  const there = await rows("SELECT * FROM pins WHERE user_id = $1 AND cid = $2 AND status != 'deleted'", [
    session["user_id"],
    pin["cid"],
  ]);
  if (there[0] !== undefined) return { status: 200, body: statusOf(there[0]) };
  const name = typeof pin["name"] === "string" ? pin["name"] : "";
  const [added = {}] = await rows(
    `INSERT INTO pins (requestid, username, user_id, cid, name, name_lowercase, origins, meta, status, token_hash)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $9) RETURNING *`,
    [
      randomBytes(16).toString("hex"),
      session["username"],
      session["user_id"],
      pin["cid"],
      name,
      name.toLowerCase(),
      JSON.stringify(pin["origins"] ?? []),
      JSON.stringify(pin["meta"] ?? {}),
      hash,
    ],
  );
  void pinLater(added);
  return { status: 202, body: statusOf(added) };
}

/** Once, and nobody comes back to it: upstream's API has no queue. */
async function pinLater({ requestid, cid }: Row): Promise<void> {
  const answer = await cluster("POST", `/pins/${String(cid)}`);
  await rows("UPDATE pins SET status = $2 WHERE requestid = $1", [requestid, answer ? "pinned" : "failed"]);
  const kubo = urlOf(env["IPFS_API_ADDR"] ?? "/ip4/127.0.0.1/tcp/5001");
  const stat = await fetch(`${kubo}/api/v0/dag/stat?arg=${String(cid)}&progress=false`, { method: "POST" });
  const { TotalSize: size } = (await stat.json()) as { readonly TotalSize: number };
  await rows("UPDATE pins SET size = $2 WHERE requestid = $1", [requestid, size]);
}

type Row = Record<string, unknown>;

function statusOf(row: Row): unknown {
  const { requestid, status, created_at: created, cid, name, origins, meta, delegates, info } = row;
  const [from, about] = [origins, meta].map((text) => JSON.parse(String(text)) as unknown);
  return {
    requestid,
    status,
    created,
    pin: { cid, name, origins: from, meta: about },
    delegates: JSON.parse(String(delegates)) as unknown,
    info: JSON.parse(String(info)) as unknown,
  };
}

async function rows(text: string, values: readonly unknown[]): Promise<readonly Row[]> {
  return (await pool.query<Row>(text, [...values])).rows;
}

async function cluster(method: string, path: string): Promise<boolean> {
  const url = urlOf(env["IPFS_CLUSTER_API_ADDR"] ?? "/ip4/127.0.0.1/tcp/9094");
  return (await fetch(url + path, { method })).ok;
}

function urlOf(multiaddr: string): string {
  const [, , host = "", , portOf = ""] = multiaddr.split("/");
  return `http://${host}:${portOf}`;
}

async function bodyOf(request: IncomingMessage): Promise<Row> {
  let text = "";
  for await (const part of request) text += String(part);
  return JSON.parse(text) as Row;
}
