import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import {
  AnswerTooLong,
  DeadlinePassed,
  HttpClient,
  HttpFailure,
  readWhole,
  type Receive,
} from "../../src/machine/http-client.ts";

const GET = { method: "GET", path: "/" } as const;
const closing: (() => void)[] = [];

afterEach(() => {
  for (const close of closing.splice(0)) close();
});

/** A server that gets the raw socket with each request. */
async function serve(answer: (socket: Socket) => void): Promise<{ url: string; asked: () => number }> {
  const sockets = new Set<Socket>();
  let asked = 0;
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", () => {
      asked += 1;
      answer(socket);
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked: () => asked };
}

function open(
  url: string,
  more: { readonly fresh?: boolean; readonly signal?: AbortSignal } = {},
): HttpClient {
  const client = new HttpClient({ url, connections: 1, connectTimeoutMs: 5_000, ...more });
  closing.push(() => client.close());
  return client;
}

function head(connection: string): string {
  return `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: ${connection}\r\n\r\n`;
}

const ok = (socket: Socket): void => void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

/** A receiver that waits at its first part until it is released. */
function waiting() {
  const parts: Buffer[] = [];
  let release: () => void = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  let arrived: () => void = () => {};
  const first = new Promise<void>((resolve) => (arrived = resolve));
  const receive: Receive<string> = () => ({
    take(part) {
      parts.push(part);
      arrived();
      return parts.length === 1 ? released : undefined;
    },
    end: () => Buffer.concat(parts).toString(),
  });
  return { receive, release, first, size: () => parts.reduce((sum, part) => sum + part.length, 0) };
}

describe("a receiver that waits", () => {
  test("makes the server wait, and then gets the rest in order", async () => {
    const line = Buffer.from(`10000\r\n${"0123456789abcdef".repeat(4096)}\r\n`);
    let sent = 0;
    const { url } = await serve((socket) => {
      socket.write(head("keep-alive"));
      const send = (): void => {
        if (sent === 400) return void socket.write("0\r\n\r\n");
        sent += 1;
        socket.write(line, send);
      };
      send();
    });
    const { receive, release, first, size } = waiting();
    const answer = open(url).exchange(GET, receive);
    await first;
    // What does not fit into the buffers of both sockets stays with the server, however many requests others make.
    const others = open((await serve(ok)).url);
    let before = -1;
    for (let same = 0; same < 50;) {
      await others.exchange(GET, readWhole(100));
      same = sent === before ? same + 1 : 0;
      before = sent;
    }
    expect(sent).toBeLessThan(300);
    expect(size()).toBeLessThan(1_000_000);
    release();
    const text = await answer;
    expect(text).toHaveLength(400 * 65_536);
    expect(text.endsWith("0123456789abcdef")).toBe(true);
  });

  test.each([
    { connection: "close", end: "reset" },
    { connection: "keep-alive", end: "reset" },
    { connection: "close", end: "fin" },
    { connection: "keep-alive", end: "fin" },
  ])("meets a cut as a failure: $end, connection: $connection", async ({ connection, end }) => {
    let cut: () => void = () => {};
    const { url } = await serve((socket) => {
      socket.write(`${head(connection)}5\r\nhello\r\n`);
      cut = () => void (end === "reset" ? socket.resetAndDestroy() : socket.end());
    });
    const { receive, release, first } = waiting();
    const client = open(url);
    const answer = client.exchange(GET, receive).catch((thrown: unknown) => thrown);
    await first;
    cut();
    if (end === "fin") release();
    expect(await answer).toBeInstanceOf(HttpFailure);
    release();
  });

  test("gets an answer whole whose connection has ended meanwhile", async () => {
    let end: () => void = () => {};
    const { url } = await serve((socket) => {
      socket.write(`${head("close")}5\r\nhello\r\n`);
      end = () => void socket.end("5\r\nworld\r\n0\r\n\r\n");
    });
    const { receive, release, first } = waiting();
    const answer = open(url).exchange(GET, receive);
    await first;
    end();
    release();
    expect(await answer).toBe("helloworld");
  });

  test.each(["at once", "later"])(
    "may throw %s: that ends the request, and the client goes on",
    async (when) => {
      const { url } = await serve(
        (socket) => void socket.write(`${head("keep-alive")}5\r\nhello\r\n0\r\n\r\n`),
      );
      const client = open(url);
      const full = new Error("the disk is full");
      const receive: Receive<never> = () => ({
        take() {
          if (when === "at once") throw full;
          return Promise.reject(full);
        },
        end: () => expect.unreachable(),
      });
      await expect(client.exchange(GET, receive)).rejects.toBe(full);
      expect(await client.exchange(GET, readWhole(100))).toEqual({ status: 200, text: "hello" });
    },
  );
});

describe("a request", () => {
  test("is repeated on the end of a kept connection only", async () => {
    const answers = [ok, (socket: Socket) => void socket.destroy(), ok, ok];
    const { url, asked } = await serve((socket) => answers.shift()?.(socket));
    const client = open(url);
    for (let count = 0; count < 2; count += 1)
      expect((await client.exchange(GET, readWhole(100))).text).toBe("ok");
    expect(asked()).toBe(3);
    const gone = await serve((socket) => void socket.destroy());
    await expect(open(gone.url).exchange(GET, readWhole(100))).rejects.toBeInstanceOf(HttpFailure);
    expect(gone.asked()).toBe(1);
  });

  test("that is to be sent once is not repeated", async () => {
    const answers = [ok, (socket: Socket) => void socket.destroy(), ok];
    const { url, asked } = await serve((socket) => answers.shift()?.(socket));
    const client = open(url);
    await client.exchange(GET, readWhole(100));
    await expect(client.exchange({ ...GET, isOnce: true }, readWhole(100))).rejects.toBeInstanceOf(
      HttpFailure,
    );
    expect(asked()).toBe(2);
  });

  test("has a connection of its own where that was asked for", async () => {
    const ports = new Set<number | undefined>();
    const { url } = await serve((socket) => {
      ports.add(socket.remotePort);
      ok(socket);
    });
    const client = open(url, { fresh: true });
    for (let count = 0; count < 3; count += 1) await client.exchange(GET, readWhole(100));
    expect(ports.size).toBe(3);
  });

  test("ends at its deadline, at a silence, at a body over the bound, and with the signal", async () => {
    const silent = await serve(() => {});
    const client = open(silent.url);
    const late = client.exchange(GET, readWhole(100), 50);
    await expect(late).rejects.toThrow(DeadlinePassed);
    await expect(late).rejects.toThrow("no answer within 0.05 s");
    const quiet = client.exchange({ ...GET, silenceMs: 1_000 }, readWhole(100));
    await expect(quiet).rejects.toThrow("no data for 1 s");
    const long = await serve((socket) => void socket.write(`${head("close")}5\r\nhello\r\n`));
    await expect(open(long.url).exchange(GET, readWhole(4))).rejects.toThrow(AnswerTooLong);
    const stop = new AbortController();
    const stopped = open(silent.url, { signal: stop.signal });
    const pending = stopped.exchange(GET, readWhole(100)).catch((thrown: unknown) => thrown);
    stop.abort(new Error("enough"));
    expect(await pending).toBeInstanceOf(HttpFailure);
    await expect(stopped.exchange(GET, readWhole(100))).rejects.toThrow("enough");
    await expect(open(silent.url, { signal: stop.signal }).exchange(GET, readWhole(1))).rejects.toThrow(
      "enough",
    );
  });

  test("takes an answer that came in time, although the process was busy until after the deadline", async () => {
    const busyMs = 3_000;
    const { url } = await serve((socket) => {
      ok(socket);
      for (const until = performance.now() + busyMs; performance.now() < until;);
    });
    expect((await open(url).exchange(GET, readWhole(100), busyMs / 3)).text).toBe("ok");
  });

  test("follows no redirect", async () => {
    const { url, asked } = await serve(
      (socket) => void socket.write("HTTP/1.1 307 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"),
    );
    expect((await open(url).exchange(GET, readWhole(100))).status).toBe(307);
    expect(asked()).toBe(1);
  });
});
