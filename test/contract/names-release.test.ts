import { expect, test } from "vitest";
import { announceName, readName, releaseName } from "../../src/federation/registry.ts";
import type { NodeIdentity } from "../../src/federation/node-identity.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { migrate, OPEN, poolOf } from "../support/names-database.ts";
import { announcementOf, makeIdentity } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

function at(seconds: number): string {
  return new Date(Date.now() + seconds * 1000).toISOString();
}

async function reserve(
  pool: PostgresPool,
  identity: NodeIdentity,
  name: string,
  time = at(-60),
): Promise<string> {
  const message = announcementOf(identity, { name, time });
  const said = await announceName(pool, { message, signature: "ab".repeat(64) }, 5, OPEN);
  if (!("reservation" in said)) throw new Error(said.outcome);
  return said.reservation;
}

function release(
  pool: PostgresPool,
  { peerId }: NodeIdentity,
  parts: {
    readonly name: string;
    readonly reservation?: string;
    readonly time?: string;
    readonly pool?: string;
  },
) {
  return releaseName(pool, { peerId, time: at(0), pool: "pool-a", reservation: null, ...parts });
}

describeOnPostgres(
  "releasing a name",
  (postgres) => {
    test("frees it for anybody, and for the quota", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      await reserve(pool, alice, "berlin");

      expect(await release(pool, alice, { name: "berlin" })).toBe("Released");

      expect(await readName(pool, "pool-a", "berlin")).toBeNull();
      expect(await sql(target, "SELECT names FROM node_owners")).toEqual([{ names: 0 }]);
      expect(await sql(target, "SELECT name FROM node_descriptors")).toEqual([]);
      await reserve(pool, bob, "berlin");
      expect(await readName(pool, "pool-a", "berlin")).toMatchObject({ peerId: bob.peerId });
    });

    test("is the owner's alone, in that pool, and in time", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const alice = makeIdentity();
      const reservation = await reserve(pool, alice, "berlin");

      expect(await release(pool, makeIdentity(), { name: "berlin" })).toBe("NotReleased");
      expect(await release(pool, makeIdentity(), { name: "berlin", reservation })).toBe("NotReleased");
      expect(await release(pool, alice, { name: "berlin", pool: "pool-b" })).toBe("NotReleased");
      expect(await release(pool, alice, { name: "other" })).toBe("NotReleased");
      expect(await release(pool, alice, { name: "berlin", time: at(-302) })).toBe("OutsideWindow");
      expect(await release(pool, alice, { name: "berlin", time: at(302) })).toBe("OutsideWindow");
      expect(await readName(pool, "pool-a", "berlin")).toMatchObject({ peerId: alice.peerId });
    });

    test("by an attempt takes back its own reservation only, and only while nobody announced it since", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const alice = makeIdentity();
      const first = await reserve(pool, alice, "berlin");
      await release(pool, alice, { name: "berlin", reservation: first, time: at(-50) });
      expect(await readName(pool, "pool-a", "berlin")).toBeNull();

      const second = await reserve(pool, alice, "berlin", at(-40));
      expect(second).not.toBe(first);
      expect(await release(pool, alice, { name: "berlin", reservation: first })).toBe("NotReleased");
      await reserve(pool, alice, "berlin", at(-30));
      expect(await release(pool, alice, { name: "berlin", reservation: second })).toBe("NotReleased");
      expect(await release(pool, alice, { name: "berlin" })).toBe("Released");
    });

    test("that is older than what was announced since is a replay", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const alice = makeIdentity();
      await reserve(pool, alice, "berlin", at(-60));
      const captured = { name: "berlin", time: at(-50) };
      expect(await release(pool, alice, captured)).toBe("Released");
      await reserve(pool, alice, "berlin", at(-40));

      expect(await release(pool, alice, captured)).toBe("NotReleased");
    });

    test("is remembered: an older announcement can't take the name again, a newer one can", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const alice = makeIdentity();
      await reserve(pool, alice, "berlin", at(-60));
      const time = at(-50);
      await release(pool, alice, { name: "berlin", time });

      for (const replayed of [at(-60), time])
        await expect(reserve(pool, alice, "berlin", replayed)).rejects.toThrow("NotNewer");
      expect(await readName(pool, "pool-a", "berlin")).toBeNull();
      await reserve(pool, alice, "berlin", at(-40));
    });

    test("forgets releases that no announcement could be older than any more", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      for (const name of ["old", "young"]) {
        await reserve(pool, alice, name);
        await release(pool, alice, { name });
      }
      await sql(
        target,
        "UPDATE node_releases SET released_at = now() - interval '25 hours' WHERE name = 'old'",
      );
      await reserve(pool, alice, "berlin");
      await release(pool, alice, { name: "berlin" });

      expect(await sql(target, "SELECT name FROM node_releases ORDER BY name")).toEqual([
        { name: "berlin" },
        { name: "young" },
      ]);
    });
  },
  { template: migrate },
);
