import { setTimeout as wait } from "node:timers/promises";
import type { Cluster, ClusterTarget } from "../cluster/client.ts";
import type { KuboBlocks } from "../cluster/kubo.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { BEAT_EVERY_MS, findRemoval, keepBeating, removedMaster } from "../database/masters.ts";
import { type Log, type LogLevel, messageOf } from "../errors.ts";
import type { Blake3 } from "../ingest/blake3.ts";
import type { StorageApi } from "../ingest/quota-gate.ts";
import type { HttpReader } from "../machine/http.ts";
import type { ClusterSettings, Environment, PoolSettings } from "../settings/services.ts";
import { runService } from "./run-service.ts";
import type { Service, ServiceContext } from "./server.ts";
import { createServiceLog, type ServiceLog } from "./service-log.ts";

/** The names that containers use to start a service. They are part of the public interface. */
export type ServiceName = "pinning-api" | "webui" | "ingest";

/** What the services need. Connections open only when they are needed. */
export interface ServeDeps extends Pick<ServiceContext, "stop" | "version"> {
  /** Writes whole lines of the log. */
  readonly write: (lines: string) => void;
  readonly http: HttpReader;
  openPool(
    settings: PoolSettings,
    options: { readonly applicationName: string; readonly log: Log },
  ): PostgresPool;
  openCluster(target: ClusterTarget): Cluster;
  openBlake3(): Promise<Blake3>;
  openKubo(url: string, options: ClientOptions): Promise<KuboBlocks>;
  openStorageApi(url: string, options: ClientOptions & { readonly ca: string | null }): Promise<StorageApi>;
  /** How often a service looks whether its master is still in its pool, or may come back to it. Default: a minute. */
  readonly beatMs?: number;
}

/** `timeoutMs` limits one request. */
export interface ClientOptions {
  readonly connections: number;
  readonly timeoutMs: number;
}

/** A listing of the cluster that sends no data for this long has failed. */
const LISTING_TIMEOUT_MS = 60_000;
const CLUSTER_REQUEST_TIMEOUT_MS = 10_000;
/** fula-ingest uses the same limit for each request to kubo and to the storage API. */
const INGEST_TIMEOUT_MS = 30_000;

/**
 * Runs one service until it is stopped. Its settings come from the environment, which Compose creates from `.env`.
 * Throws an OperatorError (`settings`) that lists every problem with them. A service of a master that was removed from its
 * pool listens nowhere and does nothing, so its container is unhealthy, until the master may come back. It does not exit:
 * Docker would start it again and again, and each start would fill the log.
 */
export async function serve(name: ServiceName, environment: Environment, deps: ServeDeps): Promise<void> {
  const { stop, version, write } = deps;
  const openLog = (level: LogLevel) => createServiceLog({ service: name, level, write });
  for (;;) {
    const removal = new AbortController();
    const ending = AbortSignal.any([stop, removal.signal]);
    const onRemoved = () => removal.abort();
    const opened = await openService(name, environment, { ...deps, stop: ending, onRemoved }, openLog);
    if (opened === null) return;
    const { service, log } = opened;
    await runService(service, { stop: ending, version, log: log.line, onRequest: log.request });
    if (stop.aborted) return;
  }
}

/**
 * Says in the database that this master is alive, until the end that it returns. If the master was removed from its pool,
 * it waits before that until the master may come back; null if the service is to stop first. A database that does not
 * answer now says so later, if it is so.
 */
async function beat(
  pool: PostgresPool,
  id: string | null,
  { log, stop, onRemoved, beatMs = BEAT_EVERY_MS }: Beating & { readonly log: Log },
): Promise<(() => void) | null> {
  if (id === null) return () => {};
  const query: Parameters<typeof findRemoval>[0] = (sql, values) =>
    pool.query(sql, values, { timeoutMs: LOOK_MS });
  const removed = await findRemoval(query, id).catch((thrown: unknown) => {
    log(`whether this master is still in its pool is not known yet: ${messageOf(thrown)}`, "warn");
    return null;
  });
  if (removed !== null) {
    const { what, why = "", remedy = "" } = removedMaster(removed);
    log(`${what} ${why} Until it may come back, this service serves nothing. ${remedy}`, "error");
    if (!(await mayComeBack(() => findRemoval(query, id), { log, stop, everyMs: beatMs }))) {
      await pool.close();
      return null;
    }
    log("this master may come back to its pool: the service starts");
  }
  return keepBeating(pool, id, { log, onRemoved, everyMs: beatMs });
}

/** True once the master is not removed any more; false if the stop comes first. While that is not known, it stays out. */
async function mayComeBack(
  find: () => Promise<unknown>,
  { log, stop, everyMs }: { readonly log: Log; readonly stop: AbortSignal; readonly everyMs: number },
): Promise<boolean> {
  let works = true;
  while (!stop.aborted) {
    // The stop ends the wait.
    await wait(everyMs, undefined, { signal: stop }).catch(() => {});
    if (stop.aborted) break;
    try {
      if ((await find()) === null) return true;
      works = true;
    } catch (thrown) {
      if (works) log(`whether this master may come back is not known: ${messageOf(thrown)}`, "warn");
      works = false;
    }
  }
  return false;
}

const LOOK_MS = 5_000;

/** What a service does with the news that its master was removed. */
interface Beating extends Pick<ServeDeps, "stop" | "beatMs"> {
  readonly onRemoved: () => void;
}

/** Loads only the code of the service that runs. Null if it is to stop before it could begin. */
async function openService(
  name: ServiceName,
  environment: Environment,
  deps: ServeDeps & Beating,
  openLog: (level: LogLevel) => ServiceLog,
): Promise<{ readonly service: Service; readonly log: ServiceLog } | null> {
  const { http, version, stop } = deps;
  if (name === "ingest") {
    const settings = (await import("../settings/services.ts")).readIngestSettings(environment);
    const { kuboUrl, storageApiUrl, storageApiCa } = settings;
    const log = openLog(settings.logLevel);
    const options = { connections: settings.maxConcurrent, timeoutMs: INGEST_TIMEOUT_MS };
    const { openIngest } = await import("../ingest/ingest.ts");
    const service = openIngest(settings, {
      blake3: await deps.openBlake3(),
      kubo: await deps.openKubo(kuboUrl, options),
      storage:
        storageApiUrl === null
          ? null
          : await deps.openStorageApi(storageApiUrl, { ...options, ca: storageApiCa }),
      readSpace: async () => (await import("../cluster/kubo-space.ts")).readSpace(http, kuboUrl),
      http,
      log: log.line,
      version,
    });
    return { service, log };
  }
  const { readPinningApiSettings, readWebuiSettings } = await import("../settings/services.ts");
  const openPool = (settings: PoolSettings, log: Log): PostgresPool =>
    deps.openPool(settings, { applicationName: `fula-node ${name}`, log });
  if (name === "pinning-api") {
    const settings = readPinningApiSettings(environment);
    const { openPinningApi } = await import("./pinning-api.ts");
    const { openPinQueue } = await import("./pin-queue.ts");
    const { mayStoreMore } = await import("../pinning/pin-store.ts");
    const { findDistrusting } = await import("../federation/pool-trust.ts");
    const log = openLog(settings.logLevel);
    const pool = openPool(settings.postgres, log.line);
    const endBeating = await beat(pool, settings.masterId, { ...deps, log: log.line });
    if (endBeating === null) return null;
    const queue = openPinQueue(settings, {
      pool,
      http,
      log: log.line,
      stop,
      mayPin: (account) => mayStoreMore(pool, account, settings.limits.freeTierBytes),
      findDistrusting: async () =>
        settings.masterId === null ? null : await findDistrusting(pool, settings.masterId),
      openCluster: (connections, signal) =>
        deps.openCluster({ ...clusterTarget(settings.cluster, signal), connections }),
    });
    const { bridgeSubnets } = await import("../machine/system.ts");
    const api = openPinningApi(settings, { pool, http, log: log.line, version, bridgeSubnets, queue });
    const close = async (): Promise<void> => {
      endBeating();
      await queue.close();
      await api.close();
    };
    return { service: { ...api, close }, log };
  }
  const settings = readWebuiSettings(environment);
  const { openStorageService } = await import("./storage-api.ts");
  const log = openLog(settings.logLevel);
  const pool = openPool(settings.postgres, log.line);
  const endBeating = await beat(pool, settings.masterId, { ...deps, log: log.line });
  if (endBeating === null) return null;
  const service = openStorageService(settings, {
    pool,
    openCluster: (connections = 2) =>
      deps.openCluster({ ...clusterTarget(settings.cluster, stop), connections }),
    http,
    log: log.line,
    version,
  });
  const close = async (): Promise<void> => {
    endBeating();
    await service.close();
  };
  return { service: { ...service, close }, log };
}

function clusterTarget({ url, basicAuth }: ClusterSettings, signal: AbortSignal): ClusterTarget {
  return {
    endpoint: url,
    ...(basicAuth === null ? {} : { basicAuth }),
    connections: 2,
    requestTimeoutMs: CLUSTER_REQUEST_TIMEOUT_MS,
    listingTimeoutMs: LISTING_TIMEOUT_MS,
    signal,
  };
}
