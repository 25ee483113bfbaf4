import { readCredential } from "../accounts/sessions.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { watchWrites } from "../database/writable.ts";
import type { Log } from "../errors.ts";
import type { HttpReader } from "../machine/http.ts";
import { createDelegates } from "../pinning/delegates.ts";
import { createPinIntake } from "../pinning/pin-store.ts";
import type { PinningApiSettings } from "../settings/services.ts";
import { createCarImport, IMPORT_TIMEOUT_MS } from "./car-import.ts";
import {
  checkCluster,
  checkPostgres,
  connectionGauge,
  createHealth,
  healthAnswer,
  healthGauges,
} from "./health.ts";
import { addDocument } from "./openapi/document.ts";
import { type PinQueue, queueGauges } from "./pin-queue.ts";
import { addAdminRoutes } from "./pinning-admin.ts";
import {
  addPinsRoutes,
  IMPORT_PATH,
  type PinsDeps,
  refuse,
  refuseCredential,
  refuseMethod,
} from "./pins-routes.ts";
import { type App, createApp, logFailure, refuseOtherMethods, type Service } from "./server.ts";

/** Without one of them, it refuses every request. */
const TABLES = [
  "sessions",
  "pins",
  "pin_work",
  "blocked_cids",
  "user_credits",
  "account_usage",
  "account_pins",
  "account_holds",
];

/** What the pinning API is opened with. */
export interface PinningApiDeps {
  readonly pool: PostgresPool;
  readonly http: HttpReader;
  readonly log: Log;
  readonly version: string;
  /** The subnets of this machine's container bridges. Clients can't reach kubo there. */
  readonly bridgeSubnets: () => Promise<readonly string[]>;
  /** The queue that brings the pins to the cluster; /health shows how it stands. */
  readonly queue?: Pick<PinQueue, "state" | "wake" | "request">;
  /** Other times for uploads of CAR files. */
  readonly imports?: { readonly idleMs: number };
}

/**
 * The pinning API: the IPFS Pinning Service API 1.0 (pins-routes.ts), and `GET /health`, which checks the database and the
 * cluster. As in functionland/pinning-service, every path except /health and /auth/ needs a credential, and errors have
 * the form `{"error":{"reason","details"}}`. The service owns the database pool and closes it.
 *
 * It has two listeners. Services on this machine use the first one, which also has /admin (pinning-admin.ts). What comes
 * from outside comes through the second one, which serves only /pins and accepts no trusted header.
 */
export function openPinningApi(settings: PinningApiSettings, deps: PinningApiDeps): Service {
  const { http, log, version, queue } = deps;
  const writes = watchWrites(deps.pool);
  const { pool } = writes;
  const { bindHost: host, port, edgePort, metricsPort, limits, serviceSecret, walletTokens } = settings;
  const checks = { postgres: checkPostgres(writes, TABLES), cluster: checkCluster(http, settings.cluster) };
  const health = createHealth({ version, checks, log });
  const delegates = createDelegates(http, settings.kuboUrl, {
    nowMs: () => performance.now(),
    bridgeSubnets: deps.bridgeSubnets,
    log,
  });
  const pins: PinsDeps = {
    pool,
    log,
    delegates,
    limits,
    accept: createPinIntake(pool, limits),
    serviceSecret,
    walletTokens,
    wake: () => queue?.wake(),
    beginRequest: () => queue?.request() ?? (() => {}),
    importCar:
      settings.importMaxBytes === null
        ? null
        : createCarImport({
            pool,
            http,
            log,
            delegates,
            limits,
            kuboUrl: settings.kuboUrl,
            maxBytes: settings.importMaxBytes,
            minBalance: {
              days: settings.importBalanceDays,
              freeTierBytes: limits.freeTierBytes,
              fulaPerGibMonth: settings.fulaPerGibMonth,
            },
            ...deps.imports,
          }),
  };
  const inside = createPinsApp(pins, { isOutside: false });
  inside.get("/health", async () => healthAnswer(await health(), queue && { queue: queue.state() }));
  addDocument(inside, "/openapi.json", async () =>
    (await import("./openapi/pinning-routes.ts")).pinningDocument(version),
  );
  addAdminRoutes(inside, { pool, log, version, systemKey: settings.systemKey });
  refuseOtherMethods(inside, (methods) => () => refuseMethod(methods));
  const edge = createPinsApp(pins, { isOutside: true });
  void health();
  void delegates();
  return {
    name: "pinning-api",
    host,
    port,
    app: inside,
    edge: { host, port: edgePort, app: edge },
    metrics: {
      port: metricsPort,
      gauges: [
        ...healthGauges(health),
        connectionGauge(pool),
        ...(queue === undefined ? [] : queueGauges(queue)),
      ],
    },
    slowRoute: { path: IMPORT_PATH, timeoutMs: IMPORT_TIMEOUT_MS },
    describeUnread: (reason, details) => ({ error: { reason, details } }),
    close: () => pool.close(),
  };
}

function createPinsApp(deps: PinsDeps, where: { readonly isOutside: boolean }): App {
  const { log, serviceSecret } = deps;
  const app = createApp({
    notFound: ({ env: { incoming } }, path) => {
      const credential = readCredential(incoming, { ...where, serviceSecret }, new Date());
      if (credential.kind === "refused" && !path.startsWith("/auth/")) return refuseCredential(credential);
      return refuse(404, "NOT_FOUND", `There is no ${incoming.method ?? "?"} ${path}.`);
    },
    failed: (call, thrown) => {
      logFailure(log, call, thrown);
      return refuse(500, "INTERNAL_SERVER_ERROR", "The request failed. See the service's log.");
    },
  });
  addPinsRoutes(app, deps, where);
  return app;
}
