import type { WebuiSettings } from "../settings/services.ts";
import { checkPostgres } from "./health-checks.ts";
import { createHealth } from "./health.ts";
import { nodesRoutes } from "./nodes-api.ts";
import { createPinCount, type PinCountHands } from "./pin-count.ts";
import { poolRoutes } from "./pool-api.ts";
import { listenerOf } from "./router.ts";
import { serve, type ServiceHands } from "./service.ts";
import { storageRoutes } from "./storage-api.ts";

/** What the storage API works with. */
export interface WebuiHands extends ServiceHands {
  /** Opens the REST API of the master's own cluster peer. */
  readonly openCluster: PinCountHands["openCluster"];
}

/**
 * The storage API's process: `GET /health`, which asks the database, upstream's `GET /api/health`, the
 * accounts' quota, the pool's directory of nodes and the count of its pins.
 */
export async function serveWebui(settings: WebuiSettings, hands: WebuiHands): Promise<void> {
  const { pool, log, version, openCluster } = hands;
  const count = createPinCount({ openCluster, nowMs: () => performance.now() });
  const health = createHealth({ version, checks: { postgres: checkPostgres(pool) }, log });
  const listener = listenerOf({
    routes: [
      {
        method: "GET",
        path: "/health",
        answer: async () => {
          const report = await health();
          return { status: statusCode(report), body: report };
        },
      },
      {
        method: "GET",
        path: "/api/health",
        answer: async () => {
          const report = await health();
          const body = { status: report.status, timestamp: new Date().toISOString() };
          return { status: statusCode(report), body };
        },
      },
      ...storageRoutes(hands, settings.pricing),
      ...nodesRoutes(hands, settings),
      ...poolRoutes({ count, log }, settings.pool),
    ],
    otherwise: ({ method = "?" }, path) => ({
      status: 404,
      body: { error: `Nothing answers ${method} ${path}.` },
    }),
    failed: { status: 500, body: { error: "The request failed; the service's log says why." } },
    log,
  });
  void health();
  await serve("webui", settings, hands, listener);
}

function statusCode({ status }: { readonly status: "ok" | "degraded" }): number {
  return status === "ok" ? 200 : 503;
}
