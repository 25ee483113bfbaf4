import { connect } from "node:net";
import { Validator } from "@seriousme/openapi-schema-validator";
import { expect, test } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import { openPinningApi } from "../../src/services/pinning-api.ts";
import type { App } from "../../src/services/server.ts";
import { http } from "../../src/machine/http.ts";
import { openStorageService } from "../../src/services/storage-api.ts";
import { migrate, openPool } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { checkOf, type OpenApi, requestsOf } from "./described.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { createUser, pinningSettings, request, startPinningApi, SYSTEM_KEY } from "./pins-api.ts";
import { startWebui, webuiSettings } from "./web-api.ts";

/** `GET /pins/{}` and so on, without what only refuses a method and without the preflight of CORS. */
function routesOf(app: App): readonly string[] {
  const routes = app.routes.filter(({ method }) => method !== "ALL" && method !== "OPTIONS");
  return routes.map(({ method, path }) => `${method} ${path.replaceAll(/:\w+/g, "{}")}`).toSorted();
}

function operationsOf(...documents: readonly OpenApi[]): readonly string[] {
  return documents
    .flatMap(({ paths }) =>
      Object.entries(paths).flatMap(([path, methods]) =>
        Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{\w+\}/g, "{}")}`),
      ),
    )
    .toSorted();
}

async function documentAt(url: string, init: RequestInit = {}): Promise<OpenApi> {
  const { status, headers, body, text } = await request(url, init);
  expect([status, headers.get("content-type")]).toEqual([200, "application/json; charset=utf-8"]);
  const document = JSON.parse(text) as OpenApi;
  expect(document.openapi).toBe("3.1.1");
  expect(await new Validator().validate(body)).toEqual({ valid: true });
  const ids = Object.values(document.paths).flatMap((methods) =>
    Object.values(methods).map(({ operationId }) => operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
  return document;
}

async function tokenOf(target: PostgresTarget, api: { readonly url: string }): Promise<string> {
  return (await createUser(target, api, "ann")).token;
}

describeOnPostgres(
  "the OpenAPI documents",
  (postgres) => {
    test("those of the pinning API have every route of it, and no other", async () => {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target);
      const pool = openPool(target, 1);
      const settings = pinningSettings({
        ...target,
        maxConnections: 1,
        idleTimeoutMs: 1_000,
        connectTimeoutMs: 1_000,
      });
      const service = openPinningApi(settings, {
        pool,
        http,
        log: () => {},
        version: "1.2.3",
        bridgeSubnets: async () => [],
      });
      const document = await documentAt(`${api.url}/openapi.json`);
      const admin = await documentAt(`${api.url}/admin/openapi.json`, {
        headers: { "x-system-key": SYSTEM_KEY },
      });
      expect(operationsOf(document, admin)).toEqual(routesOf(service.app));
      expect(routesOf((service.edge as { readonly app: App }).app)).toEqual(
        operationsOf(document).filter((operation) => operation.includes(" /pins")),
      );
      await service.close();
    });

    test("that of operators needs their key, and outside there is none", async () => {
      const api = await startPinningApi(await postgres.createDatabase());
      expect((await request(`${api.url}/admin/openapi.json`)).status).toBe(401);
      const headers = { "x-system-key": SYSTEM_KEY };
      expect((await request(`${api.edge}/admin/openapi.json`, { headers })).status).toBe(401);
      expect((await fetch(`${api.edge}/openapi.json`)).status).toBe(401);
      expect((await request(`${api.url}/openapi.json`)).text).not.toContain("/admin");
    });

    test("that of the storage API has every route of it, and that of clients what the edge serves", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const pool = openPool(target, 1);
      const cluster = openCluster({ endpoint: "http://127.0.0.1:9094" });
      const service = openStorageService(webuiSettings(target), {
        pool,
        openCluster: () => cluster,
        http,
        log: () => {},
        version: "1.2.3",
      });
      const document = await documentAt(`${webui.url}/openapi.json`);
      // The status page is for browsers.
      const ofPage = /^(?:GET|POST) \/(?:status)?(?:\/?sign-out)?$/;
      expect(operationsOf(document)).toEqual(routesOf(service.app).filter((route) => !ofPage.test(route)));
      const clients = await documentAt(`${webui.url}/api/v1/openapi.json`);
      const api = await startPinningApi(target);
      const pins = await documentAt(`${api.url}/openapi.json`);
      expect(operationsOf(clients)).toEqual(
        operationsOf(document, pins)
          .filter((operation) => / \/(?:pins|api\/v1)/.test(operation))
          .toSorted(),
      );
      expect(JSON.stringify(clients)).not.toContain("X-Fula-Service-Auth");
      await service.close();
      cluster.close();
    });

    test("another method is refused with 405 and those that there are, on every path", async () => {
      const target = await postgres.createDatabase();
      const [api, webui] = [await startPinningApi(target), await startWebui(target)];
      const headers = { "x-system-key": SYSTEM_KEY, authorization: `Bearer ${await tokenOf(target, api)}` };
      for (const [url, path] of [
        [api.url, "/openapi.json"],
        [api.url, "/admin/openapi.json"],
        [webui.url, "/openapi.json"],
      ] as const) {
        const { paths } = await documentAt(`${url}${path}`, { headers });
        for (const [template, methods] of Object.entries(paths)) {
          const answer = await fetch(`${url}${template.replaceAll(/\{\w+\}/g, "x")}`, {
            method: "PATCH",
            headers,
          });
          const allowed = (answer.headers.get("allow") ?? "")
            .split(", ")
            .filter((method) => method !== "OPTIONS");
          expect([template, answer.status, allowed.toSorted()]).toEqual([
            template,
            405,
            Object.keys(methods)
              .map((method) => method.toUpperCase())
              .toSorted(),
          ]);
          expect(await answer.json()).toHaveProperty("error");
        }
      }
    });

    test("every error of the storage API has a code for programs, as the document says", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const document = await documentAt(`${webui.url}/openapi.json`);
      const { Failure } = document.components["schemas"] as Readonly<Record<string, { required: string[] }>>;
      expect(Failure?.required).toEqual(["error", "code"]);
      const check = checkOf(document);
      const codes = new Map<string, string>();
      const expectCode = async (what: string, answer: Response): Promise<void> => {
        const text = await answer.text();
        const [method = "", path = ""] = what.split(" ");
        if (answer.status !== 405) check(method.toLowerCase(), path, { ...described(answer), text });
        const { error, code } = JSON.parse(text) as { error?: unknown; code?: unknown };
        expect([what, answer.status >= 400, error, code]).toEqual([
          what,
          true,
          expect.any(String),
          expect.stringMatching(/^[a-z]+(?:-[a-z]+)*$/),
        ]);
        codes.set(what, String(code));
      };
      for (const [template, methods] of Object.entries(document.paths)) {
        if (/health|openapi|api\/v1\/pool/.test(template)) continue;
        const path = template.replaceAll(/\{\w+\}/g, "x");
        for (const method of Object.keys(methods)) {
          // The directory of names is public: only what is wrong is refused there.
          if (method === "get" && template.startsWith("/api/v1/nodes")) continue;
          await expectCode(`${method.toUpperCase()} ${path}`, await send(webui.url, method, path, {}));
          await expectCode(
            `${method.toUpperCase()} ${path} other-key`,
            await send(webui.url, method, path, { authorization: "Bearer unknown" }),
          );
        }
        await expectCode(`PATCH ${path}`, await send(webui.url, "patch", path, {}));
      }
      await expectCode("GET /nowhere", await fetch(`${webui.url}/nowhere`));
      for (const [head, code] of [
        ["GET / HTTP/1.1\r\n\r\n", "bad-request"],
        ["nonsense\r\n\r\n", "bad-request"],
        [`GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`, "request-header-fields-too-large"],
      ] as const)
        expect(JSON.parse(/\{.*\}/.exec(await sendRaw(webui.url, head))?.[0] ?? "")).toEqual({
          error: expect.any(String) as string,
          code,
        });
      expect(Object.fromEntries(codes)).toMatchObject({
        "GET /api/v1/storage": "no-api-key",
        "GET /api/v1/storage other-key": "other-api-key",
        "PATCH /api/v1/storage": "other-method",
        "GET /nowhere": "no-such-path",
      });
    });

    test("a body that is refused before it is read has its own code", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const path = "/api/v1/nodes";
      const post = (type: string, body: string) =>
        fetch(`${webui.url}${path}`, { method: "POST", headers: { "content-type": type }, body });
      const seen = [
        await post("text/plain", "{}"),
        await post("application/json", "{"),
        await post("application/json", `"${"x".repeat(100_000)}"`),
      ];
      expect(await Promise.all(seen.map(async (one) => [one.status, codeIn(await one.json())]))).toEqual([
        [415, "not-json-type"],
        [400, "not-json"],
        [413, "body-too-long"],
      ]);
    });

    test("what a client sends is not described as something that only the service sends", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const { components } = await documentAt(`${webui.url}/openapi.json`);
      expect(JSON.stringify(components)).not.toContain("readOnly");
      expect(components["schemas"]).toMatchObject({
        Announcement: { properties: { addresses: { minItems: 1, maxItems: 16 } } },
      });
    });

    test("what can't be stored is not described as a right request, in patterns that every program reads", async () => {
      const api = await startPinningApi(await postgres.createDatabase());
      const document = await documentAt(`${api.url}/openapi.json`);
      expect(JSON.stringify(document)).not.toMatch(/\\\\0/);
      const isPin = requestsOf(document, "Pin");
      const cid = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
      expect(isPin({ cid, name: "a", origins: ["/ip4/1.1.1.1/tcp/1"], meta: { a: "" } })).toBe(true);
      for (const wrong of [
        { cid: "no CID" },
        { cid, name: "a\0" },
        { cid, name: "\uFFFE" },
        { cid, name: "x".repeat(256) },
        { cid, meta: { "\0": "a" } },
        { cid, meta: { a: "\uFFFF" } },
        { cid, meta: { ["__proto__"]: "a" } },
        { cid, meta: { a: 1 } },
        { cid, origins: Array.from({ length: 21 }, () => "/ip4/1.1.1.1/tcp/1") },
      ])
        expect([wrong, isPin(wrong)]).toEqual([wrong, false]);
    });

    test("an answer that no document describes fails a test", async () => {
      const api = await startPinningApi(await postgres.createDatabase());
      const check = checkOf(await documentAt(`${api.url}/openapi.json`));
      const headers = new Headers({ "content-type": "application/json" });
      const listed = { count: 0, results: [] };
      const answer = (status: number, body: unknown) => ({ status, headers, text: JSON.stringify(body) });
      check("get", "/pins", answer(200, listed));
      expect(() => check("get", "/pins", answer(200, { ...listed, more: 1 }))).toThrow(
        /additional properties/,
      );
      expect(() => check("get", "/pins", answer(200, { results: [] }))).toThrow(/required property 'count'/);
      expect(() => check("get", "/pins", answer(418, listed))).toThrow("no such answer");
      expect(() => check("delete", "/pins/x", answer(202, {}))).toThrow("without a body");
    });
  },
  { template: migrate },
);

function described({ status, headers }: Response) {
  return { status, headers };
}

function codeIn(body: unknown): unknown {
  return (body as { readonly code?: unknown }).code;
}

function send(url: string, method: string, path: string, headers: Readonly<Record<string, string>>) {
  const body = ["post", "put"].includes(method) ? { body: "{}" } : {};
  return fetch(`${url}${path}`, {
    method: method.toUpperCase(),
    headers: { ...headers, "content-type": "application/json" },
    ...body,
  });
}

/** What came back for a text as it was sent. */
async function sendRaw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname).on("error", () => {});
  socket.end(text);
  let answer = "";
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}
