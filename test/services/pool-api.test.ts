import { describe, expect, onTestFinished, test } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import { OperatorError } from "../../src/errors.ts";
import { createPinCount, poolApi } from "../../src/services/pool-api.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { startApp } from "./serving.ts";
import { ask, startWebui } from "./web-api.ts";

const pinsOf = (count: number) => Array.from({ length: count }, (_, index) => ({ cid: `cid-${index}` }));

async function startDouble(pins: number): Promise<ClusterDouble> {
  const double = await startClusterDouble({ pins: pinsOf(pins) });
  onTestFinished(() => double.stop());
  return double;
}

/** The route alone, over a cluster, on a clock of its own. */
async function startPool(double: ClusterDouble, pool: string | null = "pool-a") {
  const cluster = openCluster({ endpoint: double.url });
  const clock = { nowMs: 0 };
  const lines: string[] = [];
  const count = createPinCount({ openCluster: () => cluster, nowMs: () => clock.nowMs });
  const serving = await startApp(poolApi(pool, { count, log: (line) => void lines.push(line) }), lines);
  onTestFinished(async () => {
    cluster.close();
    await serving.stop();
  });
  return { clock, lines, get: () => ask(serving, "/api/v1/pool") };
}

const listings = ({ requests }: ClusterDouble) =>
  requests.filter((request) => request === "GET /allocations").length;

describe("GET /api/v1/pool", () => {
  test.each([0, 1, 5, 5_000])("returns the number of pins of the master: %i", async (pins) => {
    const double = await startDouble(pins);
    const { status, body } = await (await startPool(double)).get();
    expect({ status, body }).toEqual({
      status: 200,
      body: {
        pool: "pool-a",
        peerId: double.peers[0]?.id,
        pins,
        countedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) as string,
      },
    });
  });

  test("a list that is cut off, or that ends in an error, gives no count", async () => {
    const double = await startDouble(5);
    const pool = await startPool(double);
    for (const fault of [
      { kind: "cut", afterLines: 3, how: "fin" },
      { kind: "late-error", message: "some peer said no" },
      { kind: "no-trailer" },
      { kind: "first-error", message: "not yet" },
    ] as const) {
      double.faults.allocations = fault;
      expect(await pool.get(), fault.kind).toMatchObject({ status: 503, body: { code: "not-counted" } });
      pool.clock.nowMs += 5_001;
    }
    expect(pool.lines).toHaveLength(4);
    delete double.faults.allocations;
    expect(await pool.get()).toMatchObject({ status: 200, body: { pins: 5 } });
  });

  test("a cluster that is away is 503, and the client learns no address of it", async () => {
    const double = await startDouble(1);
    const pool = await startPool(double);
    await double.stop();
    const { status, body, headers } = await pool.get();
    expect(status).toBe(503);
    expect(headers.get("retry-after")).toBe("5");
    expect(JSON.stringify(body)).not.toContain("127.0.0.1");
    expect(pool.lines.join("\n")).toContain("127.0.0.1");
  });

  test("however many ask, the cluster is asked once for all of them, and not again for a while", async () => {
    const double = await startDouble(300);
    const pool = await startPool(double);
    const answers = await Promise.all(Array.from({ length: 40 }, () => pool.get()));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    await pool.get();
    expect(listings(double)).toBe(1);
    double.pins.delete("cid-0");
    pool.clock.nowMs += 4_999;
    expect(await pool.get()).toMatchObject({ body: { pins: 300 } });
    pool.clock.nowMs += 1;
    expect(await pool.get()).toMatchObject({ body: { pins: 299 } });
    expect(listings(double)).toBe(2);
  });

  test("a failure is cached for a while, too", async () => {
    const double = await startDouble(3);
    const pool = await startPool(double);
    double.faults.allocations = { kind: "no-trailer" };
    await Promise.all(Array.from({ length: 10 }, () => pool.get()));
    expect(listings(double)).toBe(1);
  });

  test("a failure that took long is cached no longer than a short one", async () => {
    const clock = { nowMs: 0 };
    let asked = 0;
    const count = createPinCount({
      openCluster: () => ({
        identity: () => Promise.resolve({ id: "peer" } as never),
        list: () => {
          asked += 1;
          clock.nowMs += 60_000;
          return Promise.reject(new OperatorError({ exit: "unavailable", what: "Silence." }));
        },
      }),
      nowMs: () => clock.nowMs,
    });
    await expect(count()).rejects.toThrow("Silence.");
    clock.nowMs += 4_999;
    await expect(count()).rejects.toThrow("Silence.");
    expect(asked).toBe(1);
    clock.nowMs += 1;
    await expect(count()).rejects.toThrow("Silence.");
    expect(asked).toBe(2);
  });

  test("a pinset that takes long to count is counted the more rarely", async () => {
    const double = await startDouble(3);
    const clock = { nowMs: 0 };
    const count = createPinCount({
      openCluster: () => ({
        identity: () => Promise.resolve({ id: "peer" } as never),
        list: async (_name, takeLines) => {
          clock.nowMs += 30_000;
          await takeLines(Buffer.from("{}\n{}"));
          double.requests.push("GET /allocations");
          return { noContent: false, bytes: 5 };
        },
      }),
      nowMs: () => clock.nowMs,
    });
    expect(await count()).toMatchObject({ pins: 2 });
    clock.nowMs += 299_999;
    await count();
    expect(listings(double)).toBe(1);
    clock.nowMs += 1;
    await count();
    expect(listings(double)).toBe(2);
  });

  test("a master without a pool name says so, and counts nothing", async () => {
    const double = await startDouble(3);
    expect(await (await startPool(double, null)).get()).toMatchObject({
      status: 503,
      body: { code: "no-pool" },
    });
    expect(double.requests).toEqual([]);
  });
});

describeOnPostgres(
  "GET /api/v1/pool of the webui",
  (postgres) => {
    test("needs no credentials", async () => {
      const double = await startDouble(7);
      const cluster = { url: double.url, basicAuth: null };
      const webui = await startWebui(await postgres.createDatabase(), { cluster });
      expect(await ask(webui, "/api/v1/pool")).toMatchObject({
        status: 200,
        body: { pool: "pool-a", pins: 7 },
      });
    });
  },
  { template: migrate },
);
