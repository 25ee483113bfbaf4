import type { Cluster } from "../cluster/client.ts";
import type { ClusterSettings, PoolSettings } from "../settings/services.ts";
import type { World, VerbExit } from "../world.ts";

/** A list that is silent for so long has stopped. */
const LISTING_TIMEOUT_MS = 60_000;
const REQUEST_TIMEOUT_MS = 10_000;

/** `serve NAME`: runs one service until it is told to stop; what the containers run. */
export async function serve(name: "pinning-api" | "webui" | "ingest", world: World): Promise<VerbExit> {
  const { environment, host, stop, version } = world;
  const log = (line: string): void => world.reporter.note(`${host.clock.now().toISOString()} ${line}`);
  if (name === "ingest") {
    const settings = (await import("../settings/services.ts")).readIngestSettings(environment);
    const hands = { ...(await world.openIngestHands(settings)), http: host.http, stop, log, version };
    await (await import("../ingest/server.ts")).serveIngest(settings, hands);
    return "ok";
  }
  const applicationName = `fula-node ${name}`;
  const hands = (pool: PoolSettings) => ({
    pool: world.openPool(pool, { applicationName, log }),
    http: host.http,
    stop,
    log,
    version,
  });
  const { readPinningApiSettings, readWebuiSettings } = await import("../settings/services.ts");
  if (name === "webui") {
    const settings = readWebuiSettings(environment);
    const openCluster = () => openClusterFor(world, settings.cluster);
    const webuiHands = { ...hands(settings.postgres), openCluster };
    await (await import("../services/webui.ts")).serveWebui(settings, webuiHands);
  } else {
    const settings = readPinningApiSettings(environment);
    await (await import("../services/pinning-api.ts")).servePinningApi(settings, hands(settings.postgres));
  }
  return "ok";
}

function openClusterFor(world: World, { url, basicAuth }: ClusterSettings): Cluster {
  return world.openCluster({
    endpoint: url,
    ...(basicAuth === null ? {} : { basicAuth }),
    connections: 2,
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
    listingTimeoutMs: LISTING_TIMEOUT_MS,
    signal: world.stop,
  });
}
