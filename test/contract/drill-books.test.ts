import { expect, test } from "vitest";
import type { MoveOutcome, RootMove } from "../../src/buckets/bucket-roots.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { bucketDrill, bucketDrillOf } from "../../src/drills/bucket-drill.ts";
import { nameDrill, nameDrillOf } from "../../src/drills/name-drill.ts";
import { replayDrill } from "../../src/drills/replay-drill.ts";
import type { Announcement, Signed } from "../../src/federation/announcement.ts";
import { drillDatabases, drillDeps, processesOf, runDrill, type Twin } from "../support/drills.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";

type Database = Pick<PostgresPool, "query">;

describeOnPostgres(
  "D5, D8 and D10",
  (postgres) => {
    async function run(drill: typeof replayDrill | typeof bucketDrill | typeof nameDrill, twin: Twin = {}) {
      const target = await postgres.createDatabase();
      const deps = await drillDeps(twin);
      const outcome = await runDrill(drill, deps, target);
      expect(await drillDatabases(target)).toEqual([]);
      expect(await processesOf(deps.packageDir)).toEqual([]);
      return outcome;
    }

    test("D5 passes, and leaves nothing", async () => {
      const outcome = await run(replayDrill);
      expect(outcome).toMatchObject({ state: "passed", todo: null });
      expect(outcome.summary).toMatch(
        /^(?:160|200) charges by two masters without a lease, each once; the same [45] hours again: none; 3 transfers/,
      );
    });

    test("D5 fails without the index that allows one charge for each user and hour", async () => {
      const outcome = await run(replayDrill, { sql: "DROP INDEX idx_credit_history_hourly_dedup" });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /^a run of drill-master-[ab] failed: deduction: .*no unique or exclusion/,
      );
    });

    test("D5 fails if charges of an hour are forgotten, so that the hour is charged again", async () => {
      const outcome = await run(replayDrill, {
        sql: `CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN DELETE FROM credit_history WHERE user_id = 'drill-account-0007'; RETURN NEW; END $$;
          CREATE TRIGGER forget BEFORE UPDATE OF finished_at ON billing_hours FOR EACH ROW
            WHEN (OLD.finished_at IS NOT NULL AND NEW.finished_at IS NULL) EXECUTE FUNCTION forget()`,
      });
      expect(outcome).toMatchObject({
        state: "failed",
        summary: "hours that were billed before charged 4 accounts again",
      });
    });

    test("D5 fails without the key that allows one row for each transfer", async () => {
      const outcome = await run(replayDrill, { sql: "ALTER TABLE deposits DROP CONSTRAINT deposits_pkey" });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /^a run of drill-master-[ab] failed: scanner: .*no unique or exclusion/,
      );
    });

    test("D5 fails if a credit is forgotten, so that a claim credits the transfer again", async () => {
      const outcome = await run(replayDrill, {
        sql: `CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN UPDATE deposits SET account = NULL, credited_at = NULL;
              UPDATE token_transactions SET claimed_at = NULL; RETURN NEW; END $$;
          CREATE TRIGGER forget BEFORE UPDATE OF last_scanned_block ON chain_sync_state FOR EACH ROW
            WHEN (NEW.last_scanned_block < OLD.last_scanned_block) EXECUTE FUNCTION forget()`,
      });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toBe("a transaction that was credited before was credited again by a claim");
    });

    test("D8 passes, and leaves nothing", async () => {
      expect(await run(bucketDrill)).toMatchObject({
        state: "passed",
        evidence: {
          "with the comparison": "0 of 20 pairs lost a write",
          "without the comparison": "20 of 20 pairs lost a write",
        },
      });
    });

    test("D8 fails if a move compares nothing", async () => {
      const outcome = await run(bucketDrillOf(moveWithoutComparison));
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toBe(
        "with the comparison, 2 of 2 writers of compared-1 won with the same base, so the write of one is lost",
      );
    });

    test("D8 fails if the table keeps the roots of other writers away, so that the comparison is not shown to protect", async () => {
      const outcome = await run(bucketDrill, {
        sql: `CREATE FUNCTION merge() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.root_cid = OLD.root_cid || NEW.root_cid; RETURN NEW; END $$;
          CREATE TRIGGER merge BEFORE UPDATE ON bucket_roots FOR EACH ROW
            WHEN (NEW.bucket LIKE 'plain-1%') EXECUTE FUNCTION merge()`,
      });
      expect(outcome).toMatchObject({
        state: "failed",
        summary:
          "without the comparison only 9 of 20 pairs lost a write, so the comparison is not shown to protect",
      });
    });

    test("D10 passes, and leaves nothing", async () => {
      expect(await run(nameDrill)).toMatchObject({ state: "passed", evidence: { names: "10" } });
    });

    test("D10 fails without the key of the names", async () => {
      const outcome = await run(nameDrill, { sql: "ALTER TABLE node_names DROP CONSTRAINT node_names_pkey" });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(/no unique or exclusion constraint/);
    });

    test("D10 fails if a registry looks first, and then writes", async () => {
      const outcome = await run(nameDrillOf(lookThenWrite), {
        sql: "ALTER TABLE node_names DROP CONSTRAINT node_names_pkey",
      });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /^(?:[2-9]|\d\d) of 24 nodes that claimed the name drill-1 at once got it$/,
      );
    });
  },
  { template: migrate },
);

async function moveWithoutComparison(database: Database, move: RootMove): Promise<MoveOutcome> {
  const [row] = await database.query<{ version: string }>(
    `INSERT INTO bucket_roots (owner_id, bucket, root_cid) VALUES ($1, $2, $3)
       ON CONFLICT (owner_id, bucket) DO UPDATE SET root_cid = excluded.root_cid, version = bucket_roots.version + 1
       RETURNING version::text`,
    [move.owner, move.bucket, move.root],
  );
  return { outcome: "Won", pointer: { root: move.root, version: row?.version ?? "" } };
}

async function lookThenWrite(database: Database, { message: { pool, name, peerId } }: Signed<Announcement>) {
  const found = await database.query(
    "SELECT FROM node_names WHERE pool = $1 AND name = $2 AND owner <> '12D3KooWfulaDrill0'",
    [pool, name],
  );
  if (found.length > 0) return { outcome: "TakenByOther" } as const;
  const [row] = await database.query<{ reservation: string }>(
    `INSERT INTO node_names (pool, name, owner, reservation, reserved_at) VALUES ($1, $2, $3, gen_random_uuid(), now())
       RETURNING reservation`,
    [pool, name, peerId],
  );
  return { outcome: "Reserved", reservation: row?.reservation ?? "" } as const;
}
