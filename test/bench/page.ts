import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCluster } from "../../src/cluster/client.ts";
import { http } from "../../src/machine/http.ts";
import { runService } from "../../src/services/run-service.ts";
import { openStorageService } from "../../src/services/storage-api.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { nodeId, writeRecords } from "../support/page-records.ts";
import { findPostgresPrograms } from "../support/postgres-programs.ts";
import { sql, startPostgres } from "../support/postgres-server.ts";
import { STATUS_PAGE, webuiSettings } from "../services/web-api.ts";
import { BILLING } from "../support/billing.ts";
import type { Bench } from "./report.ts";

const PINS = 1_000_000;
const NODES = 100;
const ROUNDS = 30;
/** What the slowest answer takes, when one question is made slow: as long as a peer that hangs. */
const SLOW_MS = 300;

/** The status page with and without a large pool, and beside the slowest question behind it. */
export const benches: readonly Bench[] = [
  {
    name: "page",
    run: async () => {
      const programs = await findPostgresPrograms();
      if (typeof programs === "string") throw new Error(programs);
      const postgres = await startPostgres(programs, { template: migrate });
      try {
        const empty = await startPage(await postgres.createDatabase(), { pins: 0, nodes: 0 });
        const full = await startPage(await postgres.createDatabase(), { pins: PINS, nodes: NODES });
        try {
          const times = { empty: [] as number[], full: [] as number[] };
          await full.load();
          await empty.load();
          let bytes = 0;
          for (let round = 0; round < ROUNDS; round += 1) {
            times.empty.push((await empty.load()).ms);
            const loaded = await full.load();
            times.full.push(loaded.ms);
            bytes = loaded.bytes;
          }
          const slow = { page: [] as number[], question: [] as number[] };
          full.slowDown(SLOW_MS);
          for (let round = 0; round < 10; round += 1) {
            slow.question.push(await full.askSlowest());
            slow.page.push((await full.load()).ms);
          }
          return [
            {
              name: `more ms with ${PINS} pins`,
              what: `the page with ${PINS} pins and ${NODES} nodes, less that of an empty pool`,
              against: null,
              unit: "ms",
              target: { of: "ours", bound: "at most", value: 300 },
              ours: times.full.map((ms, index) => ms - (times.empty[index] ?? 0)),
              anchor: [],
            },
            {
              name: "size of the page",
              what: `the page with ${PINS} pins and ${NODES} nodes`,
              against: null,
              unit: "bytes",
              target: { of: "ours", bound: "at most", value: 200_000 },
              ours: [bytes],
              anchor: [],
            },
            {
              name: "page, one slow question",
              what: `the page while the list of peers takes ${SLOW_MS} ms`,
              against: "that question alone",
              unit: "ms",
              target: { of: "ratio", bound: "at most", value: 1.5 },
              ours: slow.page,
              anchor: slow.question,
            },
          ];
        } finally {
          await Promise.all([empty.stop(), full.stop()]);
        }
      } finally {
        await postgres.stop();
      }
    },
  },
];

interface Page {
  load(): Promise<{ readonly ms: number; readonly bytes: number }>;
  slowDown(ms: number): void;
  askSlowest(): Promise<number>;
  stop(): Promise<void>;
}

async function startPage(
  target: PostgresTarget,
  { pins, nodes }: { readonly pins: number; readonly nodes: number },
): Promise<Page> {
  if (pins > 0) await addPins(target, pins, nodes);
  const directory = await mkdtemp(join(tmpdir(), "fula-page-"));
  if (nodes > 0) await writeRecords(directory, { nodes, pins });
  const peer = await startPeer(nodes);
  const settings = webuiSettings(target, {
    billing: BILLING,
    cluster: { url: peer.url, basicAuth: null },
    statusPage: { ...STATUS_PAGE, recordsDir: directory, kuboUrl: peer.url, pinningUrl: peer.url },
  });
  const stop = new AbortController();
  let listening = (_url: string): void => {};
  const address = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const log = (line: string): void => {
    const found = / listens on (\S+)$/.exec(line)?.[1];
    if (found !== undefined) listening(`http://${found}`);
  };
  const service = openStorageService(settings, {
    pool: openPool(target, 25),
    http,
    openCluster: (connections = 2) => openCluster({ endpoint: peer.url, connections, signal: stop.signal }),
    log,
    version: "1.2.3",
  });
  const ended = runService(service, { stop: stop.signal, log, version: "1.2.3" });
  const url = await address;
  const signedIn = await fetch(url, {
    method: "POST",
    redirect: "manual",
    headers: { origin: url },
    body: new URLSearchParams({ key: STATUS_PAGE.systemKey }),
  });
  const cookie = (signedIn.headers.get("set-cookie") ?? "").split(";", 1)[0] ?? "";
  return {
    async load() {
      const from = performance.now();
      const response = await fetch(url, { headers: { cookie } });
      const text = await response.text();
      const ms = performance.now() - from;
      if (!text.includes("Parts")) throw new Error(`${response.status}: ${text.slice(0, 500)}`);
      if (nodes > 0 && !text.includes(`${nodes} nodes of the pool`)) throw new Error("the nodes are missing");
      return { ms, bytes: Buffer.byteLength(text) };
    },
    slowDown: peer.slowDown,
    async askSlowest() {
      const from = performance.now();
      await (await fetch(`${peer.url}/peers`)).text();
      return performance.now() - from;
    },
    async stop() {
      stop.abort();
      await ended;
      await peer.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A cluster peer, and kubo, with this many members. */
async function startPeer(nodes: number) {
  let delayMs = 0;
  const peers = Array.from({ length: Math.max(1, nodes) }, (_, index) => ({
    id: nodeId(index),
    peername: `node-${index}`,
    addresses: [],
    cluster_peers: [],
    version: "1.1.6",
    rpc_protocol_version: "/ipfscluster/1.0/rpc",
    error: "",
    ipfs: { id: `kubo-${index}`, addresses: [], error: "" },
  }));
  const metrics = JSON.stringify(
    peers.map(({ id: peer }) => ({ peer, value: "1900000000000", valid: true })),
  );
  const list = peers.map((peer) => `${JSON.stringify(peer)}\n`).join("");
  const server = createServer((asked, answer) => {
    const [path = ""] = (asked.url ?? "").split("?", 1);
    answer.setHeader("content-type", "application/json");
    if (path === "/peers") {
      answer.setHeader("trailer", "X-Stream-Error");
      setTimeout(() => {
        answer.write(list);
        answer.addTrailers({ "X-Stream-Error": "" });
        answer.end();
      }, delayMs);
    } else if (path.startsWith("/monitor/")) answer.end(metrics);
    else if (path === "/id") answer.end(JSON.stringify(peers[0]));
    else answer.end("null");
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    slowDown: (ms: number) => void (delayMs = ms),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Pins of 10,000 accounts, and nodes with registered names. */
async function addPins(target: PostgresTarget, pins: number, nodes: number): Promise<void> {
  await sql(
    target,
    `INSERT INTO pins (requestid, user_id, cid, status, size)
     SELECT gen_random_uuid(), 'u' || n % 10000, 'c' || n, (ARRAY['queued', 'pinned', 'failed'])[n % 3 + 1], n
     FROM generate_series(1, ${pins}) AS n`,
  );
  await sql(
    target,
    `INSERT INTO node_names (pool, name, owner, reservation, reserved_at)
     SELECT 'pool-a', 'node-' || n, id, gen_random_uuid(), now() FROM unnest($1::text[]) WITH ORDINALITY AS t (id, n)`,
    [Array.from({ length: nodes }, (_, index) => nodeId(index))],
  );
}
