import { expect, test } from "vitest";
import {
  findInvite,
  bindMasterInvite,
  listInvites,
  recordInvite,
  revokeInvite,
  stateOf,
  userOf,
} from "../../src/federation/invite-records.ts";
import { announceName } from "../../src/federation/registry.ts";
import type { NodeIdentity } from "../../src/federation/node-identity.ts";
import { createPostgres, type PostgresPool } from "../../src/database/postgres.ts";
import { findHolders } from "../../src/edge/known.ts";
import { storeInvite } from "../support/invites.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { catalogueOf, listen, migratorOf } from "../support/migrations.ts";
import { migrate, OPEN, poolOf, race, tally } from "../support/names-database.ts";
import { announcementOf, makeIdentity } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const VERSION = 23;
const TWENTY = Array.from({ length: 20 }, (_, index) => index);

function announce(
  pool: PostgresPool,
  identity: NodeIdentity,
  { name, inviteId, seconds = 0 }: { name: string; inviteId: string | null; seconds?: number },
) {
  const time = new Date(Date.now() + seconds * 1_000).toISOString();
  const message = announcementOf(identity, { name, time });
  return announceName(pool, { message, signature: "ab".repeat(64) }, 5, { isOpen: false, inviteId });
}

describeOnPostgres(
  "invites",
  (postgres) => {
    test("twenty nodes with one invite: exactly one has a name, and the invite is bound to it", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const { id } = await storeInvite(target);
      const keys = TWENTY.map(makeIdentity);

      const said = await race(
        target,
        "SELECT FROM invites FOR UPDATE",
        keys.map((key, n) => () => announce(pool, key, { name: `n${n}`, inviteId: id })),
      );

      expect(tally(said.map(({ outcome }) => outcome))).toEqual({ Reserved: 1, NotInvited: 19 });
      const winner = keys[said.findIndex(({ outcome }) => outcome === "Reserved")];
      expect(await sql(target, "SELECT owner FROM node_names")).toEqual([{ owner: winner?.peerId }]);
      expect(await findInvite(pool, "pool-a", id)).toMatchObject({ boundPeer: winner?.peerId });
    });

    test("who has the address that invites contained before: open invites, and nodes that have not announced since", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const [used, renewed, open, revoked] = [
        await storeInvite(target),
        await storeInvite(target),
        await storeInvite(target),
        await storeInvite(target),
      ];
      const [berlin, paris] = [makeIdentity(), makeIdentity()];
      await announce(pool, berlin, { name: "berlin", inviteId: used.id, seconds: -60 });
      await announce(pool, paris, { name: "paris", inviteId: renewed.id, seconds: -60 });
      await revokeInvite(pool, "pool-a", revoked.id);
      const settings: Readonly<Record<string, string>> = {
        CLUSTERNAME: "pool-a",
        POSTGRES_HOST: target.host,
        POSTGRES_PORT: String(target.port),
        POSTGRES_USER: target.user,
        POSTGRES_PASSWORD: target.password,
        POSTGRES_DB: target.database,
      };
      const reader = { postgres: createPostgres() };
      const holders = (until: Date, from: Date | null = null) =>
        findHolders(reader, (key) => settings[key], [{ from, until }]);
      const changed = new Date();
      expect(open.id).not.toBe(used.id);
      expect(await holders(changed)).toEqual({ invites: 1, nodes: ["berlin", "paris"] });
      await announce(pool, paris, { name: "paris", inviteId: null, seconds: 60 });
      expect(await holders(changed)).toEqual({ invites: 1, nodes: ["berlin"] });
      expect(await holders(new Date(changed.getTime() - 3_600_000))).toEqual({ invites: 0, nodes: [] });
      expect(await holders(changed, new Date(changed.getTime() - 1))).toEqual({ invites: 0, nodes: [] });
    });

    test("a revocation that comes first wins against a node that waits", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const { id } = await storeInvite(target);

      const [said, revoked] = await race<unknown>(target, "SELECT FROM invites FOR UPDATE", [
        () => revokeInvite(pool, "pool-a", id),
        () => revokeInvite(pool, "pool-a", id),
      ]);
      expect(said).toMatchObject({ revokedAt: expect.any(Date) as Date });
      expect(revoked).toEqual(said);
      const late = await announce(pool, makeIdentity(), { name: "berlin", inviteId: id });
      expect(late).toEqual({ outcome: "NotInvited" });
      expect(await sql(target, "SELECT FROM node_names")).toEqual([]);
    });

    test("an announcement and a revocation at once end with a name of an invite that was bound, or without both", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const { id } = await storeInvite(target);
      const alice = makeIdentity();

      await race<unknown>(target, "SELECT FROM invites FOR UPDATE", [
        () => announce(pool, alice, { name: "berlin", inviteId: id }),
        () => revokeInvite(pool, "pool-a", id),
      ]);

      const names = await sql(target, "SELECT FROM node_names");
      const record = await findInvite(pool, "pool-a", id);
      expect(record?.revokedAt).not.toBeNull();
      expect(record?.boundPeer).toBe(names.length === 1 ? alice.peerId : null);
    });

    test("an announcement that fails binds nothing: too late, over the quota", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      const { id } = await storeInvite(target);
      const late = await announce(pool, alice, { name: "berlin", inviteId: id, seconds: -900 });
      expect(late.outcome).toBe("OutsideWindow");
      await sql(target, "INSERT INTO node_owners VALUES ('pool-a', $1, 5, 5)", [alice.peerId]);
      expect(await announce(pool, alice, { name: "berlin", inviteId: id })).toEqual({ outcome: "OverQuota" });
      expect(await findInvite(pool, "pool-a", id)).toMatchObject({ boundPeer: null, boundAt: null });
    });

    test("where anybody may register, an invite is bound all the same, so that the list says who used it", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      const { id } = await storeInvite(target);
      const admission = { ...OPEN, inviteId: id };
      const signed = (key: NodeIdentity, name: string) =>
        ({ message: announcementOf(key, { name }), signature: "ab".repeat(64) }) as const;
      expect((await announceName(pool, signed(alice, "n1"), 5, admission)).outcome).toBe("Reserved");
      expect((await announceName(pool, signed(bob, "n2"), 5, admission)).outcome).toBe("Reserved");
      const record = await findInvite(pool, "pool-a", id);
      expect(record).toMatchObject({ boundPeer: alice.peerId, boundNames: ["n1"] });
      expect(record === null ? "" : userOf(record)).toBe(`n1 (${alice.peerId})`);
    });

    test("the list has every invite of the pool with its state", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const alice = makeIdentity();
      const [unused, used, expired, revoked] = [
        await storeInvite(target),
        await storeInvite(target),
        await storeInvite(target, { expiresInSeconds: -5 }),
        await storeInvite(target),
      ];
      await storeInvite(target, { pool: "pool-b" });
      await announce(pool, alice, { name: "berlin", inviteId: used.id });
      await revokeInvite(pool, "pool-a", revoked.id);

      const states = new Map(
        (await listInvites(pool, "pool-a")).map((record) => [record.id, stateOf(record, new Date())]),
      );
      expect(states).toEqual(
        new Map([
          [unused.id, "unused"],
          [used.id, "used"],
          [expired.id, "expired"],
          [revoked.id, "revoked"],
        ]),
      );
      expect(await revokeInvite(pool, "pool-a", "0".repeat(32))).toBeNull();
      expect(await revokeInvite(pool, "pool-b", unused.id)).toBeNull();
    });

    test("an invite of a master is one, and the first master that uses it binds it", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      await storeInvite(target);
      const id = "0b".repeat(16);
      const at = new Date();
      const expiresAt = new Date(at.getTime() + 60_000);
      const invite = { id, kind: "master" as const, name: null, verifyingKey: "x", issuedAt: at, expiresAt };
      await recordInvite(pool, "pool-a", invite);
      const kinds = (await listInvites(pool, "pool-a")).map(({ kind }) => kind);
      expect(kinds.toSorted()).toEqual(["master", "node"]);
      const [first, second] = ["a", "b"].map((digit) => digit.repeat(32)) as [string, string];
      await sql(
        target,
        `INSERT INTO masters (pool, id, name, flags, version, machine, first_seen_at, heartbeat_at)
         VALUES ('pool-a', '${first}', 'berlin', '{}', '1', 'm', now(), now())`,
      );
      await bindMasterInvite(pool, { pool: "pool-a", id, masterId: first });
      await bindMasterInvite(pool, { pool: "pool-a", id, masterId: second });
      expect(await findInvite(pool, "pool-a", id)).toMatchObject({
        kind: "master",
        boundPeer: first,
        boundNames: ["berlin"],
      });
      // The same master joins again, with another invite: that one stays for another master.
      const spare = "0c".repeat(16);
      await recordInvite(pool, "pool-a", { ...invite, id: spare });
      await bindMasterInvite(pool, { pool: "pool-a", id: spare, masterId: first });
      expect((await findInvite(pool, "pool-a", spare))?.boundPeer).toBeNull();
      await bindMasterInvite(pool, { pool: "pool-a", id: spare, masterId: second });
      expect((await findInvite(pool, "pool-a", spare))?.boundPeer).toBe(second);
      await revokeInvite(pool, "pool-a", spare);
      // One of a node is bound by its announcement only.
      const node = (await listInvites(pool, "pool-a")).find(({ kind }) => kind === "node")?.id ?? "";
      await bindMasterInvite(pool, { pool: "pool-a", id: node, masterId: first });
      expect((await findInvite(pool, "pool-a", node))?.boundPeer).toBeNull();

      await expect(migratorOf().down(target, [39], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "039_master_invites.down.sql refuses: 1 invite(s) of masters still work.",
      });
      await revokeInvite(pool, "pool-a", id);
      const { done } = await migratorOf().down(target, [39], listen());
      expect(done).toMatchObject([{ version: 39, action: "revert" }]);
    });

    test("an id is stored once", async () => {
      const pool = poolOf(await postgres.createDatabase());
      const at = new Date();
      const invite = {
        id: "0a".repeat(16),
        kind: "node" as const,
        name: null,
        verifyingKey: "x",
        issuedAt: at,
        expiresAt: at,
      };
      await recordInvite(pool, "pool-a", invite);
      await recordInvite(pool, "pool-b", invite);
      await expect(recordInvite(pool, "pool-a", invite)).rejects.toMatchObject({
        constraint: "invites_pkey",
      });
    });

    declarePartTests(postgres, {
      file: "023_invites.sql",
      breaks: [
        ["ALTER TABLE invites DROP CONSTRAINT invites_bound", "constraint invites_bound on invites"],
        ["ALTER TABLE invites ALTER expires_at DROP NOT NULL", "column invites.expires_at timestamptz"],
      ],
    });

    test("down refuses while an invite works, and names it; names stay", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const before = await catalogueOf(target);
      const [used, expired] = [
        await storeInvite(target),
        await storeInvite(target, { expiresInSeconds: -5 }),
      ];
      await announce(pool, makeIdentity(), { name: "berlin", inviteId: used.id });
      await expect(migratorOf().down(target, [VERSION], listen())).rejects.toMatchObject({
        exit: "drift",
        what: `023_invites.down.sql refuses: 1 invite(s) still work: ${used.id} (pool pool-a).`,
        remedy: expect.stringContaining("fula-node invite revoke") as string,
      });
      expect(await catalogueOf(target)).toEqual(before);
      expect(await findInvite(pool, "pool-a", expired.id)).not.toBeNull();
      await revokeInvite(pool, "pool-a", used.id);
      const { done } = await migratorOf().down(target, [VERSION], listen());
      expect(done).toMatchObject([{ version: VERSION, action: "revert" }]);
      expect(await sql(target, "SELECT name FROM node_names")).toEqual([{ name: "berlin" }]);
      await migratorOf().up(target, listen());
      expect(await catalogueOf(target)).toEqual(before);
    });
  },
  { template: migrate },
);
