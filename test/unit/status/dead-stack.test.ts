import { afterAll, beforeAll, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import type { Cluster } from "../../../src/cluster/client.ts";
import type { SnapshotStore } from "../../../src/pinset/snapshot/store.ts";
import { type Monotonic, monotonic, QUERY_MS, type TimedPart } from "../../../src/status/collect.ts";
import { reportStatus } from "../../../src/status/report-status.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import { join, LAYOUT } from "../../support/master-boxes.ts";
import type { OperationDeps } from "../../support/operation-deps.ts";
import { oneSnapshot } from "../../support/taken-snapshot.ts";
import { FakeStorage, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";

/** Time that passes only while nothing else happens: whenever the process is idle, it jumps to the next timer. */
class IdleClock implements Monotonic {
  readonly #timers = new Map<() => void, number>();
  #ms = 0;
  #isRunning = false;

  nowMs(): number {
    return this.#ms;
  }

  after(ms: number, act: () => void): () => void {
    this.#timers.set(act, this.#ms + ms);
    if (!this.#isRunning) this.#jumpWhenIdle();
    return () => void this.#timers.delete(act);
  }

  #jumpWhenIdle(): void {
    this.#isRunning = this.#timers.size > 0;
    if (!this.#isRunning) return;
    setTimeout(() => {
      const next = Math.min(...this.#timers.values());
      this.#ms = Math.max(this.#ms, Number.isFinite(next) ? next : 0);
      for (const [act, at] of this.#timers) {
        if (at > this.#ms) continue;
        this.#timers.delete(act);
        act();
      }
      this.#jumpWhenIdle();
    }, IDLE_MS);
  }
}

const IDLE_MS = 20;

const never = () => new Promise<never>(() => {});

async function joined(): Promise<FakeStorage> {
  const host = new FakeStorage();
  await join(host);
  host.revive();
  return host;
}

function hangDocker(host: FakeStorage): void {
  const { docker } = host;
  for (const name of ["version", "unreachable", "containers", "container", "image", "volume"] as const)
    docker[name] = never;
  docker.listVolumes = never;
  docker.listNetworks = never;
}

let snapshots: OperationDeps;
/** Without files: while these are read, the clock would jump. */
let store: SnapshotStore;
afterAll(() => snapshots.clear());

// What status loads by its first use is loaded before: loading takes real time, in which this clock would jump.
beforeAll(async () => {
  snapshots = await oneSnapshot(new FakeStorage().clock.now());
  const files = await snapshots.store.list();
  store = { ...snapshots.store, list: async () => files };
  expect((await statusOn(await joined(), undefined, monotonic)).exit).toBe("ok");
  expect((await statusOn(await storageBoxBefore(null), undefined, monotonic)).exit).toBe("ok");
});

async function statusOn(host: FakeStorage, cluster?: Partial<Cluster>, clock: Monotonic = new IdleClock()) {
  const results: Result[] = [];
  const world = {
    ...worldOf(host),
    openSnapshots: async () => store,
    readVerifyingKey: async () => snapshots.key,
  };
  const reporter = { ...world.reporter, result: (result: Result) => void results.push(result) };
  const given = cluster === undefined ? world : { ...world, openCluster: () => cluster as Cluster };
  const exit = await reportStatus({}, { ...given, reporter }, clock);
  const data = results[0]?.data ?? {};
  const states = (data["parts"] as TimedPart[]).map(({ name, state }) => [name, state]);
  const docker = (data["parts"] as TimedPart[]).find(({ name }) => name === "Docker");
  return {
    exit,
    tookMs: clock.nowMs(),
    dockerMs: docker?.durationMs,
    states: Object.fromEntries(states) as Record<string, string>,
  };
}

it("Docker, the database and the cluster hang: each is unknown, the rest is judged, in 1.5 times one question", async () => {
  const host = await joined();
  hangDocker(host);
  host.postgres.ask = never;
  host.postgres.query = never;
  host.postgres.whyNoWriter = never;
  host.migrations.status = never;
  const { exit, tookMs, dockerMs, states } = await statusOn(host, {
    identity: never,
    peers: never,
    metrics: never,
    close: () => undefined,
  });
  expect(states).toEqual({
    Docker: "unknown",
    writer: "unknown",
    database: "unknown",
    "pinning API": "ok",
    "storage API": "ok",
    snapshots: "ok",
    sweep: "ok",
    cron: "unknown",
    settings: "unknown",
  });
  expect(exit).toBe("unavailable");
  expect(dockerMs).toBe(QUERY_MS);
  expect(tookMs).toBeGreaterThanOrEqual(QUERY_MS);
  expect(tookMs).toBeLessThan(1.5 * QUERY_MS);
});

it("a storage node whose Docker and master hang: each is unknown, the rest is judged", async () => {
  const host = await storageBoxBefore(null);
  hangDocker(host);
  const json = host.http.json.bind(host.http);
  host.http.json = (url, options) =>
    url.startsWith("https://master.example") ? never() : json(url, options);
  const { exit, states, tookMs } = await statusOn(host);
  expect(tookMs).toBeLessThan(1.5 * QUERY_MS);
  expect(states).toEqual({
    Docker: "unknown",
    member: "ok",
    kubo: "ok",
    pins: "unknown",
    ingest: "ok",
    "quota gate": "attention",
    name: "unknown",
    storage: "ok",
    settings: "unknown",
  });
  expect(exit).toBe("pending");
});

it("only the database hangs: the steps that ask it are not checked, and the others are", async () => {
  const host = await joined();
  host.postgres.ask = never;
  host.postgres.query = never;
  host.postgres.whyNoWriter = never;
  host.migrations.status = never;
  const { tookMs, states } = await statusOn(host);
  expect(states).toMatchObject({ Docker: "ok", database: "unknown", cron: "ok", settings: "unknown" });
  expect(tookMs).toBeLessThan(1.5 * QUERY_MS);
});

it("a cluster that hangs is not asked for its long lists", async () => {
  const { tookMs, states } = await statusOn(await storageBoxBefore(null), {
    identity: never,
    peers: never,
    metrics: never,
    list: never,
    close: () => undefined,
  });
  expect(states).toMatchObject({ member: "unknown", pins: "unknown", kubo: "ok", name: "ok" });
  expect(tookMs).toBeLessThan(1.5 * QUERY_MS);
});

it("a name is not called another node's while this node's own id is not known", async () => {
  const host = await storageBoxBefore(null);
  hangDocker(host);
  const { states } = await statusOn(host);
  expect(states).toMatchObject({ Docker: "unknown", name: "unknown", "quota gate": "ok", pins: "ok" });
});

it("which node this is comes from its files while Docker is silent; if they do not say it, that is an error", async () => {
  const silent = await joined();
  silent.docker.containers = () =>
    Promise.reject(new OperatorError({ exit: "unavailable", what: "The Docker request failed." }));
  expect((await statusOn(silent)).states).toMatchObject({ writer: "ok", database: "ok" });

  const bare = new FakeStorage();
  hangDocker(bare);
  await expect(statusOn(bare)).rejects.toMatchObject({
    exit: "unavailable",
    what: "It is not known which node is installed on this machine.",
  });
});

it("a slow Docker is waited for when the files do not say which node this is", async () => {
  const host = await joined();
  host.files.drop(LAYOUT.baseDir);
  host.files.drop("/opt/fula-writer");
  const containers = host.docker.containers.bind(host.docker);
  const clock = new IdleClock();
  host.docker.containers = async () => {
    await new Promise<void>((done) => void clock.after(2_000, done));
    return await containers();
  };
  host.files.drop("/etc/cron.d");
  expect((await statusOn(host, undefined, clock)).states).toMatchObject({ Docker: "ok" });
});
