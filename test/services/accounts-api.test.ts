import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { ask, startWebui } from "./web-api.ts";

const KEY = `eyJhbGciOiJIUzI1NiJ9.e30.${"s".repeat(43)}`;
const OTHER_KEY = `eyJhbGciOiJIUzI1NiJ9.e30.${"t".repeat(43)}`;
const USER = "a".repeat(64);
const OTHER = "b".repeat(64);
const authorization = `Bearer ${KEY}`;
const BEARER = { headers: { authorization } };

function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

async function addKeys(target: PostgresTarget): Promise<void> {
  for (const [key, user] of [
    [KEY, USER],
    [OTHER_KEY, OTHER],
  ]) {
    await sql(target, "INSERT INTO webui_users (user_id) VALUES ($1)", [user]);
    await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, $2)", [hash(key ?? ""), user]);
  }
}

interface History {
  readonly entries: readonly { readonly id: number; readonly created: string }[];
  readonly next: string | null;
}

describeOnPostgres(
  "the routes of an account",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      await addKeys(target);
      return { target, webui };
    }

    test("credits: balance, totals and how long the balance lasts", async () => {
      const { target, webui } = await start();
      const nothing = {
        balanceFula: 0,
        totalDepositedFula: 0,
        totalDeductedFula: 0,
        totalBonusReceivedFula: 0,
        suspendedAt: null,
        lastDeductionAt: null,
        isSuspended: false,
        currentStorageBytes: 0,
        freeTierBytes: 1_000,
        hourlyBurnRate: 0,
        monthlyBurnRate: 0,
        hoursLeft: null,
      };
      expect(await ask(webui, "/api/v1/credits", BEARER)).toMatchObject({ status: 200, body: nothing });
      await sql(
        target,
        `INSERT INTO user_credits (user_id, balance_fula, total_deposited_fula, total_deducted_fula, total_bonus_received_fula,
           last_deduction_at, is_suspended, suspended_at)
         VALUES ($1, 9.5, 12, 2.5, 1, '2026-01-01 00:00:00.123456Z', 1, '2026-01-02 00:00:00.000001Z')`,
        [USER],
      );
      await sql(
        target,
        "INSERT INTO pins (requestid, user_id, cid, status, size) VALUES ('r', $1, 'c', 'pinned', $2)",
        [USER, 1_000 + 240 * 1024 ** 3],
      );
      expect((await ask(webui, "/api/v1/credits", BEARER)).body).toEqual({
        balanceFula: 9.5,
        totalDepositedFula: 12,
        totalDeductedFula: 2.5,
        totalBonusReceivedFula: 1,
        lastDeductionAt: "2026-01-01T00:00:00.123456Z",
        suspendedAt: "2026-01-02T00:00:00.000001Z",
        isSuspended: true,
        currentStorageBytes: 1_000 + 240 * 1024 ** 3,
        freeTierBytes: 1_000,
        hourlyBurnRate: 1,
        monthlyBurnRate: 720,
        hoursLeft: 9,
      });
    });

    test.each([
      ["from 1 on", "SELECT 1"],
      [
        "of the negative half (docs/billing.md#row-numbers)",
        "ALTER SEQUENCE credit_history_id_seq MINVALUE -2147483647 MAXVALUE -1 START WITH -2147483647 RESTART",
      ],
    ])(
      "history: 25 entries 37 microseconds apart, some at one instant, come once each, the newest first (H03); row numbers %s",
      async (_, numbers) => {
        const { target, webui } = await start();
        await sql(target, numbers);
        await sql(
          target,
          `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id, created_at)
         SELECT $1::text, 'hourly_deduction', -1, n, 'r' || n, '2026-01-01 00:00:00.123000Z'::timestamptz + n * interval '37 microseconds'
         FROM generate_series(0, 19) AS n
         UNION ALL SELECT $1::text, 'adjustment', 1, 1, NULL, '2026-01-01 00:00:00.123111Z' FROM generate_series(1, 5)
         UNION ALL SELECT $2::text, 'deposit', 1, 1, 'other', '2026-01-01 00:00:00.123111Z'`,
          [USER, OTHER],
        );
        const page = async (query: string): Promise<History> => {
          const { status, body } = await ask(webui, `/api/v1/credits/history?${query}`, BEARER);
          expect(status).toBe(200);
          return body as History;
        };
        const seen: number[] = [];
        const times: string[] = [];
        let next: string | null = null;
        do {
          const answer: History = await page(next === null ? "limit=4" : `limit=4&before=${next}`);
          seen.push(...answer.entries.map(({ id }) => id));
          times.push(...answer.entries.map(({ created }) => created));
          ({ next } = answer);
        } while (next !== null && seen.length < 100);
        expect(new Set(seen).size).toBe(25);
        expect(seen).toHaveLength(25);
        expect(times).toEqual([...times].sort().toReversed());
        expect(times[0]).toBe("2026-01-01T00:00:00.123703Z");

        // A stored instant alone leaves out exactly what happened at it and after it.
        const all = await page("limit=1000");
        const older = await page("before=2026-01-01T00:00:00.123111Z");
        expect(all.entries.filter(({ created }) => created < "2026-01-01T00:00:00.123111Z")).toEqual(
          older.entries,
        );
        expect(older.entries).toHaveLength(3);
        expect(older.next).toBeNull();
        expect(all.entries[0]).toEqual({
          id: expect.any(Number) as number,
          type: "hourly_deduction",
          amountFula: -1,
          balanceAfterFula: 19,
          reference: "r19",
          created: "2026-01-01T00:00:00.123703Z",
        });
      },
    );

    test.each([
      "limit=0",
      "limit=1001",
      "limit=1e2",
      "limit=-1",
      "limit=",
      "limit=5&limit=6",
      "before=",
      "before=yesterday",
      "before=2026-02-30T00:00:00Z",
      "before=2026-01-01T24:01:00Z",
      "before=0000-01-01T00:00:00Z",
      "before=2026-01-01T00:00:00.1234567Z",
      "before=2026-01-01T00:00:00Z,99999999999",
      "before=2026-01-01T00:00:00Z,9999999999",
      "before=2026-01-01T00:00:00Z,-2147483649",
      "before=2026-01-01T00:00:00Z,0",
      "before=%00",
      "before=2026-01-01T00:00:00Z%00",
      "before=%ff",
      "before=%ed%a0%80",
      "before=infinity",
      "before=2026-01-01T00:00:00Z&before=2026-01-01T00:00:00Z",
    ])("history refuses %s", async (query) => {
      const { webui } = await start();
      const { status, body } = await ask(webui, `/api/v1/credits/history?${query}`, BEARER);
      expect({ status, body }).toMatchObject({ status: 400, body: { code: "bad-page" } });
    });

    test("every route needs a full key", async () => {
      const { target, webui } = await start();
      const upload = [{ alg: "HS256" }, { scope: "storage:upload", exp: 4_000_000_000 }]
        .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
        .join(".");
      const uploadKey = `${upload}.${"u".repeat(43)}`;
      await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, $2)", [hash(uploadKey), USER]);
      for (const [method, path] of [
        ["GET", "/api/v1/credits"],
        ["GET", "/api/v1/credits/history"],
        ["GET", "/api/v1/wallets"],
        ["POST", "/api/v1/wallets"],
        ["POST", "/api/v1/wallets/challenge"],
        ["DELETE", "/api/v1/wallets/1"],
        ["DELETE", "/api/v1/session"],
      ] as const) {
        expect(await ask(webui, path, { method }), path).toMatchObject({ status: 401 });
        const headers = { authorization: `Bearer ${uploadKey}` };
        expect(await ask(webui, path, { method, headers }), path).toMatchObject({
          status: 403,
          body: { code: "upload-only" },
        });
      }
    });

    test("an account has a limit, and the quota calls of an ingest node have none", async () => {
      const { webui } = await start();
      const answers = await Promise.all(
        Array.from({ length: 80 }, () => ask(webui, "/api/v1/credits", BEARER)),
      );
      // Each second gives one more back.
      const limited = answers.filter(({ status }) => status === 429);
      expect(limited.length).toBeGreaterThan(5);
      for (const { body, headers } of limited) {
        expect(body).toMatchObject({ code: "too-many" });
        expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
      }
      const other = { headers: { authorization: `Bearer ${OTHER_KEY}` } };
      expect(await ask(webui, "/api/v1/credits", other)).toMatchObject({ status: 200 });
      const quota = await Promise.all(
        Array.from({ length: 150 }, async () => (await ask(webui, "/api/v1/storage", BEARER)).status),
      );
      expect(new Set(quota)).toEqual(new Set([200]));
    });

    test("a key revokes itself, here and for the pinning API", async () => {
      const { target, webui } = await start();
      await sql(
        target,
        "INSERT INTO sessions (session_token, token_hash, user_id) VALUES ($1::text, $1::text, $2)",
        [hash(KEY), USER],
      );
      expect(await ask(webui, "/api/v1/session", { method: "DELETE", ...BEARER })).toMatchObject({
        status: 204,
      });
      expect(await ask(webui, "/api/v1/storage", BEARER)).toMatchObject({ status: 401 });
      expect(
        await sql(target, "SELECT FROM sessions WHERE expires_at > now() OR expires_at IS NULL"),
      ).toEqual([]);
      const other = { headers: { authorization: `Bearer ${OTHER_KEY}` } };
      expect(await ask(webui, "/api/v1/storage", other)).toMatchObject({ status: 200 });
    });

    test("a JWT of another algorithm, or with a wrong exp, is refused also if its hash is stored (H21)", async () => {
      const { target, webui } = await start();
      const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
      const jwt = async (header: unknown, claims: unknown, signature = "s".repeat(43)): Promise<number> => {
        const token = `${part(header)}.${part(claims)}.${signature}`;
        await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", [
          hash(token),
          USER,
        ]);
        return (await ask(webui, "/api/v1/storage", { headers: { authorization: `Bearer ${token}` } }))
          .status;
      };
      const HS256 = { alg: "HS256", typ: "JWT" };
      expect(await jwt(HS256, { sub: USER, iat: 1 })).toBe(200);
      expect(await jwt(HS256, { sub: USER, exp: 4_000_000_000 })).toBe(200);
      expect(await jwt({ alg: "none" }, { sub: USER })).toBe(401);
      expect(await jwt({ alg: "HS512" }, { sub: USER }, "s".repeat(86))).toBe(401);
      expect(await jwt({ alg: "RS256" }, { sub: USER })).toBe(401);
      expect(await jwt(HS256, { sub: USER, exp: "4000000000" })).toBe(401);
      expect(await jwt(HS256, { sub: USER, exp: 1 })).toBe(401);
    });

    test.each([
      [`bearer ${KEY}`, 200],
      [`Bearer  ${KEY}`, 200],
      [`Bearer ${KEY} `, 200],
      [`Bearer ${KEY} ${KEY}`, 401],
      [`Bearer,${KEY}`, 401],
      [`Bearer \u00e9`, 401],
      [`Bearer ${"a".repeat(5_000)}`, 401],
      ["", 401],
    ])("the header %s (H21)", async (given, status) => {
      const { webui } = await start();
      expect(await ask(webui, "/api/v1/storage", { headers: { authorization: given } })).toMatchObject({
        status,
      });
    });
  },
  { template: migrate },
);
