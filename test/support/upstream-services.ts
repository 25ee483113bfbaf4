import { createHash, createHmac, randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { AS_OPERATOR } from "./artifact.ts";
import type { Box } from "./box.ts";
import { psql } from "./master-box.ts";
import { UPSTREAM_ENV, UPSTREAM_IMAGES } from "./upstream-master.ts";

/** Builds images with upstream's names that do their work on its tables (upstream-program.ts). */
export async function buildUpstreamImages(box: Box): Promise<void> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("./upstream-program.ts", import.meta.url))],
    bundle: true,
    write: false,
    platform: "node",
    format: "cjs",
    external: ["pg-native"],
  });
  await box.writeFile("/root/upstream-image/app.js", outputFiles[0]?.text ?? "");
  for (const [tag, kind] of [
    [UPSTREAM_IMAGES.api, "pinning-api"],
    [UPSTREAM_IMAGES.webui, "webui"],
  ] as const) {
    const lines = ["FROM node:26-trixie-slim", "COPY app.js /app.js", `CMD ["node", "/app.js", "${kind}"]`];
    await box.writeFile("/root/upstream-image/Dockerfile", `${lines.join("\n")}\n`);
    await box.run(["docker", "build", "--quiet", "--tag", tag, "/root/upstream-image"]);
  }
}

/** The two services in upstream's compose file, with the environment that they have there. */
export const UPSTREAM_SERVICES = `  pinning-api:
    image: ${UPSTREAM_IMAGES.api}
    container_name: fula-pinning-api
    network_mode: host
    environment: &database
      POSTGRES_HOST: 127.0.0.1
      POSTGRES_PORT: "5432"
      POSTGRES_DB: \${POSTGRES_DB:-pinning_service}
      POSTGRES_USER: \${POSTGRES_USER:-pinning_user}
      POSTGRES_PASSWORD: \${POSTGRES_PASSWORD:?}
      PORT: \${PINNING_API_PORT:-6000}
      BIND_HOST: 127.0.0.1
      IPFS_API_ADDR: \${IPFS_API_ADDR}
      IPFS_CLUSTER_API_ADDR: \${IPFS_CLUSTER_API_ADDR}
      ENABLE_IPFS_PINNING: "true"
      SYSTEM_KEY: \${SYSTEM_KEY:?}
    restart: unless-stopped
  webui:
    image: ${UPSTREAM_IMAGES.webui}
    container_name: fula-pinning-webui
    network_mode: host
    environment:
      <<: *database
      NODE_ENV: production
      WEBUI_PORT: \${WEBUI_PORT:-3001}
      JWT_SECRET: \${JWT_SECRET:?}
      SESSION_SECRET: \${SESSION_SECRET:?}
      BILLING_IDEMPOTENCY: \${BILLING_IDEMPOTENCY:-}
      CRON_LEADER_LEASE: \${CRON_LEADER_LEASE:-}
    restart: unless-stopped
`;

/** A user of upstream's webui, with a key that it minted. */
export interface UpstreamUser {
  readonly id: string;
  readonly email: string;
  readonly token: string;
}

/**
 * Creates a user as upstream's webui does when somebody signs in and makes an API key: the key's hash stands in both
 * columns of `sessions`. `isNamed`: as before upstream had ids, the session has the e-mail address only.
 */
export async function createUpstreamUser(
  box: Box,
  email: string,
  { isNamed = false }: { readonly isNamed?: boolean } = {},
): Promise<UpstreamUser> {
  const id = sha256(email.toLowerCase());
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub: id, iat: 1_780_000_000, scope: "storage:read storage:write", jti: randomUUID() };
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  const secret = UPSTREAM_ENV["JWT_SECRET"] ?? "";
  const token = `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
  const hash = sha256(token);
  const session = isNamed ? `'${email}', NULL` : `NULL, '${id}'`;
  await psql(
    box,
    `INSERT INTO webui_users (user_id, encrypted_email, name) VALUES ('${id}', 'sealed', 'Näme');
     INSERT INTO users (username, password_hash, user_id) VALUES (${isNamed ? `'${email}'` : "NULL"}, '', '${id}');
     INSERT INTO api_keys (user_id, key_hash, encrypted_key) VALUES ('${id}', '${hash}', 'sealed');
     INSERT INTO sessions (username, user_id, session_token, token_hash) VALUES (${session}, '${hash}', '${hash}');
     INSERT INTO user_credits (user_id, balance_fula, total_deposited_fula) VALUES ('${id}', 12.5, 20);`,
  );
  return { id, email, token };
}

/** A pin request as both pinning APIs list it. */
export interface ListedPin {
  readonly requestid: string;
  readonly status: string;
  readonly created: string;
  readonly pin: {
    readonly cid: string;
    readonly name?: string;
    readonly origins: unknown;
    readonly meta: unknown;
  };
  readonly delegates: readonly string[];
}

/** A request to one of the services on the box. */
export async function ask(
  box: Box,
  { token }: UpstreamUser,
  method: "GET" | "POST" | "DELETE",
  url: string,
  body?: unknown,
): Promise<{ readonly status: number; readonly body: unknown }> {
  const sent = body === undefined ? "" : "-H 'Content-Type: application/json' -d @-";
  const { stdout } = await box.run(
    `curl -s -m 20 -X ${method} -H 'Authorization: Bearer ${token}' ${sent} -w '\\n%{http_code}' 'http://127.0.0.1:${url}'`,
    body === undefined ? {} : { input: JSON.stringify(body) },
  );
  const at = stdout.lastIndexOf("\n");
  const text = stdout.slice(0, at);
  return { status: Number(stdout.slice(at + 1)), body: text === "" ? null : (JSON.parse(text) as unknown) };
}

/** Every request of a user that is not deleted, oldest first. */
export async function listAll(box: Box, user: UpstreamUser): Promise<readonly ListedPin[]> {
  const url = "6000/pins?status=queued,pinning,pinned,failed&limit=1000";
  const { status, body } = await ask(box, user, "GET", url);
  if (status !== 200) throw new Error(`GET /pins answers ${status}: ${JSON.stringify(body)}`);
  return (body as { readonly results: readonly ListedPin[] }).results.toReversed();
}

/** The CIDs in the pinset of the box's cluster. */
export async function clusterPins(box: Box): Promise<ReadonlySet<string>> {
  const { stdout } = await box.run(`curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/allocations`);
  const lines = stdout.split("\n").filter((line) => line !== "");
  return new Set(lines.map((line) => (JSON.parse(line) as { readonly cid: string }).cid));
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
