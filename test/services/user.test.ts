import { createHash, createHmac } from "node:crypto";
import { expect, test } from "vitest";
import { clock, random } from "../../src/machine/clock.ts";
import { createUser } from "../../src/accounts/users.ts";
import { openText, readClaims, sealText } from "../../src/accounts/api-key.ts";
import { issueToken } from "../../src/accounts/token.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { ask, startWebui } from "./web-api.ts";

const ENCRYPTION_KEY = "0123456789abcdef".repeat(4);
const JWT_SECRET = "jwt-secret-of-the-test";
const EMAIL = "Alice@Example.org";
const USER = createHash("sha256").update("alice@example.org").digest("hex");

function depsOn(database: ReturnType<typeof poolOf>) {
  return { database, random, clock, encryptionKey: ENCRYPTION_KEY, jwtSecret: JWT_SECRET };
}

describeOnPostgres(
  "accounts",
  (postgres) => {
    test("one is made once, with the address encrypted", async () => {
      const target = await postgres.createDatabase();
      const deps = depsOn(poolOf(target));

      expect(await createUser(deps, EMAIL)).toEqual({ userId: USER, created: true });
      const rows = await sql<{ encrypted_email: string }>(target, "SELECT * FROM webui_users");
      expect(rows).toMatchObject([{ user_id: USER, email: null, name: null }]);
      expect(openText(rows[0]?.encrypted_email ?? "", ENCRYPTION_KEY)).toBe("alice@example.org");
      expect(openText(rows[0]?.encrypted_email ?? "", "f".repeat(64))).toBeNull();

      expect(await createUser(deps, "ALICE@example.org")).toEqual({ userId: USER, created: false });
      expect(await sql(target, "SELECT * FROM webui_users")).toEqual(rows);
      expect(await sql(target, "SELECT user_id, username, pool_id FROM users")).toEqual([
        { user_id: USER, username: null, pool_id: 1 },
      ]);
    });

    test("twenty runs at once make one account", async () => {
      const target = await postgres.createDatabase();
      const deps = depsOn(poolOf(target));
      const made = await Promise.all(Array.from({ length: 20 }, () => createUser(deps, EMAIL)));
      expect(made.filter(({ created }) => created)).toHaveLength(1);
      expect(await sql(target, "SELECT FROM webui_users")).toHaveLength(1);
      expect(await sql(target, "SELECT FROM users")).toHaveLength(1);
    });

    test("a token opens the storage API, and is what the pinning API looks for", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      const deps = depsOn(poolOf(target));
      await createUser(deps, EMAIL);

      const { token, userId } = await issueToken(deps, {
        email: EMAIL,
        name: undefined,
        uploadOnly: false,
        lifetimeMs: null,
      });

      expect(userId).toBe(USER);
      expect(
        await ask(webui, "/api/v1/storage", { headers: { authorization: `Bearer ${token}` } }),
      ).toMatchObject({
        status: 200,
        body: { canUpload: true },
      });
      const hash = createHash("sha256").update(token).digest("hex");
      expect(
        await sql(
          target,
          `SELECT username, user_id, session_token FROM sessions
           WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > now())`,
          [hash],
        ),
      ).toEqual([{ username: USER, user_id: USER, session_token: hash }]);
    });

    test("a token is a JWT of HS256 with upstream's claims, and stands nowhere in clear", async () => {
      const target = await postgres.createDatabase();
      const deps = depsOn(poolOf(target));
      await createUser(deps, EMAIL);
      const { token } = await issueToken(deps, {
        email: EMAIL,
        name: undefined,
        uploadOnly: false,
        lifetimeMs: null,
      });
      const [header = "", payload = "", signature = ""] = token.split(".");

      expect(JSON.parse(Buffer.from(header, "base64url").toString())).toEqual({ alg: "HS256", typ: "JWT" });
      expect(JSON.parse(Buffer.from(payload, "base64url").toString())).toEqual({
        sub: USER,
        iat: expect.any(Number) as number,
        scope: "storage:read storage:write",
        jti: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      });
      expect(signature).toBe(
        createHmac("sha256", JWT_SECRET).update(`${header}.${payload}`).digest("base64url"),
      );
      const stored = await sql<Record<string, unknown>>(
        target,
        "SELECT row_to_json(k)::text AS key, row_to_json(s)::text AS session FROM api_keys k, sessions s",
      );
      expect(stored).toHaveLength(1);
      expect(JSON.stringify(stored)).not.toContain(signature);
      expect(JSON.stringify(stored)).not.toContain(payload);
      const [row] = await sql<{ encrypted_key: string; key_id: null }>(target, "SELECT * FROM api_keys");
      expect(row?.key_id).toBeNull();
      expect(openText(row?.encrypted_key ?? "", ENCRYPTION_KEY)).toBe(token);
    });

    test("each run issues another, but a name only once while its key lives", async () => {
      const target = await postgres.createDatabase();
      const deps = depsOn(poolOf(target));
      await createUser(deps, EMAIL);
      const issue = async (name?: string) =>
        (await issueToken(deps, { email: EMAIL, name, uploadOnly: false, lifetimeMs: null })).token;

      const tokens = [await issue(), await issue(), await issue("ci"), await issue("ci-2")];
      expect(new Set(tokens).size).toBe(4);
      expect(readClaims(tokens[2] ?? "")?.name).toBe("ci");
      await expect(issue("ci")).rejects.toMatchObject({ exit: "drift" });
      expect(await sql(target, "SELECT FROM api_keys")).toHaveLength(4);
      expect(await sql(target, "SELECT FROM sessions")).toHaveLength(4);
      await sql(target, "UPDATE api_keys SET is_deleted = 1");
      await issue("ci");
    });

    test("a key for uploading opens only the question whether its owner may upload, and expires", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target);
      let now = new Date();
      const deps = { ...depsOn(poolOf(target)), clock: { now: () => now } };
      await createUser(deps, EMAIL);
      const issue = async (hours: number) =>
        await issueToken(deps, { email: EMAIL, name: "up", uploadOnly: true, lifetimeMs: hours * 3_600_000 });
      const at = async (path: string, token: string) => {
        const { status, body } = await ask(webui, path, { headers: { authorization: `Bearer ${token}` } });
        return { status, body };
      };

      const { token, expiresAt } = await issue(2);
      expect(Date.parse(expiresAt ?? "") / 1_000).toBe(Math.floor(now.getTime() / 1_000) + 7_200);
      expect(JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString())).toMatchObject({
        scope: "storage:upload",
        exp: Date.parse(expiresAt ?? "") / 1_000,
      });
      expect(await at("/api/v1/storage", token)).toEqual({ status: 200, body: { canUpload: true } });
      expect(await at("/api/v1/nodes", token)).toMatchObject({ status: 403, body: { code: "upload-only" } });
      // The pinning API accepts what is in sessions.
      expect(await sql(target, "SELECT FROM sessions")).toEqual([]);
      await expect(issue(2)).rejects.toMatchObject({ exit: "drift" });

      now = new Date(Date.now() - 3 * 3_600_000);
      await sql(target, "UPDATE api_keys SET is_deleted = 1");
      const old = await issue(2);
      expect(await at("/api/v1/storage", old.token)).toMatchObject({ status: 401 });
      expect(await at("/api/v1/nodes", old.token)).toMatchObject({ status: 401 });

      now = new Date();
      await issue(2);
      const hash = createHash("sha256").update(old.token).digest("hex");
      expect(await sql(target, "SELECT is_deleted FROM api_keys WHERE key_hash = $1", [hash])).toEqual([
        { is_deleted: 1 },
      ]);
      expect(await sql(target, "SELECT FROM api_keys WHERE is_deleted = 0")).toHaveLength(1);
    });

    test("there is no token without an account, a proper address or a proper name", async () => {
      const target = await postgres.createDatabase();
      const deps = depsOn(poolOf(target));
      for (const name of [undefined, "ci"])
        await expect(
          issueToken(deps, { email: EMAIL, name, uploadOnly: false, lifetimeMs: null }),
        ).rejects.toMatchObject({
          exit: "settings",
          remedy: expect.stringContaining("user create --email alice@example.org") as string,
        });
      await expect(
        issueToken(deps, { email: "alice", name: undefined, uploadOnly: false, lifetimeMs: null }),
      ).rejects.toMatchObject({
        exit: "usage",
      });
      await expect(createUser(deps, "a b@c")).rejects.toMatchObject({ exit: "usage" });
      await expect(
        issueToken(deps, { email: EMAIL, name: "a b", uploadOnly: false, lifetimeMs: null }),
      ).rejects.toMatchObject({
        exit: "usage",
      });
      expect(await sql(target, "SELECT FROM api_keys")).toEqual([]);
      expect(await sql(target, "SELECT FROM sessions")).toEqual([]);
    });
  },
  { template: migrate },
);

test("what is sealed has upstream's layout: iv, tag, ciphertext in base64", () => {
  const sealed = Buffer.from(sealText("text", ENCRYPTION_KEY, "00".repeat(12)), "base64");
  expect(sealed).toHaveLength(12 + 16 + 4);
  expect(sealed.subarray(0, 12)).toEqual(Buffer.alloc(12));
  expect(sealText("text", ENCRYPTION_KEY, "01".repeat(12))).not.toBe(sealed.toString("base64"));
  sealed[14] = (sealed[14] ?? 0) ^ 1;
  expect(openText(sealed.toString("base64"), ENCRYPTION_KEY)).toBeNull();
  for (const garbage of ["", "x", "plain@example.org"]) expect(openText(garbage, ENCRYPTION_KEY)).toBeNull();
});
