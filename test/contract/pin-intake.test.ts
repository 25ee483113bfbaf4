import { createHash } from "node:crypto";
import { expect, onTestFinished, test } from "vitest";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { parseCid } from "../../src/pinning/content-id.ts";
import { addPin, createPinIntake, type NewPin, type PinOutcome } from "../../src/pinning/pin-store.ts";
import type { Sender } from "../../src/pinning/pin-sql.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { migrate, openPool, poolOf, tally } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const LIMITS = { freeTierBytes: 1_000, maxPending: 10, deadlineSeconds: 3_600 };
const hashOf = (token: string): string => createHash("sha256").update(token).digest("hex");
const RICH: Sender = [hashOf("rich"), null];

function pinOf(requestid: string, cid: string, name = `File ${requestid}`): NewPin {
  const parsed = parseCid(cid);
  if (parsed === null) throw new Error(`${cid} is not a CID`);
  return {
    requestid,
    pin: { cid: parsed, name, origins: ["/ip4/192.0.2.1/tcp/4001"], meta: '{"key":"value"}' },
    delegates: ["/ip4/192.0.2.2/tcp/4001"],
  };
}

const several = (prefix: string, count: number): readonly NewPin[] =>
  Array.from({ length: count }, (_, index) => pinOf(`${prefix}${index}`, cidOf(`${prefix}${index}`)));

/** An account with a balance, and what counts the statements of an intake. */
async function start(target: PostgresTarget) {
  await sql(
    target,
    "INSERT INTO sessions (session_token, token_hash, user_id) VALUES ($1::text, $1::text, 'rich-id')",
    [RICH[0]],
  );
  await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ('rich-id', 5), ('other', 5)");
  const pool = poolOf(target);
  const statements: string[] = [];
  const database: Pick<PostgresPool, "query"> = {
    query: (text, values, options) => {
      statements.push(options?.name ?? "");
      return pool.query(text, values, options);
    },
  };
  return { pool, statements, accept: createPinIntake(database, LIMITS) };
}

const kinds = (outcomes: readonly PinOutcome[]) => tally(outcomes.map(({ kind }) => kind));

describeOnPostgres(
  "requests to pin that come at the same time",
  (postgres) => {
    test("they share statements, and have the rows that each would have alone", async () => {
      const target = await postgres.createDatabase();
      const { pool, statements, accept } = await start(target);
      const added = several("r", 100);
      const outcomes = await Promise.all(added.map((one) => accept(RICH, one)));
      expect(kinds(outcomes)).toEqual({ accepted: 100 });
      expect(statements).toEqual(["pins-add-several", "pins-add-several"]);

      await addPin(pool, RICH, pinOf("alone", cidOf("alone"), "File r7"), LIMITS);
      const rowOf = async (requestid: string) => {
        const [row] = await sql(
          target,
          `SELECT to_jsonb(p) - ARRAY['id', 'requestid', 'cid', 'created_at', 'updated_at'] AS request,
             to_jsonb(w) - ARRAY['requestid', 'cid', 'accepted_at', 'due_at', 'deadline_at'] AS work, w.cid = p.cid AS fits,
             w.deadline_at - w.accepted_at AS time, w.due_at = w.accepted_at AS is_due
           FROM pins p JOIN pin_work w USING (requestid) WHERE requestid = $1`,
          [requestid],
        );
        return row;
      };
      expect(await rowOf("r7")).toEqual(await rowOf("alone"));
      const stored = await sql<{ requestid: string; cid: string; created: string }>(
        target,
        `SELECT requestid, cid, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created FROM pins
         WHERE requestid <> 'alone' ORDER BY created_at, id`,
      );
      expect(stored).toHaveLength(100);
      const told = new Map(
        outcomes.flatMap((one) => (one.kind === "accepted" ? [[one.status.requestid, one.status]] : [])),
      );
      for (const { requestid, cid, created } of stored)
        expect(told.get(requestid)).toMatchObject({ pin: { cid }, created, status: "queued" });
      const [counts] = await sql(target, "SELECT account_pin_count('rich-id', ARRAY['queued'])::int AS n");
      expect(counts).toEqual({ n: 101 });
    });

    test("each gets its own answer", async () => {
      const target = await postgres.createDatabase();
      const { accept } = await start(target);
      const [blocked, elsewhere] = [cidOf("blocked"), cidOf("elsewhere")];
      await sql(target, "INSERT INTO blocked_cids (cid, mode) VALUES ($1, 'block'), ($2, 'redirect')", [
        blocked,
        elsewhere,
      ]);
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ('held', 5)");
      await sql(
        target,
        "INSERT INTO account_holds (account, reason, actor) VALUES ('held', 'a test', 'a test')",
      );
      await sql(
        target,
        `INSERT INTO sessions (session_token, token_hash, user_id, expires_at)
         VALUES ($1::text, $1::text, 'rich-id', now() - interval '1 second')`,
        [hashOf("expired")],
      );
      const asked: readonly (readonly [Sender, NewPin])[] = [
        [RICH, pinOf("a", cidOf("a"))],
        [[null, "other"], pinOf("b", cidOf("b"))],
        [RICH, pinOf("c", blocked)],
        [RICH, pinOf("d", elsewhere)],
        [[hashOf("nobody"), null], pinOf("e", cidOf("e"))],
        [[hashOf("expired"), null], pinOf("f", cidOf("f"))],
        [[null, "held"], pinOf("g", cidOf("g"))],
        [[null, "poor"], pinOf("h", cidOf("h"))],
        [RICH, pinOf("i", cidOf("a"))],
      ];
      const outcomes = await Promise.all(asked.map(([sender, added]) => accept(sender, added)));
      expect(outcomes).toMatchObject([
        { kind: "accepted" },
        { kind: "accepted" },
        { kind: "blocked", mode: "block" },
        { kind: "blocked", mode: "redirect" },
        { kind: "unknown-sender" },
        { kind: "unknown-sender" },
        { kind: "no-credit", verdict: "held" },
        { kind: "accepted" },
        { kind: "accepted" },
      ]);
      const rows = await sql(target, "SELECT requestid, user_id, token_hash FROM pins ORDER BY requestid");
      expect(rows).toEqual([
        { requestid: "a", user_id: "rich-id", token_hash: RICH[0] },
        { requestid: "b", user_id: "other", token_hash: null },
        { requestid: "h", user_id: "poor", token_hash: null },
        { requestid: "i", user_id: "rich-id", token_hash: RICH[0] },
      ]);
    });

    test("an account without a balance gets no more than alone, and stops nobody", async () => {
      const target = await postgres.createDatabase();
      const { accept, statements } = await start(target);
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        await client.query("SELECT pin_account_use('poor')");
        const poor: Promise<PinOutcome>[] = [];
        for (const added of several("alone", 2)) {
          poor.push(accept([null, "poor"], added));
          await expect.poll(() => statements.length).toBe(poor.length);
        }
        poor.push(...several("poor", 6).map((added) => accept([null, "poor"], added)));
        const rich = await Promise.all(several("rich", 30).map((added) => accept(RICH, added)));
        expect(kinds(rich)).toEqual({ accepted: 30 });
        await client.query("COMMIT");
        const more = several("more", 30).map((added) => accept([null, "poor"], added));
        expect(kinds(await Promise.all([...poor, ...more]))).toEqual({ accepted: 10, "no-credit": 28 });
      });
    });

    test("a value that PostgreSQL refuses fails one request only", async () => {
      const target = await postgres.createDatabase();
      const { accept } = await start(target);
      const [first, ...others] = several("r", 20);
      if (first === undefined) throw new Error("there are 20");
      const all = [first, pinOf("bad", cidOf("bad"), "a\0b"), ...others];
      const results = await Promise.allSettled(all.map((added) => accept(RICH, added)));
      expect(results.map(({ status }) => status)).toEqual(
        all.map(({ requestid }) => (requestid === "bad" ? "rejected" : "fulfilled")),
      );
      expect(await sql(target, "SELECT FROM pin_work")).toHaveLength(20);
    });

    test("if the database does not answer, every request fails", async () => {
      const target = await postgres.createDatabase();
      const pool = openPool({ ...target, port: 1 }, 2);
      onTestFinished(() => pool.close());
      const accept = createPinIntake(pool, LIMITS);
      const results = await Promise.allSettled(several("r", 5).map((added) => accept(RICH, added)));
      expect(tally(results.map(({ status }) => status))).toEqual({ rejected: 5 });
    });
  },
  { template: migrate },
);
