import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cluster, openCluster } from "../../src/cluster/client.ts";
import { OperatorError } from "../../src/errors.ts";
import { cidOf } from "../support/cids.ts";
import { apiPin, type ClusterDouble, type ListFault, startClusterDouble } from "../support/cluster-double.ts";
import { findPrograms, startRealCluster } from "../support/cluster-real.ts";
import { type Answer, answering, hangingUp, startStandIn } from "../support/kubo-stand-in.ts";

const PINS = Array.from({ length: 50 }, (_, index) => ({ cid: cidOf(`fault ${index}`) }));

describe("a list that is not complete", () => {
  let double: ClusterDouble;
  let cluster: Cluster;
  beforeEach(async () => {
    double = await startClusterDouble({ pins: PINS });
    cluster = openCluster({ endpoint: double.url, listingTimeoutMs: 300 });
  });
  afterEach(async () => {
    cluster.close();
    await double.stop();
  });

  const faults: readonly { readonly fault: ListFault; readonly message: RegExp }[] = [
    { fault: { kind: "cut", afterLines: 20, how: "fin" }, message: /cut off after \d+ bytes/ },
    { fault: { kind: "cut", afterLines: 20, how: "reset" }, message: /cut off/ },
    { fault: { kind: "cut", afterLines: 50, how: "fin" }, message: /cut off after \d+ bytes/ },
    { fault: { kind: "late-error", message: "datastore closed" }, message: /datastore closed/ },
    { fault: { kind: "no-trailer" }, message: /X-Stream-Error/ },
    { fault: { kind: "first-error", message: "boom" }, message: /answered 500.*boom/ },
    { fault: { kind: "stall", afterLines: 20 }, message: /cut off/ },
    { fault: { kind: "stops-listening" }, message: /stopped answering/ },
    { fault: { kind: "answers-500-afterwards" }, message: /stopped answering/ },
  ];
  test.each(faults)("is refused: $fault", async ({ fault, message }) => {
    double.faults.allocations = fault;
    const thrown = await cluster
      .list("allocations", () => undefined)
      .then(
        () => expect.unreachable(),
        (error: unknown) => error,
      );
    expect(thrown).toBeInstanceOf(OperatorError);
    expect((thrown as OperatorError).exit).toBe("unavailable");
    expect((thrown as OperatorError).what).toMatch(message);
  });

  test("is accepted when the fault is gone", async () => {
    await cluster.list("allocations", () => undefined);
  });
});

test("a list whose line has no end is refused, and not kept in memory", async () => {
  let sentBytes = 0;
  const endless = await startStandIn((_request, response) => {
    const part = Buffer.alloc(1_048_576, "x");
    const write = (): void => {
      if (response.destroyed || sentBytes >= 1e9) return;
      sentBytes += part.length;
      response.write(part, write);
    };
    write();
  });
  const cluster = openCluster({ endpoint: endless.url });
  try {
    await expect(cluster.list("allocations", () => undefined)).rejects.toMatchObject({
      exit: "unavailable",
      what: expect.stringContaining("a line is longer than 16 MiB") as string,
    });
    expect(sentBytes).toBeLessThan(1e8);
  } finally {
    cluster.close();
    await endless.close();
  }
});

describe("credentials", () => {
  test("are sent to this machine, and the error names them if they are missing", async () => {
    const double = await startClusterDouble({ pins: PINS });
    double.auth = "operator:pass:word";
    const known = openCluster({ endpoint: double.url, basicAuth: "operator:pass:word" });
    const unknown = openCluster({ endpoint: double.url });
    try {
      expect((await known.identity()).peername).toBe("master");
      await expect(unknown.identity()).rejects.toMatchObject({ exit: "settings" });
      await expect(unknown.list("allocations", () => undefined)).rejects.toMatchObject({ exit: "settings" });
    } finally {
      known.close();
      unknown.close();
      await double.stop();
    }
  });

  test("are never sent unencrypted to another host, and never appear in a message", () => {
    for (const endpoint of [
      "http://192.0.2.7:9094",
      "/ip4/192.0.2.7/tcp/9094",
      "/dns4/cluster.example/tcp/9094",
    ]) {
      const open = (): unknown => openCluster({ endpoint, basicAuth: "operator:hunter2" });
      expect(open).toThrow(/unencrypted/);
      expect(open).not.toThrow(/hunter2/);
    }
    for (const endpoint of [
      "https://192.0.2.7",
      "/ip4/127.0.0.1/tcp/9094",
      "/unix/run/cluster.sock",
      "http://[::1]:1",
    ]) {
      openCluster({ endpoint, basicAuth: "operator:hunter2" }).close();
    }
  });

  test("are not allowed in the address", () => {
    expect(() => openCluster({ endpoint: "http://a:hunter2@127.0.0.1:9094" })).toThrow(
      /contains a user name/,
    );
  });
});

test("a cluster that does not answer is unavailable", async () => {
  const double = await startClusterDouble({});
  await double.stop();
  const cluster = openCluster({ endpoint: double.url });
  await expect(cluster.identity()).rejects.toMatchObject({ exit: "unavailable" });
  await expect(cluster.list("status", () => undefined)).rejects.toMatchObject({ exit: "unavailable" });
});

describe("a kept connection", () => {
  const secondAnswer = async (second: Answer) => {
    const server = await startStandIn(answering(200, { id: "12D3KooWOne" }));
    const cluster = openCluster({ endpoint: server.url, connections: 1 });
    await cluster.identity();
    server.answer = (request, response) => {
      server.answer = answering(200, { id: "12D3KooWTwo" });
      second(request, response);
    };
    return { server, cluster };
  };

  test("that the server has closed is replaced by a new one", async () => {
    const { server, cluster } = await secondAnswer(hangingUp);
    try {
      expect((await cluster.identity()).id).toBe("12D3KooWTwo");
      expect(server.asked).toHaveLength(3);
    } finally {
      cluster.close();
      await server.close();
    }
  });

  test("that ends inside an answer is an error, and the request is not sent again", async () => {
    const { server, cluster } = await secondAnswer((request, response) => {
      response.writeHead(200, { "content-length": 1_000 }).write("{");
      setImmediate(() => request.socket.resetAndDestroy());
    });
    try {
      await expect(cluster.identity()).rejects.toMatchObject({ exit: "unavailable" });
      expect((await cluster.identity()).id).toBe("12D3KooWTwo");
      expect(server.asked).toHaveLength(3);
    } finally {
      cluster.close();
      await server.close();
    }
  });
});

test("an abort ends the running requests", async () => {
  const double = await startClusterDouble({ pins: PINS });
  double.faults.status = { kind: "stall", afterLines: 3 };
  const deadline = new AbortController();
  const cluster = openCluster({ endpoint: double.url, signal: deadline.signal });
  const listing = cluster.list("status", () => undefined);
  deadline.abort(new Error("the deadline has passed"));
  await expect(listing).rejects.toMatchObject({ exit: "unavailable" });
  await double.stop();
});

test("an error after the deadline message that the deadline has passed", async () => {
  const double = await startClusterDouble({ pins: PINS });
  double.faults.status = { kind: "stall", afterLines: 3 };
  const cluster = openCluster({ endpoint: double.url, signal: AbortSignal.timeout(200) });
  await expect(cluster.list("status", () => undefined)).rejects.toMatchObject({ exit: "unavailable" });
  await expect(cluster.identity()).rejects.toMatchObject({
    exit: "unavailable",
    what: expect.stringContaining("deadline of this run has passed"),
  });
  cluster.close();
  await double.stop();
});

describe("pinning", () => {
  let double: ClusterDouble;
  let cluster: Cluster;
  beforeEach(async () => {
    double = await startClusterDouble({});
    cluster = openCluster({ endpoint: double.url });
  });
  afterEach(async () => {
    cluster.close();
    await double.stop();
  });

  test("gives the server's answer, and whether the server is only busy", async () => {
    const cid = cidOf("pin");
    expect(await cluster.pin(`/pins/${cid}?name=x`)).toEqual({ kind: "done" });
    expect(double.pins.get(cid)?.["name"]).toBe("x");
    double.refusals.set(cid, { status: 500, message: "follower mode", times: 1 });
    const refused = { kind: "refused", status: 500, message: "follower mode", busy: false };
    expect(await cluster.pin(`/pins/${cid}?name=x`)).toEqual(refused);
    for (const busy of [
      { status: 500, message: "batching queue is full" },
      { status: 503, message: "" },
      { status: 429, message: "" },
    ]) {
      double.refusals.set(cid, { ...busy, times: 1 });
      expect(await cluster.pin(`/pins/${cid}?name=x`)).toMatchObject({ kind: "refused", busy: true });
    }
    double.pinsUntilGone = 0;
    await expect(cluster.pin(`/pins/${cid}?name=x`)).rejects.toMatchObject({ exit: "unavailable" });
    double.auth = "operator:secret";
    await expect(cluster.pin(`/pins/${cid}?name=x`)).rejects.toMatchObject({ exit: "settings" });
  });

  test("finds out how long a path the server accepts, and throws if the server is gone", async () => {
    expect([await cluster.acceptsPath(8000), await cluster.acceptsPath(8001)]).toEqual([true, false]);
    const gone = openCluster({ endpoint: "http://127.0.0.1:9" });
    await expect(gone.acceptsPath(8000)).rejects.toMatchObject({ exit: "unavailable" });
  });
});

const programs = await findPrograms();
describe.skipIf(typeof programs === "string")(
  "the real ipfs-cluster, stopped in the middle of a list",
  () => {
    test.each(["SIGTERM", "SIGKILL"] as const)("by %s: the list is refused", async (signal) => {
      if (typeof programs === "string") return;
      const metadata = Object.fromEntries(
        Array.from({ length: 20 }, (_, key) => [`key-${key}`, "x".repeat(100)]),
      );
      const pinset = Array.from({ length: 20_000 }, (_, index) => {
        return `${JSON.stringify(apiPin({ cid: cidOf(`kill ${index}`), metadata }))}\n`;
      }).join("");
      const real = await startRealCluster(programs, { peers: 1, pinset });
      const master = real.peers[0] as (typeof real.peers)[number];
      const cluster = openCluster({ endpoint: master.apiUrl });
      try {
        let blocks = 0;
        const listing = cluster.list("allocations", async () => {
          blocks += 1;
          if (blocks === 3) await master.stopCluster(signal);
        });
        await expect(listing).rejects.toMatchObject({ exit: "unavailable" });
        expect(blocks).toBeGreaterThanOrEqual(3);
      } finally {
        cluster.close();
        await real.stop();
      }
    });
  },
);
