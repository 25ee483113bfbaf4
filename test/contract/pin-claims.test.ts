import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { type ClaimOptions, claimWork, extendClaims } from "../../src/pinning/queue.ts";
import { cidOf } from "../support/cids.ts";
import { migrate, poolOf, tally } from "../support/names-database.ts";
import { accept } from "../support/pin-requests.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const OPTIONS: Omit<ClaimOptions, "claim"> = {
  phases: ["unpin", "look", "send"],
  limit: 8,
  cursor: "",
  busy: [],
  leaseMs: 60_000,
  window: 32,
  windows: {},
  searches: 4,
  places: 64,
  first: false,
};

describeOnPostgres(
  "one claim of the queue",
  (postgres) => {
    /** Accepts so many requests of each account, and returns what claims. */
    async function start(counts: Readonly<Record<string, number>>) {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      for (const [account, count] of Object.entries(counts))
        for (let n = 0; n < count; n += 1) await accept(pool, { account, cid: cidOf(`${account}${n}`) });
      const claim = async (more: Partial<ClaimOptions> = {}) => {
        const { work, cursor } = await claimWork(pool, { ...OPTIONS, ...more, claim: randomUUID() });
        return { counts: tally(work.map(({ account, phase }) => `${account} ${phase}`)), cursor };
      };
      return { target, claim };
    }

    test("an account that is alone gets all rows, and no more than its window", async () => {
      const { claim } = await start({ a: 20 });
      expect(await claim()).toEqual({ counts: { "a send": 8 }, cursor: "" });
      expect(await claim({ window: 10 })).toEqual({ counts: { "a send": 2 }, cursor: "" });
      expect(await claim({ window: 10 })).toEqual({ counts: {}, cursor: "" });
    });

    test("of few accounts, each gets its part of the rows", async () => {
      const { claim } = await start({ a: 20, b: 20, c: 1 });
      const counts = { "a send": 4, "b send": 4, "c send": 1 };
      expect(await claim({ limit: 12 })).toEqual({ counts, cursor: "" });
    });

    test("each phase gets a row before one gets two", async () => {
      const { target, claim } = await start({ a: 20 });
      await sql(target, "UPDATE pin_work SET action = 'unpin' WHERE cid = ANY ($1)", [
        [0, 1, 2, 3, 4].map((n) => cidOf(`a${n}`)),
      ]);
      await sql(target, "UPDATE pin_work SET sent_at = now() WHERE cid = ANY ($1)", [
        [5, 6, 7, 8, 9].map((n) => cidOf(`a${n}`)),
      ]);
      const { counts } = await claim();
      expect(counts).toEqual({
        "a unpin": expect.any(Number) as number,
        "a look": expect.any(Number) as number,
        "a send": expect.any(Number) as number,
      });
      expect(Object.values(counts).reduce((sum, n) => sum + n, 0)).toBe(8);
    });

    test("with many accounts, each gets one row in its turn", async () => {
      const names = "abcdefghij".split("");
      const { claim } = await start(Object.fromEntries(names.map((name) => [name, 5])));
      const sends = (those: readonly string[]) =>
        Object.fromEntries(those.map((name) => [`${name} send`, 1]));
      expect(await claim()).toEqual({ counts: sends(names.slice(0, 8)), cursor: "h" });
      const second = await claim({ cursor: "h" });
      expect(second).toEqual({ counts: { "i send": 1, "j send": 1 }, cursor: "" });
    });

    test("a row that is being written holds up no other claim that is made to last", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      for (const account of ["a", "b"]) await accept(pool, { account, cid: cidOf(account) });
      const { work } = await claimWork(pool, { ...OPTIONS, claim: randomUUID() });
      const [written, other] = work;
      await pool.transaction(async (database) => {
        await database.query("SELECT FROM pin_work WHERE requestid = $1 FOR UPDATE", [written?.requestid]);
        await extendClaims(pool, work, 5_000);
      });
      expect(
        await sql(
          target,
          "SELECT requestid FROM pin_work WHERE claimed_until < now() + interval '20 seconds'",
        ),
      ).toEqual([{ requestid: other?.requestid }]);
    });

    test("a claim that ends with the last account ends the round", async () => {
      const { claim } = await start({ a: 5 });
      expect(await claim({ limit: 2 })).toEqual({ counts: { "a send": 2 }, cursor: "" });
    });
  },
  { template: migrate },
);
