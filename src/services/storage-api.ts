import { usageOf } from "../accounts/usage.ts";
import { openChain } from "../billing/chain-node.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { watchWrites } from "../database/writable.ts";
import type { Log } from "../errors.ts";
import { reportStorage } from "../settings/quota.ts";
import type { WebuiSettings } from "../settings/services.ts";
import { accountsApi, type AccountsApiOptions } from "./accounts-api.ts";
import { startBillingCrons } from "./billing-crons.ts";
import { createAuthentication } from "./caller.ts";
import {
  checkPostgres,
  connectionGauge,
  createHealth,
  healthAnswer,
  healthGauges,
  healthStatus,
  whileDatabaseAnswers,
} from "./health.ts";
import { nodesApi } from "./nodes-api.ts";
import { addDocument } from "./openapi/document.ts";
import { createPinCount, type PinCountDeps, poolApi } from "./pool-api.ts";
import { createApp, failure, json, logFailure, refuseOtherMethods, type Service } from "./server.ts";

/** What it reads and writes. */
const TABLES = [
  "api_keys",
  "pins",
  "user_credits",
  "invites",
  "node_names",
  "node_owners",
  "node_descriptors",
  "node_releases",
  "node_trust",
  "account_usage",
  "account_holds",
  "credit_history",
  "user_wallets",
  "exact_credits",
  "account_credits",
  "deposits",
];

/**
 * The storage API. Its service name is `webui`. It has `GET /health`, which checks the database, upstream's
 * `GET /api/health`, the accounts' quota, credits and wallets, the pool's node directory and its pin count. It owns the database pool and
 * closes it.
 *
 * `GET /api/v1/storage`: the usage of an API key's account, and how much it may still upload. It has no rate
 * limit: an ingest node calls it for each of its clients from one address. A limit on that address would reject
 * paying clients (or, if the node allows uploads without an answer, would leave them unmetered). A key can't be
 * guessed: a wrong key costs one index lookup, and a malformed key costs none. With a key that is only good for uploading
 * the answer is only `canUpload`: the operator of a storage node, who sees that key, does not learn the balance.
 */
export function openStorageService(
  settings: WebuiSettings,
  deps: {
    readonly pool: PostgresPool;
    /** Creates a client for the REST API of the master's own cluster peer. */
    readonly openCluster: PinCountDeps["openCluster"];
    readonly log: Log;
    readonly version: string;
  },
): Service {
  const { log, version, openCluster } = deps;
  const writes = watchWrites(deps.pool);
  const { pool } = writes;
  const count = createPinCount({ openCluster, nowMs: () => performance.now() });
  const health = createHealth({ version, checks: { postgres: checkPostgres(writes, TABLES) }, log });
  const authenticate = createAuthentication(pool, settings.walletTokens);
  const app = createApp({
    notFound: ({ env }, path) =>
      failure(404, "no-such-path", `There is no ${env.incoming.method ?? "?"} ${path}.`),
    failed: (call, thrown) => {
      logFailure(log, call, thrown);
      return failure(500, "internal", "The request failed. See the service's log.");
    },
  });
  app.get("/health", async () => healthAnswer(await health()));
  app.get("/api/health", async () => {
    const report = await health();
    return json(healthStatus(report), { status: report.status, timestamp: new Date().toISOString() });
  });
  app.get("/api/v1/storage", async ({ env }) => {
    return whileDatabaseAnswers(log, async () => {
      const caller = await authenticate(env.incoming);
      if (caller instanceof Response) return caller;
      const report = reportStorage(await usageOf(pool, caller.account), settings.pricing);
      return json(200, caller.uploadOnly ? { canUpload: report.canUpload } : report);
    });
  });
  addDocument(app, "/openapi.json", async () =>
    (await import("./openapi/storage-routes.ts")).storageDocument(version),
  );
  addDocument(app, "/api/v1/openapi.json", async () =>
    (await import("./openapi/storage-routes.ts")).clientsDocument(version),
  );
  const { billing } = settings;
  const claims: AccountsApiOptions["claims"] =
    billing === null || !billing.idempotent
      ? null
      : async (wish) => {
          const { claim } = await import("../billing/claim.ts");
          return claim({ pool, billing, open: (url) => openChain(url, { proxy: billing.proxy }) }, wish);
        };
  app.route("/", accountsApi(pool, log, { ...settings, authenticate, claims }));
  app.route("/", nodesApi(pool, log, { ...settings, authenticate }));
  app.route("/", poolApi(settings.pool, { count, log }));
  refuseOtherMethods(
    app,
    (methods) => () =>
      failure(405, "other-method", `Only ${methods} can be used here.`, {}, { allow: methods }),
  );
  void health();
  const { bindHost: host, port, metricsPort } = settings;
  const crons = startBillingCrons(settings, { pool, log });
  const metrics = {
    port: metricsPort,
    gauges: [...healthGauges(health), connectionGauge(pool), ...crons.gauges],
  };
  const close = async () => {
    await crons.close();
    await pool.close();
  };
  const describeUnread = (reason: string, error: string) => ({
    error,
    code: reason.toLowerCase().replaceAll("_", "-"),
  });
  return { name: "webui", host, port, app, metrics, describeUnread, close };
}
