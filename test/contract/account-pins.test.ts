import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { splitStatements } from "../../src/database/migration-file.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { parseCid } from "../../src/pinning/content-id.ts";
import { readPinFilter, STATUSES } from "../../src/pinning/pin-filter.ts";
import { addPin, listPins, removePin, replacePin } from "../../src/pinning/pin-store.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { catalogueOf, listen, migratorOf, runPlainly, SHIPPED, until } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const VERSION = 28;
const FILE = "028_account_pins.sql";
const ACCOUNTS = ["a", "b"] as const;
const LIMITS = { freeTierBytes: 1_000_000, maxPending: null, deadlineSeconds: 3_600 };

/** Rows as any other program writes them. */
const ADD = `INSERT INTO pins (requestid, user_id, cid, status)
  SELECT gen_random_uuid(), $1::text, 'c' || n, $2::text FROM generate_series(1, $3::integer) AS n`;

/** Compares the numbers that are kept with those that are counted: `a pinned 3`. */
async function expectExact(target: PostgresTarget): Promise<void> {
  const numbers = async (number: string): Promise<readonly string[]> => {
    const rows = await sql<{ line: string }>(
      target,
      `SELECT concat_ws(' ', a.account, s.status, ${number}) AS line
       FROM unnest($1::text[]) AS a (account), unnest($2::text[]) AS s (status) ORDER BY 1`,
      [ACCOUNTS, STATUSES],
    );
    return rows.map(({ line }) => line);
  };
  expect(await numbers("account_pin_count(a.account, ARRAY[s.status])")).toEqual(
    await numbers("(SELECT count(*) FROM pins p WHERE p.user_id = a.account AND p.status = s.status)"),
  );
}

/** One change of pins, by this program or by another one. */
type Change = (pool: PostgresPool) => Promise<unknown>;

const account = fc.constantFrom(...ACCOUNTS, null);
const status = fc.constantFrom(...STATUSES, "deleted");
const part = fc.integer({ min: 0, max: 3 });
const pinOf = (cid: string) => ({
  requestid: randomUUID(),
  pin: { cid: parseCid(cidOf(cid)) ?? fail(), name: "", origins: [], meta: "{}" },
  delegates: [],
});
function fail(): never {
  throw new Error("not a CID");
}

async function someRequest(pool: PostgresPool, of: string): Promise<string> {
  const [row] = await pool.query<{ requestid: string }>(
    "SELECT requestid FROM pins WHERE user_id = $1 AND status <> 'deleted' ORDER BY random() LIMIT 1",
    [of],
  );
  return row?.requestid ?? "none";
}

const owner = fc.constantFrom(...ACCOUNTS);
const content = fc.constantFrom("x", "y");
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(account, status, fc.integer({ min: 0, max: 4 })).map(
    (values): Change =>
      (pool) =>
        pool.query(ADD, values),
  ),
  fc.tuple(status, part).map(
    (values): Change =>
      (pool) =>
        pool.query("UPDATE pins SET status = $1 WHERE id % 4 = $2", values),
  ),
  fc.tuple(account, part).map(
    (values): Change =>
      (pool) =>
        pool.query("UPDATE pins SET user_id = $1 WHERE id % 4 = $2", values),
  ),
  part.map(
    (value): Change =>
      (pool) =>
        pool.query("DELETE FROM pins WHERE id % 4 = $1", [value]),
  ),
  fc.constant<Change>((pool) => pool.query("UPDATE pins SET name = 'n', size = 1")),
  fc.tuple(owner, status, part).map(
    ([user, state, key]): Change =>
      (pool) =>
        pool.query(
          `INSERT INTO pins (requestid, user_id, cid, status) VALUES ('fixed-' || $3::text, $1, 'c', $2)
           ON CONFLICT (requestid) DO UPDATE SET status = excluded.status, user_id = excluded.user_id`,
          [user, state, key],
        ),
  ),
  fc.tuple(status, part).map(
    (values): Change =>
      (pool) =>
        pool
          .transaction(async (database) => {
            await database.query("UPDATE pins SET status = $1 WHERE id % 4 = $2", values);
            throw new Error("taken back");
          })
          .catch(() => {}),
  ),
  fc.tuple(owner, content).map(
    ([user, cid]): Change =>
      (pool) =>
        addPin(pool, [null, user], pinOf(cid), LIMITS),
  ),
  owner.map(
    (user): Change =>
      async (pool) =>
        removePin(pool, [null, user], await someRequest(pool, user), LIMITS),
  ),
  fc.tuple(owner, content).map(
    ([user, cid]): Change =>
      async (pool) =>
        replacePin(pool, [null, user], await someRequest(pool, user), pinOf(cid), LIMITS),
  ),
);

describeOnPostgres(
  "the numbers of an account's pins",
  (postgres) => {
    test("are those of count(*), whatever changes pins", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 12 }), async (changes) => {
          for (const one of changes) {
            await one(pool);
            await expectExact(target);
          }
        }),
        { numRuns: 25 },
      );
      await sql(target, "TRUNCATE pins");
      await expectExact(target);
    });

    test("are right after changes that race, and none of them waits for another", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await sql(target, ADD, ["a", "queued", 1]);
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        await client.query(ADD, ["a", "queued", 3]);
        await client.query("SELECT FROM account_pins FOR UPDATE");
        const changes = Array.from({ length: 40 }, (_, n) =>
          n % 2 === 0
            ? pool.query(ADD, ["a", "queued", 2], { timeoutMs: 5_000 })
            : pool.query("UPDATE pins SET status = 'pinned' WHERE id = $1", [n], { timeoutMs: 5_000 }),
        );
        await Promise.all(changes);
        await client.query("COMMIT");
      });
      await expectExact(target);
    });

    test("are the count of a list by status; with another filter its rows are counted", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await sql(target, ADD, ["a", "pinned", 12]);
      await sql(target, ADD, ["a", "queued", 3]);
      await sql(target, ADD, ["b", "pinned", 1]);
      await sql(target, "UPDATE account_pins SET pinned = pinned + 100 WHERE account = 'a'");
      const count = async (query: string): Promise<number | undefined> => {
        const filter = readPinFilter(query);
        if ("problem" in filter) throw new Error(filter.problem);
        return (await listPins(pool, [null, "a"], filter.value))?.count;
      };
      // The numbers were made wrong above, to see where they are used.
      expect(await count("")).toBe(112);
      expect(await count("status=pinned,queued&limit=1")).toBe(115);
      expect(await count("status=failed")).toBe(0);
      expect(await count("before=2999-01-01T00:00:00Z")).toBe(12);
      expect(await count("after=2000-01-01T00:00:00Z")).toBe(12);
      expect(await count("name=x")).toBe(0);
      expect(await count(`cid=${cidOf("x")}`)).toBe(0);
    });

    describe("migration 028", () => {
      test("counts the pins from before, and those that are changed while it runs", async () => {
        const target = await postgres.createDatabase();
        await migratorOf().down(target, [VERSION], listen());
        await sql(target, ADD, ["a", "pinned", 20_000]);
        const pool = poolOf(target);
        const over = new AbortController();
        let changes = 0;
        const writers = Array.from({ length: 6 }, async (_, n) => {
          while (!over.signal.aborted) {
            await pool.query(ADD, [ACCOUNTS[n % 2], STATUSES[n % 4], 2]);
            await pool.query("UPDATE pins SET status = 'failed' WHERE id = (SELECT max(id) - $1 FROM pins)", [
              n,
            ]);
            await pool.query("DELETE FROM pins WHERE id = (SELECT min(id) + $1 FROM pins)", [n]);
            changes += 1;
          }
        });
        await until("writers write", async () => changes > 20);
        await migratorOf().up(target, listen());
        const soFar = changes;
        await until("they still do", async () => changes > soFar + 20);
        over.abort();
        await Promise.all(writers);
        await expectExact(target);
      });

      test("waits for a transaction that has changed pins, and counts what it did", async () => {
        const target = await postgres.createDatabase();
        await migratorOf().down(target, [VERSION], listen());
        await inSession(target, async (client) => {
          await client.query("BEGIN");
          await client.query(ADD, ["a", "pinned", 5]);
          const running = migratorOf().up(target, listen());
          await until("it waits", async () => (await waiting(target)) > 0);
          await client.query("COMMIT");
          await running;
        });
        await expectExact(target);
      });

      test("does not keep the writers waiting while it counts", async () => {
        const target = await postgres.createDatabase();
        await migratorOf().down(target, [VERSION], listen());
        const statements = splitStatements(readFileSync(join(SHIPPED, FILE), "utf8")).map(({ text }) => text);
        const counts = statements.findIndex((text) => text.startsWith("INSERT INTO account_pins"));
        await runPlainly(target, statements.slice(0, counts));
        await inSession(target, async (client) => {
          await client.query("BEGIN");
          await client.query(statements[counts] ?? "");
          await inSession(target, async (writer) => {
            await writer.query("SET lock_timeout = '2s'");
            await writer.query(ADD, ["a", "pinned", 5]);
          });
          await client.query("COMMIT");
        });
        await runPlainly(target, statements.slice(counts + 1));
        await expectExact(target);
      });

      const pieces = splitStatements(readFileSync(join(SHIPPED, FILE), "utf8"));

      test.each(pieces.slice(0, -1).map((_, index) => index + 1))(
        "is done again after it was cut short behind statement %i",
        async (count) => {
          const target = await postgres.createDatabase();
          const before = await catalogueOf(target);
          await migratorOf().down(target, [VERSION], listen());
          await runPlainly(
            target,
            pieces.slice(0, count).map(({ text }) => text),
          );
          await sql(target, ADD, ["a", "pinned", 5]);
          const { done } = await migratorOf().up(target, listen());
          expect(done).toMatchObject([{ version: VERSION, action: "clear-and-retry" }]);
          expect(await catalogueOf(target)).toEqual(before);
          await expectExact(target);
        },
      );

      test.each([
        ["ALTER TABLE account_pins ALTER pinned DROP NOT NULL", "column account_pins.pinned int8"],
        ["ALTER TABLE pins DISABLE TRIGGER pins_count_update", "trigger pins_count_update on pins"],
      ])("a part of it that is missing is named: %s", async (breaks, named) => {
        const target = await postgres.createDatabase();
        await sql(target, "DROP SCHEMA fula_node CASCADE");
        await sql(target, breaks);
        await expect(migratorOf().status(target)).rejects.toMatchObject({
          exit: "drift",
          problems: [{ subject: FILE, what: `missing: ${named}` }],
        });
      });

      test("is adopted where the ledger lost it, and can be taken back and applied again", async () => {
        const target = await postgres.createDatabase();
        const before = await catalogueOf(target);
        await sql(target, "DROP SCHEMA fula_node CASCADE");
        const { done } = await migratorOf().up(target, listen());
        expect(done.find(({ version }) => version === VERSION)).toMatchObject({ action: "adopt" });
        await sql(target, ADD, ["a", "pinned", 5]);
        await migratorOf().down(target, [VERSION], listen());
        await migratorOf().up(target, listen());
        expect(await catalogueOf(target)).toEqual(before);
        await expectExact(target);
      });
    });
  },
  { template: migrate },
);

async function waiting(target: PostgresTarget): Promise<number> {
  const [row] = await sql<{ count: number }>(
    target,
    "SELECT count(*)::integer AS count FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1",
    [target.database],
  );
  return row?.count ?? 0;
}
