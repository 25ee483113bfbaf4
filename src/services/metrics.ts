import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { NO_ROUTE, NOT_READ, type OnRequest } from "./requests.ts";
import { type App, createApp, type GaugeSource, json } from "./server.ts";

/** The metrics of a service. */
export interface Metrics {
  readonly onRequest: OnRequest;
  /** Serves `GET /metrics`, and nothing else. */
  readonly app: App;
}

/** Every method that the route does not have: clients choose them. */
const OTHER = "other";
const BUCKETS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30];
/** In milliseconds. The delay of the event loop is sampled so often. */
const LOOP_PRECISION_MS = 20;

/**
 * Creates the metrics of a service, for Prometheus. The number of series is bounded: requests are counted by method,
 * pattern of the route and status, and no label has anything that a client or an account chooses. A scrape asks nobody.
 */
export function createMetrics(options: {
  readonly service: string;
  readonly version: string;
  readonly routes: readonly { readonly method: string; readonly path: string }[];
  readonly gauges: readonly GaugeSource[];
}): Metrics {
  const { service, version, routes, gauges } = options;
  const register = new Registry();
  register.setDefaultLabels({ service });
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: LOOP_PRECISION_MS });
  const registers = [register];
  const requests = new Counter({
    name: "fula_http_requests_total",
    help: "Requests that have ended. Route none: no route has the path. Route invalid: not HTTP. Status 499: the client left.",
    labelNames: ["method", "route", "status"],
    registers,
  });
  const durations = new Histogram({
    name: "fula_http_request_duration_seconds",
    help: "Time from the head of a request to the end of its answer.",
    labelNames: ["method", "route"],
    buckets: BUCKETS,
    registers,
  });
  new Gauge({ name: "fula_build_info", help: "The version.", labelNames: ["version"], registers }).set(
    { version },
    1,
  );
  for (const source of gauges) register.registerMetric(gaugeOf(source));
  // A series that begins at 0 shows the first request, too.
  const pairs = new Set<string>();
  for (const { method, path: route } of [...routes, { method: "ALL", path: NO_ROUTE }]) {
    if (method !== "ALL") pairs.add(`${method} ${route}`);
    durations.zero({ method: method === "ALL" ? OTHER : method, route });
  }

  const app = createApp({
    notFound: () => json(404, { error: "Only GET /metrics is served here." }),
    failed: () => json(500, { error: "The metrics could not be collected." }),
  });
  app.get("/metrics", async () => {
    const text = await register.metrics();
    return new Response(text, {
      headers: { "content-type": register.contentType, "cache-control": "no-store" },
    });
  });
  return {
    app,
    onRequest: ({ method: sent, route, status, ms }) => {
      const method = pairs.has(`${sent} ${route}`) ? sent : OTHER;
      requests.inc({ method, route, status });
      if (route !== NOT_READ) durations.observe({ method, route }, ms / 1_000);
    },
  };
}

function gaugeOf(source: GaugeSource): Gauge {
  const { name, help, label } = source;
  return new Gauge({
    name,
    help,
    labelNames: label === undefined ? [] : [label],
    registers: [],
    collect() {
      const value = source.read();
      if (typeof value === "number") this.set(value);
      else for (const [key, number] of Object.entries(value)) this.set({ [label ?? name]: key }, number);
    },
  });
}
