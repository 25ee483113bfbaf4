import { once } from "node:events";
import { request as open, type IncomingMessage } from "node:http";
import { describe, expect, onTestFinished, test } from "vitest";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { cidOf } from "../support/cids.ts";
import { tokenOf } from "../support/kubo-ingest.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { walletOf, walletToken } from "../support/wallets.ts";
import {
  type Answered,
  createUser,
  request,
  SERVICE_SECRET,
  serviceHeader,
  sha256,
  startPinningApi,
  SYSTEM_KEY,
} from "./pins-api.ts";
import { listenAnywhere } from "./serving.ts";

const V1 = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34";
const SOON = Math.floor(Date.now() / 1000) + 300;

/** The specification's form of an error. */
function isError({ status, body, headers }: Answered, origin: string | null = "*"): boolean {
  const { reason, details } = (body["error"] ?? {}) as Record<string, unknown>;
  return (
    status >= 400 &&
    typeof reason === "string" &&
    /^[A-Z_]+$/.test(reason) &&
    typeof details === "string" &&
    details !== "" &&
    headers.get("access-control-allow-origin") === origin
  );
}

/** A request as node sends it: fetch would not repeat a header, nor send a target as it is. */
async function raw(
  url: string,
  target: string,
  headers: readonly string[],
  body = "",
): Promise<{ readonly status: number; readonly text: string }> {
  const { hostname, port, host } = new URL(url);
  const sent = open({
    hostname,
    port,
    path: target,
    method: body === "" ? "GET" : "POST",
    headers: ["Host", host, ...headers],
  });
  sent.end(body);
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode ?? 0, text };
}

describeOnPostgres(
  "the pinning API and what it is sent",
  (postgres) => {
    /** An API whose statements are recorded. */
    async function start(changes: Parameters<typeof startPinningApi>[1] = {}) {
      const target = await postgres.createDatabase();
      const pool = openPool(target, 5);
      onTestFinished(() => pool.close());
      const queries: unknown[] = [];
      const recording: PostgresPool = {
        query(text, values, options) {
          if (!/to_regclass\(name\)|pg_is_in_recovery/.test(text)) queries.push(values);
          return pool.query(text, values, options);
        },
        transaction: (work) => pool.transaction(work),
        connections: () => pool.connections(),
        close: async () => {},
      };
      const api = await startPinningApi(target, changes, { pool: recording });
      return { target, api, queries, alice: await createUser(target, api, "alice") };
    }

    // H20
    test("a body that is not valid is refused in the specification's form, and no query is made", async () => {
      const { target, api, queries, alice } = await start();
      const cases: readonly (readonly [string, unknown, number])[] = [
        ["no JSON", "{", 400],
        ["no object", "[]", 400],
        ["a cid twice", `{"cid":"${V1}","cid":"${V1}"}`, 400],
        ["a key of metadata twice, once escaped", `{"cid":"${V1}","meta":{"a":"b","\\u0061":"c"}}`, 400],
        ["null", "null", 400],
        ["no cid", "{}", 400],
        ["a cid that is not one", { cid: "bafy" }, 400],
        ["an identity cid of 129 bytes", { cid: `bafkqbaib${"a".repeat(207)}` }, 400],
        ["a number as cid", { cid: 1 }, 400],
        ["a path as cid", { cid: `/ipfs/${V1}` }, 400],
        ["a cid with a NUL", { cid: `${V1}\0` }, 400],
        ["a long cid", { cid: "b".repeat(100_000) }, 400],
        ["a name of 256 characters", { cid: V1, name: "☀".repeat(256) }, 400],
        ["a name of 256 characters outside the basic plane", { cid: V1, name: "😀".repeat(256) }, 400],
        ["a name with a NUL", { cid: V1, name: "a\0" }, 400],
        ["a name with half of a pair", `{"cid":"${V1}","name":"\\ud800"}`, 400],
        ["a name with U+FFFE", { cid: V1, name: "\uFFFE" }, 400],
        ["a name that is a number", { cid: V1, name: 1 }, 400],
        ["21 origins", { cid: V1, origins: Array.from({ length: 21 }, (_, i) => `/dns4/h${i}/tcp/1`) }, 400],
        ["origins that are not a list", { cid: V1, origins: "/dns4/h/tcp/1" }, 400],
        ["an origin that is not a multiaddr", { cid: V1, origins: ["h:1"] }, 400],
        ["an origin with a NUL", { cid: V1, origins: ["/dns4/h\0/tcp/1"] }, 400],
        ["metadata with a number", { cid: V1, meta: { a: 1 } }, 400],
        ["metadata with a NUL as key", { cid: V1, meta: { "\0": "" } }, 400],
        ["metadata with half of a pair", `{"cid":"${V1}","meta":{"a":"\\udc00"}}`, 400],
        ["metadata that is a list", { cid: V1, meta: [] }, 400],
        ["metadata with __proto__", `{"cid":"${V1}","meta":{"__proto__":"x"}}`, 400],
        ["an object as __proto__ of metadata", `{"cid":"${V1}","meta":{"__proto__":{"a":"b"}}}`, 400],
        [
          "10,000 pairs of metadata",
          { cid: V1, meta: Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [i, ""])) },
          400,
        ],
        ["a depth of 10,000", `{"cid":"${V1}","meta":{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}}`, 400],
        ["a depth of 100,000", `${"[".repeat(100_000)}${"]".repeat(100_000)}`, 400],
        ["10 MB", { cid: V1, name: "x".repeat(10_000_000) }, 413],
      ];
      for (const [what, body, status] of cases)
        for (const path of ["/pins", "/pins/some-request"]) {
          const answered = await alice.post(body, path);
          expect({ what, path, status: answered.status, isError: isError(answered) }).toEqual({
            what,
            path,
            status,
            isError: true,
          });
        }
      expect(queries).toEqual([]);
      expect(await sql(target, "SELECT FROM pins UNION ALL SELECT FROM pin_work")).toEqual([]);
      expect(api.lines.join("\n")).not.toContain("\0");
    });

    test("names of 255 characters, keys like `constructor`, 1,000 pairs and 20 origins are stored as they are", async () => {
      const { alice } = await start();
      const pin = {
        cid: V1,
        name: "😀".repeat(255),
        origins: Array.from({ length: 20 }, (_, i) => `/dns4/h${i}/tcp/1`),
        meta: {
          constructor: "x",
          toString: "",
          '"a":{': 'a\\":{',
          ...Object.fromEntries(Array.from({ length: 997 }, (_, i) => [`k${i}`, '\u2028\\"'])),
        },
      };
      const id = await alice.pin(V1, pin);
      expect((await alice.get(`/${id}`)).body["pin"]).toEqual(pin);
    });

    test("a query or path that is not valid is refused in the specification's form, and no query is made", async () => {
      const { queries, alice } = await start();
      for (const query of [
        "?name=%00",
        "?cid=%00",
        `?meta=${encodeURIComponent('{"a":"\\u0000"}')}`,
        "?name=%ff",
        "?name=%",
        "?name=%ed%a0%80",
        "?meta=x",
        "?meta=1",
        "?meta=%7B%22a%22:1%7D",
        "?limit=0",
        "?limit=1001",
        "?limit=1e2",
        "?limit=-1",
        "?limit=",
        "?limit=10&limit=10",
        "?before=yesterday",
        "?before=2026-02-30T00:00:00Z",
        "?after=2026-01-01",
        "?after=2026-01-01T00:00:00",
        "?after=2026-01-01T25:00:00Z",
        "?before=9999-12-31T23:59:59.9999999Z",
        "?before=0000-01-01T00:00:00Z",
        "?match=x",
        `?name=${"x".repeat(256)}`,
        "/%00",
        "/%ff",
        "/a%0ab",
      ]) {
        const answered = await alice.get(query);
        expect({ query, status: answered.status, isError: isError(answered) }).toEqual({
          query,
          status: 400,
          isError: true,
        });
      }
      expect(queries).toEqual([]);
    });

    test("a request id that can't be one is not found, and no query has it", async () => {
      const { queries, alice } = await start();
      for (const id of ["..%2fadmin", "a%20b", "x".repeat(129), "%F0%9F%98%80", "'--"])
        expect(await alice.get(`/${id}`)).toMatchObject({
          status: 404,
          body: { error: { reason: "NOT_FOUND" } },
        });
      expect(queries).toEqual([]);
      expect((await alice.get("/no-such-request")).status).toBe(404);
    });

    // H20, H21
    test("credentials that can't be valid are refused without a query", async () => {
      const { api, queries, alice } = await start();
      const jwt = (header: object, claims: object) =>
        [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
      const signature = "s".repeat(43);
      const claims = { sub: "a", scope: "storage:read storage:write" };
      const cases: [string, number][] = [
        [`Bearer ${"x".repeat(5_000)}`, 401],
        ["Bearer \u0080\u00ff", 401],
        ["Bearer a b", 401],
        ["Token x", 401],
        [`Bearer ${jwt({ alg: "none" }, claims)}.`, 401],
        [`Bearer ${jwt({ alg: "HS512" }, claims)}.${signature}`, 401],
        [`Bearer ${jwt({ alg: "RS256" }, claims)}.${signature}`, 401],
        [`Bearer ${jwt({ alg: "HS256" }, { ...claims, exp: "9999999999" })}.${signature}`, 401],
        [`Bearer ${tokenOf("a", { exp: 1 })}`, 401],
        [`Bearer ${tokenOf("a", { scope: "storage:upload" })}`, 403],
        ["Bearer fula-eip712.e30.e30", 401],
      ];
      for (const [authorization, status] of cases) {
        const answered = await request(`${api.url}/pins`, { headers: { authorization } });
        expect({ authorization: authorization.slice(0, 60), status: answered.status }).toEqual({
          authorization: authorization.slice(0, 60),
          status,
        });
        expect(isError(answered)).toBe(true);
      }
      const bearer = `Bearer ${alice.token}`;
      const twice = await raw(api.url, "/pins", ["Authorization", bearer, "authorization", bearer]);
      expect(twice.status).toBe(400);
      expect(JSON.parse(twice.text)).toMatchObject({ error: { reason: "BAD_REQUEST" } });
      expect(queries).toEqual([]);
      expect(api.lines.join("\n")).not.toContain(alice.token);
    });

    test("a JWT without an expiry works if a session has it, and a revoked one does not", async () => {
      const { target, api } = await start();
      const token = tokenOf("somebody", { scope: "storage:read storage:write" });
      const headers = { authorization: `Bearer ${token}` };
      await sql(
        target,
        "INSERT INTO sessions (session_token, token_hash, user_id) VALUES ($1::text, $1::text, 'u')",
        [sha256(token)],
      );
      expect((await request(`${api.url}/pins`, { headers })).status).toBe(200);
      await sql(target, "UPDATE sessions SET expires_at = now()");
      expect((await request(`${api.url}/pins`, { headers })).status).toBe(401);
    });

    test("a wallet's token opens its own account, until its session is revoked", async () => {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target, { walletTokens: true });
      const wallet = walletOf("pins");
      const iat = Math.floor(Date.now() / 1_000);
      const token = await walletToken(wallet, iat);
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ($1, 1)", [wallet.address]);
      const send = (sent: string, url = api.url) =>
        request(`${url}/pins`, {
          method: "POST",
          headers: { authorization: `Bearer ${sent}`, "content-type": "application/json" },
          body: JSON.stringify({ cid: V1 }),
        });
      expect((await send(token)).status).toBe(202);
      expect(await sql(target, "SELECT account FROM pin_work")).toEqual([{ account: wallet.address }]);
      expect(await send(`${token.slice(0, -4)}AAAA`)).toMatchObject({ status: 401 });
      const off = await startPinningApi(target);
      expect(await send(token, off.url)).toMatchObject({
        status: 401,
        body: { error: { details: "This master does not accept tokens of wallets." } },
      });
      await sql(target, "INSERT INTO revoked_wallet_sessions (wallet, iat, exp) VALUES ($1, $2, $3)", [
        wallet.address,
        iat,
        iat + 3_600,
      ]);
      expect(await send(token)).toMatchObject({
        status: 401,
        body: { error: { details: "The session of this wallet token was revoked." } },
      });
    });

    // H10
    describe("the trusted header", () => {
      test("names an account on this machine, and one person is one account however the name is spelled", async () => {
        const { target, api, alice } = await start();
        const as = (account: string, secret = SERVICE_SECRET, expiry = SOON) =>
          request(`${api.url}/pins`, {
            method: "POST",
            headers: {
              "x-fula-service-auth": serviceHeader(account, secret, expiry),
              "content-type": "application/json",
              authorization: `Bearer ${alice.token}`,
            },
            body: JSON.stringify({ cid: V1 }),
          });
        const wallet = `0x${"aB".repeat(20)}`;
        for (const name of [
          alice.account,
          "Alice@Example.org",
          "alice@example.org",
          wallet,
          wallet.toLowerCase(),
        ])
          expect((await as(name)).status).toBe(202);
        expect(
          await sql(target, "SELECT user_id, count(*)::int AS n FROM pins GROUP BY user_id ORDER BY n"),
        ).toEqual([
          { user_id: wallet.toLowerCase(), n: 2 },
          { user_id: alice.account, n: 3 },
        ]);
        // Present but not valid: refused, also beside a valid bearer token.
        for (const answered of [
          await as(alice.account, "another-secret"),
          await as(alice.account, SERVICE_SECRET, SOON - 600),
          await as(""),
          await as("x".repeat(65)),
          await as("a\0b"),
        ])
          expect(answered).toMatchObject({ status: 401, body: { error: { reason: "UNAUTHORIZED" } } });
        const header = serviceHeader(alice.account, SERVICE_SECRET, SOON);
        const bearer = ["Authorization", `Bearer ${alice.token}`];
        for (const value of [
          header.replace("v1", "v2"),
          `${header}x`,
          header.slice(0, -1),
          "",
          "v1...",
          "x".repeat(9_000),
        ])
          expect((await raw(api.url, "/pins", ["X-Fula-Service-Auth", value, ...bearer])).status).toBe(401);
        expect(
          (await raw(api.url, "/pins", ["X-Fula-Service-Auth", header, "x-fula-service-auth", header]))
            .status,
        ).toBe(401);
        expect((await raw(api.url, "/pins", ["X-Fula-Service-Auth", header])).status).toBe(200);
      });

      test("is never accepted from outside, and /admin, /health and /metrics are not there", async () => {
        const { api, queries, alice } = await start();
        const bearer = ["Authorization", `Bearer ${alice.token}`];
        const header = serviceHeader(alice.account, SERVICE_SECRET, SOON);
        expect((await raw(api.edge, "/pins", bearer)).status).toBe(200);
        expect((await raw(api.edge, "/pins", ["X-Fula-Service-Auth", header])).status).toBe(401);
        expect((await raw(api.edge, "/pins", ["x-fula-service-auth", header, ...bearer])).status).toBe(401);
        expect((await raw(api.edge, "/pins", ["X-Fula-Service-Auth", "", ...bearer])).status).toBe(401);
        queries.length = 0;
        const key = ["X-System-Key", SYSTEM_KEY];
        for (const path of [
          "/admin/stats",
          "/ADMIN/stats",
          "//admin/stats",
          "/%61dmin/stats",
          "/pins/..%2fadmin",
          "/metrics",
          "/health",
          "/",
          "http://127.0.0.1/admin/stats",
        ]) {
          for (const headers of [
            [...key, ...bearer],
            ["X_System_Key", SYSTEM_KEY, ...bearer],
            key,
            ["Authorization", `Bearer ${SYSTEM_KEY}`],
          ]) {
            const { status, text } = await raw(api.edge, path, headers);
            expect({ path, status }).toEqual({ path, status: headers.includes("Authorization") ? 404 : 401 });
            expect(JSON.parse(text)).toMatchObject({ error: { reason: expect.any(String) as string } });
          }
        }
        expect(queries).toEqual([]);
      });

      test.each([[null], ["disabled"], [""]])("is refused while the secret is %j", async (serviceSecret) => {
        const { api, alice } = await start({ serviceSecret });
        const header = serviceHeader(alice.account, serviceSecret ?? "", SOON);
        expect((await raw(api.url, "/pins", ["X-Fula-Service-Auth", header])).status).toBe(401);
      });
    });

    describe("/admin", () => {
      test("needs SYSTEM_KEY, and nothing that only resembles it", async () => {
        const { api, queries, alice } = await start();
        const askWith = (headers: Record<string, string>) => request(`${api.url}/admin/stats`, { headers });
        expect((await askWith({ "x-system-key": SYSTEM_KEY })).status).toBe(200);
        expect((await askWith({ authorization: `Bearer ${SYSTEM_KEY}` })).status).toBe(200);
        queries.length = 0;
        const sameLength = `é${"x".repeat(SYSTEM_KEY.length - 1)}`;
        for (const headers of [
          {},
          { "x-system-key": "disabled" },
          { authorization: "Bearer disabled" },
          { "x-system-key": "" },
          { "x-system-key": "", authorization: `Bearer ${SYSTEM_KEY}` },
          { "x-system-key": sameLength },
          { "x-system-key": SYSTEM_KEY.toUpperCase() },
          { "x-system-key": "x".repeat(12_000) },
          { authorization: `Bearer ${alice.token}` },
          { x_system_key: SYSTEM_KEY },
        ]) {
          const answered = await askWith(headers);
          expect(answered.status).toBe(401);
          expect(isError(answered, null), "no page of another origin reads it").toBe(true);
        }
        expect(
          (await raw(api.url, "/admin/stats", ["X-System-Key", SYSTEM_KEY, "X-System-Key", SYSTEM_KEY]))
            .status,
        ).toBe(401);
        expect((await raw(api.url, `/admin/stats?x-system-key=${SYSTEM_KEY}`, [])).status).toBe(401);
        for (const path of ["/ADMIN/stats", "//admin/stats", "/%61dmin/stats"])
          expect((await raw(api.url, path, ["X-System-Key", SYSTEM_KEY])).status).toBe(401);
        expect(queries).toEqual([]);
        expect(api.lines.join("\n")).not.toContain(SYSTEM_KEY);
      });

      test("bounds how many keys can be tried", async () => {
        const { api } = await start();
        const statuses = new Set<number>();
        for (let guess = 0; guess < 70; guess += 1)
          statuses.add(
            (await request(`${api.url}/admin/stats`, { headers: { "x-system-key": `guess-${guess}` } }))
              .status,
          );
        expect([...statuses]).toEqual([401, 429]);
        // Each second gives one more back, so one of several at once may get it.
        const answers = await Promise.all(
          [1, 2, 3].map(() => request(`${api.url}/admin/stats`, { headers: { "x-system-key": SYSTEM_KEY } })),
        );
        const refused = answers.find(({ status }) => status === 429);
        expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
      });

      test("shows counts, storage and requests that are not pinned yet", async () => {
        const { target, api, alice } = await start();
        const admin = (path: string) =>
          request(`${api.url}/admin/${path}`, { headers: { "x-system-key": SYSTEM_KEY } });
        expect((await admin("stats")).body).toEqual({ pins: null, accounts: 0, work: null });
        const [queued, pinned] = [await alice.pin(cidOf("1")), await alice.pin(V1)];
        await sql(target, "UPDATE pins SET status = 'pinned', size = 700 WHERE requestid = $1", [pinned]);
        expect((await admin("stats")).body).toEqual({
          pins: { queued: 1, pinned: 1 },
          accounts: 1,
          work: { pin: 2 },
        });
        expect((await admin("storage")).body).toEqual({
          pins: 2,
          bytes: 700,
          accounts: [{ user_id: alice.account, pins: 2, bytes: 700 }],
        });
        const mine = { user_id: alice.account, pins: 2, bytes: 700 };
        expect((await admin(`storage/user/${alice.account}`)).body).toEqual(mine);
        expect((await admin("storage/user/Alice%40example.org")).body).toEqual(mine);
        const pending = await admin("pins/pending?after=2020-01-01T00:00:00Z");
        expect(pending.body).toMatchObject({ count: 1, pins: [{ requestid: queued, status: "queued" }] });
        expect((await admin("pins/pending?after=2020-01-01T00:00:00Z&username=other")).body["count"]).toBe(0);
        expect((await admin("pins/pending?after=2020-01-01T00:00:00Z&status=pinned")).body["count"]).toBe(1);
        expect((await admin("pins/needs-size-recalc")).body["count"]).toBe(0);
        await sql(target, "UPDATE pins SET size = 0");
        expect((await admin("pins/needs-size-recalc")).body).toMatchObject({
          count: 1,
          pins: [{ requestid: pinned }],
        });
        for (const path of [
          "pins/pending",
          "pins/pending?after=x",
          "storage?limit=0",
          "storage/user/%00",
          "pins/pending?after=2020-01-01T00:00:00Z&status=deleted",
        ])
          expect(await admin(path)).toMatchObject({ status: 400 });
        for (const path of ["pins/status", "pins/size", "storage/session/token", ""])
          expect(await admin(path)).toMatchObject({ status: 404 });
      });
    });

    test("a page of another origin may use the API", async () => {
      const { api, alice } = await start();
      const { status, headers } = await request(`${api.edge}/pins/some`, {
        method: "OPTIONS",
        headers: {
          origin: "https://app.example",
          "access-control-request-method": "DELETE",
          "access-control-request-headers": "authorization",
        },
      });
      expect(status).toBe(204);
      expect(headers.get("access-control-allow-methods")).toContain("DELETE");
      expect(headers.get("access-control-allow-headers")).toContain("authorization");
      const { headers: answered } = await alice.get("");
      expect(answered.get("access-control-allow-origin")).toBe("*");
      expect(answered.get("access-control-expose-headers")?.split(", ")).toContain("x-request-id");
      expect(answered.has("access-control-allow-credentials")).toBe(false);
    });

    test("no page may use /admin or /health", async () => {
      const { api } = await start();
      const key = { "x-system-key": SYSTEM_KEY };
      for (const [path, init, status] of [
        ["/admin/stats", { headers: key }, 200],
        ["/admin/storage?limit=x", { headers: key }, 400],
        ["/admin/none", { headers: key }, 404],
        ["/admin/stats", {}, 401],
        ["/admin/stats", { method: "OPTIONS" }, 401],
        ["/health", {}, 503],
      ] as const) {
        const answered = await request(`${api.url}${path}`, init);
        expect({ path, status: answered.status }).toEqual({ path, status });
        expect([...answered.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
      }
    });

    test("does not start on one of its two ports only", async () => {
      const target = await postgres.createDatabase();
      const taken = await listenAnywhere(() => {});
      onTestFinished(() => taken.close());
      const started = startPinningApi(target, { edgePort: taken.port });
      await expect(started).rejects.toMatchObject({
        exit: "preflight",
        what: `pinning-api can't listen on 127.0.0.1:${taken.port}: port ${taken.port} is in use.`,
      });
      const left = await sql(
        target,
        "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'fula-node%'",
        [target.database],
      );
      expect(left).toEqual([]);
    });

    test("other methods and other types of body are refused in the same form", async () => {
      const { api, alice } = await start();
      const authorization = `Bearer ${alice.token}`;
      for (const [path, method] of [
        ["/pins", "PUT"],
        ["/pins", "DELETE"],
        ["/pins/x", "PATCH"],
      ] as const) {
        const answered = await request(`${api.url}${path}`, { method, headers: { authorization } });
        expect(answered).toMatchObject({ status: 405, body: { error: { reason: "METHOD_NOT_ALLOWED" } } });
        expect(answered.headers.get("allow")).toContain("GET");
      }
      const text = await request(`${api.url}/pins`, {
        method: "POST",
        headers: { authorization },
        body: `{"cid":"${V1}"}`,
      });
      expect(text).toMatchObject({ status: 415, body: { error: { reason: "UNSUPPORTED_MEDIA_TYPE" } } });
    });

    // H18
    test("while the database is away the answer is 503 in the same form, and 200 again soon after", async () => {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target);
      const alice = await createUser(target, api, "alice");
      const cut = () =>
        sql(postgres.target, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", [
          target.database,
        ]);
      expect((await alice.get("")).status).toBe(200);
      await cut();
      await sql(postgres.target, `ALTER DATABASE ${target.database} RENAME TO ${target.database}_away`);
      for (const answered of [await alice.get(""), await alice.post({ cid: V1 }), await alice.delete("x")]) {
        expect(answered).toMatchObject({ status: 503, body: { error: { reason: "SERVICE_UNAVAILABLE" } } });
        expect(answered.headers.get("retry-after")).toBe("5");
      }
      await sql(postgres.target, `ALTER DATABASE ${target.database}_away RENAME TO ${target.database}`);
      await expect.poll(async () => (await alice.get("")).status, { timeout: 5_000 }).toBe(200);
      await cut();
      await expect.poll(async () => (await alice.get("")).status, { timeout: 5_000 }).toBe(200);
    });
  },
  { template: migrate },
);
