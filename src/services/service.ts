import type { RequestListener } from "node:http";
import type { PostgresPool } from "../database/pool.ts";
import type { ServiceSettings } from "../settings/services.ts";
import { startServer } from "./server.ts";
import type { HttpReader } from "../machine/http.ts";

/** What a service works with; it owns the pool and closes it. */
export interface ServiceHands {
  readonly pool: PostgresPool;
  readonly http: HttpReader;
  /** Aborted on SIGTERM or SIGINT. */
  readonly stop: AbortSignal;
  /** One line of the service's log. */
  readonly log: (line: string) => void;
  readonly version: string;
}

/**
 * Serves until the stop, then closes the pool. A database or cluster that is away at the start is no reason
 * to exit: the service says so in its log and in /health, and works once they are back. A process that
 * exits would only be restarted, ever more slowly, without its healthcheck naming the cause.
 */
export async function serve(
  name: string,
  settings: ServiceSettings,
  hands: ServiceHands,
  listener: RequestListener,
): Promise<void> {
  const { pool, stop, log, version } = hands;
  try {
    const { bindHost: host } = settings;
    const server = await startServer({ name, host, port: settings.port, listener, stop });
    log(`${name} ${version} listens on ${host}:${server.port}`);
    await server.stopped;
    log(`${name} has stopped`);
  } finally {
    await pool.close();
  }
}
