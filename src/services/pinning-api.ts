import type { PostgresPool } from "../database/postgres.ts";
import { messageOf } from "../errors.ts";
import type { PinningApiSettings } from "../settings/services.ts";
import { checkCluster, checkPostgres, createHealth, healthAnswer } from "./health.ts";
import { createApp, json, keyOf, type Service, UPLOAD_ONLY } from "./server.ts";
import type { HttpReader } from "../machine/http.ts";

/**
 * The pinning API: `GET /health`, which checks the database and the cluster. Errors have the format of the
 * IPFS Pinning Service API, `{"error":{"reason","details"}}`. As in functionland/pinning-service, every path except
 * /health and /auth/ needs a bearer token. A key that is only good for uploading is refused. The service owns the database pool and closes it.
 */
export function openPinningApi(
  settings: PinningApiSettings,
  deps: {
    readonly pool: PostgresPool;
    readonly http: HttpReader;
    readonly log: (line: string) => void;
    readonly version: string;
  },
): Service {
  const { pool, http, log, version } = deps;
  // It reads no table yet.
  const checks = { postgres: checkPostgres(pool, []), cluster: checkCluster(http, settings.cluster) };
  const health = createHealth({ version, checks, log });
  const app = createApp({
    notFound: ({ env: { incoming } }, path) => {
      const { method = "?", headers } = incoming;
      if (keyOf(headers)?.uploadOnly === true) return refuse(403, "FORBIDDEN", UPLOAD_ONLY);
      return headers.authorization === undefined && !path.startsWith("/auth/")
        ? refuse(401, "UNAUTHORIZED", "The Authorization header with a bearer token is missing.", {
            "www-authenticate": "Bearer",
          })
        : refuse(404, "NOT_FOUND", `There is no ${method} ${path}.`);
    },
    failed: ({ env }, thrown, path) => {
      log(`${env.incoming.method ?? "?"} ${path} failed: ${messageOf(thrown)}`);
      return refuse(500, "INTERNAL_SERVER_ERROR", "The request failed. See the service's log.");
    },
  });
  app.get("/health", async () => healthAnswer(await health()));
  void health();
  const { bindHost: host, port } = settings;
  return { name: "pinning-api", host, port, app, close: () => pool.close() };
}

function refuse(
  status: number,
  reason: string,
  details: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return json(status, { error: { reason, details } }, headers);
}
