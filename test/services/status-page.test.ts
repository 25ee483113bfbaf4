import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { BILLING } from "../support/billing.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { freePort } from "../support/free-port.ts";
import { sql } from "../support/postgres-server.ts";
import { factsIn, recordsDir, signIn, statesIn, visit } from "./status-page.ts";
import { startWebui, STATUS_PAGE } from "./web-api.ts";

const KEY = STATUS_PAGE.systemKey;
const PATHS = ["/", "/status"] as const;
/** As the edge sends it on. */
const THROUGH_EDGE = (client = "192.0.2.7") => ({ "x-forwarded-for": client, "x-forwarded-proto": "https" });

describeOnPostgres(
  "the status page",
  (postgres) => {
    test.each(PATHS)("%s shows a form and nothing else without a session", async (path) => {
      const webui = await startWebui(await postgres.createDatabase());
      for (const cookie of [null, "fula-status=", "fula-status=1795689342.AAAAAAAAAAAAAAAAAAAAAA.x"]) {
        const { status, text, headers } = await visit(webui, path, { cookie });
        expect(status).toBe(200);
        expect(text).toContain('type="password"');
        expect(text).toContain(`action="${path}"`);
        expect(text).not.toContain("Parts");
        expect(headers.get("cache-control")).toBe("no-store");
        expect(headers.get("x-frame-options")).toBe("DENY");
        expect(headers.get("content-security-policy")).toMatch(
          /^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'$/,
        );
      }
    });

    test.each(PATHS)("%s: the key opens it for an hour, and signing out ends it", async (path) => {
      const webui = await startWebui(await postgres.createDatabase());
      const { status, headers, cookie } = await visit(webui, path, { form: { key: KEY } });
      expect([status, headers.get("location")]).toEqual([303, path]);
      expect(headers.get("set-cookie")).toMatch(
        /^fula-status=[\w.-]+; Path=\/; Max-Age=3600; HttpOnly; SameSite=Strict$/,
      );
      const { text } = await visit(webui, path, { cookie });
      expect(text).toContain('<h2 id="parts"');
      expect(text).not.toContain(KEY);
      const out = path === "/" ? "/sign-out" : "/status/sign-out";
      const left = await visit(webui, out, { form: {}, cookie });
      expect([left.status, left.headers.get("location"), left.cookie]).toEqual([303, path, "fula-status="]);
      expect(left.headers.get("set-cookie")).toContain("Max-Age=0");
    });

    test("through the edge the cookie is Secure and only of this host", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const headers = THROUGH_EDGE();
      const { headers: sent, cookie } = await visit(webui, "/status", { form: { key: KEY }, headers });
      expect(sent.get("set-cookie")).toMatch(
        /^__Host-fula-status=[\w.-]+; Path=\/; Max-Age=3600; HttpOnly; SameSite=Strict; Secure$/,
      );
      expect((await visit(webui, "/status", { cookie, headers })).text).toContain("Parts");
      expect((await visit(webui, "/status", { cookie })).text).not.toContain("Parts");
    });

    test("H10: neither X-System-Key, a bearer token nor the query opens it", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      for (const headers of [{ "x-system-key": KEY }, { authorization: `Bearer ${KEY}` }])
        expect((await visit(webui, "/status", { headers })).text).not.toContain("Parts");
      expect((await visit(webui, `/status?key=${KEY}`)).text).not.toContain("Parts");
      expect(
        (await visit(webui, "/status", { form: { key: KEY }, headers: { "content-type": "text/plain" } }))
          .status,
      ).toBe(415);
    });

    test.each(["", "x", KEY.slice(0, -1), `${KEY} `, `${KEY}x`, "another-key-of-20-chars"])(
      "every wrong key has the same answer: %j",
      async (key) => {
        const webui = await startWebui(await postgres.createDatabase());
        const wrong = await visit(webui, "/", { form: { key } });
        expect([wrong.status, wrong.cookie]).toEqual([403, null]);
        expect(wrong.text).toBe((await visit(webui, "/", { form: { key: "far off" } })).text);
      },
    );

    test("a form of another site is refused, with the right key too", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const form = { key: KEY };
      for (const headers of [
        { origin: "https://evil.example" },
        { origin: "null" },
        { origin: `${webui.url}.evil.example` },
        { origin: webui.url, "sec-fetch-site": "cross-site" },
        { origin: webui.url, "sec-fetch-site": "same-site" },
      ]) {
        const { status, cookie } = await visit(webui, "/", { form, headers });
        expect([headers, status, cookie]).toEqual([headers, 403, null]);
      }
      const bare = await fetch(webui.url, { method: "POST", body: new URLSearchParams(form) });
      expect(bare.status).toBe(403);
      const out = await visit(webui, "/sign-out", { form: {}, headers: { origin: "https://evil.example" } });
      expect([out.status, out.cookie]).toEqual([403, null]);
    });

    test("guesses are limited for each client, and the right key waits too", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const guess = (key: string, client: string) =>
        visit(webui, "/status", { form: { key }, headers: THROUGH_EDGE(client) });
      const answers = [];
      for (let turn = 0; turn < 6; turn += 1)
        answers.push((await guess(`wrong ${turn}`, "192.0.2.7")).status);
      expect(answers).toEqual([403, 403, 403, 403, 403, 429]);
      const late = await guess(KEY, "192.0.2.7");
      expect([late.status, late.cookie]).toEqual([429, null]);
      expect(Number(late.headers.get("retry-after"))).toBeGreaterThan(0);
      expect((await guess(KEY, "192.0.2.8")).status).toBe(303);
    });

    test("the right key is no guess: it may be given as often as one likes, and frees no wrong one", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const send = async (key: string, client: string) =>
        (await visit(webui, "/status", { form: { key }, headers: THROUGH_EDGE(client) })).status;
      const answers = [];
      for (let turn = 0; turn < 35; turn += 1) answers.push(await send(KEY, "192.0.2.7"));
      expect(new Set(answers)).toEqual(new Set([303]));
      const mixed = [];
      for (let turn = 0; turn < 6; turn += 1)
        mixed.push(await send(`wrong ${turn}`, "192.0.2.7"), await send(KEY, "192.0.2.7"));
      expect(mixed).toEqual([403, 303, 403, 303, 403, 303, 403, 303, 403, 429, 429, 429]);
      // Those of one client don't use up those of all.
      expect(await send("wrong", "192.0.2.8")).toBe(403);
    });

    test("guesses of all other machines together are limited, and do not lock out this one", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      const guess = (client: string) =>
        visit(webui, "/status", { form: { key: "wrong" }, headers: THROUGH_EDGE(client) });
      const answers = [];
      for (let turn = 0; turn < 32; turn += 1) answers.push((await guess(`192.0.2.${turn}`)).status);
      expect(answers.slice(0, 30)).toEqual(Array.from({ length: 30 }, () => 403));
      expect(answers.slice(30)).toContain(429);
      await signIn(webui);
    });

    test("a session ends when the key or the signing secret changes, and a changed cookie is none", async () => {
      const target = await postgres.createDatabase();
      const first = await startWebui(target);
      const cookie = await signIn(first);
      const isOpen = async (webui: typeof first, sent = cookie) =>
        (await visit(webui, "/", { cookie: sent })).text.includes("Parts");
      expect(await isOpen(first)).toBe(true);
      expect(await isOpen(await startWebui(target))).toBe(true);
      const rotated = { ...STATUS_PAGE, systemKey: "another-system-key" };
      expect(await isOpen(await startWebui(target, { statusPage: rotated }))).toBe(false);
      const others = { ...STATUS_PAGE, sessionSecret: "another-secret" };
      expect(await isOpen(await startWebui(target, { statusPage: others }))).toBe(false);
      const [name = "", value = ""] = cookie.split("=");
      const [until = "", nonce = "", signature = ""] = value.split(".");
      const later = `${Number(until) + 60}.${nonce}.${signature}`;
      const cut = `${until}.${nonce}.${signature.slice(0, -1)}`;
      for (const changed of [`${name}=${later}`, `${name}=${cut}`, `${cookie}; ${cookie}`, `${name}=`])
        expect([changed, await isOpen(first, changed)]).toEqual([changed, false]);
    });

    test("other methods of it are refused, and its sign-out has no GET", async () => {
      const webui = await startWebui(await postgres.createDatabase());
      for (const path of PATHS) {
        const response = await fetch(`${webui.url}${path}`, { method: "DELETE" });
        expect([response.status, response.headers.get("allow")]).toEqual([405, "GET, POST"]);
      }
      expect((await fetch(`${webui.url}/status/sign-out`)).status).toBe(405);
    });

    test("shows the masters, the pins and the runs, and no person or content", async () => {
      const target = await postgres.createDatabase();
      const directory = await recordsDir();
      await sql(target, MASTER);
      await sql(target, PINS);
      const cid = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
      const heartbeat = (operation: string, summary: string) =>
        JSON.stringify({
          operation,
          at: new Date().toISOString(),
          outcome: "ok",
          summary,
          duration_ms: 1_500,
          last_good_at: new Date().toISOString(),
        });
      await writeFile(`${directory}/sweep.json`, heartbeat("sweep", `3 pins; ${cid} of anna@example.org`));
      await writeFile(`${directory}/snapshot.json`, heartbeat("snapshot take", "2026-01-01: 3 pins"));
      const webui = await startWebui(target, {
        billing: BILLING,
        statusPage: { ...STATUS_PAGE, recordsDir: directory },
      });
      const { text } = await visit(webui, "/", { cookie: await signIn(webui) });
      expect(factsIn(text)).toMatchObject({ pinned: "2", failed: "1", "on their way": "0" });
      expect(text).toContain('<td class="">berlin &lt;b&gt;</td>');
      expect(text).toContain("3 pins; :cid of (e-mail address)");
      expect(text).not.toMatch(/@example|bafybeig|QmUser/);
      expect(statesIn(text)).toMatchObject({ database: "ok", snapshots: "ok", writer: "down" });
      expect(statesIn(text)).not.toHaveProperty("masters");
    });

    test("judges the masters of the pool as status does", async () => {
      const target = await postgres.createDatabase();
      await sql(target, MASTER);
      const webui = await startWebui(target, { masterId: "a".repeat(32) });
      const look = async () => (await visit(webui, "/", { cookie: await signIn(webui) })).text;
      expect(statesIn(await look())).not.toHaveProperty("masters");
      await sql(target, LOST_MASTER);
      const text = await look();
      expect(statesIn(text)["masters"]).toBe("attention");
      expect(text).toMatch(
        /the master paris was last seen at [\dTZ:-]+<[^]*if it is gone for good: fula-node trust remove paris/,
      );
      await sql(target, REMOVED);
      const removed = await look();
      expect(statesIn(removed)["masters"]).toBe("down");
      expect(removed).toContain("this master was removed from the pool by paris");
    });

    test("a database on another machine is named, and no container of this one", async () => {
      const target = await postgres.createDatabase();
      const elsewhere = { ...target, host: "127.0.0.9", port: await freePort() };
      const webui = await startWebui(elsewhere, { masterId: "a".repeat(32) });
      const { text } = await visit(webui, "/", { cookie: await signIn(webui) });
      expect(text).toContain(`PostgreSQL at 127.0.0.9:${elsewhere.port}`);
      expect(text).not.toContain("postgres-pinning");
      expect(statesIn(text)).toMatchObject({ database: "down", masters: "unknown" });
    });
  },
  { template: migrate },
);

const MASTER = `
  INSERT INTO masters (pool, id, name, flags, version, machine, first_seen_at, heartbeat_at)
  VALUES ('pool-a', repeat('a', 32), 'berlin <b>', '{}', '1.2.3', 'm', now(), now())`;

const LOST_MASTER = `
  INSERT INTO masters (pool, id, name, flags, version, machine, first_seen_at, heartbeat_at)
  VALUES ('pool-a', repeat('b', 32), 'paris', '{}', '1.2.3', 'n', now(), now() - interval '1 hour');
  INSERT INTO master_peers (pool, id, peer_id, addresses, trusts, updated_at)
  VALUES ('pool-a', repeat('b', 32), '12D3KooWSHj3RRbBjD15g6wekV8y3mm57Pobmps2g2WJm6F67Lay', '{}', NULL, now())`;

const REMOVED = `
  DELETE FROM masters WHERE id = repeat('a', 32);
  INSERT INTO removed_masters (pool, id, name, machine, removed_at, removed_by)
  VALUES ('pool-a', repeat('a', 32), 'berlin', 'm', now(), 'paris')`;

const PINS = `
  INSERT INTO pins (requestid, user_id, cid, status, size)
  SELECT gen_random_uuid(), 'bob@example.org', 'QmUser' || n, (ARRAY['pinned', 'pinned', 'failed'])[n], 10
  FROM generate_series(1, 3) AS n`;
