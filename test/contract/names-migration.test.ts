import { expect, test } from "vitest";
import { announceName } from "../../src/federation/registry.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { catalogueOf, listen, migratorOf } from "../support/migrations.ts";
import { migrate, OPEN, poolOf } from "../support/names-database.ts";
import { announcementOf, makeIdentity } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const VERSION = 21;

describeOnPostgres(
  "migration 021",
  (postgres) => {
    declarePartTests(postgres, {
      file: "021_node_names.sql",
      breaks: [
        [
          "ALTER TABLE node_owners DROP CONSTRAINT node_owners_quota",
          "constraint node_owners_quota on node_owners",
        ],
        [
          "ALTER TABLE node_names DROP CONSTRAINT node_names_pkey",
          "constraint node_names_pkey on node_names",
        ],
        ["ALTER TABLE node_descriptors DROP COLUMN revision", "column node_descriptors.revision int8"],
        ["DROP TABLE node_releases", "table node_releases"],
      ],
    });

    test("down refuses while a name is held, and names it", async () => {
      const target = await postgres.createDatabase();
      const before = await catalogueOf(target);
      const message = announcementOf(makeIdentity(), { name: "berlin" });
      await announceName(poolOf(target), { message, signature: "ab".repeat(64) }, 5, OPEN);

      await expect(migratorOf().down(target, [VERSION], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "021_node_names.down.sql refuses: 1 node name(s) are held: berlin (pool pool-a).",
        remedy: expect.stringContaining("fula-node leave") as string,
      });
      expect(await catalogueOf(target)).toEqual(before);

      await sql(target, "DELETE FROM node_names");
      const { done } = await migratorOf().down(target, [VERSION], listen());

      expect(done).toMatchObject([{ version: VERSION, action: "revert" }]);
      const ofNames = /node_(?:names|owners|descriptors|releases)/;
      expect((await catalogueOf(target)).filter((line) => ofNames.test(line))).toEqual([]);
      await migratorOf().up(target, listen());
      expect(await catalogueOf(target)).toEqual(before);
    });

    test("the database itself refuses a name that is none", async () => {
      const target = await postgres.createDatabase();
      for (const name of ["Berlin", "a.b", "", "-a", "a--b", "x".repeat(65), "b\u0435rlin"])
        await expect(
          sql(target, "INSERT INTO node_names VALUES ('p', $1, 'o', gen_random_uuid(), now())", [name]),
        ).rejects.toMatchObject({ constraint: "node_names_name_check" });
    });
  },
  { template: migrate },
);
