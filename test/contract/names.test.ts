import { expect, test } from "vitest";
import { createPostgres, type PostgresPool } from "../../src/database/postgres.ts";
import type { Announcement } from "../../src/federation/announcement.ts";
import type { NodeIdentity } from "../../src/federation/node-identity.ts";
import { announceName, listNames, readName, readOwners } from "../../src/federation/registry.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { migrate, OPEN, poolOf } from "../support/names-database.ts";
import { announcementOf, makeIdentity } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const SIGNATURE = "ab".repeat(64);
const QUOTA = 5;

function announce(
  pool: PostgresPool,
  identity: NodeIdentity,
  parts: Partial<Announcement> & { name: string },
) {
  return announceName(pool, { message: announcementOf(identity, parts), signature: SIGNATURE }, QUOTA, OPEN);
}

/** So many seconds before or after now, by this machine's clock, which the test's database shares. */
function at(seconds: number): string {
  return new Date(Date.now() + seconds * 1000).toISOString();
}

async function countsOf(target: PostgresTarget): Promise<Readonly<Record<string, number>>> {
  const [row] = await sql<Record<string, number>>(
    target,
    `SELECT (SELECT count(*) FROM node_names)::integer AS names, (SELECT count(*) FROM node_descriptors)::integer AS descriptors,
       (SELECT coalesce(sum(names), 0) FROM node_owners)::integer AS counted`,
  );
  return row ?? {};
}

describeOnPostgres(
  "announcing a name",
  (postgres) => {
    test("makes its owner one of the pool's, once, however many names it has", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      for (const name of ["paris", "berlin"]) await announce(pool, alice, { name });
      await announce(pool, bob, { name: "rome", pool: "pool-b" });
      const reader = createPostgres();
      const readRows: Parameters<typeof readOwners>[0] = (text, values) => reader.query(target, text, values);
      expect(await readOwners(readRows, "pool-a")).toEqual([
        { id: alice.peerId, name: "berlin", announcedAt: expect.stringMatching(/^\d{4}-.*Z$/) as string },
      ]);
      expect(await readOwners(readRows, "pool-c")).toEqual([]);
      await sql(target, "ALTER TABLE node_names RENAME TO node_names_old");
      await expect(readOwners(readRows, "pool-a")).rejects.toMatchObject({ exit: "unavailable" });
    });

    test("is Reserved at first, with its descriptor, and AlreadyOwned afterwards", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const alice = makeIdentity();
      const first = await announce(pool, alice, { name: "berlin", time: at(-10) });
      expect(first).toEqual({
        outcome: "Reserved",
        reservation: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      });
      const addresses = [`/ip4/192.0.2.8/tcp/9096/p2p/${alice.peerId}`];
      const time = at(-5);

      const second = await announce(pool, alice, { name: "berlin", addresses, time });

      expect(second).toEqual({ ...first, outcome: "AlreadyOwned" });
      expect(await readName(pool, "pool-a", "berlin")).toEqual({
        name: "berlin",
        peerId: alice.peerId,
        addresses,
        signature: SIGNATURE,
        announcedAt: new Date(time),
        reservedAt: expect.any(Date) as Date,
      });
    });

    test("is TakenByOther for another key, and changes nothing", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await announce(pool, makeIdentity(), { name: "berlin" });
      const before = await readName(pool, "pool-a", "berlin");

      expect(await announce(pool, makeIdentity(), { name: "berlin", time: at(5) })).toEqual({
        outcome: "TakenByOther",
      });
      expect(await readName(pool, "pool-a", "berlin")).toEqual(before);
      expect(await countsOf(target)).toEqual({ names: 1, descriptors: 1, counted: 1 });
    });

    test("names are kept apart by pool", async () => {
      const pool = poolOf(await postgres.createDatabase());
      await announce(pool, makeIdentity(), { name: "berlin" });
      expect(await announce(pool, makeIdentity(), { name: "berlin", pool: "pool-b" })).toMatchObject({
        outcome: "Reserved",
      });
      expect(await readName(pool, "pool-c", "berlin")).toBeNull();
    });

    test.each([
      [-299, "Reserved"],
      [-302, "OutsideWindow"],
      [298, "Reserved"],
      [302, "OutsideWindow"],
      [-86_400, "OutsideWindow"],
    ])("signed %i seconds from now: %s", async (seconds, outcome) => {
      const target = await postgres.createDatabase();
      const said = await announce(poolOf(target), makeIdentity(), { name: "berlin", time: at(seconds) });
      expect(said).toMatchObject({ outcome });
      expect((await countsOf(target))["names"]).toBe(outcome === "Reserved" ? 1 : 0);
    });

    test("the same announcement again, and an older one, are refused and overwrite nothing", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const alice = makeIdentity();
      const [older, newer] = [at(-60), at(-30)];
      await announce(pool, alice, { name: "berlin", time: at(-90) });
      await announce(pool, alice, { name: "berlin", time: newer });
      const before = await readName(pool, "pool-a", "berlin");
      const addresses = [`/ip4/198.51.100.1/tcp/1/p2p/${alice.peerId}`];

      for (const time of [newer, older])
        expect(await announce(pool, alice, { name: "berlin", time, addresses })).toEqual({
          outcome: "NotNewer",
        });
      expect(await readName(pool, "pool-a", "berlin")).toEqual(before);
    });

    test("a descriptor that lies where a name is free stops the reservation, all of it", async () => {
      const target = await postgres.createDatabase();
      await sql(
        target,
        `INSERT INTO node_descriptors VALUES ('pool-a', 'berlin', '{/ip4/203.0.113.1/tcp/1}', now(), 'left', 7, now())`,
      );
      const pool = poolOf(target);

      expect(await announce(pool, makeIdentity(), { name: "berlin" })).toEqual({
        outcome: "DescriptorInTheWay",
      });
      expect(await countsOf(target)).toEqual({ names: 0, descriptors: 1, counted: 0 });
      expect(await sql(target, "SELECT signature, revision FROM node_descriptors")).toEqual([
        { signature: "left", revision: "7" },
      ]);
    });

    test("a name whose descriptor was lost gets it back from its owner, and is not counted twice", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      await announce(pool, alice, { name: "berlin", time: at(-5) });
      await sql(target, "DELETE FROM node_descriptors");

      expect(await announce(pool, alice, { name: "berlin" })).toMatchObject({ outcome: "AlreadyOwned" });
      expect(await countsOf(target)).toEqual({ names: 1, descriptors: 1, counted: 1 });
    });

    test("the quota counts names of one key in one pool, and not announcements", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      for (let name = 1; name <= QUOTA; name += 1)
        await announce(pool, alice, { name: `n${name}`, time: at(-60) });

      expect(await announce(pool, alice, { name: "n6" })).toEqual({ outcome: "OverQuota" });
      expect(await countsOf(target)).toEqual({ names: QUOTA, descriptors: QUOTA, counted: QUOTA });
      expect(await announce(pool, alice, { name: "n1" })).toMatchObject({ outcome: "AlreadyOwned" });
      expect(await announce(pool, alice, { name: "n6", pool: "pool-b" })).toMatchObject({
        outcome: "Reserved",
      });
      expect(await announce(pool, makeIdentity(), { name: "n6" })).toMatchObject({ outcome: "Reserved" });
    });

    test("another's name is said to be taken, also beyond the quota; a quota lowered later takes nothing away", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      for (const name of ["n1", "n2"]) await announce(pool, alice, { name, time: at(-60) });
      await announce(pool, makeIdentity(), { name: "theirs" });
      const strict = (name: string, time: string) =>
        announceName(pool, { message: announcementOf(alice, { name, time }), signature: SIGNATURE }, 1, OPEN);

      expect(await strict("theirs", at(0))).toEqual({ outcome: "TakenByOther" });
      expect(await strict("n3", at(0))).toEqual({ outcome: "OverQuota" });
      expect(await strict("n2", at(0))).toMatchObject({ outcome: "AlreadyOwned" });
    });

    test("the list goes on behind a name, in the same order on every server", async () => {
      const pool = poolOf(await postgres.createDatabase());
      for (const name of ["b", "a-1", "a", "a1", "c"]) await announce(pool, makeIdentity(), { name });
      const names = async (after: string | null, limit: number) =>
        (await listNames(pool, "pool-a", { after, limit })).map(({ name }) => name);

      expect(await names(null, 10)).toEqual(["a", "a-1", "a1", "b", "c"]);
      expect(await names("a-1", 2)).toEqual(["a1", "b"]);
      expect(await names("aaa", 10)).toEqual(["b", "c"]);
      expect(await names("c", 10)).toEqual([]);
    });
  },
  { template: migrate },
);
