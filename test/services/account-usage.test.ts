import { expect, test } from "vitest";
import { usageOf } from "../../src/accounts/usage.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const ADD = `INSERT INTO pins (requestid, user_id, cid, status, size)
  SELECT gen_random_uuid(), $1::text, 'c' || n, $2, $3 FROM generate_series(1, $4::integer) AS n`;

/** What upstream's statement gives for every account, beside what the storage API answers. */
async function compare(target: PostgresTarget): Promise<void> {
  const sums = await sql<{ user_id: string; bytes: string }>(
    target,
    "SELECT user_id, coalesce(sum(size) FILTER (WHERE status <> 'deleted'), 0) AS bytes FROM pins WHERE user_id IS NOT NULL GROUP BY user_id",
  );
  const pool = poolOf(target);
  for (const { user_id, bytes } of sums)
    expect(await usageOf(pool, user_id), user_id).toMatchObject({ storageBytes: Number(bytes) });
}

describeOnPostgres(
  "the usage of an account",
  (postgres) => {
    test("is the sum of its pins' sizes, whatever happens to them", async () => {
      const target = await postgres.createDatabase();
      const run = async (statement: string, values: readonly unknown[] = []) => {
        await sql(target, statement, values);
        await compare(target);
      };
      await run(ADD, ["a", "pinned", 10, 3]);
      await run(ADD, ["a", "queued", 0, 3]);
      await run(ADD, ["b", "deleted", 7, 3]);
      await run(ADD, ["b", "failed", 5, 1]);
      await run(ADD, [null, "pinned", 5, 1]);
      await run("UPDATE pins SET size = 4 WHERE status = 'queued'");
      await run("UPDATE pins SET size = NULL WHERE cid = 'c1'");
      await run("UPDATE pins SET status = 'deleted' WHERE cid = 'c2'");
      await run("UPDATE pins SET status = 'pinned' WHERE status = 'deleted'");
      await run("UPDATE pins SET user_id = 'b' WHERE user_id = 'a' AND cid = 'c3'");
      await run("UPDATE pins SET user_id = 'a' WHERE user_id IS NULL");
      await run("UPDATE pins SET name = 'n'");
      await run("DELETE FROM pins WHERE cid = 'c3'");
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        await client.query("UPDATE pins SET size = 1000000");
        await client.query("ROLLBACK");
      });
      await compare(target);
      const [row] = await sql<{ bytes: string }>(
        target,
        "SELECT sum(bytes) AS bytes FROM account_usage WHERE account = 'b'",
      );
      expect(Number(row?.bytes)).toBeGreaterThan(0);
      await run("TRUNCATE pins");
      expect(await usageOf(poolOf(target), "b")).toMatchObject({ storageBytes: 0 });
    });

    test("counts the pins from before the migration", async () => {
      const target = await postgres.createDatabase();
      await sql(target, ADD, ["a", "pinned", 10, 3]);
      await migratorOf().down(target, [25], listen());
      await sql(target, ADD, ["a", "pinned", 1, 2]);
      await sql(target, ADD, ["a", "deleted", 1, 2]);
      await migratorOf().up(target, listen());
      expect(await usageOf(poolOf(target), "a")).toMatchObject({ storageBytes: 32 });
    });

    test("is right after changes that race, and none of them waits for another", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await sql(target, ADD, ["a", "pinned", 1, 1]);
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        // Holds the account's row until the end.
        await client.query(ADD, ["a", "pinned", 100, 1]);
        await client.query("SELECT FROM account_usage FOR UPDATE");
        await Promise.all(
          Array.from({ length: 20 }, () => pool.query(ADD, ["a", "pinned", 10, 1], { timeoutMs: 5_000 })),
        );
        expect(await usageOf(pool, "a")).toMatchObject({ storageBytes: 201 });
        await client.query("COMMIT");
      });
      expect(await usageOf(pool, "a")).toMatchObject({ storageBytes: 301 });
      for (let round = 0; round < 10; round += 1)
        await Promise.all(
          Array.from({ length: 20 }, (_, n) =>
            n % 2 === 0
              ? pool.query(ADD, ["a", "pinned", 10, 1])
              : // One row each: statements that change several rows in different orders would lock each other out.
                pool.query("UPDATE pins SET size = size + 1 WHERE id = (SELECT min(id) + $1 FROM pins)", [n]),
          ),
        );
      await compare(target);
      // One row for each change that ever ran at the same time as the others, not one for each change.
      const [rows] = await sql<{ count: number }>(target, "SELECT count(*)::integer FROM account_usage");
      expect(rows?.count).toBeLessThanOrEqual(26);
    });

    test("two transactions that change two accounts in opposite orders do not lock each other out", async () => {
      const target = await postgres.createDatabase();
      for (const account of ["a", "b"]) await sql(target, ADD, [account, "pinned", 1, 1]);
      await inSession(target, async (one) => {
        await inSession(target, async (other) => {
          await one.query("BEGIN");
          await other.query("BEGIN");
          await one.query(ADD, ["a", "pinned", 1, 1]);
          await other.query(ADD, ["b", "pinned", 1, 1]);
          await one.query(ADD, ["b", "pinned", 1, 1]);
          await other.query(ADD, ["a", "pinned", 1, 1]);
          await one.query("COMMIT");
          await other.query("COMMIT");
        });
      });
      await compare(target);
    });

    test("takes no longer with 200,000 pins than with one", async () => {
      const target = await postgres.createDatabase();
      await sql(target, ADD, ["few", "pinned", 1, 1]);
      await sql(target, ADD, ["many", "pinned", 1_000, 200_000]);
      await sql(target, "ANALYZE");
      const blocks = async (account: string): Promise<number> => {
        const [row] = await sql<{ "QUERY PLAN": readonly [{ Plan: Record<string, number> }] }>(
          target,
          `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT sum(bytes) FROM account_usage WHERE account = '${account}'`,
        );
        const plan = row?.["QUERY PLAN"][0].Plan ?? {};
        return (plan["Shared Hit Blocks"] ?? 0) + (plan["Shared Read Blocks"] ?? 0);
      };
      expect(await blocks("many")).toBe(await blocks("few"));
      expect(await usageOf(poolOf(target), "many")).toMatchObject({ storageBytes: 200_000_000 });
    });
  },
  { template: migrate },
);
