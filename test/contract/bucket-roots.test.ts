import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import {
  CLAIM_ROOT,
  moveRoot,
  type MoveOutcome,
  READ_ROOT,
  readRoot,
  requireWon,
  type RootPointer,
  StaleRoot,
  SWAP_ROOT,
  UnknownMove,
} from "../../src/buckets/bucket-roots.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { claimBuckets, faultsOf, overwriteAll, OWNER, type Seen, swapAll } from "../support/bucket-swaps.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { idOf, masterOf } from "../support/masters.ts";
import { migrate, openPool, poolOf, race, tally } from "../support/names-database.ts";
import { pageUrl } from "../support/pages.ts";
import { startPostgresProxy } from "../support/postgres-proxy.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

/** BUCKET_SWAPS=1000 takes some minutes on two cores. */
const LOAD = { clients: 64, swaps: Number(process.env["BUCKET_SWAPS"] ?? 60), buckets: 16 };
const KEY = { owner: OWNER, bucket: "photos" };
const at = (root: string, version: number): RootPointer => ({ root, version: String(version) });
const won = (root: string, version: number): MoveOutcome => ({ outcome: "Won", pointer: at(root, version) });

/** Upstream's statement (root_store_pg.rs of functionland/fula-api), restated. */
const UPSTREAM = `
  INSERT INTO bucket_roots AS b (owner_id, bucket, root_cid, version) VALUES ($1, $2, $3, 1)
  ON CONFLICT (owner_id, bucket) DO UPDATE SET root_cid = $3, version = b.version + 1, updated_at = now()
    WHERE b.root_cid = $4`;

describeOnPostgres(
  "bucket roots",
  (postgres) => {
    test("a root moves from the one that it was built on, and from no other", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      expect(await readRoot(pool, KEY)).toBeNull();
      expect(await moveRoot(pool, { ...KEY, base: at("a", 1), root: "b" })).toEqual({
        outcome: "Conflict",
        current: null,
        isWritten: false,
      });
      expect(await moveRoot(pool, { ...KEY, base: null, root: "a" })).toEqual(won("a", 1));
      expect(await moveRoot(pool, { ...KEY, base: null, root: "z" })).toMatchObject({
        outcome: "Conflict",
        current: at("a", 1),
      });
      expect(await moveRoot(pool, { ...KEY, base: at("a", 1), root: "b" })).toEqual(won("b", 2));
      const stale = { ...KEY, base: at("a", 1), root: "c" };
      const lost = await moveRoot(pool, stale);
      expect(lost).toEqual({ outcome: "Conflict", current: at("b", 2), isWritten: false });
      expect(() => requireWon(stale, lost)).toThrow(StaleRoot);
      expect(() => requireWon(stale, lost)).toThrow(
        expect.objectContaining({ current: at("b", 2), isWritten: false }),
      );
      expect(await moveRoot(pool, { ...KEY, base: at("b", 2), root: "a" })).toEqual(won("a", 3));
      // The root is the same as at version 1, and yet another one.
      expect(await moveRoot(pool, stale)).toMatchObject({ outcome: "Conflict", current: at("a", 3) });
      expect(await moveRoot(pool, { ...KEY, owner: "other", base: null, root: "a" })).toEqual(won("a", 1));
      expect(await moveRoot(pool, { ...KEY, bucket: "other", base: null, root: "a" })).toEqual(won("a", 1));
      expect(await readRoot(pool, KEY)).toEqual(at("a", 3));
    });

    test("upstream's statement and ours move one root in turn", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const upstream = (root: string, expected: string) =>
        sql(target, UPSTREAM, [KEY.owner, KEY.bucket, root, expected]);
      await upstream("a", "");
      expect(await moveRoot(pool, { ...KEY, base: at("a", 1), root: "b" })).toEqual(won("b", 2));
      await upstream("z", "a");
      expect(await readRoot(pool, KEY)).toEqual(at("b", 2));
      await upstream("c", "b");
      expect(await moveRoot(pool, { ...KEY, base: at("b", 2), root: "d" })).toMatchObject({
        outcome: "Conflict",
        current: at("c", 3),
      });
    });

    test.each([
      ["the first root", null],
      ["the next one", at("root-0", 1)],
    ])("eight racers for %s: one winner, and the others see its root", async (_, base) => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      if (base !== null) await moveRoot(pool, { ...KEY, base: null, root: "root-0" });
      const hold =
        base === null
          ? `INSERT INTO bucket_roots (owner_id, bucket, root_cid) VALUES ('${OWNER}', 'photos', 'nobody')`
          : "SELECT FROM bucket_roots FOR UPDATE";
      const racers = Array.from(
        { length: 8 },
        (__, n) => () => moveRoot(pool, { ...KEY, base, root: `racer-${n}` }),
      );
      const outcomes = await race(target, hold, racers);
      expect(tally(outcomes.map(({ outcome }) => outcome))).toEqual({ Won: 1, Conflict: 7 });
      const now = await readRoot(pool, KEY);
      expect(now?.root).toBe(`racer-${outcomes.findIndex(({ outcome }) => outcome === "Won")}`);
      expect(now?.version).toBe(base === null ? "1" : "2");
      for (const outcome of outcomes)
        if (outcome.outcome === "Conflict") expect(outcome.current).toEqual(now);
    });

    test(`${LOAD.clients} clients in ${LOAD.buckets} buckets lose no update; without the comparison they do`, async () => {
      const target = await postgres.createDatabase();
      const pool = openPool(target, LOAD.clients);
      try {
        const seen = await swapAll(pool, LOAD);
        const last = await lastOf(target);
        expect(faultsOf(seen, last)).toEqual([]);
        const counts = tally(seen.map(({ outcome }) => outcome.outcome));
        expect(counts["Won"]).toBe(LOAD.clients * LOAD.swaps);
        // Else it would be no race.
        expect(counts["Conflict"]).toBeGreaterThan(LOAD.clients);
        // The check finds what it looks for: a move that was lost, and one that two won.
        const some = seen.findIndex(({ outcome }) => outcome.outcome === "Won");
        expect(faultsOf(seen.toSpliced(some, 1), last)).not.toEqual([]);
        expect(faultsOf([...seen, ...seen.slice(some, some + 1)], last)).not.toEqual([]);
        expect(faultsOf(backwards(seen), last)).not.toEqual([]);
        await sql(target, "DELETE FROM bucket_roots");
        expect(await overwriteAll(pool, LOAD)).toBeGreaterThan(0);
      } finally {
        await pool.close();
      }
    }, 900_000);

    describe("H17: the answer is lost", () => {
      async function behindProxy(): Promise<{
        readonly target: PostgresTarget;
        readonly pool: ReturnType<typeof poolOf>;
        readonly proxy: Awaited<ReturnType<typeof startPostgresProxy>>;
      }> {
        const target = await postgres.createDatabase();
        const proxy = await startPostgresProxy(target.port);
        const pool = poolOf({ ...target, port: proxy.port });
        await claimBuckets(pool, 1);
        return { target, pool, proxy };
      }
      const FIRST = { owner: OWNER, bucket: "bucket-0" };
      const move = { ...FIRST, base: at("root-0", 1), root: "root-b" };

      test.each(["before", "after"] as const)("%s the commit: won, and moved once", async (when) => {
        const { target, pool, proxy } = await behindProxy();
        proxy.cut("root-b", when);
        expect(await moveRoot(pool, move)).toEqual(won("root-b", 2));
        proxy.cut("root-c", when);
        const next = { ...FIRST, base: at("root-b", 2), root: "root-c" };
        expect(await moveRoot(pool, next)).toEqual(won("root-c", 3));
        proxy.cut("root-new", when);
        const claim = { owner: OWNER, bucket: "new", base: null, root: "root-new" };
        expect(await moveRoot(pool, claim)).toEqual(won("root-new", 1));
        expect(
          await sql(target, "SELECT cardinality(writes) AS n FROM bucket_writes ORDER BY bucket"),
        ).toEqual([{ n: 3 }, { n: 1 }]);
      });

      test("and another moved it on: a conflict, which says that this write happened", async () => {
        const { target, pool, proxy } = await behindProxy();
        proxy.cut("root-b", "after");
        const write = randomUUID();
        const once = { tries: 1, answerMs: 5_000, pauseMs: 1 };
        expect(await moveRoot(pool, { ...move, write }, once)).toMatchObject({ outcome: "Unknown", write });
        const direct = poolOf(target);
        await moveRoot(direct, { ...FIRST, base: at("root-b", 2), root: "root-c" });
        expect(await moveRoot(pool, { ...move, write })).toEqual({
          outcome: "Conflict",
          current: at("root-c", 3),
          isWritten: true,
        });
        // After too many others nobody knows.
        for (let version = 3; version < 19; version += 1) {
          const base = await readRoot(direct, FIRST);
          await moveRoot(direct, { ...FIRST, base, root: `root-${version}` });
        }
        expect(await moveRoot(pool, { ...move, write })).toMatchObject({ isWritten: null });
      });

      test("and another wrote the same root: a conflict, and this write did not happen", async () => {
        const { target, pool, proxy } = await behindProxy();
        proxy.cut("root-b", "before");
        const write = randomUUID();
        const once = { tries: 1, answerMs: 5_000, pauseMs: 1 };
        const outcome = await moveRoot(pool, { ...move, write }, once);
        expect(() => requireWon(move, outcome)).toThrow(UnknownMove);
        await moveRoot(poolOf(target), move);
        expect(await moveRoot(pool, { ...move, write })).toEqual({
          outcome: "Conflict",
          current: at("root-b", 2),
          isWritten: false,
        });
      });

      test("Postgres does not answer at all: unknown, never won", async () => {
        const { pool, proxy } = await behindProxy();
        proxy.freeze();
        proxy.freezeNew();
        const outcome = await moveRoot(pool, move, { tries: 2, answerMs: 200, pauseMs: 1 });
        expect(outcome).toMatchObject({ outcome: "Unknown", why: expect.stringMatching(/./) });
        await expect(readRoot(pool, FIRST)).rejects.toThrow();
      });
    });

    test("what PostgreSQL refuses is thrown, and nothing moves", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const claim = { ...KEY, base: null };
      await expect(moveRoot(pool, { ...claim, root: "a\0" })).rejects.toThrow(/0x00/);
      await expect(moveRoot(pool, { ...claim, root: "a", write: "no uuid" })).rejects.toThrow(/uuid/);
      expect(await readRoot(pool, KEY)).toBeNull();
    });

    test("docs/bucket-roots.md has the statements of this program", async () => {
      const page = await readFile(pageUrl("docs/bucket-roots.md"), "utf8");
      const flat = (text: string): string => text.replaceAll(/\s+/g, " ").trim();
      const shown = [...page.matchAll(/```sql\n([^`]*)```/g)].map(([, text = ""]) => flat(text));
      expect(shown).toEqual([CLAIM_ROOT, SWAP_ROOT, READ_ROOT].map(flat));
    });

    test("032 refuses to go while a master's gateway uses it", async () => {
      const target = await postgres.createDatabase();
      await migratorOf().recordMaster(target, masterOf("m", { flags: ["FULA_BUCKET_ROOT_CAS"] }));
      await expect(migratorOf().down(target, [32], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringContaining(`FULA_BUCKET_ROOT_CAS is in use on: m (${idOf("m")}`),
      });
      await migratorOf().recordMaster(target, masterOf("m", { flags: [] }));
      await migratorOf().down(target, [32], listen());
      expect(await sql(target, "SELECT to_regclass('bucket_writes') AS there")).toEqual([{ there: null }]);
    });

    declarePartTests(postgres, {
      file: "032_bucket_writes.sql",
      breaks: [
        ["ALTER TABLE bucket_writes DROP COLUMN writes", "column bucket_writes.writes _uuid"],
        [
          "ALTER TABLE bucket_writes DROP CONSTRAINT bucket_writes_pkey",
          "primary key (owner_id, bucket) of bucket_writes",
        ],
      ],
    });
  },
  { template: migrate },
);

async function lastOf(target: PostgresTarget): Promise<ReadonlyMap<string, RootPointer>> {
  const rows = await sql<{ bucket: string; root_cid: string; version: string }>(
    target,
    "SELECT bucket, root_cid, version::text AS version FROM bucket_roots",
  );
  return new Map(rows.map(({ bucket, root_cid, version }) => [bucket, { root: root_cid, version }]));
}

/** A history in which time runs the other way round. */
function backwards(seen: readonly Seen[]): readonly Seen[] {
  return seen.map((one) => ({ ...one, began: -one.ended, ended: -one.began }));
}
