import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, it, test } from "vitest";
import type { Log } from "../../src/errors.ts";
import { type RequestEntry, requestIdOf } from "../../src/services/requests.ts";
import { createApp, json, logFailure, startServer } from "../../src/services/server.ts";
import { createServiceLog } from "../../src/services/service-log.ts";
import { PROBE_ID } from "../../src/machine/http.ts";
import { deferred } from "./serving.ts";

const CID_V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
const CID_V1 = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

async function start(more: { readonly isOutside?: boolean; readonly headTimeoutMs?: number } = {}) {
  const stop = new AbortController();
  const entries: RequestEntry[] = [];
  const lines: unknown[] = [];
  const log: Log = (...line) => void lines.push(line);
  const app = createApp({
    notFound: () => json(404, {}),
    failed: (call, thrown) => {
      logFailure(log, call, thrown);
      return json(500, {});
    },
  });
  app.get("/pins", () => json(200, {}));
  app.get("/pins/:id", () => json(200, {}));
  app.get("/broken/:part", () => {
    throw new Error("broken");
  });
  app.get("/odd", () => Promise.reject("no error"));
  const slow = deferred<void>();
  app.get("/slow", () => {
    slow.resolve();
    return new Promise<Response>(() => {});
  });
  app.post("/body", async ({ req }) => json(200, await req.text()));
  app.all("/admin/*", () => json(401, {}));
  const server = await startServer(
    { name: "test", host: "127.0.0.1", port: 0, app, graceMs: 0, ...more },
    {
      stop: stop.signal,
      log,
      onRequest: (entry) => void entries.push(entry),
    },
  );
  cleanups.push(async () => {
    stop.abort();
    await server.stopped;
  });
  return { port: server.port, entries, lines, arrived: slow.promise };
}

/** What came back for a text as it was sent. */
async function sendRaw(port: number, text: string): Promise<string> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  await once(socket, "connect");
  socket.write(text);
  let answer = "";
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

function idIn(answer: string): string {
  const ids = [...answer.matchAll(/^x-request-id: (.*)\r$/gm)].map(([, id]) => id);
  expect(ids).toHaveLength(1);
  return ids[0] ?? "";
}

describe("the id of a request", () => {
  test.each([
    ["a route", "GET /pins HTTP/1.1\r\nhost: x", 200, "/pins"],
    ["a route with a part", "GET /pins/a%2Fb?c=d HTTP/1.1\r\nhost: x", 200, "/pins/:id"],
    ["a HEAD", "HEAD /pins HTTP/1.1\r\nhost: x", 200, "/pins"],
    ["an absolute target", "GET http://x/pins HTTP/1.1\r\nhost: x", 404, "none"],
    ["no route", "GET /pins/a/b HTTP/1.1\r\nhost: x", 404, "none"],
    ["an empty part", "GET /pins/ HTTP/1.1\r\nhost: x", 404, "none"],
    ["a wildcard", "PUT /admin/x/y HTTP/1.1\r\nhost: x", 401, "/admin/*"],
    ["the beginning of a wildcard", "PUT /admin HTTP/1.1\r\nhost: x", 401, "/admin/*"],
    ["a handler that throws", "GET /broken/x HTTP/1.1\r\nhost: x", 500, "/broken/:part"],
    ["a handler that throws no error", "GET /odd HTTP/1.1\r\nhost: x", 500, "/odd"],
    ["a method that a Request can't have", "TRACE /pins HTTP/1.1\r\nhost: x", 404, "/pins"],
    ["a method that nobody knows", "FROB /pins HTTP/1.1\r\nhost: x", 400, "invalid"],
    ["no HTTP", "hello", 400, "invalid"],
    ["no Host", "GET /pins HTTP/1.1", 400, "/pins"],
    ["no Host in HTTP/1.0", "GET /pins HTTP/1.0", 200, "/pins"],
    ["an expectation that nobody knows", "GET /pins HTTP/1.1\r\nhost: x\r\nexpect: tea", 200, "/pins"],
    ["a large head", `GET /pins HTTP/1.1\r\nhost: x\r\nx: ${"x".repeat(70_000)}`, 431, "invalid"],
  ])("is in the answer to %s, and its pattern is in the log", async (_, head, status, route) => {
    const { port, entries } = await start();
    const answer = await sendRaw(port, `${head}\r\nconnection: close\r\n\r\n`);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    const id = idIn(answer);
    expect(id).toMatch(UUID);
    await expect.poll(() => entries).toMatchObject([{ id, route, status }]);
  });

  it("is in the answer to a head that does not arrive, and to a body that is not valid", async () => {
    const { port, entries } = await start({ headTimeoutMs: 200 });
    const late = await sendRaw(port, "GET /pins HTTP/1.1\r\n");
    expect(late).toMatch(/^HTTP\/1\.1 408 /);
    expect(JSON.parse(late.split("\r\n\r\n")[1] ?? "")).toEqual({
      error: "The request did not arrive in time.",
    });
    const chunked = "POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    const broken = await sendRaw(port, `${chunked}no length\r\n`);
    expect(broken).toMatch(/^HTTP\/1\.1 400 /);
    await expect
      .poll(() => entries)
      .toMatchObject([
        { id: idIn(late), route: "invalid", status: 408 },
        { id: idIn(broken), route: "/body", status: 400 },
      ]);
  });

  it("is in the line of what failed, which has no path", async () => {
    const { port, lines } = await start();
    const end = " HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    const odd = idIn(await sendRaw(port, `GET /odd?token=secret${end}`));
    const broken = idIn(await sendRaw(port, `GET /broken/secret?token=secret${end}`));
    expect(lines).toEqual([
      ["GET failed: no error", "error", odd],
      ["GET /broken/:part failed: broken", "error", broken],
    ]);
  });

  it("of a client that leaves has the status 499", async () => {
    const { port, entries, arrived } = await start();
    const sent = get({ host: "127.0.0.1", port, path: "/slow" }).on("error", () => {});
    await arrived;
    sent.destroy();
    await expect.poll(() => entries).toMatchObject([{ route: "/slow", status: 499 }]);
  });

  const idOf = async (port: number, headers: Readonly<Record<string, string | string[]>>) => {
    const sent = get({ host: "127.0.0.1", port, path: "/pins", headers });
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    answer.resume();
    return answer.headers["x-request-id"];
  };

  it("is what a program of this machine sends, if it is well-formed", async () => {
    const { port } = await start();
    for (const id of ["a", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "trace-1_2.3", "x".repeat(64)])
      expect(await idOf(port, { "x-request-id": id })).toBe(id);
  });

  it.each<[string | string[], string]>([
    ["", "an empty one"],
    ["x".repeat(65), "a long one"],
    ["a b", "a blank"],
    ['a"}', "a quote"],
    ["../x", "a dot in front"],
    ["a\tb", "a tab"],
    ["\u00e9", "a letter beyond ASCII"],
    ["\u009b31m", "a character that a terminal acts on"],
    [["a", "b"], "two headers"],
  ])("is a new one for %j: %s", async (id) => {
    const { port } = await start();
    expect(await idOf(port, { "x-request-id": id })).toMatch(UUID);
  });

  it("is a new one for what comes through a proxy, or to the listener for the edge", async () => {
    const [inside, outside] = [await start(), await start({ isOutside: true })];
    expect(await idOf(outside.port, { "x-request-id": "mine" })).toMatch(UUID);
    expect(await idOf(inside.port, { "x-request-id": "mine", "x-forwarded-for": "192.0.2.1" })).toMatch(UUID);
    expect(await idOf(inside.port, { "x-request-id": "mine", forwarded: "for=192.0.2.1" })).toMatch(UUID);
    expect(outside.entries).toMatchObject([{ isOutside: true }]);
  });

  it.each([
    ["127.0.0.1", true],
    ["::ffff:127.0.0.1", true],
    ["::1", true],
    ["192.0.2.1", false],
    ["::ffff:192.0.2.1", false],
    ["2001:db8::1", false],
    [undefined, false],
  ])("of a client at %s is kept: %s", (remoteAddress, isKept) => {
    const request = { headers: { "x-request-id": "mine" }, socket: { remoteAddress } };
    expect(requestIdOf(request as unknown as IncomingMessage, false) === "mine").toBe(isKept);
  });
});

describe("the log of a service", () => {
  function open(level: "debug" | "info" | "warn" | "error") {
    const lines: string[] = [];
    const log = createServiceLog({ service: "pinning-api", level, write: (line) => void lines.push(line) });
    return { log, lines, objects: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
  }
  const ENTRY: RequestEntry = {
    id: "r-1",
    isOutside: false,
    method: "GET",
    route: "/pins",
    status: 200,
    ms: 1.2345,
  };

  it("is one JSON object a line", () => {
    const { log, lines, objects } = open("info");
    log.line("health: ok");
    log.line("the queue stands still", "warn");
    log.line("GET /pins failed: no", "error", "r-1");
    log.request(ENTRY);
    log.request({ ...ENTRY, isOutside: true });
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string;
    const own = { time, service: "pinning-api" };
    const request = { requestId: "r-1", method: "GET", route: "/pins", status: 200, ms: 1.2, msg: "request" };
    expect(objects()).toEqual([
      { ...own, level: "info", msg: "health: ok" },
      { ...own, level: "warn", msg: "the queue stands still" },
      { ...own, level: "error", msg: "GET /pins failed: no", requestId: "r-1" },
      { ...own, level: "info", ...request },
      { ...own, level: "info", ...request, edge: true },
    ]);
    for (const line of lines) expect(line).toMatch(/^\{[^\n]*\}\n$/);
  });

  it("has no character that a terminal acts on, and no second line", () => {
    const { log, lines, objects } = open("info");
    const hostile = 'x"}\n{"level":"error"}\r\u001b[2J\u009b2J\u202e\u2028\u0000\ud800 é';
    log.line(hostile);
    expect(lines.join("")).toMatch(/^[ -~é]*\n$/);
    expect(objects()[0]?.["msg"]).toBe(hostile);
  });

  it("names nothing that users store: a CID in a line is not shown", () => {
    const { log, lines } = open("info");
    log.line(`the cluster answered 500 to DELETE /pins/${CID_V1}: ${CID_V0} is odd`, "warn");
    expect(lines.join("")).toContain("DELETE /pins/:cid: :cid is odd");
  });

  it("shows a probe of status only at debug, and what imitates one as any request", () => {
    const { log, lines } = open("info");
    const probe = { ...ENTRY, id: PROBE_ID, status: 401 };
    log.request(probe);
    expect(lines).toEqual([]);
    log.request({ ...probe, status: 200 });
    log.request({ ...probe, method: "DELETE" });
    log.request({ ...probe, id: "fula-node-status-2" });
    expect(lines).toHaveLength(3);
  });

  it.each([
    ["debug", 6],
    ["info", 4],
    ["warn", 2],
    ["error", 1],
  ] as const)("of the level %s has its lines; health checks are of the level debug", (level, count) => {
    const { log, lines } = open(level);
    log.line("a");
    log.line("b", "warn");
    log.line("c", "error");
    for (const route of ["/health", "/api/health", "/pins"]) log.request({ ...ENTRY, route });
    expect(lines).toHaveLength(count);
  });
});
