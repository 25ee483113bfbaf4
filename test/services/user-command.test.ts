import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { userKeys, userRevoke, userToken } from "../../src/commands/accounts/user-key.ts";
import { userCreate } from "../../src/commands/accounts/user.ts";
import type { World } from "../../src/world.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { listenAnywhere } from "./serving.ts";
import { JWT_SECRET, masterOn } from "./verbs-master.ts";
import { ask, startWebui } from "./web-api.ts";

describeOnPostgres(
  "the verbs of accounts",
  (postgres) => {
    test("print the token alone, and it opens the storage API", async () => {
      const target = await postgres.createDatabase();
      const { baseDir, world, results } = await masterOn(target);
      const flags = { baseDir, email: "alice@example.org" };

      expect(await userCreate(flags, world)).toBe("ok");
      expect(await userCreate(flags, world)).toBe("ok");
      expect(await userToken({ ...flags, name: "ci" }, world)).toBe("ok");

      const [made, found, issued] = results;
      expect(made).toMatchObject({ data: { verb: "user create", created: true } });
      expect(found).toMatchObject({
        data: { created: false },
        lines: ["Nothing to do: the account already exists:", expect.stringMatching(/^[0-9a-f]{64}\.$/)],
      });
      expect(issued?.lines).toHaveLength(1);
      const authorization = `Bearer ${issued?.lines[0] ?? ""}`;
      const webui = await startWebui(target);
      expect(await ask(webui, "/api/v1/storage", { headers: { authorization } })).toMatchObject({
        status: 200,
      });
    });

    test.each([
      [{ hours: "5" }, /only for a key that is made with --upload/],
      [{ upload: true, hours: "0" }, /whole number from 1 to 720/],
      [{ upload: true, hours: "721" }, /whole number from 1 to 720/],
      [{ upload: true, hours: "1e2" }, /whole number from 1 to 720/],
    ])("refuse %j before anything is read", async (hours, what) => {
      const flags = { baseDir: "/nonexistent", email: "alice@example.org", ...hours };
      await expect(userToken(flags, {} as World)).rejects.toMatchObject({
        exit: "usage",
        what: expect.stringMatching(what) as string,
      });
    });

    test("print a key for uploading that is valid for a day", async () => {
      const { baseDir, world, results, warnings } = await masterOn(await postgres.createDatabase());
      const flags = { baseDir, email: "alice@example.org" };
      await userCreate(flags, world);
      expect(await userToken({ ...flags, upload: true }, world)).toBe("ok");
      const data = results[1]?.data as { readonly expiresAt: string } | undefined;
      expect(results[1]?.lines).toHaveLength(1);
      expect(warnings).toEqual([`This key is good for uploads only, and expires at ${data?.expiresAt}.`]);
      expect((Date.parse(data?.expiresAt ?? "") - Date.now()) / 3_600_000).toBeCloseTo(24, 1);
      await userToken({ ...flags, expires: "30d" }, world);
      expect(warnings[1]).toMatch(/^This key expires at \S+\.$/);
    });

    test("list an account's keys without the keys, and revoke one of them", async () => {
      const target = await postgres.createDatabase();
      const { baseDir, world, results } = await masterOn(target);
      const flags = { baseDir, email: "alice@example.org" };
      const bob = { baseDir, email: "bob@example.org" };
      for (const one of [flags, bob]) await userCreate(one, world);
      await userKeys(flags, world);
      expect(results.at(-1)?.lines).toEqual(["The account has no key that is good now."]);
      const make = async (more: object) => {
        await userToken({ ...flags, ...more }, world);
        return String(results.at(-1)?.lines[0]);
      };
      const tokens = [
        await make({ name: "ci", expires: "30d" }),
        await make({ upload: true }),
        await make({}),
      ];
      const ids = tokens.map((token) => createHash("sha256").update(token).digest("hex").slice(0, 12));
      const webui = await startWebui(target);
      const statusOf = async (token: string) =>
        (await ask(webui, "/api/v1/storage", { headers: { authorization: `Bearer ${token}` } })).status;
      expect(await statusOf(tokens[0] ?? "")).toBe(200);
      await sql(
        target,
        `INSERT INTO sessions (username, session_token, token_hash, user_id)
         SELECT user_id, repeat('c', 64), repeat('c', 64), user_id FROM webui_users WHERE user_id = $1`,
        [createHash("sha256").update(flags.email).digest("hex")],
      );
      const listed = async (more: object = {}) => {
        await userKeys({ ...flags, ...more }, world);
        return results.at(-1)?.data["keys"] as readonly { readonly id: string }[];
      };
      await expect
        .poll(async () => (await listed()).find(({ id }) => id === ids[0]), { timeout: 20_000 })
        .toMatchObject({ lastUsed: expect.stringMatching(/Z$/) as string });
      const keys = await listed();
      expect(keys).toHaveLength(4);
      expect(keys).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ id: ids[0], name: "ci", kind: "full", state: "active" }),
          expect.objectContaining({ id: ids[1], name: null, kind: "upload", lastUsed: null }),
          expect.objectContaining({ id: ids[2], kind: "full", expires: null }),
          expect.objectContaining({ id: "c".repeat(12), kind: "session", state: "active" }),
        ]),
      );
      const shown = JSON.stringify(results.at(-1));
      for (const token of tokens) expect(shown).not.toContain(token.split(".")[2]);
      for (const line of results.at(-1)?.lines ?? []) expect(line.length, line).toBeLessThanOrEqual(80);

      const reason = "the laptop was stolen";
      await expect(userRevoke(ids[0] ?? "", { ...bob, reason }, world)).rejects.toMatchObject({
        exit: "settings",
        what: expect.stringContaining("no key whose id begins with") as string,
        remedy: `See the ids of its keys: fula-node user keys --email ${bob.email} --all`,
      });
      expect(await statusOf(tokens[0] ?? "")).toBe(200);
      await userRevoke((ids[0] ?? "").slice(0, 8), { ...flags, reason }, world);
      expect(results.at(-1)?.data).toMatchObject({ verb: "user revoke", key: ids[0], changed: true });
      await userRevoke(ids[0] ?? "", { ...flags, reason }, world);
      expect(results.at(-1)?.data).toMatchObject({ changed: false });
      expect([await statusOf(tokens[0] ?? ""), await statusOf(tokens[2] ?? "")]).toEqual([401, 200]);
      await userRevoke("cccccc", { ...flags, reason }, world);
      expect(new Set((await listed()).map(({ id }) => id))).toEqual(new Set([ids[1], ids[2]]));
      const every = await listed({ all: true });
      expect(every).toHaveLength(4);
      const at = expect.stringMatching(/^\d{4}-.*Z$/) as string;
      expect(every).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ id: ids[0], state: "revoked", expires: at, revoked: at }),
          expect.objectContaining({ id: "c".repeat(12), state: "revoked", expires: null, revoked: at }),
          expect.objectContaining({ id: ids[2], state: "active", revoked: null }),
        ]),
      );
      const text = (results.at(-1)?.lines ?? []).join(" ").replaceAll(/ +/g, " ");
      expect(text).toMatch(/ci, full key, made \S+, last used \S+, revoked \d{4}-/);
      expect(text).toContain(`To revoke one: fula-node user revoke KEY --email ${flags.email} --reason TEXT`);
      expect(
        await sql(target, "SELECT FROM sessions WHERE expires_at IS NULL OR expires_at > now()"),
      ).toHaveLength(1);
      expect(await sql(target, "SELECT actor, action, details FROM admin_audit_log ORDER BY id")).toEqual([
        { actor: "root@m1", action: "revoke-key", details: { key: ids[0], reason } },
        { actor: "root@m1", action: "revoke-key", details: { key: "c".repeat(12), reason } },
      ]);
      const nobody = { baseDir, email: "nobody@example.org" };
      await expect(userKeys(nobody, world)).rejects.toMatchObject({ exit: "usage" });
    });

    test.each(["abc", "ABCDEF", "eyJhbGciOiJIUzI1NiJ9.e30.x"])(
      "a key in the command line is not repeated, and nothing is read: %s",
      async (key) => {
        const flags = { baseDir: "/nonexistent", email: "alice@example.org", reason: "r" };
        const refused: unknown = await userRevoke(key, flags, {} as World).catch((thrown: unknown) => thrown);
        expect(refused).toMatchObject({ exit: "usage" });
        expect(JSON.stringify(refused)).not.toContain(key);
      },
    );

    test("say which secret is missing, that the database is away, and that it was never migrated", async () => {
      const target = await postgres.createDatabase();
      const email = "alice@example.org";
      const keyless = await masterOn(target, { JWT_SECRET });
      await expect(userCreate({ ...keyless, email }, keyless.world)).rejects.toMatchObject({
        exit: "settings",
        what: expect.stringMatching(/does not contain ENCRYPTION_KEY\.$/) as string,
      });
      const { port, close } = await listenAnywhere(() => {});
      await close();
      const away = await masterOn({ ...target, port });
      await expect(userCreate({ ...away, email }, away.world)).rejects.toMatchObject({ exit: "unavailable" });
      const wrong = await masterOn({ ...target, password: "hunter2-wrong" });
      const refused: unknown = await userCreate({ ...wrong, email }, wrong.world).catch(
        (thrown: unknown) => thrown,
      );
      expect(refused).toMatchObject({ exit: "settings" });
      expect(JSON.stringify(refused)).not.toContain("hunter2");
      const empty = await masterOn(postgres.target);
      await expect(userCreate({ ...empty, email }, empty.world)).rejects.toMatchObject({ exit: "pending" });
    });
  },
  { template: migrate },
);
