import { expect, test } from "vitest";
import { idOf, masterOf } from "../support/masters.ts";
import { catalogueOf, listen, migratorOf, SHIPPED_VERSIONS } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";

const TRANSFER = `INSERT INTO failed_deposits (chain_id, tx_hash, log_index, transfer, reason, dismissed_at, dismissed_by)
  VALUES (1, 'tx', 0, '{}', 'why', now(), 'me')`;
const REMOVED = `INSERT INTO removed_masters (pool, id, name, removed_at, removed_by)
  VALUES ('pool-a', '${idOf("lost")}', 'lost', now(), 'other')`;
const INVITE = `INSERT INTO invites (pool, id, verifying_key, issued_at, expires_at)
  VALUES ('pool-a', 'i', 'k', now(), now() + interval '1 day')`;
const MASTER_INVITE = `${INVITE}; INSERT INTO master_invites (pool, id) VALUES ('pool-a', 'i')`;

/** What makes the guard of a down file refuse. */
const REFUSALS: readonly (readonly [number, string])[] = [
  [39, MASTER_INVITE],
  [38, REMOVED],
  [35, TRANSFER],
  [33, TRANSFER],
  [31, "INSERT INTO blocked_cids (cid) VALUES ('bafkqaaa')"],
  [25, "INSERT INTO account_holds (account, reason, actor) VALUES ('u', 'why', 'me')"],
  [23, INVITE],
  [20, "INSERT INTO bucket_roots (owner_id, bucket, root_cid) VALUES ('o', 'b', 'bafy')"],
  [19, "INSERT INTO user_wallets (user_id, wallet_address_hash, chain_id) VALUES ('u', 'h', 1)"],
];

const DOWNWARDS = SHIPPED_VERSIONS.filter((version) => version > 1).toReversed();

describeOnPostgres(
  "asking down files before they run",
  (postgres) => {
    test("none refuses without a reason, however many are to be reverted at once", async () => {
      const target = await postgres.createDatabase();
      // As while the storage API runs: a rollback stops it, and so ends the lease.
      await sql(
        target,
        `INSERT INTO cron_lease (name, generation, holder, pid, backend_start, acquired_at, heartbeat_at)
         VALUES ('billing', 1, 'm1', 1, now(), now(), now())`,
      );
      const previews = await migratorOf().previewDown(target, DOWNWARDS);
      expect(previews).toHaveLength(DOWNWARDS.length);
      await sql(target, "UPDATE cron_lease SET pid = NULL, backend_start = NULL");
      expect((await migratorOf().down(target, DOWNWARDS, listen())).done).toHaveLength(DOWNWARDS.length);
      expect(await migratorOf().previewDown(target, DOWNWARDS)).toEqual([]);
    });

    test.each(REFUSALS)(
      "%i says before what it says when it runs, and changes nothing",
      async (version, row) => {
        const target = await postgres.createDatabase();
        await sql(target, row);
        const before = await catalogueOf(target);
        const asked = await refusalOf(migratorOf().previewDown(target, [version]));
        const ran = await refusalOf(migratorOf().down(target, [version], listen()));
        expect(asked).toMatchObject({ exit: "drift", changed: undefined });
        expect([asked["what"], asked["remedy"]]).toEqual([ran["what"], ran["remedy"]]);
        expect(asked["what"]).toMatch(new RegExp(`^0${version}_\\w+\\.down\\.sql refuses: `));
        expect(await catalogueOf(target)).toEqual(before);
      },
    );

    test("all that refuse are listed, each with what to do", async () => {
      const target = await postgres.createDatabase();
      await sql(target, `${TRANSFER}; ${REMOVED}; ${MASTER_INVITE}`);
      await migratorOf().recordMaster(target, masterOf("master-b", { flags: ["BILLING_IDEMPOTENCY"] }));
      // The tables are in public, also for a role that looks elsewhere.
      await sql(target, `ALTER DATABASE ${target.database} SET search_path = elsewhere`);
      const refused = await refusalOf(migratorOf().previewDown(target, [40, 39, 38, 36, 35, 18]));
      expect(refused).toMatchObject({
        what: "Migrations can't be reverted: 4 things in the database prevent that.",
        problems: [
          { subject: "039_master_invites.down.sql", remedy: expect.stringContaining("invite revoke ID") },
          { subject: "038_trust.down.sql", remedy: expect.stringContaining("removed_masters") },
          { subject: "035_billing_records.down.sql", remedy: expect.stringContaining("pg_dump -t failed") },
          { subject: "018_deduction_idempotency.down.sql", what: expect.stringContaining("master-b") },
        ],
      });
    });

    test("the question does not wait for a master that serves, and such a master does not wait for it", async () => {
      const target = await postgres.createDatabase();
      await inSession(target, async (writer) => {
        await writer.query(
          `BEGIN; ${TRANSFER}; ${REMOVED}; ${MASTER_INVITE}; LOCK TABLE pins IN ROW EXCLUSIVE MODE`,
        );
        const versions = DOWNWARDS.filter((version) => version > 34);
        expect(await migratorOf().previewDown(target, versions)).toHaveLength(versions.length);
        await writer.query("COMMIT");
        await expect(migratorOf().previewDown(target, versions)).rejects.toMatchObject({ exit: "drift" });
      });
    });

    test("a table that is locked is not taken for a refusal", { timeout: 30_000 }, async () => {
      const target = await postgres.createDatabase();
      await inSession(target, async (other) => {
        await other.query("BEGIN; LOCK TABLE master_invites IN ACCESS EXCLUSIVE MODE");
        await expect(migratorOf().previewDown(target, [39])).rejects.toMatchObject({
          exit: "unavailable",
          what: "039_master_invites.down.sql failed: canceling statement due to lock timeout.",
          why: expect.stringContaining("the down file was only asked whether it would refuse"),
          remedy: expect.stringContaining("Another session holds a lock"),
        });
      });
    });
  },
  { template: async (target) => void (await migratorOf().up(target, listen())) },
);

async function refusalOf(question: Promise<unknown>): Promise<Readonly<Record<string, unknown>>> {
  const thrown = await question.then(
    () => null,
    (error: unknown) => error,
  );
  expect(thrown).not.toBeNull();
  return thrown as Readonly<Record<string, unknown>>;
}
