import { setTimeout as wait } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { cidOf } from "../support/cids.ts";
import { type GateDecision, startClusterDouble } from "../support/cluster-double.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, remove, workOn } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** Random numbers from 0 to 1 that a seed repeats (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Every sentence about a content whose requests and pin do not fit. */
async function misfits(
  target: PostgresTarget,
  pins: ReadonlyMap<string, unknown>,
): Promise<readonly string[]> {
  const rows = await sql<{ cid: string; active: number; pinned: number; left: number }>(
    target,
    `SELECT cid, count(*) FILTER (WHERE status IN ('queued', 'pinning', 'pinned'))::integer AS active,
       count(*) FILTER (WHERE status = 'pinned')::integer AS pinned,
       (SELECT count(*)::integer FROM pin_work) AS left
     FROM pins GROUP BY cid`,
  );
  return rows.flatMap(({ cid, active, pinned, left }) => {
    const isThere = pins.has(cid);
    const fits = isThere === active > 0 && pinned === active && left === 0;
    return fits
      ? []
      : [`${cid}: ${active} active, ${pinned} pinned, in the cluster: ${isThere}; ${left} left`];
  });
}

const SEEDS = [1, 2, 3];

describeOnPostgres(
  "requests for one content that race",
  (postgres) => {
    test.each(SEEDS)(
      "a POST that races a DELETE ends pinned, a DELETE ends unpinned (seed %i)",
      async (seed) => {
        await play(await postgres.createDatabase(), seed, () => "apply");
      },
      120_000,
    );

    test.each(SEEDS)(
      "also when calls get lost, or have their effect late (seed %i)",
      async (seed) => {
        const random = randomOf(seed + 1000);
        await play(await postgres.createDatabase(), seed, () => {
          const roll = random();
          if (roll < 0.05) return "drop";
          if (roll < 0.1) return "lose";
          return roll < 0.2 ? random() * 1_500 : "apply";
        });
      },
      120_000,
    );
  },
  { template: migrate },
);

/** Two masters, thirty contents, and for each one twelve random requests and deletions of two accounts. */
async function play(target: PostgresTarget, seed: number, decide: () => GateDecision): Promise<void> {
  const random = randomOf(seed);
  const cluster = await startClusterDouble({});
  onTestFinished(() => cluster.stop());
  cluster.gate = async () => {
    await wait(random() * 20);
    return decide();
  };
  const pool = poolOf(target);
  for (let masters = 0; masters < 2; masters++) workOn(target, cluster, { settings: { pollMs: 10 } });
  await Promise.all(
    Array.from({ length: 30 }, async (_, content) => {
      const active: string[] = [];
      for (let move = 0; move < 12; move++) {
        const at = Math.floor(random() * active.length);
        if (active.length === 0 || (active.length < 2 && random() < 0.5))
          active.push(await accept(pool, { account: `u${active.length}`, cid: cidOf(`race ${content}`) }));
        else await remove(pool, active.splice(at, 1)[0] ?? "");
        if (random() < 0.7) await wait(random() * 80);
      }
    }),
  );
  await expect.poll(() => misfits(target, cluster.pins), { timeout: 60_000, interval: 200 }).toEqual([]);
}
