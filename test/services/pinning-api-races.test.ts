import { setTimeout as wait } from "node:timers/promises";
import { base16 } from "multiformats/bases/base16";
import { base32, base32upper } from "multiformats/bases/base32";
import { base36 } from "multiformats/bases/base36";
import { base58btc } from "multiformats/bases/base58";
import { base64, base64url } from "multiformats/bases/base64";
import { CID } from "multiformats/cid";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseCid } from "../../src/pinning/content-id.ts";
import { mayStore } from "../../src/pinning/credit-gate.ts";
import { addPin, type NewPin, removePin, replacePin } from "../../src/pinning/pin-store.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { migrate, poolOf, race, tally } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { createUser, startPinningApi, type User } from "./pins-api.ts";

const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
const V1 = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34";
const LIMITS = { freeTierBytes: 1_000, maxPending: 10, deadlineSeconds: 3_600 };

function counted(answers: readonly { readonly status: number }[]): Readonly<Record<string, number>> {
  return tally(answers.map(({ status }) => String(status)));
}

/** A request, as the service passes it on. */
function newPin(requestid: string, cid: string): NewPin {
  const parsed = parseCid(cid);
  if (parsed === null) throw new Error(`${cid} is not a CID`);
  return { requestid, pin: { cid: parsed, name: "", origins: [], meta: "{}" }, delegates: [] };
}

/** Asks the database every 5 ms, until it is stopped, how many of the account's requests are active. */
function watchActive(target: PostgresTarget, account: string) {
  const seen = new Set<number>();
  const over = new AbortController();
  const watching = inSession(target, async (client) => {
    while (!over.signal.aborted) {
      const { rows } = await client.query<{ n: number }>(
        "SELECT count(*)::int AS n FROM pins WHERE user_id = $1 AND status <> 'deleted'",
        [account],
      );
      seen.add(rows[0]?.n ?? -1);
      await wait(5);
    }
  });
  const stop = async (): Promise<void> => {
    over.abort();
    await watching;
  };
  onTestFinished(stop);
  return { seen, stop };
}

describeOnPostgres(
  "the pinning API under many requests at once",
  (postgres) => {
    async function start(changes: Parameters<typeof startPinningApi>[1] = {}, balance: number | null = 100) {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target, changes);
      return { target, api, alice: await createUser(target, api, "alice", balance) };
    }
    const rowOf = async (target: PostgresTarget, id: string) =>
      (await sql(target, "SELECT status, size::int, cid, name FROM pins WHERE requestid = $1", [id]))[0];
    const workOf = (target: PostgresTarget) =>
      sql(target, "SELECT requestid, cid, action FROM pin_work ORDER BY action, requestid");

    // H12
    describe("POST /pins/ID", () => {
      test("with the same CID keeps the status and the size, and nothing is unpinned or pinned again", async () => {
        const { target, alice } = await start();
        const old = await alice.pin(V1, { name: "a" });
        await sql(target, "UPDATE pins SET status = 'pinned', size = 700");
        await sql(target, "DELETE FROM pin_work");

        const { status, body } = await alice.post({ cid: V1, name: "b", meta: { k: "v" } }, `/pins/${old}`);

        const id = String(body["requestid"]);
        expect({ status, body }).toMatchObject({
          status: 202,
          body: { status: "pinned", pin: { cid: V1, name: "b" } },
        });
        expect(id).not.toBe(old);
        expect((await alice.get(`/${old}`)).status).toBe(404);
        expect(await rowOf(target, id)).toEqual({ status: "pinned", size: 700, cid: V1, name: "b" });
        expect(await rowOf(target, old)).toMatchObject({ status: "deleted", size: 0 });
        expect(await workOf(target)).toEqual([]);
      });

      test("with the same CID while it is still queued leaves one row of work, a pin", async () => {
        const { target, alice } = await start();
        const old = await alice.pin(V1);
        const { body } = await alice.post({ cid: V1, origins: ["/dns4/h.example/tcp/1"] }, `/pins/${old}`);
        expect(body["status"]).toBe("queued");
        expect(await workOf(target)).toEqual([{ requestid: body["requestid"], cid: V1, action: "pin" }]);
      });

      test("with another CID queues it, and unpins the old one by the old request", async () => {
        const { target, alice } = await start();
        const old = await alice.pin(V1);
        const other = await alice.pin(V0);
        await sql(target, "UPDATE pins SET status = 'pinned', size = 700 WHERE requestid = $1", [old]);
        const { status, body } = await alice.post({ cid: cidOf("new") }, `/pins/${old}`);
        expect(status).toBe(202);
        expect(await rowOf(target, String(body["requestid"]))).toMatchObject({ status: "queued", size: 0 });
        expect(await rowOf(target, other)).toMatchObject({ size: 700 });
        expect(await rowOf(target, old)).toMatchObject({ status: "deleted", size: 0 });
        expect(await workOf(target)).toEqual(
          expect.arrayContaining([
            { requestid: old, cid: V1, action: "unpin" },
            { requestid: body["requestid"], cid: cidOf("new"), action: "pin" },
          ]),
        );
      });

      test("twice at once is accepted once, and at no time are both or none of the rows active", async () => {
        const { target, alice } = await start();
        let current = await alice.pin(V1);
        const { seen, stop } = watchActive(target, alice.account);
        for (let round = 0; round < 15; round += 1) {
          const replace = (name: string) =>
            alice.post({ cid: round % 3 === 0 ? cidOf(`${round}${name}`) : V1, name }, `/pins/${current}`);
          const answers = await Promise.all([replace("a"), replace("b"), replace("c")]);
          expect(counted(answers)).toEqual({ 202: 1, 404: 2 });
          current = String(answers.find(({ status }) => status === 202)?.body["requestid"]);
        }
        await stop();
        expect([...seen]).toEqual([1]);
      });

      test("and deletions at once: each old request ends once", async () => {
        const { target, alice } = await start();
        for (let round = 0; round < 8; round += 1) {
          const id = await alice.pin(V1);
          const answers = await Promise.all([
            alice.delete(id),
            alice.post({ cid: V1, name: "b" }, `/pins/${id}`),
          ]);
          expect(counted(answers)).toEqual({ 202: 1, 404: 1 });
        }
        const [active] = await sql(
          target,
          "SELECT count(*)::int AS n, count(*) FILTER (WHERE w.action = 'pin')::int AS work FROM pins p LEFT JOIN pin_work w USING (requestid) WHERE status <> 'deleted'",
        );
        expect(active?.["n"]).toBe(active?.["work"]);
      });
    });

    test("replacements, and deletions, that all wait for the same rows: each request ends once, and its size stays", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const sender = [null, "a"] as const;
      for (const id of ["1", "2", "3", "4", "5"]) await addPin(pool, sender, newPin(id, V1), LIMITS);
      await sql(
        target,
        "UPDATE pins SET status = 'pinned', size = CASE requestid WHEN '1' THEN 700 ELSE 0 END",
      );
      const rows = "SELECT FROM pins FOR UPDATE";

      const replaced = await race(
        target,
        rows,
        ["6", "7", "8"].map((id) => () => replacePin(pool, sender, "1", newPin(id, V1), LIMITS)),
      );
      expect(tally(replaced.map(({ kind }) => kind))).toEqual({ accepted: 1, "not-found": 2 });

      const active = await sql<{ id: string }>(
        target,
        "SELECT requestid AS id FROM pins WHERE status <> 'deleted' ORDER BY size DESC",
      );
      expect(active).toHaveLength(5);
      const ending = active.slice(0, 4).flatMap(({ id }) => [id, id]);
      const ended = await race(
        target,
        rows,
        ending.map((id) => () => removePin(pool, sender, id, LIMITS)),
      );
      expect(tally(ended.map(({ kind }) => kind))).toEqual({ deleted: 4, "not-found": 4 });
      expect(
        await sql(target, "SELECT requestid AS id, size::int FROM pins WHERE status <> 'deleted'"),
      ).toEqual([{ id: active[4]?.id, size: 700 }]);
    });

    // H25
    describe("the credit gate", () => {
      test("requests that are all at the same place at once are bounded exactly", async () => {
        const target = await postgres.createDatabase();
        const pool = poolOf(target);
        await sql(
          target,
          `CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END; $$`,
        );
        await sql(
          target,
          "CREATE TRIGGER wait BEFORE INSERT ON pins FOR EACH ROW EXECUTE FUNCTION wait_here()",
        );
        const outcomes = await race(
          target,
          "SELECT pg_advisory_xact_lock(1)",
          Array.from(
            { length: 20 },
            (_, index) => () =>
              addPin(pool, [null, "poor"], newPin(String(index), cidOf(String(index))), LIMITS),
          ),
        );
        expect(tally(outcomes.map(({ kind }) => kind))).toEqual({ accepted: 10, "no-credit": 10 });
      });

      const burst = (alice: User, count: number) =>
        Promise.all(Array.from({ length: count }, (_, index) => alice.post({ cid: cidOf(String(index)) })));
      const stored = async (target: PostgresTarget) =>
        (await sql<{ n: number }>(target, "SELECT count(*)::int AS n FROM pins WHERE cid <> 'old'"))[0]?.n;
      const use = (target: PostgresTarget, account: string, bytes: number) =>
        sql(
          target,
          "INSERT INTO pins (requestid, user_id, cid, status, size) VALUES ('old', $1, 'old', 'pinned', $2)",
          [account, bytes],
        );

      test("64 requests at once of an account without a balance: ten are accepted", async () => {
        const { target, alice } = await start({}, null);
        await use(target, alice.account, 999);
        const answers = await burst(alice, 64);
        expect(counted(answers)).toEqual({ 202: 10, 402: 54 });
        expect(answers.find(({ status }) => status === 402)?.body).toMatchObject({
          error: {
            reason: "INSUFFICIENT_CREDITS",
            details: expect.stringContaining("Wait until some are pinned") as string,
          },
        });
        expect(await stored(target)).toBe(10);
        expect(await sql(target, "SELECT FROM pin_work")).toHaveLength(10);
        // One more place for each that is pinned, once its size is known.
        const [one] = await sql<{ requestid: string }>(
          target,
          "UPDATE pins SET status = 'pinned' WHERE requestid IN (SELECT requestid FROM pins WHERE status = 'queued' LIMIT 1) RETURNING requestid",
        );
        await sql(target, "UPDATE pin_work SET sent_at = now(), pinned_at = now() WHERE requestid = $1", [
          one?.requestid,
        ]);
        expect(counted(await burst(alice, 5))).toEqual({ 402: 5 });
        await sql(target, "DELETE FROM pin_work WHERE requestid = $1", [one?.requestid]);
        expect(counted(await burst(alice, 5))).toEqual({ 202: 1, 402: 4 });
      });

      test("a failed request is no way around it, nor does an account that the operator suspended replace any", async () => {
        const { target, alice } = await start({}, null);
        const old = await alice.pin(cidOf("failed"));
        await sql(target, "UPDATE pins SET status = 'failed'");
        await burst(alice, 10);
        const again = { cid: cidOf("failed"), name: "again" };
        expect((await alice.post(again, `/pins/${old}`)).status).toBe(402);
        const [queued] = await sql<{ requestid: string; cid: string }>(
          target,
          "SELECT requestid, cid FROM pins WHERE status = 'queued' LIMIT 1",
        );
        const renamed = { cid: queued?.cid ?? "", name: "renamed" };
        const answer = await alice.post(renamed, `/pins/${queued?.requestid}`);
        expect(answer.status).toBe(202);
        await sql(target, "INSERT INTO account_holds (account, reason, actor) VALUES ($1, 'x', 'x')", [
          alice.account,
        ]);
        expect((await alice.post(renamed, `/pins/${String(answer.body["requestid"])}`)).status).toBe(402);
      });

      test.each([
        ["the free tier is used up", null, 1_000, 0],
        ["it has a balance", 0.5, 5_000_000, 0],
        ["its balance is negative", -1, 1_000, 0],
        ["it has a balance, but is suspended", 50, 1_000, 1],
        ["it is suspended below the free tier", 50, 999, 1],
      ])("asks for each account when %s", async (_case, balance, bytes, suspended) => {
        const { target, alice } = await start({}, balance);
        await sql(target, "UPDATE user_credits SET is_suspended = $1", [suspended]);
        await use(target, alice.account, bytes);
        const isFunded = balance !== null && balance > 0 && suspended === 0;
        expect((await alice.post({ cid: V1 })).status).toBe(isFunded || bytes < 1_000 ? 202 : 402);
        // What is asked again before a pin is sent.
        const again = await sql(target, `SELECT ${mayStore("$1::text", "$2::bigint")} AS may`, [
          alice.account,
          1_000,
        ]);
        expect(again).toEqual([{ may: isFunded || bytes < 1_000 }]);
        expect(counted(await burst(alice, 15))).toEqual(
          isFunded ? { 202: 15 } : bytes < 1_000 ? { 202: 9, 402: 6 } : { 402: 15 },
        );
      });

      test("a replacement takes the place of its old request, and passes the same gate", async () => {
        const { target, alice } = await start({ limits: { ...LIMITS, maxPending: 2 } }, null);
        const [first] = [await alice.pin(cidOf("1")), await alice.pin(cidOf("2"))];
        const replaced = await alice.post({ cid: cidOf("3") }, `/pins/${first}`);
        expect(replaced.status).toBe(202);
        await sql(target, "UPDATE pins SET status = 'pinned', size = 600 WHERE status <> 'deleted'");
        const id = String(replaced.body["requestid"]);
        expect(await alice.post({ cid: cidOf("4") }, `/pins/${id}`)).toMatchObject({
          status: 402,
          body: { error: { reason: "INSUFFICIENT_CREDITS" } },
        });
        expect((await alice.get(`/${id}`)).status).toBe(200);
        expect((await alice.post({ cid: cidOf("3"), name: "only a name" }, `/pins/${id}`)).status).toBe(202);
      });

      test("CREDIT_GATE=open bounds no number of requests, but still the free tier", async () => {
        const { target, alice } = await start({ limits: { ...LIMITS, maxPending: null } }, null);
        expect(counted(await burst(alice, 20))).toEqual({ 202: 20 });
        await use(target, alice.account, 1_000);
        expect(counted(await burst(alice, 2))).toEqual({ 402: 2 });
      });

      test("a failed question is an answer of 503, and nothing is stored", async () => {
        const { target, alice } = await start({}, null);
        await sql(target, "ALTER TABLE user_credits RENAME TO elsewhere");
        const { status, body, headers } = await alice.post({ cid: V1 });
        expect({ status, body }).toMatchObject({
          status: 503,
          body: { error: { reason: "SERVICE_UNAVAILABLE" } },
        });
        expect(headers.get("retry-after")).toBe("5");
        expect(await stored(target)).toBe(0);
      });
    });

    // H15
    test("blocked content is refused in every spelling and with every codec, and nothing is stored", async () => {
      const { target, alice } = await start();
      const [raw, upper] = ["bafkreie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34", V1.toUpperCase()];
      const id = await alice.pin(cidOf("fine"));
      await sql(target, "INSERT INTO blocked_cids (cid, reason) VALUES ($1, 'secret reason')", [V1]);
      const parsed = CID.parse(V1);
      for (const cid of [V1, V0, raw, upper, parsed.toString(base16), parsed.toString(base58btc)]) {
        for (const path of ["/pins", `/pins/${id}`]) {
          const { status, body, text } = await alice.post({ cid }, path);
          expect({ cid, status, body }).toMatchObject({
            status: 451,
            body: { error: { reason: "UNAVAILABLE_FOR_LEGAL_REASONS" } },
          });
          expect(text).not.toContain("secret reason");
        }
        expect((await alice.post({ cid: `/ipfs/${cid}` })).status).toBe(400);
      }
      const codings = [base16, base32, base32upper, base36, base58btc, base64, base64url];
      for (const row of [V0, `/ipfs/${V0}`, raw, ...codings.map((base) => parsed.toString(base))]) {
        await sql(target, "UPDATE blocked_cids SET cid = $1", [row]);
        for (const cid of [V1, V0, raw])
          expect({ row, status: (await alice.post({ cid })).status }).toEqual({ row, status: 451 });
      }
      await sql(target, "UPDATE blocked_cids SET mode = 'redirect'");
      const redirected = await alice.post({ cid: V0 });
      expect(redirected.status).toBe(301);
      expect(redirected.headers.get("location")).toBe(`https://ipfs.io/ipfs/${V0}`);
      expect(await sql(target, "SELECT requestid FROM pins")).toEqual([{ requestid: id }]);
    });
  },
  { template: migrate },
);
