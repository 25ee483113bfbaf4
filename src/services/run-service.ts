import { createMetrics, type Metrics } from "./metrics.ts";
import { type RunningServer, type Service, type ServiceContext, startServer } from "./server.ts";

/**
 * Runs the service until the stop, then closes it. It does not exit if the database or the cluster is down at the start:
 * it reports that in its log and in /health, and works once they are back. If the process exited, Docker would only
 * restart it with growing delays, and no healthcheck would name the cause.
 */
export async function runService(service: Service, context: ServiceContext): Promise<void> {
  const { log, version } = context;
  const { name, host, edge } = service;
  const failed = new AbortController();
  const stop = AbortSignal.any([context.stop, failed.signal]);
  const servers: RunningServer[] = [];
  const start = async (...[one, more]: Parameters<typeof startServer>): Promise<number> => {
    const server = await startServer(one, more);
    servers.push(server);
    return server.port;
  };
  try {
    const metrics = metricsOf(service, version);
    const onRequest: ServiceContext["onRequest"] = (entry) => {
      metrics?.onRequest(entry);
      context.onRequest?.(entry);
    };
    const port = await start(service, { log, stop, onRequest });
    if (edge !== undefined) {
      const edgePort = await start({ ...service, ...edge, isOutside: true }, { log, stop, onRequest });
      log(`${name} listens on ${edge.host}:${edgePort} for the edge`);
    }
    if (metrics !== null) {
      const own = {
        name: `${name} (metrics)`,
        host: METRICS_HOST,
        port: service.metrics?.port ?? 0,
        app: metrics.app,
      };
      const metricsPort = await start(own, { log, stop });
      log(`${name} listens on ${own.host}:${metricsPort} for Prometheus`);
    }
    log(`${name} ${version} listens on ${host}:${port}`);
    for (const note of service.notes ?? []) log(note);
    stop.addEventListener("abort", () => log(`${name} stops: requests in progress may finish`), {
      once: true,
    });
    await Promise.all(servers.map(({ stopped }) => stopped));
  } finally {
    failed.abort();
    await Promise.all(servers.map(({ stopped }) => stopped));
    await service.close();
  }
  log(`${name} has stopped`);
}

/** Whatever the service itself listens on: the numbers are for programs of this machine. */
const METRICS_HOST = "127.0.0.1";

function metricsOf({ name, app, edge, metrics }: Service, version: string): Metrics | null {
  if (metrics === undefined) return null;
  const routes = [...app.routes, ...(edge?.app.routes ?? [])];
  return createMetrics({ service: name, version, routes, gauges: metrics.gauges });
}
