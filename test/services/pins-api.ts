import { createHash, createHmac } from "node:crypto";
import { onTestFinished } from "vitest";
import { openPinningApi, type PinningApiDeps } from "../../src/services/pinning-api.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { PinningApiSettings, PoolSettings } from "../../src/settings/services.ts";
import { openPool } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { expectDescribed } from "./described.ts";
import { type Serving, startService } from "./serving.ts";

/** The key of /admin, and the secret of the trusted header. */
export const SYSTEM_KEY = "system-key-for-tests";
export const SERVICE_SECRET = "service-secret-for-tests";

/** Settings of a pinning API on free ports. No cluster and no kubo answer. */
export function pinningSettings(
  postgres: PoolSettings,
  changes: Partial<PinningApiSettings> = {},
): PinningApiSettings {
  return {
    bindHost: "127.0.0.1",
    port: 0,
    edgePort: 0,
    metricsPort: 0,
    logLevel: "info",
    postgres,
    cluster: { url: "http://127.0.0.1:9", basicAuth: null },
    kuboUrl: "http://127.0.0.1:9",
    masterId: null,
    systemKey: SYSTEM_KEY,
    serviceSecret: SERVICE_SECRET,
    walletTokens: false,
    limits: { freeTierBytes: 1_000, maxPending: 10, deadlineSeconds: 3_600 },
    importMaxBytes: null,
    importBalanceDays: 0,
    fulaPerGibMonth: 3,
    ...changes,
  };
}

/** A pinning API that runs for the length of a test. */
export interface PinningApi extends Serving {
  /** The address for requests from outside. */
  readonly edge: string;
}

/** Runs the pinning API on a database. */
export async function startPinningApi(
  target: PostgresTarget,
  changes: Partial<PinningApiSettings> = {},
  deps: Partial<PinningApiDeps> = {},
): Promise<PinningApi> {
  const postgres = { ...target, maxConnections: 10, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 };
  const settings = pinningSettings(postgres, changes);
  const api = await startService(
    (own) => openPinningApi(settings, { bridgeSubnets: async () => [], ...own, ...deps }),
    openPool(target, 10),
  );
  onTestFinished(() => api.stop());
  const port = api.lines.map((line) => / listens on \S+:(\d+) for the edge$/.exec(line)?.[1]).find(Boolean);
  return { ...api, edge: `http://127.0.0.1:${port ?? ""}` };
}

/** What the API answered; `text` is the body as it came. */
export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly body: Record<string, unknown>;
}

/** One request. Throws if the OpenAPI documents do not describe the answer. */
export async function request(url: string, init: RequestInit = {}): Promise<Answered> {
  const response = await fetch(url, { redirect: "manual", ...init });
  const text = await response.text();
  expectDescribed(init.method ?? "GET", url, { status: response.status, headers: response.headers, text });
  const body = text === "" ? {} : (JSON.parse(text) as Record<string, unknown>);
  return { status: response.status, headers: response.headers, text, body };
}

/** A user of the API. */
export interface User {
  readonly account: string;
  readonly token: string;
  get(query: string): Promise<Answered>;
  post(body: unknown, path?: string): Promise<Answered>;
  delete(id: string): Promise<Answered>;
  /** Posts, and returns the request's id. Throws unless it was accepted. */
  pin(cid: string, more?: Record<string, unknown>): Promise<string>;
}

/** Creates a user with a session. `balance`: null for none. */
export async function createUser(
  target: PostgresTarget,
  api: { readonly url: string },
  name: string,
  balance: number | null = 100,
): Promise<User> {
  const token = `token-of-${name}`;
  const account = sha256(`${name}@example.org`);
  await sql(
    target,
    "INSERT INTO sessions (session_token, token_hash, user_id, username) VALUES ($1::text, $1::text, $2::text, $2::text)",
    [sha256(token), account],
  );
  if (balance !== null)
    await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ($1, $2)", [account, balance]);
  const headers = { authorization: `Bearer ${token}` };
  const post = (body: unknown, path = "/pins") =>
    request(`${api.url}${path}`, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  return {
    account,
    token,
    get: (query) => request(`${api.url}/pins${query}`, { headers }),
    post,
    delete: (id) => request(`${api.url}/pins/${id}`, { method: "DELETE", headers }),
    async pin(cid, more = {}) {
      const { status, body, text } = await post({ cid, ...more });
      if (status !== 202) throw new Error(`POST /pins was answered with ${status}: ${text}`);
      return String(body["requestid"]);
    },
  };
}

/** Lower-case hex. */
export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** The trusted header for an account. */
export function serviceHeader(account: string, secret: string, expiry: number): string {
  const signed = `v1.${Buffer.from(account).toString("base64url")}.${expiry}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** A queue that stands still: a running one asks the database all the time. */
export const STILL_QUEUE = {
  state: () => ({
    waiting: 3,
    oldestSeconds: 1,
    failed: 2,
    inProgress: 0,
    countedAt: new Date(1_000),
    lastSuccessAt: null,
    fault: null,
  }),
  request: () => () => {},
  wake: () => {},
};
