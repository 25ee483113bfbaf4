import { expect, test } from "vitest";
import { declarePartTests } from "../support/migration-parts.ts";
import { catalogueOf, listen, migratorOf } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const VERSION = 24;

describeOnPostgres(
  "migration 024",
  (postgres) => {
    test("says of each row what is next", async () => {
      const target = await postgres.createDatabase();
      const id = await accept(poolOf(target), { account: "u", cid: "bafy" });
      const phaseOf = async (change: string) => {
        await sql(target, `UPDATE pin_work SET ${change} WHERE requestid = $1`, [id]);
        return (await sql<{ phase: string }>(target, "SELECT phase FROM pin_work"))[0]?.phase;
      };
      expect(await phaseOf("attempts = 0")).toBe("send");
      expect(await phaseOf("sent_at = now()")).toBe("look");
      expect(await phaseOf("pinned_at = now()")).toBe("size");
      expect(await phaseOf("action = 'unpin'")).toBe("unpin");
      await expect(phaseOf("action = 'other'")).rejects.toMatchObject({ constraint: "pin_work_action" });
    });

    declarePartTests(postgres, {
      file: "024_pin_work.sql",
      breaks: [
        ["ALTER TABLE pin_work ALTER due_at DROP NOT NULL", "column pin_work.due_at timestamptz"],
        ["DROP INDEX idx_pin_work_turn", "index idx_pin_work_turn"],
        ["DROP TABLE pin_doubts", "table pin_doubts"],
      ],
    });

    test("down refuses while work is left", async () => {
      const target = await postgres.createDatabase();
      const before = await catalogueOf(target);
      await accept(poolOf(target), { account: "u", cid: "bafy" });
      await expect(migratorOf().down(target, [VERSION], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "024_pin_work.down.sql refuses: 1 pin request(s) are still being worked on.",
        remedy: expect.stringContaining("Wait until the pinning API has finished them") as string,
      });
      expect(await catalogueOf(target)).toEqual(before);
      await sql(target, "DELETE FROM pin_work");
      await expect(migratorOf().down(target, [VERSION], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "024_pin_work.down.sql refuses: an index of migration 034 is on pin_work.",
      });
      for (const later of [36, 34]) await migratorOf().down(target, [later], listen());
      const { done } = await migratorOf().down(target, [VERSION], listen());
      expect(done).toMatchObject([{ version: VERSION, action: "revert" }]);
      await migratorOf().up(target, listen());
      expect(await catalogueOf(target)).toEqual(before);
    });
  },
  { template: migrate },
);
