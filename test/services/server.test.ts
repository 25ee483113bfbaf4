import { once } from "node:events";
import { Agent, get, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import {
  type App,
  type Call,
  createApp,
  json,
  type RunningServer,
  startServer,
} from "../../src/services/server.ts";
import { readJson } from "../../src/services/request-body.ts";
import { deferred, listenAnywhere } from "./serving.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const ignore = (): void => {};
const TEST = { name: "test", host: "127.0.0.1", port: 0 };

function appOf(handler: (call: Call) => Response | Promise<Response>): App {
  return createApp({ notFound: () => json(404, {}), failed: () => json(500, {}) }).all("*", handler);
}

/** A server whose requests wait for the gate. */
async function startGated(graceMs: number) {
  const stop = new AbortController();
  const gate = deferred<void>();
  const arrived = deferred<void>();
  const app = appOf(async () => {
    arrived.resolve();
    await gate.promise;
    return new Response("done");
  });
  const server = await startServer({ ...TEST, app, graceMs }, { stop: stop.signal, log: ignore });
  cleanups.push(async () => {
    gate.resolve();
    stop.abort();
    await server.stopped;
  });
  return { server, stop, gate, arrived: arrived.promise };
}

async function fetchText(
  { port }: RunningServer,
  agent?: Agent,
): Promise<IncomingMessage & { text: string }> {
  const request = get({ host: "127.0.0.1", port, ...(agent === undefined ? {} : { agent }) });
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return Object.assign(response, { text });
}

describe("a body that is too long", () => {
  it.each([
    ["with a length", "content-length: 100000", "x".repeat(50_000), "x".repeat(50_000)],
    [
      "in chunks",
      "transfer-encoding: chunked",
      `c350\r\n${"x".repeat(50_000)}\r\n`,
      `c350\r\n${"x".repeat(50_000)}\r\n0\r\n\r\n`,
    ],
  ])(
    "%s is read to its end before the 413, so that a proxy can send it all",
    async (_, header, half, rest) => {
      const reading = deferred<void>();
      const app = appOf(async ({ env: { incoming } }) => {
        if (incoming.method === "GET") return new Response("up");
        incoming.on("data", () => reading.resolve());
        const body = await readJson(incoming, { maxBytes: 1_000 });
        return body instanceof Response ? body : json(200, {});
      });
      const stop = new AbortController();
      const server = await startServer({ ...TEST, app }, { stop: stop.signal, log: ignore });
      cleanups.push(async () => {
        stop.abort();
        await server.stopped;
      });
      const socket = connect(server.port, "127.0.0.1");
      let answer = "";
      socket.on("data", (part) => (answer += String(part)));
      socket.write(
        `POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${header}\r\n\r\n${half}`,
      );
      await reading.promise;
      // Its event loop has seen the half by then.
      for (let round = 0; round < 2; round += 1) expect((await fetchText(server)).text).toBe("up");
      expect(answer).toBe("");
      socket.write(rest);
      await once(socket, "close");
      expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    },
  );
});

describe("startServer", () => {
  it("lets a request under way finish, and accepts no new one", async () => {
    const { server, stop, gate, arrived } = await startGated(10_000);
    const agent = new Agent({ keepAlive: true });
    cleanups.push(() => agent.destroy());
    const underWay = fetchText(server, agent);
    await arrived;
    stop.abort();
    await expect(fetchText(server)).rejects.toThrow("ECONNREFUSED");
    gate.resolve();
    expect(await underWay).toMatchObject({ statusCode: 200, text: "done", headers: { connection: "close" } });
    await server.stopped;
  });

  it("cuts off what is not finished within the grace period", async () => {
    const { server, stop, arrived } = await startGated(20);
    const underWay = fetchText(server).catch((error: NodeJS.ErrnoException) => error.code);
    await arrived;
    stop.abort();
    await server.stopped;
    expect(await underWay).toBe("ECONNRESET");
  });

  it("does not wait for connections that are kept alive but idle", async () => {
    const { server, stop, gate } = await startGated(600_000);
    gate.resolve();
    const agent = new Agent({ keepAlive: true });
    cleanups.push(() => agent.destroy());
    await fetchText(server, agent);
    stop.abort();
    await server.stopped;
  });

  it("stops at once when printed to before it listens", async () => {
    const app = appOf(() => json(200, {}));
    const { stopped } = await startServer({ ...TEST, app }, { stop: AbortSignal.abort(), log: ignore });
    await stopped;
  });

  it("names the port that is taken", async () => {
    const taken = await listenAnywhere(() => {});
    cleanups.push(taken.close);
    const app = appOf(() => json(200, {}));
    const started = startServer(
      { ...TEST, port: taken.port, app },
      { stop: new AbortController().signal, log: ignore },
    );
    const error: unknown = await started.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OperatorError);
    expect(error).toMatchObject({
      exit: "preflight",
      what: `test can't listen on 127.0.0.1:${taken.port}: port ${taken.port} is in use.`,
      cause: { code: "EADDRINUSE" },
    });
  });

  it("says so where the address is not this machine's", async () => {
    const app = appOf(() => json(200, {}));
    const started = startServer(
      { ...TEST, host: "192.0.2.1", app },
      { stop: new AbortController().signal, log: ignore },
    );
    await expect(started).rejects.toMatchObject({ exit: "preflight", cause: { code: "EADDRNOTAVAIL" } });
  });
});

describe("an app", () => {
  async function startRoutes() {
    const lines: string[] = [];
    const app = createApp({
      notFound: ({ env }, path) => json(404, `${env.incoming.method} ${path}`),
      failed: (_call, thrown, path) => {
        lines.push(`${path}: ${thrown.message}`);
        return json(500, "failed");
      },
    });
    app.get("/health", () => json(200, "well", { "retry-after": "1" }));
    app.get("/nodes/:name", ({ req }) => json(200, req.param("name")));
    app.get("/broken", () => {
      throw new Error("the cause");
    });
    app.get("/odd", () => Promise.reject("no error"));
    const stop = new AbortController();
    const server = await startServer(
      { ...TEST, app },
      { stop: stop.signal, log: (line) => lines.push(line) },
    );
    cleanups.push(async () => {
      stop.abort();
      await server.stopped;
    });
    return { server, lines };
  }

  /** The answer to a head as a client wrote it. */
  async function sendRaw({ port }: RunningServer, head: string): Promise<string> {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    socket.write(`${head}\r\nconnection: close\r\n\r\n`);
    let answer = "";
    for await (const chunk of socket) answer += String(chunk);
    return answer;
  }

  it.each([
    ["GET /health HTTP/1.1\r\nhost: x", 200, '"well"'],
    ["GET /health?a=1 HTTP/1.0", 200, '"well"'],
    ["GET /health HTTP/1.1\r\nhost: [2001:0DB8::1]:3001", 200, '"well"'],
    ["GET /health HTTP/1.1\r\nhost: a b", 200, '"well"'],
    ["GET /nodes/a%2Fb HTTP/1.1\r\nhost: x", 200, '"a/b"'],
    ["GET /nodes/.. HTTP/1.1\r\nhost: x", 200, '".."'],
    ["GET /x/../health HTTP/1.1\r\nhost: x", 404, '"GET /x/../health"'],
    ["GET /%68ealth HTTP/1.1\r\nhost: x", 404, '"GET /%68ealth"'],
    ["GET http://x/health HTTP/1.1\r\nhost: x", 404, '"GET http://x/health"'],
    ["GET /a\\b HTTP/1.1\r\nhost: x", 404, '"GET /a\\\\b"'],
    ["OPTIONS * HTTP/1.1\r\nhost: x", 404, '"OPTIONS *"'],
    ["TRACE * HTTP/1.1\r\nhost: x", 404, '"TRACE *"'],
  ])("routes %j by its path as it was sent", async (head, status, body) => {
    const { server } = await startRoutes();
    const answer = await sendRaw(server, head);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer.endsWith(`\r\n\r\n${body}\n`), answer).toBe(true);
    expect(answer).toContain(`\r\ncontent-length: ${body.length + 1}\r\n`);
  });

  it("answers HEAD with the headers of GET", async () => {
    const { server } = await startRoutes();
    const answer = await sendRaw(server, "HEAD /health HTTP/1.1\r\nhost: x");
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    for (const header of ["content-length: 7", "retry-after: 1", "cache-control: no-store"])
      expect(answer).toContain(`\r\n${header}\r\n`);
    expect(answer.endsWith("\r\n\r\n")).toBe(true);
  });

  it("gives the log what a route threw, and the client nothing of it", async () => {
    const { server, lines } = await startRoutes();
    const answer = await sendRaw(server, "GET /broken?secret HTTP/1.1\r\nhost: x");
    expect(answer).toMatch(/^HTTP\/1\.1 500 /);
    expect(answer).not.toContain("cause");
    expect(await sendRaw(server, "GET /odd HTTP/1.1\r\nhost: x")).toMatch(/^HTTP\/1\.1 500 /);
    expect(lines).toEqual(["/broken: the cause", "GET failed: no error"]);
  });
});

describe("connections that send no complete head", () => {
  const HALF = "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ";

  async function start(limits: { readonly headTimeoutMs?: number; readonly maxConnections?: number }) {
    const stop = new AbortController();
    const app = appOf(() => new Response("done"));
    const server = await startServer(
      { ...TEST, app, graceMs: 0, ...limits },
      { stop: stop.signal, log: ignore },
    );
    cleanups.push(async () => {
      stop.abort();
      await server.stopped;
    });
    return server;
  }

  /** Connects from an address of this machine, sends half a head, and tells when it is closed and what came. */
  async function openSlow({ port }: RunningServer, localAddress = "127.0.0.1") {
    const socket = connect({ host: "127.0.0.1", port, localAddress });
    cleanups.push(() => socket.destroy());
    let received = "";
    socket.on("data", (chunk) => (received += String(chunk))).on("error", ignore);
    const closed = new Promise<string>((resolve) => socket.once("close", () => resolve(received)));
    await once(socket, "connect");
    socket.write(HALF);
    return { socket, closed };
  }

  it.each(["goes on slowly", "sends nothing more"])(
    "are closed after a while if the client %s",
    async (how) => {
      const server = await start({ headTimeoutMs: 300 });
      const from = performance.now();
      const { socket, closed } = await openSlow(server);
      const dripping = how === "goes on slowly" ? setInterval(() => socket.write("x"), 20) : undefined;
      cleanups.push(() => clearInterval(dripping));
      expect(await closed).toMatch(/^HTTP\/1\.1 408 /);
      expect(performance.now() - from).toBeLessThan(10_000);
    },
  );

  it("of one address leave room for others, and none more than the maximum stays", async () => {
    const server = await start({ maxConnections: 8 });
    const all = await Promise.all(Array.from({ length: 12 }, () => openSlow(server)));
    // Half of the places; the others are closed at once, without an answer.
    const open = () => all.filter(({ socket }) => !socket.destroyed);
    await expect.poll(() => open().length, { timeout: 10_000 }).toBe(4);
    const other = get({ host: "127.0.0.1", port: server.port, localAddress: "127.0.0.2", agent: false });
    const [response] = (await once(other, "response")) as [IncomingMessage];
    expect(response.statusCode).toBe(200);
    response.resume();
    // A place that becomes free is given again.
    open()[0]?.socket.destroy();
    await expect
      .poll(
        async () =>
          fetchText(server, new Agent({ keepAlive: false })).then(
            ({ text }) => text,
            () => "",
          ),
        {
          timeout: 10_000,
        },
      )
      .toBe("done");
    const more = await Promise.all(
      ["127.0.0.3", "127.0.0.4"].flatMap((from) => [1, 2, 3].map(() => openSlow(server, from))),
    );
    await expect
      .poll(() => more.filter(({ socket }) => !socket.destroyed).length, { timeout: 10_000 })
      .toBe(5);
  });
});
