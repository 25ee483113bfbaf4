import { describe, expect, onTestFinished, test } from "vitest";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { openPinningApi } from "../../src/services/pinning-api.ts";
import { queueGauges } from "../../src/services/pin-queue.ts";
import { openStorageService } from "../../src/services/storage-api.ts";
import type { Service } from "../../src/services/server.ts";
import { sendBlock, startIngest } from "../support/kubo-ingest.ts";
import { answering, startStandIn } from "../support/kubo-stand-in.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession } from "../support/postgres-server.ts";
import { pinningSettings, STILL_QUEUE } from "./pins-api.ts";
import { type ServiceDeps, startService } from "./serving.ts";
import { webuiSettings } from "./web-api.ts";

const ROWS = 1_000_000;

describeOnPostgres(
  "H24: the metrics of a service",
  (postgres) => {
    test("cost the database nothing, and are as many with 1,000,000 pins as with none", async () => {
      const target = await postgres.createDatabase();
      const limits = { maxConnections: 2, idleTimeoutMs: 30_000, connectTimeoutMs: 2_000 };
      const pinning = pinningSettings({ ...target, ...limits });
      const services = [
        await startCounted(
          (own) => openPinningApi(pinning, { ...own, bridgeSubnets: async () => [], queue: STILL_QUEUE }),
          openPool(target, 2),
        ),
        await startCounted(
          (own) => openStorageService(webuiSettings(target), { ...own, openCluster: noCluster }),
          openPool(target, 2),
        ),
      ];
      const before = [];
      for (const service of services) before.push(seriesIn(await service.scrape()));
      await inSession(target, async (client) => {
        // Without triggers and indexes, which would take a minute: a scrape needs none of what they keep.
        await client.query("SET session_replication_role = replica");
        await client.query(DROP_INDEXES);
        await client.query(
          `INSERT INTO pins (requestid, user_id, cid, status, size)
           SELECT gen_random_uuid(), 'u' || n % 1000, 'c' || n, (ARRAY['queued', 'pinned', 'failed'])[n % 3 + 1], n
           FROM generate_series(1, ${ROWS}) AS n`,
        );
        const { rows } = await client.query<{ n: number }>("SELECT count(*)::integer AS n FROM pins");
        expect(rows).toEqual([{ n: ROWS }]);
      });
      for (const [at, service] of services.entries()) {
        const asked = service.asked();
        for (let scrape = 0; scrape < 20; scrape += 1)
          expect(seriesIn(await service.scrape())).toEqual(before[at]);
        expect(service.asked()).toBe(asked);
        expect(before[at]?.length).toBeGreaterThan(30);
      }
    }, 300_000);
  },
  { template: migrate },
);

describe("the metrics of the ingest", () => {
  test("count its own methods by their names, and every other one as other", async () => {
    const kubo = await startStandIn(answering(500, {}));
    onTestFinished(() => kubo.close());
    const ingest = await startIngest({ kuboUrl: kubo.url });
    onTestFinished(() => ingest.stop());
    for (const method of ["PUT", "POST", "DELETE", "PATCH"])
      await sendBlock(ingest.url, null, Buffer.from("x"), { method });
    await fetch(`${ingest.url}/health`);
    await fetch(`${ingest.url}/health`, { method: "POST" });
    const scraped = await (await fetch(metricsAt(ingest.lines))).text();
    const counted = [...scraped.matchAll(/^fula_http_requests_total\{method="(\w+)",route="([^"]+)"/gm)].map(
      ([, method, route]) => `${method} ${route}`,
    );
    expect(new Set(counted)).toEqual(
      new Set(["PUT /v0/block", "POST /v0/block", "other /v0/block", "GET /health", "other /health"]),
    );
  });
});

const DROP_INDEXES = `
  DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'pins'::regclass
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid) LOOP
      EXECUTE 'DROP INDEX ' || name;
    END LOOP;
  END $$`;

test("the queue says of which moment its numbers are", () => {
  const read = (countedAt: Date | null) =>
    queueGauges({ state: () => ({ ...STILL_QUEUE.state(), countedAt }) })
      .find(({ name }) => name === "fula_pin_queue_counted_timestamp_seconds")
      ?.read();
  expect([read(new Date(5_000)), read(null)]).toEqual([5, 0]);
});

test("the queue has no number of requests before the first count: a zero would look like a jump later", () => {
  const read = (countedAt: Date | null) =>
    queueGauges({ state: () => ({ ...STILL_QUEUE.state(), countedAt }) })
      .find(({ name }) => name === "fula_pin_queue_requests")
      ?.read();
  expect(read(null)).toEqual({ sending: 0 });
  expect(read(new Date(5_000))).toEqual({ waiting: 3, sending: 0, failed: 2 });
});

function noCluster(): never {
  throw new Error("nobody asks the cluster here");
}

/** A service, and how many statements it sent. */
async function startCounted(open: (own: ServiceDeps) => Service, pool: PostgresPool) {
  let asked = 0;
  const counting: PostgresPool = {
    ...pool,
    query: (...given) => {
      asked += 1;
      return pool.query(...given);
    },
    transaction: (work) => {
      asked += 1;
      return pool.transaction(work);
    },
  };
  const service = await startService(open, counting);
  onTestFinished(() => service.stop());
  // The first look of the health, which is shared with the one at the start.
  await (await fetch(`${service.url}/health`)).text();
  return {
    asked: () => asked,
    scrape: async () => (await fetch(metricsAt(service.lines))).text(),
  };
}

function metricsAt(lines: readonly string[]): string {
  const at = lines.map((line) => / listens on (\S+) for Prometheus$/.exec(line)?.[1]).find(Boolean);
  return `http://${at ?? ""}/metrics`;
}

/** The series without their values. Those of requests appear with the first request of their kind. */
function seriesIn(text: string): readonly string[] {
  // Those of the process itself depend on what Node.js has done so far.
  const series = text.split("\n").filter((line) => line.startsWith("fula_"));
  return series.map((line) => line.slice(0, line.lastIndexOf(" "))).toSorted();
}
