import { spawn } from "node:child_process";
import { once } from "node:events";
import { randomUUID } from "node:crypto";
import { type IncomingMessage, METHODS, request, type ServerResponse } from "node:http";
import { connect } from "node:net";
import { execa } from "execa";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { cidOf } from "../support/cids.ts";
import { migrate } from "../support/names-database.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { freePort } from "../support/free-port.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { tokenOf } from "../support/kubo-ingest.ts";
import { serviceHeader, sha256 } from "../services/pins-api.ts";
import { deferred, listenAnywhere, startClusterPeer } from "../services/serving.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "fula-node-observed-"));
  await execa("node", ["scripts/build.mjs", join(directory, "dist")], { cwd: root });
  for (const entry of ["package.json", "bin"])
    await cp(join(root, entry), join(directory, entry), { recursive: true });
});

afterAll(() => rm(directory, { recursive: true, force: true }));

const program = (): string => join(directory, "bin/fula-node.js");

/** Of other bytes than those that are sent. */
const BLOCK = "bafkr4icqm6wavdprhwpi7r7ubrdtxf2fsvdcwcwqlq4pmsfrd6ibtm5h4q";
const SECRETS = {
  SYSTEM_KEY: "the-system-key-of-the-test",
  JWT_SECRET: "the-jwt-secret-of-the-test",
  SESSION_SECRET: "the-session-secret-of-the-test",
  FULA_PIN_SERVICE_SECRET: "the-service-secret-of-the-test",
  CLUSTER_BASIC_AUTH: "somebody:the-cluster-password-of-the-test",
  ENCRYPTION_KEY: "0123456789abcdef".repeat(4),
};
const ACCOUNT = sha256("alice@example.org");
/** Arguments of Node.js: at SIGUSR2 the service drops what it no longer uses, and says so. */
const COLLECTS = [
  "--expose-gc",
  "--import",
  'data:text/javascript,process.on("SIGUSR2", () => { globalThis.gc(); console.error("memory collected"); })',
];

/** A service of the artifact. */
interface Running {
  readonly port: number;
  readonly edgePort: number;
  readonly metricsPort: number;
  readonly pid: number;
  /** Everything that it has written. */
  output(): string;
  terminate(): Promise<{ readonly code: number | null; readonly ms: number }>;
}

async function start(name: string, env: Readonly<Record<string, string>>): Promise<Running> {
  const [port, edgePort, metricsPort] = [await freePort(), await freePort(), await freePort()];
  const ports = {
    ...Object.fromEntries(["PORT", "WEBUI_PORT", "INGEST_PORT"].map((key) => [key, String(port)])),
    ...Object.fromEntries(
      ["PINNING_METRICS_PORT", "WEBUI_METRICS_PORT", "INGEST_METRICS_PORT"].map((key) => [
        key,
        String(metricsPort),
      ]),
    ),
    PINNING_EDGE_PORT: String(edgePort),
  };
  const child = spawn("node", [...COLLECTS, program(), "serve", name], {
    env: { PATH: process.env["PATH"], ...ports, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let written = "";
  const listening = deferred<void>();
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk) => {
      written += String(chunk);
      if (new RegExp(`${name} \\S+ listens on \\S+:${port}"`).test(written)) listening.resolve();
    });
  const exited = once(child, "exit");
  void exited.then(() => listening.reject(new Error(`${name} ended: ${written}`)));
  await listening.promise;
  return {
    port,
    edgePort,
    metricsPort,
    pid: child.pid ?? 0,
    output: () => written,
    async terminate() {
      const from = performance.now();
      child.kill("SIGTERM");
      const [code] = (await exited) as [number | null];
      return { code, ms: performance.now() - from };
    },
  };
}

function onDatabase(target: PostgresTarget, clusterUrl: string): Readonly<Record<string, string>> {
  return {
    ...SECRETS,
    NODE_ENV: "production",
    PINNING_SYSTEM_KEY: SECRETS.SYSTEM_KEY,
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    IPFS_CLUSTER_API_ADDR: `/ip4/127.0.0.1/tcp/${new URL(clusterUrl).port}`,
    IPFS_API_ADDR: "/ip4/127.0.0.1/tcp/9",
  };
}

interface Sent {
  readonly path: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** The status of one request. */
async function send(port: number, { path, method = "GET", headers = {}, body = "" }: Sent): Promise<number> {
  const sent = request({ host: "127.0.0.1", port, path, method, headers });
  sent.end(body);
  const [answer] = (await once(sent, "response")) as [{ statusCode: number; resume(): void }];
  answer.resume();
  return answer.statusCode;
}

async function scrape({ metricsPort }: Running): Promise<{ readonly text: string; readonly ms: number }> {
  const from = performance.now();
  const response = await fetch(`http://127.0.0.1:${metricsPort}/metrics`);
  expect(response.status).toBe(200);
  const text = await response.text();
  return { text, ms: performance.now() - from };
}

/** The series of a scrape, without their values. */
function seriesOf(text: string): ReadonlySet<string> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Set(lines.map((line) => line.slice(0, line.lastIndexOf(" "))));
}

describeOnPostgres(
  "a service of the artifact",
  (postgres) => {
    const pinningApi = async (target: PostgresTarget, more: Readonly<Record<string, string>> = {}) => {
      const peer = await startClusterPeer();
      onTestFinished(() => peer.close());
      return start("pinning-api", { ...onDatabase(target, peer.url), ...more });
    };

    const addUser = async (target: PostgresTarget, token: string) => {
      await sql(
        target,
        `INSERT INTO sessions (session_token, token_hash, user_id, username) VALUES ($1::text, $1::text, $2::text, $2::text)
`,
        [sha256(token), ACCOUNT],
      );
      await sql(target, "INSERT INTO webui_users (user_id) VALUES ($1)", [ACCOUNT]);
      await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, $2)", [sha256(token), ACCOUNT]);
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ($1, 100)", [ACCOUNT]);
    };

    test("writes no secret that it was given or sent, and one line of JSON for each request", async () => {
      const token = tokenOf("alice");
      const target = await postgres.createDatabase();
      await addUser(target, token);
      const bad = `${token}x`;
      const header = serviceHeader(ACCOUNT, SECRETS.FULA_PIN_SERVICE_SECRET, 4_000_000_000);
      const bearer = { authorization: `Bearer ${token}` };
      const cid = cidOf("secret");
      const requests: readonly Sent[] = [
        { path: "/pins", headers: bearer },
        { path: `/pins?name=${token}&cookie=chocolate`, headers: { ...bearer, cookie: "session=chocolate" } },
        { path: "/pins", headers: { authorization: `Bearer ${bad}` } },
        { path: "/pins", headers: { authorization: `Basic ${bad}` } },
        { path: `/pins/${token}`, headers: bearer },
        { path: `/admin/storage/session/${token}`, headers: { "x-system-key": SECRETS.SYSTEM_KEY } },
        { path: "/admin/stats", headers: { "x-system-key": SECRETS.SYSTEM_KEY } },
        { path: "/admin/stats", headers: { "x-system-key": `${SECRETS.SYSTEM_KEY}x` } },
        { path: "/admin/stats", headers: { authorization: `Bearer ${SECRETS.SYSTEM_KEY}` } },
        { path: `/${SECRETS.SYSTEM_KEY}` },
        { path: "/pins", headers: { "x-fula-service-auth": header } },
        { path: "/pins", headers: { "x-fula-service-auth": `${header}x` } },
        { path: "/pins", headers: { ...bearer, "x-request-id": `${token}"\u00e9` } },
        {
          path: "/pins",
          method: "POST",
          headers: { ...bearer, "content-type": "application/json" },
          body: JSON.stringify({ cid, name: "chocolate", meta: { token } }),
        },
        {
          path: "/pins",
          method: "POST",
          headers: { ...bearer, "content-type": "application/json" },
          body: `{"cid":"chocolate ${token}`,
        },
      ];
      const api = await pinningApi(target, { LOG_LEVEL: "debug" });
      const sendAll = async ({ port, edgePort }: Running) => {
        for (const sent of requests) for (const each of [port, edgePort]) await send(each, sent);
        await send(port, { path: "/health" });
      };
      await sendAll(api);
      expect(await api.terminate()).toMatchObject({ code: 0 });
      // The same while the database does not let it in.
      const wrong = "another-database-password";
      const locked = await pinningApi(target, { POSTGRES_PASSWORD: wrong });
      await sendAll(locked);
      expect(await locked.terminate()).toMatchObject({ code: 0 });

      const output = api.output() + locked.output();
      const lines = output.trimEnd().split("\n");
      const logged = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
      const words = [token, bad, header, wrong, "chocolate", cid, ACCOUNT, "Bearer", sha256(token)];
      for (const word of [...words, ...Object.values(SECRETS), target.password])
        expect(output.includes(word), `the output has ${word}`).toBe(false);
      expect(output).not.toContain("the-cluster-password-of-the-test");
      expect(logged.filter(({ msg }) => msg === "request").length).toBeGreaterThanOrEqual(
        4 * requests.length,
      );
      expect(new Set(logged.map(({ service }) => service))).toEqual(new Set(["pinning-api"]));
      expect(logged.some(({ level, msg }) => level === "warn" && /authentication/.test(String(msg)))).toBe(
        true,
      );
      expect(logged.at(-1)).toMatchObject({ msg: "pinning-api has stopped" });
    });

    const JSON_BODY = { "content-type": "application/json" };
    test.each<[string, Sent, number, Readonly<Record<string, string>>]>([
      ["pinning-api", { path: "/pins", method: "POST", headers: JSON_BODY }, 202, {}],
      ["webui", { path: "/api/v1/wallets/challenge", method: "POST", headers: JSON_BODY }, 400, {}],
      [
        "ingest",
        { path: `/v0/block?cid=${BLOCK}`, method: "PUT" },
        422,
        { NODE_ENV: "test", INGEST_NO_AUTH: "1" },
      ],
    ])(
      "%s: on SIGTERM a request goes on, no new one is accepted, and the service ends with 0",
      async (name, { path, method, headers = {} }, status, env) => {
        const target = await postgres.createDatabase();
        const token = tokenOf("bob");
        await addUser(target, token);
        const [peer, kubo] = [await startClusterPeer(), await listenAnywhere(answerAsKubo)];
        onTestFinished(async () => void (await Promise.all([peer.close(), kubo.close()])));
        const kuboUrl = { KUBO_API: `http://127.0.0.1:${kubo.port}` };
        const service = await start(name, { ...onDatabase(target, peer.url), ...kuboUrl, ...env });
        const body = JSON.stringify({ cid: cidOf("half") });
        const lines = Object.entries({
          ...headers,
          authorization: `Bearer ${token}`,
          "content-length": body.length,
        });
        const head = lines.map(([key, value]) => `${key}: ${value}\r\n`).join("");
        const socket = connect(service.port, "127.0.0.1").on("error", () => {});
        let answer = "";
        socket.on("data", (chunk) => (answer += String(chunk)));
        const closed = once(socket, "close");
        socket.write(`${method} ${path} HTTP/1.1\r\nhost: x\r\n${head}\r\n${body.slice(0, 5)}`);
        // Its event loop has read the request before it answers this.
        for (const _ of [1, 2]) await scrape(service);
        const ended = service.terminate();
        await expect.poll(() => isRefused(service.port)).toBe(true);
        expect(answer).toBe("");
        socket.write(body.slice(5));
        await closed;
        expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
        expect(answer).toMatch(/^connection: close\r$/im);
        expect(await ended).toMatchObject({ code: 0 });
        // Compose waits for 15 seconds.
        expect((await ended).ms).toBeLessThan(12_000);
        expect(service.output()).toMatch(new RegExp(`"status":${status}.*"msg":"request"`));
        expect(service.output()).toContain(`"msg":"${name} has stopped"`);
      },
    );

    // H24
    test(
      "has no time series for what clients choose, and its memory stays",
      { timeout: 300_000 },
      async () => {
        const target = await postgres.createDatabase();
        const token = tokenOf("carol");
        await addUser(target, token);
        const api = await pinningApi(target);
        const cid = cidOf("metrics");
        const random = () => randomUUID().replaceAll("-", "");
        const attack = async (count: number) => {
          const paths = Array.from({ length: count }, (_, index) => [
            `/pins/${random()}`,
            `/${random()}/${random()}`,
            ...(index % 20 === 0 ? [`/pins?status=${random()}`] : []),
          ]).flat();
          const heads = paths.map((path, index) => headOf("GET", path, index % 4 < 2 ? null : token));
          // The parser of Node.js knows some methods; the others are invented.
          const methods = Array.from({ length: count / 20 }, (_, index) =>
            index % 2 === 0
              ? `X${random().slice(0, 12).toUpperCase()}`
              : (METHODS[index % METHODS.length] ?? ""),
          );
          await pipeline(api.port, heads);
          for (const method of methods) await sendAlone(api.port, headOf(method, "/pins", token));
        };
        await send(api.port, { path: `/pins?cid=${cid}`, headers: { authorization: `Bearer ${token}` } });
        await scrape(api);
        const before = await scrape(api);
        await attack(2_000);
        const warm = await heapOf(api);
        await attack(8_000);
        const after = await scrape(api);
        const known = seriesOf(before.text);
        const fresh = [...seriesOf(after.text)].filter((series) => !known.has(series));
        expect(fresh.length).toBeLessThan(50);
        const countOf = (labels: string) =>
          Number(
            new RegExp(`^fula_http_requests_total\\{${labels}[^}]*\\} (\\d+)$`, "m").exec(after.text)?.[1] ??
              0,
          );
        expect(countOf('method="other",route="none",status="401"')).toBeGreaterThan(4_000);
        expect(countOf('method="GET",route="/pins/:id",status="404"')).toBeGreaterThan(4_000);
        expect(countOf('method="other",route="invalid",status="400"')).toBeGreaterThanOrEqual(250);
        for (const word of [token, sha256(token), ACCOUNT, cid, "carol"])
          expect(after.text).not.toContain(word);
        expect(after.text).not.toMatch(/[0-9a-f]{32}/);
        // One UUID kept of each request is 9 MB.
        expect((await heapOf(api)) - warm).toBeLessThan(2_000_000);
      },
    );

    test("serves its metrics on 127.0.0.1 only, on no other port and to no other path", async () => {
      const target = await postgres.createDatabase();
      const api = await pinningApi(target);
      expect(await listenersOf(api.pid)).toEqual(
        [api.port, api.edgePort, api.metricsPort].map((port) => `127.0.0.1:${port}`).toSorted(),
      );
      for (const port of [api.port, api.edgePort]) expect(await send(port, { path: "/metrics" })).toBe(401);
      for (const path of ["/", "/pins", "/metrics/", "/metrics/x", "/admin/stats", "/health"])
        expect(await send(api.metricsPort, { path })).toBe(404);
      expect(await send(api.metricsPort, { path: "/metrics", method: "POST" })).toBe(404);
      const { text } = await scrape(api);
      for (const name of [
        "fula_pin_queue_requests",
        "fula_database_connections",
        "nodejs_eventloop_lag_p99_seconds",
      ])
        expect(text).toContain(`\n${name}{`);
    });
  },
  { template: migrate },
);

/** Its answer to each request: the space that it has. */
function answerAsKubo(incoming: IncomingMessage, outgoing: ServerResponse): void {
  incoming.resume();
  outgoing.end(
    JSON.stringify({ RepoSize: 0, StorageMax: 1e12, diskinfo: { free_space: 1e12, total_space: 1e12 } }),
  );
}

function headOf(method: string, path: string, token: string | null): string {
  const authorization = token === null ? "" : `authorization: Bearer ${token}\r\n`;
  return `${method} ${path} HTTP/1.1\r\nhost: x\r\n${authorization}\r\n`;
}

/** Sends requests on four connections, many at once, and waits for their answers. */
async function pipeline(port: number, heads: readonly string[]): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    const socket = connect(port, "127.0.0.1");
    let rest = "";
    const left = { answers: 0 };
    socket.on("data", (chunk) => {
      const parts = (rest + String(chunk)).split("x-request-id: ");
      left.answers -= parts.length - 1;
      // The name of a header may come in two pieces.
      rest = (parts.at(-1) ?? "").slice(1 - "x-request-id: ".length);
    });
    await once(socket, "connect");
    while (next < heads.length) {
      const some = heads.slice(next, next + 100);
      next += some.length;
      left.answers += some.length;
      socket.write(some.join(""));
      while (left.answers > 0) await once(socket, "data");
    }
    socket.destroy();
  };
  await Promise.all([1, 2, 3, 4].map(work));
}

/** Sends one request whose answer may close the connection. */
async function sendAlone(port: number, head: string): Promise<void> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  const answered = new Promise<void>((resolve) =>
    socket.once("data", () => resolve()).once("close", () => resolve()),
  );
  socket.write(head);
  await answered;
  socket.destroy();
}

/** The heap that is in use, in bytes. What waits for the collector comes and goes by tens of megabytes. */
async function heapOf(service: Running): Promise<number> {
  const collected = () => service.output().split("memory collected").length;
  const before = collected();
  process.kill(service.pid, "SIGUSR2");
  await expect.poll(collected).toBeGreaterThan(before);
  const { text } = await scrape(service);
  return Number(/^nodejs_heap_size_used_bytes\{[^}]*\} (\d+)$/m.exec(text)?.[1]);
}

async function isRefused(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return false;
  } catch {
    return true;
  } finally {
    socket.destroy();
  }
}

/** The addresses that a process listens on (ss of iproute2). */
async function listenersOf(pid: number): Promise<readonly string[]> {
  const { stdout } = await execa("ss", ["-Hltnp"]);
  const lines = stdout.split("\n").filter((line) => line.includes(`pid=${pid},`));
  return lines.map((line) => line.trim().split(/\s+/)[3] ?? "").toSorted();
}
