import { expect, test } from "vitest";
import { parseVerifyingKey } from "../../src/machine/signing.ts";
import { makeSigningKey, registrationOf, storeInvite } from "../support/invites.ts";
import { migrate } from "../support/names-database.ts";
import { announcementOf, makeIdentity, signAnnouncement } from "../support/node-identity.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import type { Serving } from "./serving.ts";
import { ask, send, startWebui } from "./web-api.ts";

const NODES = "/api/v1/nodes";

/**
 * Announces a node with an invite (`ID.SIGNATURE`) or without. Each call is a moment later than the one before. Before, it
 * asks about the free name in the same way as a join: the answer must be what the announcement then gets.
 */
function announcer(webui: Serving) {
  let next = Date.now() - 60_000;
  return async (
    identity: ReturnType<typeof makeIdentity>,
    name: string,
    invite: string | null,
    from = "192.0.2.1",
  ) => {
    next += 10;
    const announcement = announcementOf(identity, { name, time: new Date(next).toISOString() });
    const headers = {
      "x-forwarded-for": from,
      ...(invite === null ? {} : { authorization: `Fula-Invite ${invite}` }),
    };
    const before = await ask(webui, `${NODES}/${name}?pool=pool-a&peer=${identity.peerId}`, { headers });
    const { status, body } = await ask(
      webui,
      NODES,
      send("POST", signAnnouncement(identity, announcement), headers),
    );
    const { outcome, code, error } = body as Readonly<Record<string, string | undefined>>;
    if (before.status === 404 && status !== 429) {
      const refusal = status === 201 ? null : { code, error };
      expect(before.body).toMatchObject({ code: "no-such-node", pool: "pool-a", refusal });
    }
    return { status, said: outcome ?? code, error: error ?? "" };
  };
}

describeOnPostgres(
  "a master that registers invited nodes only",
  (postgres) => {
    test("says so where a name is free, and registers nothing for a key without an invite", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target, { registration: "invite" });
      const announce = announcer(webui);
      expect(await ask(webui, `${NODES}/berlin`)).toMatchObject({
        status: 404,
        body: { code: "no-such-node", registration: "invite" },
      });
      for (let key = 0; key < 3; key += 1)
        expect(await announce(makeIdentity(), `n${key}`, null)).toMatchObject({
          status: 403,
          said: "invite-missing",
        });
      expect(await sql(target, "SELECT FROM node_names")).toEqual([]);
      expect(await sql(target, "SELECT FROM node_owners")).toEqual([]);
    });

    test("registers one node for an invite, and lets that node announce again once the invite has ended", async () => {
      const target = await postgres.createDatabase();
      const announce = announcer(await startWebui(target, { registration: "invite" }));
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      const { shown, id } = await storeInvite(target);

      expect(await announce(alice, "berlin", shown)).toMatchObject({ status: 201, said: "Reserved" });
      expect(await announce(bob, "paris", shown)).toEqual({
        status: 403,
        said: "invite-used",
        error: `The invite was used by another node (${alice.peerId}).`,
      });
      await sql(target, "UPDATE invites SET expires_at = now() - interval '1 day'");
      expect(await announce(alice, "berlin", null)).toMatchObject({ status: 200, said: "AlreadyOwned" });
      expect(await announce(alice, "berlin-2", shown)).toMatchObject({ status: 201 });
      await sql(target, "UPDATE invites SET revoked_at = now() WHERE id = $1", [id]);
      expect(await announce(alice, "berlin-3", shown)).toMatchObject({ status: 403, said: "invite-revoked" });
      expect(await announce(alice, "berlin", shown)).toMatchObject({ status: 200, said: "AlreadyOwned" });
    });

    test.each([
      ["expired", { expiresInSeconds: -1 }, "invite-expired", "expired at 20"],
      ["for another name", { name: "paris" }, "invite-other-name", "is for the name paris, not for berlin"],
      ["of another pool", { pool: "pool-b" }, "invite-unknown", "not one of this pool"],
    ])("refuses an invite that is %s", async (_case, options, said, words) => {
      const target = await postgres.createDatabase();
      const announce = announcer(await startWebui(target, { registration: "invite" }));
      const { shown } = await storeInvite(target, options);
      const refused = await announce(makeIdentity(), "berlin", shown);
      expect(refused).toMatchObject({ status: 403, said });
      expect(refused.error).toContain(words);
      expect(await sql(target, "SELECT FROM invites WHERE bound_peer IS NOT NULL")).toEqual([]);
    });

    test("a look at a name with an invite binds nothing, and says that it is the master of another pool", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target, { registration: "invite" });
      const { shown } = await storeInvite(target, { name: "berlin" });
      const headers = { authorization: `Fula-Invite ${shown}` };
      const look = (path: string) => ask(webui, `${NODES}/${path}`, { headers });
      expect((await look("berlin?pool=pool-a")).body).toMatchObject({ refusal: null });
      expect((await look("rome?pool=pool-a")).body).toMatchObject({ refusal: { code: "invite-other-name" } });
      expect(await look("berlin?pool=pool-b")).toMatchObject({ status: 409, body: { code: "other-pool" } });
      expect((await look("berlin")).body).not.toHaveProperty("refusal");
      expect(await sql(target, "SELECT FROM invites WHERE bound_peer IS NOT NULL")).toEqual([]);
    });

    test("a key with the maximum of names is told before it announces another one", async () => {
      const target = await postgres.createDatabase();
      const announce = announcer(await startWebui(target, { registration: "invite", namesPerOwner: 1 }));
      const [alice, { shown }] = [makeIdentity(), await storeInvite(target)];
      expect(await announce(alice, "berlin", shown)).toMatchObject({ status: 201 });
      expect(await announce(alice, "paris", shown)).toMatchObject({ status: 403, said: "over-quota" });
    });

    test("registers the name of an invite that names one", async () => {
      const target = await postgres.createDatabase();
      const announce = announcer(await startWebui(target, { registration: "invite" }));
      const { shown } = await storeInvite(target, { name: "berlin" });
      expect(await announce(makeIdentity(), "berlin", shown)).toMatchObject({ status: 201 });
    });

    test("an id without the master's signature over it is worth nothing, and says nothing about the invite", async () => {
      const target = await postgres.createDatabase();
      const announce = announcer(await startWebui(target, { registration: "invite" }));
      const key = makeSigningKey();
      const stored = await storeInvite(target, { key, expiresInSeconds: -1 });
      const forged = registrationOf(makeSigningKey(), "pool-a", stored.id);
      const elsewhere = registrationOf(key, "pool-b", stored.id);
      const unknown = registrationOf(key, "pool-a");
      const shown = [forged, elsewhere, unknown].map(({ id, signature }) => `${id}.${signature}`);
      for (const invite of [...shown, "x", "0".repeat(300), `${stored.id}.${"A".repeat(86)}`]) {
        const { said } = await announce(makeIdentity(), "berlin", invite);
        expect(["invite-unknown", "invite-missing"]).toContain(said);
      }
      expect(await announce(makeIdentity(), "berlin", stored.shown)).toMatchObject({
        said: "invite-expired",
      });
    });

    test("an invite of another master of the pool counts, since its key is in the database", async () => {
      const target = await postgres.createDatabase();
      const announce = announcer(await startWebui(target, { registration: "invite" }));
      const [one, two] = [makeSigningKey(), makeSigningKey()];
      expect(one.id).not.toBe(two.id);
      for (const key of [one, two]) {
        const { shown } = await storeInvite(target, { key });
        expect(parseVerifyingKey(key.publicPem, "key").id).toBe(key.id);
        expect(await announce(makeIdentity(), `n-${key.id}`, shown)).toMatchObject({ status: 201 });
      }
    });

    test("a name that an earlier version registered is announced again without an invite, by its key only", async () => {
      const target = await postgres.createDatabase();
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      const open = announcer(await startWebui(target, { registration: "open" }));
      expect(await open(alice, "berlin", null)).toMatchObject({ status: 201 });
      const announce = announcer(await startWebui(target, { registration: "invite" }));
      await sql(target, "UPDATE node_descriptors SET said = said - interval '2 minutes'");
      expect(await announce(alice, "berlin", null)).toMatchObject({ status: 200, said: "AlreadyOwned" });
      expect(await announce(bob, "berlin", null)).toMatchObject({ status: 403, said: "invite-missing" });
      expect(await announce(alice, "paris", null)).toMatchObject({ status: 403, said: "invite-missing" });
    });

    test("the owner of a name uses up a new invite when it announces again, and is told of it before", async () => {
      const target = await postgres.createDatabase();
      const webui = await startWebui(target, { registration: "invite" });
      const announce = announcer(webui);
      const [alice, bob] = [makeIdentity(), makeIdentity()];
      const first = await storeInvite(target);
      expect(await announce(alice, "berlin", first.shown)).toMatchObject({ status: 201 });
      const saidAt = async () =>
        (await sql(target, "SELECT said FROM node_descriptors WHERE name = 'berlin'"))[0]?.["said"];
      const before = await saidAt();
      const second = await storeInvite(target, { name: "berlin" });
      const look = async (peerId: string, shown: string) => {
        const headers = { authorization: `Fula-Invite ${shown}` };
        return (await ask(webui, `${NODES}/berlin?pool=pool-a&peer=${peerId}`, { headers })).body;
      };
      const forged = `${second.id}.${"A".repeat(86)}`;
      expect(await look(alice.peerId, second.shown)).toMatchObject({ invite: "unused" });
      for (const [peerId, shown] of [
        [alice.peerId, first.shown],
        [alice.peerId, forged],
        [bob.peerId, second.shown],
      ] as const)
        expect(await look(peerId, shown)).not.toHaveProperty("invite");
      expect(await sql(target, "SELECT FROM invites WHERE bound_peer IS NULL")).toHaveLength(1);

      expect(await announce(bob, "berlin", second.shown)).toMatchObject({ said: "taken-by-other" });
      await sql(target, "UPDATE invites SET bound_peer = NULL, bound_at = NULL WHERE id = $1", [second.id]);
      expect(await announce(alice, "berlin", second.shown)).toMatchObject({ said: "AlreadyOwned" });
      expect(await look(alice.peerId, second.shown)).not.toHaveProperty("invite");
      expect(
        await sql(target, "SELECT id FROM invites WHERE bound_peer = $1 ORDER BY id", [alice.peerId]),
      ).toEqual([{ id: first.id }, { id: second.id }].toSorted((a, b) => (a.id < b.id ? -1 : 1)));
      expect(await saidAt()).not.toEqual(before);
    });

    test("addresses of one /64 share one limit, with invites or without", async () => {
      const webui = await startWebui(await postgres.createDatabase(), { registration: "invite" });
      const announce = announcer(webui);
      const statuses: number[] = [];
      for (let host = 1; host <= 31; host += 1)
        statuses.push((await announce(makeIdentity(), "berlin", null, `2001:db8:1:2::${host}`)).status);
      expect(statuses.slice(0, 30)).toEqual(Array.from({ length: 30 }, () => 403));
      expect(statuses.at(-1)).toBe(429);
      expect((await announce(makeIdentity(), "berlin", null, "2001:db8:1:3::1")).status).toBe(403);
    });
  },
  { template: migrate },
);
