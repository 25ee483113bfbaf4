import { expect, test } from "vitest";
import { catalogueOf, ledgerOf, listen, migratorOf, OUR_VERSIONS } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { idOf, masterOf } from "../support/masters.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const WITHOUT_ADDRESS =
  "INSERT INTO user_wallets (user_id, wallet_address_hash, chain_id) VALUES ('u', 'h', 1)";

describeOnPostgres(
  "taking a migration back",
  (postgres) => {
    test.each([
      [18, "BILLING_IDEMPOTENCY", "018_deduction_idempotency"],
      [20, "FULA_BUCKET_ROOT_CAS", "020_bucket_roots"],
    ])("%i refuses while %s is in use on any master", async (version, flag, name) => {
      const target = await postgres.createDatabase();
      const before = await catalogueOf(target);
      await migratorOf().recordMaster(target, masterOf("master-b", { flags: [flag] }));
      await migratorOf().recordMaster(target, masterOf("master-a", { flags: ["SOMETHING_ELSE"] }));

      await expect(migratorOf().down(target, [version], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringContaining(
          `${name}.down.sql refuses: ${flag} is in use on: master-b (${idOf("master-b")}, seen `,
        ),
        remedy: expect.stringContaining(`Set ${flag}=false on each of these masters`),
        changed: undefined,
      });
      expect(await catalogueOf(target)).toEqual(before);
      expect(await stateOf(target, version)).toBe("applied");

      await migratorOf().recordMaster(target, masterOf("master-b", { flags: [] }));
      const { lines, report } = listen();
      const { done } = await migratorOf().down(target, [version], { report });

      expect(done).toMatchObject([{ version, file: `${name}.down.sql`, action: "revert" }]);
      expect(lines).toEqual([expect.stringMatching(/\.down\.sql: reverted in \d+ ms$/)]);
      expect(await stateOf(target, version)).toBe("reverted");
      expect(await catalogueOf(target)).not.toEqual(before);

      const again = await migratorOf().up(target, listen());
      expect(again.done).toMatchObject([{ version, action: "apply" }]);
      expect(await catalogueOf(target)).toEqual(before);
    });

    test("18 refuses while a master that nobody recorded books deductions by the hour", async () => {
      const target = await postgres.createDatabase();
      const book = (reference: string, age: string) =>
        sql(
          target,
          `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id, created_at)
           VALUES ('u', 'hourly_deduction', -1, 0, $1, now() - $2::interval)`,
          [reference, age],
        );
      // A master without the flag writes a time; one that turned it off has old rows.
      await book("2026-06-12T14:00:00.000Z", "1 minute");
      await book("hour:2026-06-10T14", "2 days");
      await migratorOf().down(target, [18], listen());
      await migratorOf().up(target, listen());
      await book("hour:2026-06-12T14", "1 hour");

      await expect(migratorOf().down(target, [18], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringMatching(
          /refuses: a master books deductions with BILLING_IDEMPOTENCY: 1 within a day/,
        ),
      });
      expect(await stateOf(target, 18)).toBe("applied");
    });

    test("20 refuses while a bucket's root is in the table, whoever put it there", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "INSERT INTO bucket_roots (owner_id, bucket, root_cid) VALUES ('o', 'b', 'bafy')");

      await expect(migratorOf().down(target, [20], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringMatching(/^020_bucket_roots\.down\.sql refuses: bucket_roots has 1 pointer\(s\)/),
        remedy: expect.stringContaining("pg_dump -t bucket_roots"),
      });
      expect(await sql(target, "SELECT bucket FROM bucket_roots")).toEqual([{ bucket: "b" }]);
    });

    test("29 refuses while a master runs the billing, or while digits of a balance would be lost", async () => {
      const target = await postgres.createDatabase();
      await sql(
        target,
        `INSERT INTO cron_lease (name, generation, holder, pid, backend_start, acquired_at, heartbeat_at)
         VALUES ('billing', 1, 'm1', 1, now(), now(), now())`,
      );
      await expect(migratorOf().down(target, [29], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringMatching(/refuses: a master runs the billing: m1/),
      });
      await sql(target, "UPDATE cron_lease SET pid = NULL");
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ('a', 200000)");
      await sql(target, "SELECT change_credits('a', -0.004, 0, 0, false)");
      await expect(migratorOf().down(target, [29], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringMatching(/refuses: 1 balance\(s\) have more digits than a REAL/),
      });
      await sql(target, "DELETE FROM exact_credits");
      await migratorOf().down(target, [29], listen());
      expect(await sql(target, "SELECT balance_fula FROM user_credits")).toEqual([{ balance_fula: 200000 }]);
    });

    test("19 refuses while a wallet has no address, also with 20 applied above it", async () => {
      const target = await postgres.createDatabase();
      await sql(target, WITHOUT_ADDRESS);

      await expect(migratorOf().down(target, [19], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "019_user_wallets_nullable_address.down.sql refuses: 1 wallet(s) in user_wallets have no wallet_address.",
      });
      expect(await stateOf(target, 19)).toBe("applied");

      await sql(target, "UPDATE user_wallets SET wallet_address = '0xabc'");
      await migratorOf().down(target, [19], listen());

      await expect(sql(target, WITHOUT_ADDRESS)).rejects.toMatchObject({ code: "23502" });
      expect(await ledgerOf(target)).toEqual([
        "1 applied applied",
        "18 applied applied",
        "19 applied reverted",
        "20 applied applied",
        ...OUR_VERSIONS.map((version) => `${version} applied applied`),
      ]);
      expect(await migratorOf().status(target)).toMatchObject({ pending: 1 });
    });

    test("several are taken back in one transaction: if one refuses, all stay", async () => {
      const target = await postgres.createDatabase();
      const before = await catalogueOf(target);
      await migratorOf().recordMaster(target, masterOf("master-b", { flags: ["BILLING_IDEMPOTENCY"] }));
      const { lines, report } = listen();

      await expect(migratorOf().down(target, [39, 36, 18], { report })).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringContaining("018_deduction_idempotency.down.sql refuses"),
      });
      expect(lines).toEqual([]);
      expect(await catalogueOf(target)).toEqual(before);

      const { done } = await migratorOf().down(target, [39, 38, 36], listen());
      expect(done.map(({ version }) => version)).toEqual([39, 38, 36]);
      expect(await stateOf(target, 36)).toBe("reverted");
      await migratorOf().up(target, listen());
      expect(await catalogueOf(target)).toEqual(before);
    });

    test.each(["failed", "applying"])(
      "one that is %s left its row alone, which is taken back",
      async (state) => {
        const target = await postgres.createDatabase();
        await migratorOf().down(target, [39], listen());
        const before = await catalogueOf(target);
        await sql(target, `UPDATE fula_node.migrations SET state = '${state}' WHERE version = 39`);

        const { done } = await migratorOf().down(target, [39], listen());

        expect(done).toMatchObject([{ version: 39, action: "revert" }]);
        expect(await stateOf(target, 39)).toBe("reverted");
        expect(await catalogueOf(target)).toEqual(before);
      },
    );

    test("001 can't be taken back", async () => {
      const target = await postgres.createDatabase();

      await expect(migratorOf().down(target, [1], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "001_schema.sql can't be reverted.",
      });
    });

    test("what is not applied is left alone; a number that does not exist is a mistake", async () => {
      const target = await postgres.createDatabase();
      await migratorOf().down(target, [20], listen());
      const { lines, report } = listen();

      expect(await migratorOf().down(target, [20], { report })).toEqual({ done: [] });
      expect(lines).toEqual(["020_bucket_roots.sql: not applied according to the ledger, nothing to revert"]);
      await expect(migratorOf().down(target, [7], listen())).rejects.toMatchObject({
        exit: "usage",
        remedy: expect.stringMatching(/^Name one of 001, 018, 019, 020/),
      });
    });
  },
  { template: async (target) => void (await migratorOf().up(target, listen())) },
);

async function stateOf(target: PostgresTarget, version: number): Promise<string | undefined> {
  const [row] = await sql<{ state: string }>(
    target,
    "SELECT state FROM fula_node.migrations WHERE version = $1",
    [version],
  );
  return row?.state;
}
