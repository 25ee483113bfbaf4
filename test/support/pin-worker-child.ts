import { openCluster } from "../../src/cluster/client.ts";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { startPinWorker } from "../../src/pinning/worker.ts";
import type { PoolSettings } from "../../src/settings/services.ts";

/** A worker in its own process, which can be stopped and killed. It prints its log, and `up` once it runs. */
const { postgres, endpoint, settings } = JSON.parse(process.env["PIN_WORKER"] ?? "{}") as {
  readonly postgres: PoolSettings;
  readonly endpoint: string;
  readonly settings: Parameters<typeof startPinWorker>[0]["settings"];
};
const log = (line: string): void => void process.stdout.write(`${line}\n`);
const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());
const pool = openPostgresPool(postgres, { applicationName: "a pin worker", log });
const worker = startPinWorker({
  pool,
  openCluster: () => openCluster({ endpoint, requestTimeoutMs: 60_000, signal: stop.signal }),
  dagSize: async () => 1000,
  mayPin: async () => true,
  heldBack: async () => null,
  log,
  settings,
  stop: stop.signal,
});
log("up");
await worker.stopped;
await pool.close();
log("ended");
