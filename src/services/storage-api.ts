import { usageOfKey } from "../accounts/usage.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf } from "../errors.ts";
import { reportStorage } from "../settings/quota.ts";
import type { WebuiSettings } from "../settings/services.ts";
import { checkPostgres, createHealth, healthAnswer, healthStatus, whileDatabaseAnswers } from "./health.ts";
import { nodesApi } from "./nodes-api.ts";
import { createPinCount, type PinCountDeps, poolApi } from "./pool-api.ts";
import { createApp, json, keyHashOf, type Service, unauthorized } from "./server.ts";

/**
 * The storage API, which is called `webui` outside: `GET /health`, which asks the database, upstream's `GET /api/health`,
 * the accounts' quota, the pool's directory of nodes and the count of its pins. It owns the pool and closes it.
 *
 * `GET /api/v1/storage`: what the account of an API key uses and may still upload. No rate limit stands
 * before it: an ingest node asks it for each of its clients and comes from one address, and a limit for that
 * address would turn away paying clients (or, where the node lets pass what it can't ask, meter nobody). A key
 * can't be guessed, so a wrong one costs one look into an index, and a malformed one not even that.
 */
export function openStorageService(
  settings: WebuiSettings,
  deps: {
    readonly pool: PostgresPool;
    /** Opens the REST API of the master's own cluster peer. */
    readonly openCluster: PinCountDeps["openCluster"];
    readonly log: (line: string) => void;
    readonly version: string;
  },
): Service {
  const { pool, log, version, openCluster } = deps;
  const count = createPinCount({ openCluster, nowMs: () => performance.now() });
  const health = createHealth({ version, checks: { postgres: checkPostgres(pool) }, log });
  const app = createApp({
    notFound: ({ env }, path) =>
      json(404, { error: `Nothing answers ${env.incoming.method ?? "?"} ${path}.` }),
    failed: ({ env }, thrown, path) => {
      log(`${env.incoming.method ?? "?"} ${path} failed: ${messageOf(thrown)}`);
      return json(500, { error: "The request failed; the service's log says why." });
    },
  });
  app.get("/health", async () => healthAnswer(await health()));
  app.get("/api/health", async () => {
    const report = await health();
    return json(healthStatus(report), { status: report.status, timestamp: new Date().toISOString() });
  });
  app.get("/api/v1/storage", async ({ env }) => {
    const hash = keyHashOf(env.incoming.headers);
    if (hash === null) return unauthorized();
    return whileDatabaseAnswers(log, async () => {
      const usage = await usageOfKey(pool, hash);
      return usage === null ? unauthorized() : json(200, reportStorage(usage, settings.pricing));
    });
  });
  app.route("/", nodesApi(pool, log, settings));
  app.route("/", poolApi(settings.pool, { count, log }));
  void health();
  const { bindHost: host, port } = settings;
  return { name: "webui", host, port, app, close: () => pool.close() };
}
