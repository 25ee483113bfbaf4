import { randomUUID } from "node:crypto";
import { Client } from "pg";
import { expect, onTestFinished, test } from "vitest";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { parseCid } from "../../src/pinning/content-id.ts";
import { finished, pinned, sent, writeOutcomes, writeSizes } from "../../src/pinning/outcomes.ts";
import { createPinIntake, removePin } from "../../src/pinning/pin-store.ts";
import { claimWork, extendClaims, type Phase } from "../../src/pinning/queue.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, WHATEVER_IS_DUE } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const LIMITS = { freeTierBytes: 1_000, maxPending: null, deadlineSeconds: 3_600 };

/**
 * From here on, whatever waits for its commit to be safe waits until `release`: PostgreSQL also waits for a standby that
 * does not exist.
 */
async function holdCommits({ host, port, database, user, password }: PostgresTarget) {
  const client = new Client({ host, port, database, user, password });
  await client.connect();
  onTestFinished(() => client.end());
  const standby = async (name: string): Promise<void> => {
    await client.query("SET synchronous_commit = off");
    await client.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
    await client.query("SELECT pg_reload_conf()");
    await expect
      .poll(async () => (await client.query("SHOW synchronous_standby_names")).rows)
      .toEqual([{ synchronous_standby_names: name }]);
  };
  await standby("nobody");
  const waiting = async (): Promise<number> =>
    (await client.query("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'")).rows.length;
  return { release: () => standby(""), waiting };
}

async function claimOne(pool: PostgresPool, phase: Phase) {
  const found = await claimWork(pool, {
    ...WHATEVER_IS_DUE,
    phases: [phase],
    limit: 1,
    claim: randomUUID(),
  });
  const [work] = found.work;
  if (work === undefined) throw new Error(`there is nothing to ${phase}`);
  return work;
}

describeOnPostgres(
  "what waits for the disk",
  (postgres) => {
    test("the answer to a request does, what the queue notes does not", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const [cid, gone] = [cidOf("sent"), cidOf("gone")];
      await accept(pool, { account: "u", cid });
      const unwanted = await accept(pool, { account: "u", cid: gone });
      await removePin(pool, [null, "u"], unwanted, LIMITS);
      const commits = await holdCommits(target);
      try {
        const unpin = await claimOne(pool, "unpin");
        await writeOutcomes(pool, [finished(unpin)], 3_600_000);
        const send = await claimOne(pool, "send");
        await extendClaims(pool, [send], 60_000);
        await writeOutcomes(pool, [sent(send, 0)], 3_600_000);
        await writeOutcomes(pool, [pinned(await claimOne(pool, "look"))], 3_600_000);
        const parsed = parseCid(cid);
        if (parsed === null) throw new Error("it is a CID");
        await writeSizes(pool, 60_000, [{ work: await claimOne(pool, "size"), cid: parsed, bytes: 5 }]);
        expect(await pool.query("SELECT status, size::int FROM pins WHERE cid = $1", [cid])).toEqual([
          { status: "pinned", size: 5 },
        ]);
        expect(await commits.waiting()).toBe(0);

        const add = createPinIntake(pool, LIMITS);
        let answered = 0;
        const requests = ["a", "b", "c"].map((name) => {
          const named = parseCid(cidOf(name));
          if (named === null) throw new Error("it is a CID");
          const pin = { cid: named, name, origins: [], meta: "{}" };
          return add([null, "u"], { requestid: name, pin, delegates: [] }).then(() => (answered += 1));
        });
        await expect.poll(commits.waiting).toBeGreaterThan(0);
        expect(answered).toBe(0);
        await commits.release();
        await Promise.all(requests);
        expect(answered).toBe(3);
      } finally {
        await commits.release();
      }
    });
  },
  { template: migrate, durable: true },
);
