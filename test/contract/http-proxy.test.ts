import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { HttpClient, readWhole } from "../../src/machine/http-client.ts";
import { createHttp } from "../../src/machine/http.ts";

const servers: { close(): unknown; closeAllConnections(): void }[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

const directory = mkdtempSync(join(tmpdir(), "fula-proxy-"));
afterAll(() => rmSync(directory, { recursive: true }));
let cert = "";
beforeAll(() => {
  const files = ["-keyout", `${directory}/key`, "-out", `${directory}/cert`];
  const subject = ["-subj", "/CN=pool.example.org", "-addext", "subjectAltName=DNS:pool.example.org"];
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      ...files,
      ...subject,
    ],
    { stdio: "ignore" },
  );
  cert = readFileSync(`${directory}/cert`, "utf8");
});

async function listen(server: Server | ReturnType<typeof createTlsServer>): Promise<number> {
  servers.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

/** A proxy that sends everything to one port of this machine, and what it was asked for. */
async function startProxy(targetPort: number, status = 200) {
  const seen: { method: string; url: string; authorization: string | undefined }[] = [];
  const note = (request: {
    method?: string | undefined;
    url?: string | undefined;
    headers: NodeJS.Dict<string | string[]>;
  }) =>
    seen.push({
      method: request.method ?? "",
      url: request.url ?? "",
      authorization: request.headers["proxy-authorization"] as string | undefined,
    });
  const server = createServer((request, response) => {
    note(request);
    response.end('{"by":"proxy"}');
  });
  server.on("connect", (request, socket) => {
    note(request);
    if (status !== 200) return socket.end(`HTTP/1.1 ${status} Refused\r\n\r\n`);
    const target = connect(targetPort, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      socket.pipe(target).pipe(socket);
    });
    for (const end of [socket, target]) end.on("error", () => {});
    return undefined;
  });
  return { port: await listen(server), seen };
}

it("an https server is reached through the proxy's tunnel, with the proxy's login and our own", async () => {
  const headers: NodeJS.Dict<string | string[]>[] = [];
  const target = createTlsServer({ cert, key: readFileSync(`${directory}/key`) }, (request, response) => {
    headers.push(request.headers);
    response.end("hello");
  });
  const proxy = await startProxy(await listen(target));
  const client = new HttpClient({
    url: "https://pool.example.org",
    connections: 1,
    connectTimeoutMs: 5000,
    ca: cert,
    proxy: `http://me:se%20cret@127.0.0.1:${proxy.port}`,
  });
  const ask = () =>
    client.exchange(
      { method: "GET", path: "/x", headers: { authorization: "Bearer t" } },
      readWhole(100),
      10_000,
    );
  expect(await ask()).toEqual({ status: 200, text: "hello" });
  expect(await ask()).toEqual({ status: 200, text: "hello" });
  client.close();
  const login = `Basic ${Buffer.from("me:se cret").toString("base64")}`;
  expect(proxy.seen[0]).toEqual({ method: "CONNECT", url: "pool.example.org:443", authorization: login });
  expect(headers[0]).toMatchObject({ authorization: "Bearer t" });
  expect(headers[0]).not.toHaveProperty("proxy-authorization");
});

it("an http server on the internet is asked through the proxy, and this machine never is", async () => {
  const own = await listen(createServer((_request, response) => void response.end('{"by":"itself"}')));
  const proxy = await startProxy(own);
  const http = createHttp({ HTTP_PROXY: `http://127.0.0.1:${proxy.port}` });
  expect(await http.json("http://pool.example.org/x", { isRemote: true })).toEqual({
    status: 200,
    body: { by: "proxy" },
  });
  expect(proxy.seen).toEqual([{ method: "GET", url: "http://pool.example.org/x", authorization: undefined }]);
  expect(await http.json(`http://127.0.0.1:${own}/x`, { isRemote: true })).toMatchObject({
    body: { by: "itself" },
  });
  expect(await http.json(`http://127.0.0.1:${own}/x`)).toMatchObject({ body: { by: "itself" } });
  expect(proxy.seen).toHaveLength(1);
});

it("a refusal of the proxy is said without its login", async () => {
  const proxy = await startProxy(1, 407);
  const http = createHttp({ HTTPS_PROXY: `http://me:hush@127.0.0.1:${proxy.port}` });
  const error = await http
    .json("https://pool.example.org/x", { isRemote: true })
    .catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ exit: "unavailable", why: expect.stringContaining("407") });
  expect(JSON.stringify([error, String(error), (error as Error).cause])).not.toContain("hush");
});
