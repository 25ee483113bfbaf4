import { describe, expect, test } from "vitest";
import { cidOf } from "../support/cids.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { createUser, request, startPinningApi } from "./pins-api.ts";

const CREATED = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;
const ALL = "status=queued,pinning,pinned,failed";
const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
const V1 = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34";

async function setStatus(target: PostgresTarget, id: string, status: string, size = 0): Promise<void> {
  await sql(target, "UPDATE pins SET status = $2, size = $3 WHERE requestid = $1", [id, status, size]);
}

async function workOf(target: PostgresTarget): Promise<readonly Record<string, unknown>[]> {
  return sql(target, "SELECT requestid, account, cid, action FROM pin_work ORDER BY accepted_at, requestid");
}

function idsOf({ body }: { readonly body: Record<string, unknown> }): readonly string[] {
  return (body["results"] as readonly { requestid: string }[]).map(({ requestid }) => requestid);
}

describeOnPostgres(
  "the pinning API",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target);
      return {
        target,
        api,
        alice: await createUser(target, api, "alice"),
        bob: await createUser(target, api, "bob"),
      };
    }

    test("a request is accepted with its work, and is shown to its sender only", async () => {
      const { target, alice, bob } = await start();
      const pin = {
        cid: V1,
        name: "Holiday ☀",
        origins: ["/dns4/h.example/tcp/4001"],
        meta: { app: "a", "": "b" },
      };

      const { status, body } = await alice.post(pin);

      const id = String(body["requestid"]);
      expect({ status, body }).toEqual({
        status: 202,
        body: {
          requestid: expect.stringMatching(/^fn-[0-9a-f-]{36}$/) as string,
          status: "queued",
          created: expect.stringMatching(CREATED) as string,
          pin,
          delegates: [],
          info: {},
        },
      });
      expect(await workOf(target)).toEqual([
        { requestid: id, account: alice.account, cid: V1, action: "pin" },
      ]);
      const [row] = await sql(target, "SELECT user_id, name_lowercase, size::int, status FROM pins");
      expect(row).toEqual({ user_id: alice.account, name_lowercase: "holiday ☀", size: 0, status: "queued" });
      expect((await alice.get(`/${id}`)).body).toEqual(body);
      expect((await alice.get(`?${ALL}`)).body).toEqual({ count: 1, results: [body] });
      expect(await bob.get(`/${id}`)).toMatchObject({
        status: 404,
        body: { error: { reason: "NOT_FOUND" } },
      });
      expect((await bob.get(`?${ALL}`)).body).toEqual({ count: 0, results: [] });
      expect((await bob.delete(id)).status).toBe(404);
      expect((await bob.post({ cid: V1 }, `/pins/${id}`)).status).toBe(404);
    });

    test("only a session that has not expired counts, and the stored hash is not a token", async () => {
      const { target, api, alice } = await start();
      const using = (authorization: string) => request(`${api.url}/pins`, { headers: { authorization } });
      const [row] = await sql<{ hash: string }>(target, "SELECT token_hash AS hash FROM sessions LIMIT 1");
      for (const authorization of ["Bearer other", "Bearer", "Basic x", `Bearer ${row?.hash ?? ""}`]) {
        const { status, body } = await using(authorization);
        expect({ authorization, status, body }).toMatchObject({
          status: 401,
          body: { error: { reason: "UNAUTHORIZED" } },
        });
      }
      expect(await using(`bearer  ${alice.token}`)).toMatchObject({ status: 200 });
      await sql(target, "UPDATE sessions SET expires_at = now() - interval '1 second'");
      expect((await alice.get("")).status).toBe(401);
      expect((await alice.post({ cid: V1 })).status).toBe(401);
      expect(await workOf(target)).toEqual([]);
      await sql(target, "UPDATE sessions SET expires_at = now() + interval '1 hour'");
      expect((await alice.get("")).status).toBe(200);
    });

    test("a session from before user ids is known by its name", async () => {
      const { target, api } = await start();
      const carol = await createUser(target, api, "carol");
      await sql(
        target,
        "UPDATE sessions SET user_id = NULL, username = 'Carol@Example.org' WHERE user_id = $1",
        [carol.account],
      );
      await carol.pin(V1);
      expect(await workOf(target)).toMatchObject([{ account: carol.account }]);
    });

    // H19
    describe("GET /pins", () => {
      test("lists pinned requests only, unless a status is given", async () => {
        const { target, alice } = await start();
        const ids: Record<string, string> = {};
        for (const status of ["queued", "pinning", "pinned", "failed", "deleted"]) {
          ids[status] = await alice.pin(cidOf(status), { name: "x" });
          await setStatus(target, ids[status], status);
        }
        expect((await alice.get("")).body).toMatchObject({
          count: 1,
          results: [{ requestid: ids["pinned"] }],
        });
        expect(idsOf(await alice.get("?name=x&match=exact"))).toEqual([ids["pinned"]]);
        expect((await alice.get(`?${ALL}`)).body["count"]).toBe(4);
        expect(idsOf(await alice.get("?status=failed,queued"))).toEqual([ids["failed"], ids["queued"]]);
        for (const query of [
          "status=",
          "status=foo",
          "status=deleted",
          "status=queued,",
          "status=queued&status=failed",
        ])
          expect(await alice.get(`?${query}`)).toMatchObject({
            status: 400,
            body: { error: { reason: "BAD_REQUEST" } },
          });
      });

      test("finds CIDs in every spelling, at most ten", async () => {
        const { alice } = await start();
        const id = await alice.pin(V1);
        const other = await alice.pin(V0);
        await alice.pin(cidOf("else"));
        expect(idsOf(await alice.get(`?${ALL}&cid=${V0}`))).toEqual([other, id]);
        expect(idsOf(await alice.get(`?${ALL}&cid=${V1.toUpperCase()}`))).toEqual([other, id]);
        const cids = Array.from({ length: 10 }, (_, index) => cidOf(String(index)));
        expect((await alice.get(`?${ALL}&cid=${[...cids.slice(1), V0].join()}`)).body["count"]).toBe(2);
        expect((await alice.get(`?${ALL}&cid=${[...cids, V0].join()}`)).status).toBe(400);
      });

      test("matches names in four ways", async () => {
        const { alice } = await start();
        const names = ["Photo%", "photo%", "my photo_1", "ÄRGER", "50%"];
        for (const name of names) await alice.pin(cidOf(name), { name });
        const found = async (name: string, match: string) => {
          const { body } = await alice.get(`?${ALL}&name=${encodeURIComponent(name)}&match=${match}`);
          return (body["results"] as { pin: { name: string } }[]).map(({ pin }) => pin.name).toSorted();
        };
        expect(await found("photo%", "exact")).toEqual(["photo%"]);
        expect(await found("PHOTO%", "iexact")).toEqual(["Photo%", "photo%"]);
        expect(await found("o%", "partial")).toEqual(["Photo%", "photo%"]);
        expect(await found("HOTO", "ipartial")).toEqual(["Photo%", "my photo_1", "photo%"]);
        expect(await found("ärg", "ipartial")).toEqual(["ÄRGER"]);
        expect(await found("_", "partial")).toEqual(["my photo_1"]);
        expect((await alice.get(`?${ALL}&name=x&match=regex`)).status).toBe(400);
      });

      test("finds metadata by all pairs, also beside a row whose metadata is not JSON", async () => {
        const { target, alice } = await start();
        const id = await alice.pin(cidOf("1"), { meta: { app: "x", user: "1" } });
        await alice.pin(cidOf("2"), { meta: { app: "x", user: "2" } });
        const broken = await alice.pin(cidOf("3"));
        await sql(
          target,
          "UPDATE pins SET meta = '{\"app\":', origins = 'x', info = '[]' WHERE requestid = $1",
          [broken],
        );
        const meta = encodeURIComponent(JSON.stringify({ user: "1", app: "x" }));
        expect(idsOf(await alice.get(`?${ALL}&meta=${meta}`))).toEqual([id]);
        expect((await alice.get(`?${ALL}&meta=%7B%7D`)).body["count"]).toBe(3);
        expect((await alice.get(`?${ALL}`)).body).toMatchObject({
          count: 3,
          results: [{ info: {}, pin: { meta: {} } }, {}, {}],
        });
      });

      // H03
      test("pages over 25 rows that are 37 microseconds apart, and over rows of equal times in a stable order", async () => {
        const { target, alice } = await start();
        await sql(
          target,
          `INSERT INTO pins (requestid, user_id, cid, status, created_at)
             SELECT 'r' || i, $1, $2, 'queued', '2026-01-01 00:00:00.123000Z'::timestamptz + i * interval '37 microseconds'
             FROM generate_series(0, 24) AS i`,
          [alice.account, V1],
        );
        const newest = Array.from({ length: 25 }, (_, index) => `r${24 - index}`);
        const pages: string[][] = [];
        let bound = "";
        for (let page = 0; page < 3; page += 1) {
          const { body } = await alice.get(`?status=queued&limit=10${bound}`);
          const results = body["results"] as { requestid: string; created: string }[];
          for (const { created } of results) expect(created).toMatch(CREATED);
          pages.push(results.map(({ requestid }) => requestid));
          bound = `&before=${results.at(-1)?.created ?? ""}`;
        }
        expect(pages.map((page) => page.length)).toEqual([10, 10, 5]);
        expect(pages.flat()).toEqual(newest);
        const at = (index: number, digits = "") =>
          `2026-01-01T00:00:00.${String(123_000 + index * 37).padStart(6, "0")}${digits}Z`;
        const ask = async (query: string) => idsOf(await alice.get(`?status=queued&limit=1000&${query}`));
        expect(await ask(`before=${at(7)}`)).toEqual(newest.slice(-7));
        expect(await ask(`after=${at(7)}`)).toEqual(newest.slice(0, 17));
        // One nanosecond more: the row itself is before, and not after.
        expect(await ask(`before=${at(7, "001")}`)).toEqual(newest.slice(-8));
        expect(await ask(`after=${at(7, "001")}`)).toEqual(newest.slice(0, 17));
        expect(await ask(`after=${at(7)}&before=${at(9)}`)).toEqual(["r8"]);
        expect((await alice.get(`?status=queued&before=${at(7)}`)).body["count"]).toBe(7);
        await sql(target, "UPDATE pins SET created_at = '2026-01-01Z'");
        const once = await ask("");
        for (let again = 0; again < 3; again += 1) expect(await ask("")).toEqual(once);
        expect(once).toEqual(newest);
      });
    });

    describe("DELETE /pins/ID", () => {
      test("ends a request once, and its work becomes an unpin, whatever it was", async () => {
        const { target, alice } = await start();
        const id = await alice.pin(V1);
        await sql(
          target,
          "UPDATE pin_work SET claim = gen_random_uuid(), attempts = 3, sent_at = now(), claimed_until = now()",
        );

        expect(await alice.delete(id)).toMatchObject({ status: 202, text: "" });

        expect(
          await sql(target, "SELECT action, attempts, sent_at, claim, claimed_until FROM pin_work"),
        ).toEqual([{ action: "unpin", attempts: 0, sent_at: null, claim: null, claimed_until: null }]);
        expect((await alice.get(`/${id}`)).status).toBe(404);
        expect((await alice.delete(id)).status).toBe(404);
        const pinned = await alice.pin(V1);
        await sql(target, "DELETE FROM pin_work");
        await alice.delete(pinned);
        expect(await workOf(target)).toMatchObject([{ requestid: pinned, action: "unpin" }]);
      });

      test("the size passes to another request for the content, and is counted once", async () => {
        const { target, alice, bob } = await start();
        const [first, second, third] = [await alice.pin(V1), await alice.pin(V0), await alice.pin(V1)];
        await bob.pin(V1);
        await setStatus(target, first, "pinned", 700);
        await setStatus(target, third, "pinned", 0);
        const usage = async () =>
          (
            await sql<{ bytes: number }>(
              target,
              "SELECT sum(size)::int AS bytes FROM pins WHERE status <> 'deleted'",
            )
          )[0]?.bytes;
        const sizeOf = async (id: string) =>
          (await sql<{ size: number }>(target, "SELECT size::int FROM pins WHERE requestid = $1", [id]))[0]
            ?.size;

        await alice.delete(first);
        expect([await usage(), await sizeOf(third), await sizeOf(second)]).toEqual([700, 700, 0]);
        await alice.delete(second);
        expect(await usage()).toBe(700);
        await alice.delete(third);
        expect(await usage()).toBe(0);
      });

      test("of many deletions at once, each request ends once, and the last one keeps the size until then", async () => {
        const { target, alice } = await start();
        const ids: string[] = [];
        for (let index = 0; index < 8; index += 1) ids.push(await alice.pin(V1));
        await sql(
          target,
          "UPDATE pins SET status = 'pinned', size = CASE WHEN requestid = $1 THEN 700 ELSE 0 END",
          [ids[0]],
        );
        const ending = ids.slice(0, 7);
        const answers = await Promise.all([...ending, ...ending].map((id) => alice.delete(id)));
        expect(answers.filter(({ status }) => status === 202)).toHaveLength(7);
        expect(answers.filter(({ status }) => status === 404)).toHaveLength(7);
        expect(await sql(target, "SELECT requestid, size::int FROM pins WHERE status <> 'deleted'")).toEqual([
          { requestid: ids[7], size: 700 },
        ]);
      });
    });
  },
  { template: migrate },
);
