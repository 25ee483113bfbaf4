import { expect, test } from "vitest";
import { keepBeating } from "../../src/database/masters.ts";
import { openCluster } from "../../src/cluster/client.ts";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { removeMaster, takeBack } from "../../src/federation/pool-trust.ts";
import { refuseRemoved, withMasterDatabase } from "../../src/join/master-database.ts";
import { createPostgres } from "../../src/database/postgres.ts";
import { http } from "../../src/machine/http.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { serve, type ServeDeps, type ServiceName } from "../../src/services/serve.ts";
import type { InstalledMaster } from "../../src/join/installed-node.ts";
import { idOf, masterOf } from "../support/masters.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { openPool, poolOf } from "../support/names-database.ts";
import { freePort } from "../support/free-port.ts";
import { describeOnPostgres } from "../support/postgres.ts";

/** Two masters, of which `b` was removed. */
async function removedOn(target: PostgresTarget): Promise<void> {
  await migratorOf().up(target, listen());
  for (const key of ["a", "b"]) await migratorOf().recordMaster(target, masterOf(key));
  await removeMaster(poolOf(target), { id: idOf("b"), by: "a" });
}

/** Free ports for the listeners of a service, by their settings. */
async function freePorts(): Promise<Readonly<Record<string, string>>> {
  const keys = ["PORT", "PINNING_EDGE_PORT", "PINNING_METRICS_PORT", "WEBUI_PORT", "WEBUI_METRICS_PORT"];
  return Object.fromEntries(await Promise.all(keys.map(async (key) => [key, String(await freePort())])));
}

function environmentOf(
  { host, port, database, user, password }: PostgresTarget,
  id: string,
  ports: Readonly<Record<string, string>> = {},
) {
  return {
    ...ports,
    POSTGRES_HOST: host,
    POSTGRES_PORT: String(port),
    POSTGRES_DB: database,
    POSTGRES_USER: user,
    POSTGRES_PASSWORD: password,
    SYSTEM_KEY: "system-key-for-tests",
    PINNING_SYSTEM_KEY: "system-key-for-tests",
    JWT_SECRET: "jwt-secret-of-the-test",
    IPFS_CLUSTER_API_ADDR: "/ip4/127.0.0.1/tcp/9",
    IPFS_API_ADDR: "/ip4/127.0.0.1/tcp/9",
    CLUSTERNAME: "pool-a",
    MASTER_ID: id,
  };
}

function depsOf(stop: AbortSignal): { readonly deps: ServeDeps; readonly output: () => string } {
  let output = "";
  const not = (): never => {
    throw new Error("a master's service does not need it");
  };
  const deps: ServeDeps = {
    http,
    openPool: openPostgresPool,
    openCluster,
    openBlake3: not,
    openKubo: not,
    openStorageApi: not,
    write: (lines) => void (output += lines),
    version: "1.2.3",
    stop,
  };
  return { deps, output: () => output };
}

const REMOVED_B = {
  pool: "pool-a",
  id: idOf("b"),
  name: "b",
  peerId: null,
  removedAt: "",
  removedBy: "a",
};

const REFUSED = {
  exit: "foreign",
  what: expect.stringContaining("The master b was removed from its pool by a,"),
};

describeOnPostgres("a master that was removed", (postgres) => {
  test.each<ServiceName>(["pinning-api", "webui"])(
    "%s serves nothing, says why once, and starts when it may come back; it waits again when it is removed again",
    async (name) => {
      const target = await postgres.createDatabase();
      await removedOn(target);
      const end = new AbortController();
      const { deps, output } = depsOf(end.signal);
      const own = environmentOf(target, idOf("b"), await freePorts());
      let ended = false;
      const waiting = serve(name, own, { ...deps, beatMs: 20 }).finally(() => {
        ended = true;
      });
      const why = /"level":"error"[^\n]*The master b was removed from its pool by a,/g;
      const times = (text: RegExp) => (output().match(text) ?? []).length;
      await expect.poll(() => times(why), { timeout: 15_000 }).toBe(1);
      const pool = openPool(target, 1);
      const looks = async () =>
        Number(
          (
            await pool.query<{ n: string }>(
              "SELECT sum(idx_scan + seq_scan)::text AS n FROM pg_stat_all_tables WHERE relname = 'removed_masters'",
            )
          )[0]?.n,
        );
      const before = await looks();
      await expect.poll(looks, { timeout: 15_000 }).toBeGreaterThan(before);
      expect([times(why), times(/listens on/g), ended]).toEqual([1, 0, false]);

      await takeBack(pool, REMOVED_B);
      await migratorOf().recordMaster(target, masterOf("b"));
      await expect.poll(output, { timeout: 15_000 }).toContain(`${name} 1.2.3 listens on`);
      expect(output()).toContain("may come back to its pool: the service starts");

      await removeMaster(pool, { id: idOf("b"), by: "a" });
      await expect.poll(() => times(why), { timeout: 15_000 }).toBe(2);
      expect(output()).toContain(`${name} has stopped`);
      const port = (own as Readonly<Record<string, string>>)[name === "webui" ? "WEBUI_PORT" : "PORT"];
      await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow();
      end.abort();
      await waiting;
      await pool.close();
    },
    60_000,
  );

  test.each<ServiceName>(["pinning-api", "webui"])(
    "does not keep %s of another master from starting",
    async (name) => {
      const target = await postgres.createDatabase();
      await removedOn(target);
      const ports = await freePorts();
      const stop = new AbortController();
      const other = depsOf(stop.signal);
      const running = serve(name, environmentOf(target, idOf("a"), ports), other.deps);
      await expect.poll(other.output, { timeout: 15_000 }).toContain(`${name} 1.2.3 listens on`);
      stop.abort();
      await running;
    },
    60_000,
  );

  test("leaves the queue to the others while one that came before does not trust its cluster", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    const record = (key: string, trusts: readonly string[]) =>
      migratorOf().recordMaster(
        target,
        masterOf(key, { peer: { peerId: `peer-${key}`, addresses: [], trusts } }),
      );
    await record("a", ["peer-a"]);
    await record("b", ["peer-a", "peer-b"]);
    const stop = new AbortController();
    const { deps, output } = depsOf(stop.signal);
    const running = serve("pinning-api", environmentOf(target, idOf("b"), await freePorts()), deps);
    await expect
      .poll(output, { timeout: 15_000 })
      .toContain(
        "trust: the master a does not trust this one yet, so requests are left to it; run there: fula-node trust add b",
      );
    await record("a", ["peer-a", "peer-b"]);
    await expect.poll(output, { timeout: 15_000 }).toContain("the other masters trust this one");
    stop.abort();
    await running;
  }, 60_000);

  test("ends a service that runs, at its next heartbeat", async () => {
    const target = await postgres.createDatabase();
    await removedOn(target);
    const { report: log } = listen();
    const seen: string[] = [];
    const ends = ["a", "b"].map((key) =>
      keepBeating(poolOf(target), idOf(key), {
        log,
        everyMs: 20,
        onRemoved: ({ name }) => void seen.push(name),
      }),
    );
    await expect.poll(() => seen, { timeout: 10_000 }).toContain("b");
    for (const end of ends) end();
    expect(seen).not.toContain("a");
  });

  test("refuses the verbs that use its database, and snapshots and sweeps, until it may come back", async () => {
    const target = await postgres.createDatabase();
    await removedOn(target);
    const values = (key: string) => environmentOf(target, idOf("b"))[key as "MASTER_ID"];
    const master = { values, layout: {} } as InstalledMaster;
    const host = { postgres: createPostgres() };
    const verb = () => withMasterDatabase({ openPool: openPostgresPool }, master, "user", async () => "done");
    await expect(refuseRemoved(host, master)).rejects.toMatchObject(REFUSED);
    await expect(verb()).rejects.toMatchObject(REFUSED);

    const pool = openPool(target, 1);
    await takeBack(pool, REMOVED_B);
    await pool.close();
    await refuseRemoved(host, master);
    expect(await verb()).toBe("done");
  });

  test("goes on with its snapshots where the database does not answer", async () => {
    const values = (key: string) =>
      ({ MASTER_ID: idOf("b"), POSTGRES_PASSWORD: "p", POSTGRES_PORT: "9" })[key as "MASTER_ID"];
    await refuseRemoved({ postgres: createPostgres() }, { values, layout: {} } as InstalledMaster);
  });
});
