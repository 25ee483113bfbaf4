import { expect, test } from "vitest";
import { judgeDeposits, readDepositStanding } from "../../src/billing/deposit-standing.ts";
import { scanChains } from "../../src/billing/scan.ts";
import { billingDeposits } from "../../src/commands/billing/billing-deposits.ts";
import { addChain, scanOf } from "../support/deposits.ts";
import { startFakeChain, VAULT } from "../support/fake-chain.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { masterOn } from "./verbs-master.ts";

describeOnPostgres(
  "a chain that nobody scans",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const chain = await startFakeChain();
      await addChain(target);
      // The leader, which has the URL of another chain only.
      await scanChains(scanOf(target, chain, { chains: [] }));
      const settings = { chains: [{ id: 8_453 }], scannerIntervalMs: 600_000 };
      const judged = async (of: Parameters<typeof judgeDeposits>[1] = settings) => {
        const standing = await readDepositStanding(poolOf(target));
        return standing && judgeDeposits(standing, of);
      };
      return { target, chain, judged, settings };
    }
    const LONG = "nobody has scanned Base for 3 days";

    test("it was scanned three days ago: attention, and not every deposit is called credited", async () => {
      const { target, chain, judged, settings } = await start();
      await scanChains(scanOf(target, chain));
      expect(await judged()).toBeNull();
      await sql(target, "UPDATE chain_scans SET scanned_at = now() - interval '40 minutes'");
      await sql(target, "UPDATE chain_sync_state SET last_scan_at = now() - interval '40 minutes'");
      expect(await judged()).toBeNull();
      await sql(target, "UPDATE chain_scans SET scanned_at = now() - interval '3 days'");
      // A scan that takes hours goes on from block to block.
      expect(await judged()).toBeNull();
      await sql(target, "UPDATE chain_sync_state SET last_scan_at = now() - interval '3 days'");
      expect(await judged()).toEqual({
        sentence: LONG,
        todo: "set BASE_RPC_URL on the master that runs the billing, or see docker logs fula-pinning-webui there",
      });
      expect(await judged({ ...settings, chains: [] })).toBeNull();
      expect(await judged({ ...settings, scannerIntervalMs: 48 * 3_600_000 })).toBeNull();
      const { baseDir, world, results } = await masterOn(target, {
        VAULT_ADDRESS: VAULT,
        BASE_RPC_URL: chain.url,
      });
      expect(await billingDeposits({ baseDir }, world)).toBe("pending");
      expect(results.at(-1)?.lines.join("\n")).not.toContain("Every deposit was credited.");
    });

    test("it was never scanned: it counts from when a master began to lead, or to bill", async () => {
      const { target, judged } = await start();
      expect(await judged()).toBeNull();
      await sql(
        target,
        "INSERT INTO billing_hours (hour, started_at) VALUES (now(), now() - interval '3 days')",
      );
      expect(await judged()).toMatchObject({ sentence: LONG });
      await sql(
        target,
        `INSERT INTO cron_lease (name, generation, pid, acquired_at, heartbeat_at)
         VALUES ('billing', 1, 1, now() - interval '1 minute', now())`,
      );
      expect(await judged()).toBeNull();
      await sql(target, "UPDATE cron_lease SET acquired_at = now() - interval '3 days'");
      expect(await judged()).toMatchObject({ sentence: LONG });
    });
  },
  { template: migrate },
);
