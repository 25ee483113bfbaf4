import { expect, test } from "vitest";
import { createPostgres } from "../../src/database/postgres.ts";
import { parseCid, usualSpellingsOf } from "../../src/pinning/content-id.ts";
import { loseContent, sendOnceMore } from "../../src/pinning/queue.ts";
import { readSearched } from "../../src/pinning/searched.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, remove } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const [A, B] = [cidOf("searched a"), cidOf("searched b")];
const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
const [V1] = usualSpellingsOf(parseCid(V0) ?? expect.unreachable()) as readonly [string, string];

/** As the sweep reads it: in read-only sessions. */
function searched(target: PostgresTarget, limit?: number): ReturnType<typeof readSearched> {
  const reader = createPostgres();
  return readSearched({ query: (text, values) => reader.query(target, text, values) }, limit);
}

const cidsOf = async (target: PostgresTarget): Promise<readonly string[]> =>
  [...(await searched(target)).cids].toSorted();

describeOnPostgres(
  "what the pinning API still searches for",
  (postgres) => {
    test("requests that wait, are sent or are looked for; none that is pinned, deleted or failed", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      expect(await searched(target)).toEqual({ cids: new Set(), isCut: false });
      const id = await accept(pool, { account: "u", cid: A });
      expect(await cidsOf(target)).toEqual([A]);
      await sql(target, "UPDATE pins SET status = 'pinning'");
      await sql(target, "UPDATE pin_work SET sent_at = now()");
      expect(await cidsOf(target)).toEqual([A]);
      // Only the size is missing.
      await sql(target, "UPDATE pin_work SET pinned_at = now()");
      expect(await cidsOf(target)).toEqual([]);
      await sql(target, "UPDATE pin_work SET pinned_at = NULL");
      await sql(target, "UPDATE pins SET status = 'failed'");
      expect(await cidsOf(target)).toEqual([]);
      await remove(pool, id);
      expect(await cidsOf(target)).toEqual([]);
    });

    test("content that was pinned and lost its copies is not hidden, nor by a new request of anybody", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const id = await accept(pool, { account: "u", cid: A });
      const pinned = async (): Promise<void> => {
        await sql(target, "UPDATE pins SET status = 'pinned' WHERE requestid = $1", [id]);
        await sql(target, "DELETE FROM pin_work WHERE requestid = $1", [id]);
      };
      await pinned();
      await accept(pool, { account: "mallory", cid: A });
      expect(await cidsOf(target)).toEqual([]);
      await sendOnceMore(pool, id);
      expect(await cidsOf(target)).toEqual([]);
      await pinned();
      expect(await loseContent(pool, [A])).toBe(1);
      expect(await cidsOf(target)).toEqual([]);
      // The one that had it is gone: what is left was never pinned.
      await remove(pool, id);
      expect(await cidsOf(target)).toEqual([A]);
    });

    test("the spellings of a content are one: the cluster's are given, and every one of a pinned request counts", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await accept(pool, { account: "u", cid: V0 });
      await accept(pool, { account: "u", cid: B });
      expect(await cidsOf(target)).toEqual([V0, V1, B].toSorted());
      const upper = V1.toUpperCase();
      await sql(
        target,
        "INSERT INTO pins (requestid, user_id, cid, status) VALUES ('old', 'o', $1, 'pinned')",
        [upper],
      );
      expect(await cidsOf(target)).toEqual([B]);
    });

    test("more requests than the limit are cut, those that the cluster has first", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await accept(pool, { account: "u", cid: A });
      const sent = await accept(pool, { account: "u", cid: B });
      await sql(target, "UPDATE pin_work SET sent_at = now() WHERE requestid = $1", [sent]);
      expect(await searched(target, 1)).toEqual({ cids: new Set([B]), isCut: true });
      expect(await searched(target, 2)).toMatchObject({ isCut: false });
      // Those that were pinned once take no place.
      const others = ["size", "back"].map((text) => accept(pool, { account: "u", cid: cidOf(text) }));
      const [size, back] = await Promise.all(others);
      await sql(target, "UPDATE pin_work SET pinned_at = now() WHERE requestid = $1", [size]);
      await sql(target, "UPDATE pin_work SET deadline_at = 'infinity' WHERE requestid = $1", [back]);
      expect(await searched(target, 2)).toEqual({ cids: new Set([A, B]), isCut: false });
    });

    test("a schema without the queue searches for nothing; a refusal is an error", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "ALTER TABLE pins RENAME TO other_pins");
      await expect(searched(target)).rejects.toMatchObject({
        exit: "unavailable",
        what: expect.stringContaining("refused to list the queue") as unknown,
      });
      await sql(target, "DROP TABLE pin_work");
      expect(await searched(target)).toEqual({ cids: new Set(), isCut: false });
    });
  },
  { template: migrate },
);
