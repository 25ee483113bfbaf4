import { expect, test } from "vitest";
import { userCreate, userToken } from "../../src/commands/user.ts";
import type { World } from "../../src/world.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
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
        lines: [expect.stringContaining("Nothing to do")],
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
