import { expect, test } from "vitest";
import { announceName, readName, releaseName } from "../../src/federation/registry.ts";
import { migrate, OPEN, poolOf, race, tally } from "../support/names-database.ts";
import { announcementOf, makeIdentity } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const TWENTY = Array.from({ length: 20 }, (_, index) => index);
const SIGNATURE = "ab".repeat(64);
const QUOTA = 5;

/** Holds the name for somebody who then does not take it: whoever wants it has to wait and see. */
const HOLD_NAME = `INSERT INTO node_names VALUES ('pool-a', 'berlin', 'nobody', gen_random_uuid(), now())`;

function at(seconds: number): string {
  return new Date(Date.now() + seconds * 1000).toISOString();
}

describeOnPostgres(
  "twenty at once",
  (postgres) => {
    test("names of one key, quota 5: exactly five are Reserved, and all of those are whole", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      const message = (name: string) => ({ message: announcementOf(alice, { name }), signature: SIGNATURE });
      await sql(target, `INSERT INTO node_owners VALUES ('pool-a', $1, 0, ${QUOTA})`, [alice.peerId]);

      const said = await race(
        target,
        "SELECT FROM node_owners FOR UPDATE",
        TWENTY.map((n) => () => announceName(pool, message(`n${n}`), QUOTA, OPEN)),
      );

      expect(tally(said.map(({ outcome }) => outcome))).toEqual({ Reserved: QUOTA, OverQuota: 15 });
      expect(await sql(target, "SELECT names FROM node_owners")).toEqual([{ names: QUOTA }]);
      const whole = await sql(target, "SELECT FROM node_names JOIN node_descriptors USING (pool, name)");
      expect(whole).toHaveLength(QUOTA);
      expect(await sql(target, "SELECT FROM node_descriptors")).toHaveLength(QUOTA);
    });

    test("names of a key that nobody has heard of yet: exactly five as well", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();

      const said = await race(
        target,
        `INSERT INTO node_owners VALUES ('pool-a', '${alice.peerId}', 0, ${QUOTA})`,
        TWENTY.map(
          (n) => () =>
            announceName(
              pool,
              { message: announcementOf(alice, { name: `n${n}` }), signature: SIGNATURE },
              QUOTA,
              OPEN,
            ),
        ),
      );

      expect(tally(said.map(({ outcome }) => outcome))).toEqual({ Reserved: QUOTA, OverQuota: 15 });
      expect(await sql(target, "SELECT FROM node_names")).toHaveLength(QUOTA);
    });

    test("keys that want one name: exactly one has it", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const keys = TWENTY.map(makeIdentity);

      const said = await race(
        target,
        HOLD_NAME,
        keys.map(
          (key) => () =>
            announceName(
              pool,
              { message: announcementOf(key, { name: "berlin" }), signature: SIGNATURE },
              QUOTA,
              OPEN,
            ),
        ),
      );

      expect(tally(said.map(({ outcome }) => outcome))).toEqual({ Reserved: 1, TakenByOther: 19 });
      const winner = keys[said.findIndex(({ outcome }) => outcome === "Reserved")];
      expect(await readName(pool, "pool-a", "berlin")).toMatchObject({ peerId: winner?.peerId });
      expect(await sql(target, "SELECT owner, names FROM node_owners")).toEqual([
        { owner: winner?.peerId, names: 1 },
      ]);
    });

    test("announcements of one name by its key: one Reserved, the newest stands, none of the rest overwrites it", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      const times = TWENTY.map((n) => at(n - 60));

      const said = await race(
        target,
        HOLD_NAME,
        times.map(
          (time) => () =>
            announceName(
              pool,
              { message: announcementOf(alice, { name: "berlin", time }), signature: SIGNATURE },
              QUOTA,
              OPEN,
            ),
        ),
      );

      const counts = tally(said.map(({ outcome }) => outcome));
      expect(counts["Reserved"]).toBe(1);
      expect((counts["AlreadyOwned"] ?? 0) + (counts["NotNewer"] ?? 0)).toBe(19);
      const newest = said.at(-1)?.outcome;
      expect(["Reserved", "AlreadyOwned"]).toContain(newest);
      expect(await readName(pool, "pool-a", "berlin")).toMatchObject({
        announcedAt: new Date(times.at(-1) ?? ""),
      });
      expect(await sql(target, "SELECT names FROM node_owners")).toEqual([{ names: 1 }]);
    });

    test("releases of one name: one Released, and it counts once", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      for (const name of ["berlin", "paris"])
        await announceName(
          pool,
          { message: announcementOf(alice, { name, time: at(-60) }), signature: SIGNATURE },
          QUOTA,
          OPEN,
        );

      const said = await race(
        target,
        "SELECT FROM node_names WHERE name = 'berlin' FOR UPDATE",
        TWENTY.map(
          () => () =>
            releaseName(pool, {
              name: "berlin",
              peerId: alice.peerId,
              pool: "pool-a",
              time: at(0),
              reservation: null,
            }),
        ),
      );

      expect(tally(said)).toEqual({ Released: 1, NotReleased: 19 });
      expect(await sql(target, "SELECT names FROM node_owners")).toEqual([{ names: 1 }]);
    });

    test("re-announcements and releases of one name end without a deadlock, whole or gone", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      const signed = (time: string) => ({
        message: announcementOf(alice, { name: "berlin", time }),
        signature: SIGNATURE,
      });
      await announceName(pool, signed(at(-60)), QUOTA, OPEN);

      const said = await race<string>(
        target,
        "SELECT FROM node_names FOR UPDATE",
        TWENTY.map((n) => async () => {
          const time = at(n - 40);
          if (n % 2 === 0) return (await announceName(pool, signed(time), QUOTA, OPEN)).outcome;
          return releaseName(pool, {
            name: "berlin",
            peerId: alice.peerId,
            pool: "pool-a",
            time,
            reservation: null,
          });
        }),
      );

      expect(said).toHaveLength(20);
      const [row] = await sql<{ names: number; held: number; described: number }>(
        target,
        `SELECT names, (SELECT count(*) FROM node_names)::integer AS held,
           (SELECT count(*) FROM node_descriptors)::integer AS described FROM node_owners`,
      );
      expect([row?.held, row?.described]).toEqual([row?.names, row?.names]);
    });
  },
  { template: migrate },
);
