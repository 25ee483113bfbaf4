import type { IncomingMessage } from "node:http";
import type { PinningApiSettings } from "../settings/services.ts";
import { checkCluster, checkPostgres } from "./health-checks.ts";
import { createHealth } from "./health.ts";
import { listenerOf, type Reply } from "./router.ts";
import { serve, type ServiceHands } from "./service.ts";

/**
 * The pinning API: `GET /health`, which asks the database and the cluster. Errors have the form of the
 * IPFS Pinning Service API, `{"error":{"reason","details"}}`; all but /health and /auth/ wants a bearer
 * token, as functionland/pinning-service has it.
 */
export async function servePinningApi(settings: PinningApiSettings, hands: ServiceHands): Promise<void> {
  const { pool, http, log, version } = hands;
  const checks = { postgres: checkPostgres(pool), cluster: checkCluster(http, settings.cluster) };
  const health = createHealth({ version, checks, log });
  const listener = listenerOf({
    routes: [{ method: "GET", path: "/health", answer: async () => healthReply(await health()) }],
    otherwise,
    failed: failure(500, "INTERNAL_SERVER_ERROR", "The request failed; the service's log says why."),
    log,
  });
  void health();
  await serve("pinning-api", settings, hands, listener);
}

function healthReply(report: { readonly status: "ok" | "degraded" }): Reply {
  return { status: report.status === "ok" ? 200 : 503, body: report };
}

function otherwise({ method = "?", headers }: IncomingMessage, path: string): Reply {
  if (headers.authorization === undefined && !path.startsWith("/auth/")) {
    const reply = failure(401, "UNAUTHORIZED", "The Authorization header with a bearer token is missing.");
    return { ...reply, headers: { "www-authenticate": "Bearer" } };
  }
  return failure(404, "NOT_FOUND", `Nothing answers ${method} ${path}.`);
}

function failure(status: number, reason: string, details: string): Reply {
  return { status, body: { error: { reason, details } } };
}
