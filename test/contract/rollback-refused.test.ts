import { expect, test } from "vitest";
import { openJournal } from "../../src/engine/journal.ts";
import { run } from "../../src/engine/run.ts";
import type { Host } from "../../src/host.ts";
import { formerSchema } from "../../src/join/rollback/former-schema.ts";
import { MASTER_BASE_DIR } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { FakeMaster } from "../support/fake-master.ts";
import { LAYOUT } from "../support/master-boxes.ts";
import { idOf } from "../support/masters.ts";
import { catalogueOf, ledgerOf, listen, migratorOf, SHIPPED_FILES } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";

const [FORMER, NOW] = ["0.4.0", "0.5.0"];
const SERVICES = ["fula-pinning-api", "fula-pinning-webui"];
const INVITE = `INSERT INTO invites (pool, id, verifying_key, issued_at, expires_at)
    VALUES ('pool-a', 'i', 'k', now(), now() + interval '1 day');
  INSERT INTO master_invites (pool, id) VALUES ('pool-a', 'i')`;
const REMOVED = `INSERT INTO removed_masters (pool, id, name, removed_at, removed_by)
  VALUES ('pool-a', '${idOf("lost")}', 'lost', now(), 'other')`;
const DISMISSED = `INSERT INTO failed_deposits (chain_id, tx_hash, log_index, transfer, reason, dismissed_at, dismissed_by)
  VALUES (1, 'tx', 0, '{}', 'why', now(), 'me')`;

describeOnPostgres(
  "a rollback on a real database",
  (postgres) => {
    test.each([
      ["an invite of a master works", INVITE, /^039_master_invites/, "fula-node invite revoke ID"],
      ["a master was removed", REMOVED, /^038_trust/, "delete its row from removed_masters"],
      ["a deposit is dismissed", DISMISSED, /^035_billing_records/, "pg_dump -t failed_deposits"],
    ])("stops nothing while %s, and says so in a dry run, too", async (_, row, file, hint) => {
      const target = await postgres.createDatabase();
      await sql(target, row);
      const before = [await catalogueOf(target), await ledgerOf(target)];
      const box = boxOf(target);
      for (const dryRun of [true, false])
        await expect(box.rollBack({ dryRun })).rejects.toMatchObject({
          exit: "drift",
          what: expect.stringMatching(file),
          remedy: expect.stringContaining(hint),
          changed: undefined,
        });
      expect(box.fake.writes).toEqual([]);
      expect([await catalogueOf(target), await ledgerOf(target)]).toEqual(before);
    });

    test("a guard that refuses only after the services stopped: they are started again", async () => {
      const target = await postgres.createDatabase();
      const box = boxOf(target, () => sql(target, INVITE));
      await expect(box.rollBack()).rejects.toMatchObject({
        exit: "drift",
        what: "039_master_invites.down.sql refuses: 1 invite(s) of masters still work.",
        why: expect.stringContaining("Nothing was reverted, and our services were started again."),
        changed: expect.stringContaining("one change was started"),
      });
      expect(box.running()).toEqual(SERVICES);
      await sql(target, "UPDATE invites SET revoked_at = now()");
      box.afterStop = () => {};
      await box.rollBack();
      expect(box.running()).toEqual([]);
      expect(await ledgerOf(target)).toContain("39 applied reverted");
    });

    test("a session that is ended while it waits for a lock: they are started again", async () => {
      const target = await postgres.createDatabase();
      await inSession(target, async (other) => {
        const box = boxOf(target, () => other.query("BEGIN; LOCK TABLE master_invites IN SHARE MODE"));
        const ending = endWaiting(target);
        await expect(box.rollBack()).rejects.toMatchObject({
          exit: "unavailable",
          why: expect.stringContaining("Nothing was reverted, and our services were started again."),
        });
        await ending;
        expect(box.running()).toEqual(SERVICES);
        expect(await ledgerOf(target)).toContain("40 applied applied");
      });
    });
  },
  { template: async (target) => void (await migratorOf().up(target, listen())) },
);

/** Ends the session that migrates once it waits for a lock. */
async function endWaiting(target: PostgresTarget): Promise<void> {
  const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`;
  await expect.poll(() => sql(target, end)).toHaveLength(1);
}

/** A master of this version whose services run. `afterStop` runs once the last of them is stopped. */
function boxOf(target: PostgresTarget, afterStop: () => unknown = () => {}) {
  const fake = new FakeMaster();
  for (const file of SHIPPED_FILES.filter((name) => Number(name.slice(0, 3)) <= 34))
    fake.files.put(`${LAYOUT.cliDir}/${FORMER}/migrations/${file}`, "");
  for (const name of SERVICES) fake.docker.putContainer(name);
  const box = {
    fake,
    afterStop,
    running: () => SERVICES.filter((name) => fake.docker.boxes.get(name)?.status === "running"),
    rollBack: ({ dryRun = false } = {}) =>
      run({
        steps: [step],
        host,
        listen: () => {},
        ask: null,
        dryRun,
        yes: true,
        adopted: new Set(),
        consents: new Set(),
        journal: openJournal({
          files: fake.files,
          path: LAYOUT.journal,
          attempt: "1",
          version: NOW,
          now: () => fake.clock.now(),
        }),
      }),
  };
  const stop = fake.docker.stop.bind(fake.docker);
  fake.docker.stop = async (name) => {
    await stop(name);
    if (name === SERVICES[1]) await box.afterStop();
  };
  const host = Object.create(fake, { migrations: { value: migratorOf(), enumerable: true } }) as Host;
  const step = formerSchema({
    verb: "join-as-master",
    layout: LAYOUT,
    version: NOW,
    former: FORMER,
    nodePath: "/usr/bin/node",
    usualDir: MASTER_BASE_DIR,
    database: { target, masterId: "own" },
    services: SERVICES,
    keep: [],
    unlock: async () => {},
  });
  return box;
}
