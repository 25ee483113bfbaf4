import { expect, test } from "vitest";
import { openLease } from "../../src/billing/lease.ts";
import { findRemoval } from "../../src/database/masters.ts";
import {
  findDistrusting,
  findHeir,
  findMeant,
  findTrustFaults,
  readPoolTrust,
  removeMaster,
  takeBack,
} from "../../src/federation/pool-trust.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { idOf, masterOf } from "../support/masters.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { openPool, poolOf } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const PEERS = {
  a: "12D3KooWAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  b: "12D3KooWBbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
};

/** Two masters; `a` trusts `b`, and `b` trusts nobody. */
async function twoMasters(target: PostgresTarget): Promise<void> {
  await migratorOf().up(target, listen());
  const peer = (key: "a" | "b", trusts: readonly string[]) => ({ peerId: PEERS[key], addresses: [], trusts });
  await migratorOf().recordMaster(target, masterOf("a", { peer: peer("a", [PEERS.b]) }));
  await migratorOf().recordMaster(target, masterOf("b", { peer: peer("b", []) }));
}

describeOnPostgres("the masters of a pool", (postgres) => {
  test("one that an earlier master does not trust is held back, and never the first one", async () => {
    const target = await postgres.createDatabase();
    await twoMasters(target);
    const database = poolOf(target);
    const of = (key: string) => findDistrusting(database, idOf(key));
    expect([await of("a"), await of("b")]).toEqual([null, null]);
    const trusting = (trusts: readonly string[] | null) =>
      migratorOf().recordMaster(target, masterOf("a", { peer: { peerId: PEERS.a, addresses: [], trusts } }));
    await trusting([PEERS.a]);
    // `b` trusts nobody, too: if each waited for the other, nobody would work.
    expect([await of("a"), await of("b")]).toEqual([null, { by: "a", own: "b" }]);
    await trusting(["*"]);
    expect(await of("b")).toBeNull();
    // What is not known holds back nobody.
    await trusting(null);
    expect([await of("b"), await of("nobody")]).toEqual([null, null]);
    await trusting([]);
    expect(await of("b")).toEqual({ by: "a", own: "b" });
    await database.query("DELETE FROM master_peers WHERE peer_id = $1", [PEERS.b]);
    expect(await of("b")).toEqual({ by: "a", own: "b" });
    await database.query("UPDATE masters SET heartbeat_at = now() - interval '1 day' WHERE name = 'a'");
    expect(await of("b")).toBeNull();
    const [a] = (await readPoolTrust(database, "pool-a")).masters;
    expect(a).toMatchObject({ name: "a", isHeard: false });
    expect(Math.round((a?.heartbeatAgeMs ?? 0) / 3_600_000)).toBe(24);
  });

  test("record their peers; who does not trust whom is found", async () => {
    const target = await postgres.createDatabase();
    await twoMasters(target);
    await migratorOf().recordMaster(target, masterOf("c", { pool: "another pool" }));
    const trust = await readPoolTrust(poolOf(target), "pool-a");
    expect(trust).toMatchObject({
      masters: [
        { name: "a", isHeard: true, peer: { peerId: PEERS.a, trusts: [PEERS.b] } },
        { name: "b", isHeard: true, peer: { peerId: PEERS.b, trusts: [] } },
      ],
      removed: [],
      nodes: [],
    });
    expect((await migratorOf().readMasters(target))?.map(({ peer }) => peer?.peerId ?? null)).toEqual([
      PEERS.a,
      PEERS.b,
      null,
    ]);
    expect(findTrustFaults(trust, { id: idOf("a"), trusts: [PEERS.b] })).toMatchObject({
      untrusted: [],
      distrusting: [{ name: "b" }],
    });
    expect(findTrustFaults(trust, { id: idOf("b"), trusts: [] })).toMatchObject({
      untrusted: [{ name: "a" }],
      distrusting: [],
    });
  });

  test("one that is removed loses its row, its peer, its flags and its lease, and can't record itself", async () => {
    const target = await postgres.createDatabase();
    await twoMasters(target);
    const pool = openPool(target, 2);
    const lease = openLease({
      target,
      pool,
      holder: idOf("b"),
      log: () => undefined,
      silentAfterMs: 60_000,
    });
    expect(await lease.lookAgain()).toBe(true);

    expect(await removeMaster(pool, { id: idOf("b"), by: "a" })).toBe(true);
    expect(await removeMaster(pool, { id: idOf("b"), by: "a" })).toBe(false);

    const trust = await readPoolTrust(pool, "pool-a");
    expect(trust.masters.map(({ name }) => name)).toEqual(["a"]);
    expect(trust.removed).toMatchObject([{ name: "b", peerId: PEERS.b, removedBy: "a" }]);
    expect(await sql(target, "SELECT pid FROM cron_lease")).toEqual([{ pid: null }]);
    expect(findTrustFaults(trust, { id: idOf("a"), trusts: [PEERS.b] }).lingering).toMatchObject([
      { removed: { name: "b" }, by: [null] },
    ]);
    await expect(migratorOf().recordMaster(target, masterOf("b"))).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringMatching(/^The master b was removed from its pool by a, /),
    });
    expect(await findRemoval((text, values) => pool.query(text, values), idOf("b"))).toMatchObject({
      name: "b",
    });
    expect(await findRemoval((text, values) => pool.query(text, values), idOf("a"))).toBeNull();

    const meant = findMeant(trust, PEERS.b);
    if (meant.kind !== "removed") throw new Error(`b is ${meant.kind}`);
    expect(findMeant(trust, "b")).toEqual(meant);
    expect(findHeir(trust, meant.removed)).toBeNull();
    await takeBack(pool, meant.removed);
    await migratorOf().recordMaster(target, masterOf("b"));
    expect((await readPoolTrust(pool, "pool-a")).masters.map(({ name }) => name)).toEqual(["a", "b"]);
    await lease.release();
    await pool.close();
  });

  test("one that leaves is remembered only where others stay", async () => {
    const target = await postgres.createDatabase();
    await twoMasters(target);
    await migratorOf().forgetMaster(target, { id: idOf("b"), name: "b" });
    expect(await migratorOf().readRemovedMasters(target)).toMatchObject([{ name: "b", removedBy: "b" }]);
    await migratorOf().forgetMaster(target, { id: idOf("a"), name: "a" });
    expect(await migratorOf().readRemovedMasters(target)).toHaveLength(1);
    await migratorOf().recordMaster(target, masterOf("a"));
  });

  test("one that takes over the name, or the peer, of a removed one is its heir", async () => {
    const target = await postgres.createDatabase();
    await twoMasters(target);
    await removeMaster(poolOf(target), { id: idOf("b"), by: "a" });
    await migratorOf().recordMaster(target, masterOf("new", { name: "b" }));
    const trust = await readPoolTrust(poolOf(target), "pool-a");
    expect(trust.removed.map((one) => findHeir(trust, one)?.id)).toEqual([idOf("new")]);
  });
});
