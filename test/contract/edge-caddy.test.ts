import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { renderCaddyfile } from "../../src/edge/caddyfile.ts";
import { tls } from "../../src/machine/tls.ts";
import { BED_PROGRAMS } from "../support/bed.ts";
import { eventually } from "../support/cluster-real.ts";
import { sha256 } from "../support/fake-master.ts";
import { freePort } from "../support/free-port.ts";

const CADDY = join(BED_PROGRAMS, "caddy");
const HOST = "master.example.org";
const isHere = existsSync(CADDY);
if (!isHere && process.env["CI"] !== undefined) throw new Error(`no ${CADDY}: run test/images/up`);
if (!isHere) console.warn(`skipped: the Caddyfile in a real Caddy: no ${CADDY}`);

/** What a service of ours does that refuses a body: it answers before it has read all, and closes. */
function answerLikeAService(): Server {
  const times = { requestTimeout: 1_000, headersTimeout: 1_000, connectionsCheckingInterval: 200 };
  return createServer(times, (asked, answer) => {
    const limit = 262_144;
    let bytes = 0;
    asked.on("error", () => {});
    if (asked.headers["x-test"] === "unread") {
      answer.writeHead(413, { connection: "close", "x-request-id": "of-the-service" }).end("{}");
      return;
    }
    asked.on("data", (part: Buffer) => {
      bytes += part.length;
      if (bytes > limit && !answer.headersSent) answer.writeHead(413, { connection: "close" }).end("{}");
    });
    asked.on("end", () => {
      if (!answer.headersSent) answer.end(JSON.stringify({ bytes, url: asked.url }));
    });
  });
}

describe.skipIf(!isHere)("the Caddyfile in a real Caddy", () => {
  let directory: string;
  let caddy: ChildProcess;
  let port: number;
  let service: Server;
  let storagePort: number;

  /** Sends bytes over TLS as they are. Returns what comes back until it is enough, the connection closes, or the time is over. */
  const send = (parts: readonly string[], waitMs = 1_500, isEnough = /(?!)/): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1", { servername: HOST, rejectUnauthorized: false });
      let answer = "";
      const timer = setTimeout(() => socket.destroy(), waitMs);
      socket.on("data", (part) => {
        answer += part.toString();
        if (isEnough.test(answer)) socket.destroy();
      });
      // A server that closes early resets who is still sending.
      socket.on("error", () => {});
      socket.on("close", () => {
        clearTimeout(timer);
        resolve(answer);
      });
      socket.on("secureConnect", () => {
        for (const part of parts) socket.write(part);
      });
    });
  const post = (rest: readonly string[], head = "", waitMs = 1_500) =>
    send(
      [`POST /pins HTTP/1.1\r\nHost: ${HOST}\r\n${head}Transfer-Encoding: chunked\r\n\r\n`, ...rest],
      waitMs,
    );
  const statuses = (answer: string) =>
    [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => status);

  beforeAll(async () => {
    service = answerLikeAService();
    await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
    const [plain, secure] = [await freePort(), await freePort()];
    port = secure;
    directory = await mkdtemp(join(tmpdir(), "fula-caddy-"));
    const behind = String((service.address() as AddressInfo).port);
    storagePort = await freePort();
    const plan = {
      host: HOST,
      pinningPort: behind,
      storagePort: String(storagePort),
      hasStatusPage: true,
      fingerprints: [],
    };
    const text = renderCaddyfile({ ...plan, tls: { kind: "internal" } }, sha256).replace(
      "admin off",
      `admin off\n\thttp_port ${plain}\n\thttps_port ${secure}`,
    );
    await writeFile(join(directory, "Caddyfile"), text);
    const args = ["run", "--config", join(directory, "Caddyfile"), "--adapter", "caddyfile"];
    const environment = {
      PATH: process.env["PATH"],
      HOME: directory,
      XDG_DATA_HOME: join(directory, "data"),
    };
    caddy = spawn(CADDY, args, { env: environment, stdio: "ignore" });
    await eventually("Caddy answers", async () => (await ask()).kind === "answer");
  });

  afterAll(async () => {
    if (caddy !== undefined) {
      const ended = new Promise((resolve) => caddy.once("exit", resolve));
      caddy.kill("SIGKILL");
      await ended;
    }
    service?.close();
    service?.closeAllConnections();
    await rm(directory, { recursive: true, force: true });
  });

  const ask = () => tls.ask({ address: "127.0.0.1", port, name: HOST, path: "/pins", timeoutMs: 2_000 });

  it("the rest of a body that a service refuses is not read as new requests", async () => {
    const inner = `GET /pins?inner HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`.repeat(1_000).slice(0, 32_768);
    const chunks = Array.from({ length: 40 }, () => `8000\r\n${inner}\r\n`);
    for (const head of ["X-Test: unread\r\n", ""])
      for (let round = 0; round < 5; round += 1) {
        const answer = await post(chunks, head);
        // The answer is lost if the client is reset while it still sends.
        if (answer === "") continue;
        // The same happens to Caddy, and then it does not know what the service said.
        expect([["413"], ["503"]]).toContainEqual(statuses(answer));
        expect(answer).toMatch(/^connection: close\r$/im);
      }
  });

  it("keeps the connection after an answer to a request without a body", async () => {
    const get = `GET /pins HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`;
    expect(statuses(await send([get, get], 3_000))).toEqual(["200", "200"]);
  });

  it.each([
    ["no number for a chunk", "zz\r\nabc\r\n0\r\n\r\n"],
    ["a chunk that is longer than it says", "3\r\nabcdef\r\n0\r\n\r\n"],
    ["an impossible length", "fffffffffffffffffff\r\nabc\r\n"],
    ["a trailer that is none", "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n"],
  ])("%s is the client's fault: 400", async (_name, body) => {
    const answer = await post([body]);
    expect(statuses(answer)).toEqual(["400"]);
    expect(answer).toContain('"reason":"BAD_REQUEST"');
    expect(answer).not.toMatch(/retry-after:/i);
  });

  it("passes on the status page, without a key in a header, and nothing else of that listener", async () => {
    const storage = createServer((asked, answer) => {
      answer.end(JSON.stringify({ url: asked.url, headers: asked.headers }));
    });
    onTestFinished(() => {
      storage.close();
      storage.closeAllConnections();
    });
    await new Promise<void>((resolve) => storage.listen(storagePort, "127.0.0.1", resolve));
    const page = (line: string, head = "") =>
      send([`${line} HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n${head}\r\n`]);
    for (const line of ["GET /status", "GET /status?a=b", "POST /status", "POST /status/sign-out"])
      expect([line, statuses(await page(line))]).toEqual([line, ["200"]]);
    for (const path of [
      "/",
      "/sign-out",
      "/status/",
      "/status/x",
      "/statusx",
      "//status",
      "/STATUS",
      "/%73tatus",
      "/status%2fsign-out",
      "/x/../status",
      "/status/../health",
      "/health",
      "/metrics",
      "/openapi.json",
    ])
      expect([path, statuses(await page(`GET ${path}`))]).toEqual([path, ["404"]]);
    const keys = "X-System-Key: k\r\nX_System_Key: k\r\nx-system-KEY: k\r\nX-Forwarded-For: 127.0.0.1\r\n";
    const seen = await page("GET /status", `${keys}Cookie: a=b\r\nX-Forwarded-Proto: http\r\n`);
    expect(seen).not.toMatch(/system.key/i);
    expect(seen).toContain('"cookie":"a=b"');
    expect(seen).toContain('"x-forwarded-proto":"https"');
    expect(seen).toContain('"x-forwarded-for":"127.0.0.1"');
  });

  it("CONNECT is 405", async () => {
    for (const target of [`${HOST}:443`, "/pins"]) {
      const answer = await send([`CONNECT ${target} HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`]);
      expect([target, statuses(answer)]).toEqual([target, ["405"]]);
      expect(answer).toMatch(/^allow: GET, POST, DELETE, OPTIONS\r$/im);
    }
  });

  it.each([
    ["with a length", "Content-Length: 1000\r\n\r\nabc"],
    ["in chunks", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
  ])("a body %s that stands still gets the service's 408 when the service gives up", async (_name, body) => {
    const from = performance.now();
    // The connection may stay open after the answer, since the rest of the body may still come.
    const answer = await send([`POST /pins HTTP/1.1\r\nHost: ${HOST}\r\n${body}`], 20_000, /\r\n\r\n/);
    expect(statuses(answer)).toEqual(["408"]);
    expect(performance.now() - from).toBeLessThan(10_000);
  });

  it("errors of its own have an id, and pages of any origin may read those of /pins", async () => {
    const id = /^x-request-id: [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\r$/im;
    const large = await send([`POST /pins HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 9000000\r\n\r\n`]);
    expect(statuses(large)).toEqual(["413"]);
    expect(large).toMatch(id);
    expect(large).toMatch(/^access-control-allow-origin: \*\r$/im);
    expect(large).toMatch(/^access-control-expose-headers: retry-after, location, x-request-id\r$/im);
    const closed = await send([`GET /api/v1/pool HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`]);
    expect(statuses(closed)).toEqual(["503"]);
    expect(closed).toMatch(id);
    expect(closed).toMatch(/^retry-after: 5\r$/im);
    expect(closed).not.toMatch(/access-control/i);
    // The id of a service's own answer is the service's.
    const theirs = await send([`GET /pins HTTP/1.1\r\nHost: ${HOST}\r\nX-Test: unread\r\n\r\n`]);
    expect(theirs.match(/^x-request-id: .*\r$/gim)).toEqual(["X-Request-Id: of-the-service\r"]);
  });
});
