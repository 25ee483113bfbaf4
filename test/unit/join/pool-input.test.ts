import { once } from "node:events";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { resolveStorageNode } from "../../../src/join/resolve-storage.ts";
import { http } from "../../../src/machine/http.ts";
import { FakeStorage, LAYOUT, MASTER_ID, worldOf } from "../../support/storage-fake.ts";

const MIB = 1024 ** 2;
const BOOTSTRAP = `/ip4/198.51.100.7/tcp/9096/p2p/${MASTER_ID}`;
const GOOD = { "ipfs-cluster-trustedpeers": [MASTER_ID], ipfs_cluster: { addresses: [BOOTSTRAP] } };

/** A server that listens for the length of a test, and how many bytes it got rid of. */
async function serve(listener: RequestListener): Promise<{ readonly url: string; sentBytes: () => number }> {
  const sockets = new Set<IncomingMessage["socket"]>();
  const server = createServer((request, response) => {
    sockets.add(request.socket);
    listener(request, response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/pools/pool`,
    sentBytes: () => [...sockets].reduce((sum, socket) => sum + socket.bytesWritten, 0),
  };
}

/**
 * Runs a join against a pool API with the real client, which gets as much time as it asks for, or less. Returns the error,
 * and how long it would wait.
 */
async function askPool(
  url: string,
  mostMs = Number.POSITIVE_INFINITY,
): Promise<{ readonly error: OperatorError; readonly waitedMs: number }> {
  const host = new FakeStorage();
  const asked: number[] = [];
  host.http.json = (address, options = {}) => {
    const timeoutMs = options.timeoutMs ?? Number.POSITIVE_INFINITY;
    asked.push(timeoutMs);
    return http.json(address, { ...options, timeoutMs: Math.min(timeoutMs, mostMs) });
  };
  const set = ["CLUSTERNAME=pool", "STORAGE_API_URL=https://master.example", `POOL_API=${url}`];
  const flags = { dryRun: false, yes: true, set, adopt: [], ignore: ["clock"] };
  const wish = { ...flags, acceptPoolChange: false, allowHttp: false, register: true };
  const thrown: unknown = await resolveStorageNode(wish, LAYOUT, worldOf(host)).then(
    () => expect.fail("nothing was refused"),
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(OperatorError);
  expect(host.writes).toEqual([]);
  return { error: thrown as OperatorError, waitedMs: Math.max(...asked) };
}

const json = (body: unknown) => (_request: IncomingMessage, response: ServerResponse) =>
  void response.setHeader("content-type", "application/json").end(JSON.stringify(body));

/** Sends as long as the other side accepts data. */
const endless = (chunk: string) => (_request: IncomingMessage, response: ServerResponse) => {
  const send = (): void => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on("drain", send);
  send();
};

async function expectRefused(listener: RequestListener, says: RegExp, mostMs?: number): Promise<void> {
  const { url, sentBytes } = await serve(listener);
  const { error, waitedMs } = await askPool(url, mostMs);
  expect(error.exit).toBe("unavailable");
  expect(error.what).toMatch(says);
  expect(error.what.length).toBeLessThan(400);
  expect(error.remedy).toContain("MASTER_CLUSTER_PEERIDS");
  expect(waitedMs).toBe(15_000);
  // Data in the buffers of two sockets was sent, but not read.
  expect(sentBytes()).toBeLessThan(16 * MIB);
}

it.each<[string, RequestListener, RegExp]>([
  ["never answers", () => {}, /no complete answer within 15 s/],
  [
    "sends a head and then nothing",
    (_request, response) => response.writeHead(200).flushHeaders(),
    /no complete answer/,
  ],
  [
    "sends a byte now and then",
    (_request, response) => {
      const timer = setInterval(() => response.write(" "), 20);
      response.once("close", () => clearInterval(timer));
    },
    /no complete answer/,
  ],
])("a pool API that %s is given up after a time, and nothing is written", (_name, listener, says) =>
  expectRefused(listener, says, 300),
);

it.each<[string, RequestListener, RegExp]>([
  ["hangs up", (request) => void request.socket.destroy(), /no complete answer/],
  [
    "hangs up in the middle",
    (request, response) => {
      response.writeHead(200, { "content-length": 1000 });
      response.write("{", () => request.socket.destroy());
    },
    /no complete answer/,
  ],
  ["sends 10 MB of JSON", json({ ...GOOD, padding: "x".repeat(10e6) }), /longer than 1 MiB/],
  [
    "sends a list of 10 MB",
    json({ ...GOOD, cluster_peers: Array.from({ length: 2e5 }, () => MASTER_ID) }),
    /longer than 1 MiB/,
  ],
  ["sends HTML without an end", endless(`<p>${"x".repeat(60_000)}</p>`), /longer than 1 MiB/],
  ["sends HTML", (_request, response) => void response.end("<html>"), /not a JSON object/],
  ["sends null", json(null), /not a JSON object/],
  ["sends a list", json([GOOD]), /not a JSON object/],
  ["sends a text", json("pool"), /not a JSON object/],
  [
    "sends nulls in it",
    json({ "ipfs-cluster-trustedpeers": [null, ""], "ipfs-cluster-peerid": null }),
    /contains no master/,
  ],
  [
    "sends wrong types in it",
    json({ "ipfs-cluster-trustedpeers": { a: 1 }, "ipfs-cluster-peerid": 7 }),
    /contains no master/,
  ],
  ["names everybody", json({ ...GOOD, "ipfs-cluster-trustedpeers": ["*"] }), /"\*" is not a peer id/],
  ["names no address", json({ ...GOOD, ipfs_cluster: null }), /no TCP address/],
  [
    "names addresses that are none",
    json({ ...GOOD, ipfs_cluster: { addresses: [null, 7, {}] } }),
    /no TCP address/,
  ],
  [
    "names an address without its peer",
    json({ ...GOOD, ipfs_cluster: { addresses: ["/ip4/198.51.100.7/tcp/9096"] } }),
    /not a TCP multiaddr with a peer id/,
  ],
  [
    "sends one elsewhere",
    (_request, response) => void response.writeHead(302, { location: "https://evil.example" }).end(),
    /status 302/,
  ],
  ["is broken", (_request, response) => void response.writeHead(500).end("x".repeat(5e6)), /status 500/],
])("a pool API that %s is refused, and nothing is written", (_name, listener, says) =>
  expectRefused(listener, says),
);
