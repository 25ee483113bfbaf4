import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { faultOfGate, NO_KEY } from "../../src/status/gate-part.ts";
import { migrate } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { listenAnywhere } from "./serving.ts";
import { ask, startWebui } from "./web-api.ts";

const KEY = `eyJhbGciOiJIUzI1NiJ9.e30.${"s".repeat(43)}`;
const USER = "a".repeat(64);
const BEARER = { headers: { authorization: `Bearer ${KEY}` } };

function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

async function addKey(target: PostgresTarget): Promise<void> {
  await sql(target, "INSERT INTO webui_users (user_id) VALUES ($1)", [USER]);
  await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, $2)", [hash(KEY), USER]);
}

async function addPin(target: PostgresTarget, size: number, status = "pinned", user = USER): Promise<void> {
  await sql(
    target,
    "INSERT INTO pins (requestid, user_id, cid, status, size) VALUES (gen_random_uuid(), $1, 'c', $2, $3)",
    [user, status, size],
  );
}

describeOnPostgres(
  "GET /api/v1/storage",
  (postgres) => {
    test("tells what the key's account uses, owns and may do, and of no other account", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await addKey(target);
      await addPin(target, 1_500);
      await addPin(target, 500, "queued");
      await addPin(target, 9_999, "deleted");
      await addPin(target, 9_999, "pinned", "b".repeat(64));
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ($1, 9.7)", [USER]);

      const { status, body } = await ask(webui, "/api/v1/storage", BEARER);

      expect({ status, body }).toEqual({
        status: 200,
        body: {
          currentStorageBytes: 2_000,
          freeTierBytes: 1_000,
          paidStorageBytes: Math.floor((9.7 / 3) * 1024 ** 3),
          totalAvailableBytes: 1_000 + Math.floor((9.7 / 3) * 1024 ** 3),
          balanceFula: 9.7,
          monthlyBurnRate: (1_000 / 1024 ** 3) * 3,
          isConsuming: true,
          canUpload: true,
          isSuspended: false,
        },
      });
    });

    test("an account that never pinned or paid may upload; one that is suspended above the free tier may not", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await addKey(target);
      expect(await ask(webui, "/api/v1/storage", BEARER)).toMatchObject({
        status: 200,
        body: { currentStorageBytes: 0, balanceFula: 0, canUpload: true, isSuspended: false },
      });
      await addPin(target, 3_000_000_000_000);
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula, is_suspended) VALUES ($1, 5, 1)", [
        USER,
      ]);
      expect(await ask(webui, "/api/v1/storage", BEARER)).toMatchObject({
        body: { currentStorageBytes: 3_000_000_000_000, canUpload: false, isSuspended: true },
      });
    });

    test("a key from before user ids is known by the hash of its e-mail address", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await sql(target, "INSERT INTO api_keys (key_hash, user_email) VALUES ($1, 'Old@Example.org')", [
        hash(KEY),
      ]);
      await addPin(target, 77, "pinned", hash("old@example.org"));

      expect(await ask(webui, "/api/v1/storage", BEARER)).toMatchObject({
        body: { currentStorageBytes: 77 },
      });
    });

    test("401 without a key, with a wrong one, a revoked one, and one that only a session has", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await addKey(target);
      await sql(
        target,
        "INSERT INTO sessions (session_token, token_hash, user_id) VALUES ($1::text, $1::text, $2)",
        [hash("only-a-session"), USER],
      );
      const using = (authorization: string) => ask(webui, "/api/v1/storage", { headers: { authorization } });
      const missing = { status: 401, body: { error: "An API key is required: Authorization: Bearer KEY." } };
      const refused = {
        status: 401,
        body: { error: "This API key is not valid: it is unknown, revoked or expired." },
      };

      expect(await ask(webui, "/api/v1/storage")).toMatchObject(missing);
      for (const authorization of [`Basic ${KEY}`, "Bearer"])
        expect(await using(authorization)).toMatchObject(missing);
      for (const authorization of ["Bearer wrong", "Bearer only-a-session", `Bearer ${hash(KEY)}`]) {
        expect(await using(authorization)).toMatchObject(refused);
        expect(await ask(webui, "/api/v1/nodes", { headers: { authorization } })).toMatchObject(refused);
      }
      expect((await using("Bearer x")).headers.get("www-authenticate")).toBe("Bearer");
      await sql(target, "UPDATE api_keys SET is_deleted = 1");
      expect(await using(`Bearer ${KEY}`)).toMatchObject(refused);
    });

    test("notes when a key was used, once in five minutes, and never waits for that", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await addKey(target);
      const used = async () =>
        (await sql<{ used: string | null }>(target, "SELECT last_used_at::text AS used FROM api_keys"))[0]
          ?.used;

      expect(await used()).toBeNull();
      await ask(webui, "/api/v1/storage", BEARER);
      const first = await used();
      await ask(webui, "/api/v1/storage", BEARER);
      expect(await used()).toBe(first);

      await sql(target, "UPDATE api_keys SET last_used_at = now() - interval '6 minutes'");
      const aged = await used();
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        await client.query("SELECT FROM api_keys FOR UPDATE");
        expect(await ask(webui, "/api/v1/storage", BEARER)).toMatchObject({ status: 200 });
        await client.query("ROLLBACK");
      });
      expect(await used()).toBe(aged);
      await ask(webui, "/api/v1/storage", BEARER);
      expect(await used()).not.toBe(aged);
    });

    test("an ingest node's many calls from one address are all answered", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await addKey(target);
      const statuses = new Set<number>();
      for (let round = 0; round < 20; round += 1) {
        const answers = await Promise.all(
          Array.from({ length: 20 }, () => ask(webui, "/api/v1/storage", BEARER)),
        );
        for (const { status } of answers) statuses.add(status);
      }
      expect([...statuses]).toEqual([200]);
    });

    test.each(["api_keys", "pins", "user_credits", "invites", "node_names", "node_descriptors"])(
      "without its table %s the service is not healthy, and says which one is lost",
      async (table) => {
        const target = await postgres.createDatabase();
        const webui = await startWebui(target);
        await addKey(target);
        expect(await ask(webui, "/health")).toMatchObject({ status: 200 });
        await sql(target, `ALTER TABLE ${table} RENAME TO elsewhere`);
        const error = `the database lacks the table ${table}`;
        expect(await ask(webui, "/health")).toMatchObject({
          status: 503,
          body: { checks: { postgres: { ok: false, error } } },
        });
        if (table === "api_keys")
          expect(await ask(webui, "/api/v1/storage", BEARER)).toMatchObject({
            status: 503,
            body: { error: "The database lacks a table or function. Try again." },
          });
      },
    );

    test("what status of a storage node asks: 401 if the key was looked up, 503 if it could not be", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const asked = { headers: { authorization: `Bearer ${NO_KEY}` } };
      expect(faultOfGate(await ask(webui, "/api/v1/storage", asked))).toBeNull();
      await sql(target, "ALTER TABLE api_keys RENAME TO elsewhere");
      expect(faultOfGate(await ask(webui, "/api/v1/storage", asked))).toBe(
        "answers 503 (The database lacks a table or function. Try again.)",
      );
      expect((await ask(webui, "/api/v1/storage")).status).toBe(401);
    });

    test("503 while the database is away, and the client learns no detail", async () => {
      const { port, close } = await listenAnywhere(() => {});
      await close();
      const webui = await startWebui({ ...(await postgres.createDatabase()), port });

      const { status, body, headers } = await ask(webui, "/api/v1/storage", BEARER);

      expect({ status, body }).toEqual({
        status: 503,
        body: { error: "The database does not respond. Try again.", code: "database-unavailable" },
      });
      expect(headers.get("retry-after")).toBe("5");
      expect(webui.lines.join("\n")).toContain("the database does not respond:");
      expect(webui.lines.join("\n")).not.toContain(KEY);
    });
  },
  { template: migrate },
);
