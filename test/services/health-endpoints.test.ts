import { afterEach, beforeAll, expect, it } from "vitest";
import { openPostgresPool, type PostgresPool } from "../../src/database/postgres.ts";
import { openPinningApi } from "../../src/services/pinning-api.ts";
import { openStorageService } from "../../src/services/storage-api.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { PoolSettings } from "../../src/settings/services.ts";
import { tokenOf } from "../support/kubo-ingest.ts";
import { migrate } from "../support/names-database.ts";
import { freePort } from "../support/free-port.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { pinningSettings } from "./pins-api.ts";
import { type Serving, startClusterPeer, startService } from "./serving.ts";
import { STATUS_PAGE } from "./web-api.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const APPLICATION = "fula-node under test";

function poolSettings(target: PostgresTarget): PoolSettings {
  return { ...target, maxConnections: 3, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 };
}

const WEBUI = {
  bindHost: "127.0.0.1",
  port: 0,
  metricsPort: 0,
  logLevel: "info" as const,
  pricing: { freeTierBytes: 1, fulaPerGibMonth: 3 },
  pool: null,
  masterId: null,
  namesPerOwner: 5,
  registration: "open" as const,
  cluster: { url: "http://127.0.0.1:9094", basicAuth: null },
  walletTokens: false,
  encryptionKey: null,
  billing: null,
  statusPage: STATUS_PAGE,
  publicUrl: "http://127.0.0.1:3001",
};

function noCluster(): never {
  throw new Error("health asks no cluster");
}

function openPool(settings: PoolSettings): PostgresPool {
  return openPostgresPool(settings, { applicationName: APPLICATION, log: () => {} });
}

async function startApi(postgres: PoolSettings, url: string, basicAuth: string | null = null) {
  const settings = pinningSettings(postgres, { cluster: { url, basicAuth } });
  const api = await startService(
    (deps) => openPinningApi(settings, { ...deps, bridgeSubnets: async () => [] }),
    openPool(postgres),
  );
  cleanups.push(() => api.stop());
  return api;
}

async function startPeer() {
  const peer = await startClusterPeer();
  cleanups.push(() => peer.close());
  return peer;
}

async function ask(
  { url }: Serving,
  path: string,
  init: RequestInit = {},
): Promise<{ readonly status: number; readonly body: unknown; readonly headers: Headers }> {
  const response = await fetch(`${url}${path}`, init);
  const text = await response.text();
  return { status: response.status, body: text === "" ? null : JSON.parse(text), headers: response.headers };
}

describeOnPostgres("the pinning API", (postgres) => {
  beforeAll(() => migrate(postgres.target));

  it("is healthy when the database and the cluster answer", async () => {
    const peer = await startPeer();
    const api = await startApi(poolSettings(postgres.target), peer.url, "user:secret");
    const { status, body, headers } = await ask(api, "/health");
    expect({ status, body }).toEqual({
      status: 200,
      body: {
        status: "ok",
        version: "1.2.3",
        checks: {
          postgres: { ok: true, ms: expect.any(Number) as number },
          cluster: { ok: true, ms: expect.any(Number) as number },
        },
      },
    });
    expect(headers.get("cache-control")).toBe("no-store");
    expect(new Set(peer.authorizations)).toEqual(
      new Set([`Basic ${Buffer.from("user:secret").toString("base64")}`]),
    );
    expect(await ask(api, "/health?verbose=1", { method: "HEAD" })).toMatchObject({
      status: 200,
      body: null,
    });
  });

  it.each([
    [
      "its kubo is gone",
      { status: 200, body: { id: "12D3", error: "", ipfs: { error: "refused" } } },
      "kubo",
    ],
    ["it is ill itself", { status: 200, body: { id: "12D3", error: "no consensus" } }, "no consensus"],
    ["it wants a password", { status: 401, body: {} }, "HTTP status 401"],
    ["something else answers", { status: 200, body: [] }, "is not an ipfs-cluster peer"],
  ])("is degraded while the cluster answers, but %s", async (_case, answer, why) => {
    const peer = await startPeer();
    peer.answer = answer;
    const api = await startApi(poolSettings(postgres.target), peer.url);
    const { status, body } = await ask(api, "/health");
    expect(status).toBe(503);
    expect(body).toMatchObject({
      status: "degraded",
      checks: {
        postgres: { ok: true },
        cluster: { ok: false, error: expect.stringContaining(why) as string },
      },
    });
  });

  it("is degraded while no cluster is there", async () => {
    const api = await startApi(poolSettings(postgres.target), `http://127.0.0.1:${await freePort()}`);
    expect(await ask(api, "/health")).toMatchObject({
      status: 503,
      body: { checks: { cluster: { ok: false } } },
    });
  });

  it("is degraded with the wrong password, and does not tell which it tried", async () => {
    const peer = await startPeer();
    const wrong = { ...poolSettings(postgres.target), password: "hunter2-wrong" };
    const api = await startApi(wrong, peer.url);
    const { status, body } = await ask(api, "/health");
    expect(status).toBe(503);
    expect(body).toMatchObject({
      checks: {
        postgres: { ok: false, error: expect.stringContaining("password authentication") as string },
      },
    });
    expect(JSON.stringify(body) + api.lines.join()).not.toContain("hunter2");
  });

  it("starts without a database, says so, and is healthy once it is there", async () => {
    const database = `late_${Math.trunc(performance.now())}`;
    const peer = await startPeer();
    const api = await startApi(poolSettings({ ...postgres.target, database }), peer.url);
    expect(await ask(api, "/health")).toMatchObject({ status: 503 });
    expect(api.lines.join("\n")).toContain(
      `health: degraded, postgres: database "${database}" does not exist`,
    );
    await sql(postgres.target, `CREATE DATABASE ${database}`);
    await migrate({ ...postgres.target, database });
    expect(await ask(api, "/health")).toMatchObject({ status: 200 });
    expect(api.lines.at(-1)).toBe("health: ok");
  });

  it("refuses a key that is only good for uploading, and only that", async () => {
    const peer = await startPeer();
    const api = await startApi(poolSettings(postgres.target), peer.url);
    const at = async (claims: object) => {
      const headers = { authorization: `Bearer ${tokenOf("somebody", { ...claims })}` };
      return await ask(api, "/pins", { headers });
    };
    expect(await at({ scope: "storage:upload" })).toMatchObject({
      status: 403,
      body: { error: { reason: "FORBIDDEN" } },
    });
    expect(await at({ scope: "storage:read storage:write" })).toMatchObject({ status: 401 });
  });

  it("outlives its connections being cut", async () => {
    const peer = await startPeer();
    const api = await startApi(poolSettings(postgres.target), peer.url);
    expect(await ask(api, "/health")).toMatchObject({ status: 200 });
    await sql(
      postgres.target,
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
      [APPLICATION],
    );
    await untilOk(api);
  });

  it("gives back every connection when it stops", async () => {
    const peer = await startPeer();
    const api = await startApi(poolSettings(postgres.target), peer.url);
    await ask(api, "/health");
    await api.stop();
    expect(api.lines.at(-1)).toBe("pinning-api has stopped");
    const left = await sql(postgres.target, "SELECT pid FROM pg_stat_activity WHERE application_name = $1", [
      APPLICATION,
    ]);
    expect(left).toEqual([]);
  });

  it("wants a token for everything else, and then knows no other path", async () => {
    const peer = await startPeer();
    const api = await startApi(poolSettings(postgres.target), peer.url);
    for (const path of ["/", "/pins", "/pins/1", "/healthz", "//"]) {
      const { status, body, headers } = await ask(api, path);
      expect({ path, status }).toEqual({ path, status: 401 });
      expect(body).toEqual({
        error: {
          reason: "UNAUTHORIZED",
          details: "The Authorization header with a bearer token is missing.",
        },
      });
      expect(headers.get("www-authenticate")).toBe("Bearer");
    }
    const notFound = { status: 404, body: { error: { reason: "NOT_FOUND" } } };
    expect(await ask(api, "/pin", { headers: { authorization: "Bearer x" } })).toMatchObject(notFound);
    expect(await ask(api, "/auth/login", { method: "POST", body: "{}" })).toMatchObject(notFound);
    expect(await ask(api, "/health", { method: "DELETE" })).toMatchObject({ status: 405 });
  });
});

describeOnPostgres(
  "the webui",
  (postgres) => {
    async function startWebui(settings: PoolSettings): Promise<Serving> {
      const webui = await startService(
        (deps) => openStorageService({ ...WEBUI, postgres: settings }, { ...deps, openCluster: noCluster }),
        openPool(settings),
      );
      cleanups.push(() => webui.stop());
      return webui;
    }

    it("is healthy when the database answers, on upstream's path too", async () => {
      const webui = await startWebui(poolSettings(await postgres.createDatabase()));
      expect(await ask(webui, "/health")).toMatchObject({
        status: 200,
        body: { status: "ok", version: "1.2.3", checks: { postgres: { ok: true } } },
      });
      const { status, body } = await ask(webui, "/api/health");
      expect({ status, body }).toEqual({
        status: 200,
        body: { status: "ok", timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) as string },
      });
    });

    it("is degraded without the database, on upstream's path too", async () => {
      const webui = await startWebui({ ...poolSettings(postgres.target), port: await freePort() });
      expect(await ask(webui, "/health")).toMatchObject({ status: 503, body: { status: "degraded" } });
      expect(await ask(webui, "/api/health")).toMatchObject({ status: 503, body: { status: "degraded" } });
    });

    it("answers anything else with 404", async () => {
      const webui = await startWebui(poolSettings(postgres.target));
      expect(await ask(webui, "/api/v1/pins")).toMatchObject({
        status: 404,
        body: { error: "There is no GET /api/v1/pins." },
      });
    });
  },
  { template: migrate },
);

/** A connection that was cut is noticed at the next query or just before it. */
async function untilOk(service: Serving): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const { status, body } = await ask(service, "/health");
    if (status === 200) return;
    if (Date.now() > deadline) throw new Error(`still ${status}: ${JSON.stringify(body)}`);
  }
}
