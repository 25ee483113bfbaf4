import { describe, expect, test } from "vitest";
import { claim } from "../../src/billing/claim.ts";
import { retryFailed } from "../../src/billing/deposits.ts";
import { scanChains } from "../../src/billing/scan.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { addChain, balances, linkWallet, ONE, scanOf, walletOf } from "../support/deposits.ts";
import { type NodeFault, startFakeChain } from "../support/fake-chain.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

/** A node that numbers the logs of a block from 100 on. */
const OTHERWISE: NodeFault = {
  forge: (log) => ({ ...log, logIndex: `0x${(Number(log["logIndex"]) + 100).toString(16)}` }),
};

describeOnPostgres(
  "one transaction, seen twice",
  (postgres) => {
    async function start(accounts: readonly string[] = ["a"]) {
      const target = await postgres.createDatabase();
      const chain = await startFakeChain();
      await addChain(target);
      for (const account of accounts) await linkWallet(target, account);
      const scan = scanOf(target, chain);
      const deps = { pool: scan.bank, billing: scan, open: scan.open };
      const claims = (txHash: string, account = "a") => claim(deps, { account, chainId: 8_453, txHash });
      return { target, chain, scan, claims };
    }
    const reasons = async (target: PostgresTarget) =>
      (await sql<{ reason: string }>(target, "SELECT reason FROM failed_deposits ORDER BY log_index")).map(
        ({ reason }) => reason,
      );

    describe("nodes that number the logs of a block otherwise", () => {
      test("a claim after the scan credits nothing again; nor does a retry", async () => {
        const { target, chain, scan, claims } = await start();
        const txHash = chain.pay({ block: 950, from: walletOf("a"), units: ONE, logIndex: 7 });
        await scanChains(scan);
        chain.nodes = [OTHERWISE];
        for (let n = 0; n < 2; n += 1)
          expect(await claims(txHash)).toEqual({ outcome: "credited", fula: "1", isNew: false });
        expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 1 });
        expect(await balances(target)).toEqual(["a 1"]);
        expect(await reasons(target)).toEqual([expect.stringMatching(/other numbers of them/)]);
        expect(await sql(target, "SELECT amount_raw FROM token_transactions")).toEqual([
          { amount_raw: String(ONE) },
        ]);
      });

      test("nor a scan after the claim", async () => {
        const { target, chain, scan, claims } = await start();
        const txHash = chain.pay({ block: 950, from: walletOf("a"), units: ONE, logIndex: 7 });
        chain.nodes = [OTHERWISE];
        expect(await claims(txHash)).toEqual({ outcome: "credited", fula: "1", isNew: true });
        chain.nodes = [{}];
        for (let n = 0; n < 2; n += 1) await scanChains(scan);
        expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 1 });
        expect(await balances(target)).toEqual(["a 1"]);
        expect(await reasons(target)).toHaveLength(1);
      });

      test("nor if the numbers overlap, or both come at once", async () => {
        const { target, chain, scan, claims } = await start(["a", "b"]);
        const txHash = chain.pay({ block: 950, from: walletOf("a"), units: ONE, logIndex: 0, tx: "two" });
        chain.pay({ block: 950, from: walletOf("a"), units: ONE, logIndex: 100, tx: "two" });
        await scanChains(scan);
        chain.nodes = [OTHERWISE];
        await Promise.all([scanChains(scan), claims(txHash), claims(txHash, "b")]);
        expect(await balances(target)).toEqual(["a 2"]);
      });

      test("a part at first, and then all of them: nothing is lost, and nothing is credited twice", async () => {
        const { target, chain, scan } = await start();
        for (let n = 0; n < 4; n += 1)
          chain.pay({ block: 950, from: walletOf("a"), units: ONE, logIndex: n, tx: "four" });
        const parts: NodeFault[] = [{ half: true }, { ...OTHERWISE, half: true }, {}];
        for (const node of parts) {
          chain.nodes = [node];
          await scanChains(scan);
        }
        expect(await balances(target)).toEqual(["a 4"]);
        expect(await sql(target, "SELECT log_index FROM failed_deposits ORDER BY 1")).toEqual([
          { log_index: 100 },
          { log_index: 102 },
        ]);
      });

      test("a node that lists one transaction in two blocks is not believed", async () => {
        const { target, chain, scan } = await start();
        chain.pay({ block: 950, from: walletOf("a"), units: ONE, tx: "one" });
        chain.pay({ block: 951, from: walletOf("a"), units: ONE, tx: "one" });
        expect((await scanChains(scan))[0]?.fault).toMatch(/a transaction in two blocks/);
        expect(await balances(target)).toEqual([]);
      });
    });

    describe("a reorganisation", () => {
      test.each([
        ["the claim sees it first, with the same number", true, 3],
        ["the claim sees it first, with another number", true, 5],
        ["the scan sees it first", false, 5],
        ["the scan sees it first, with the same number", false, 3],
      ])("what was never credited follows the chain: %s", async (_, byClaim, logIndex) => {
        const { target, chain, scan, claims } = await start([]);
        const paid = { from: walletOf("late"), units: ONE, tx: "moved" };
        const txHash = chain.pay({ ...paid, block: 950, logIndex: 3 });
        await scanChains(scan);
        chain.reorganise(940);
        chain.pay({ ...paid, block: 960, logIndex });
        if (!byClaim) await scanChains(scan);
        await linkWallet(target, "late");
        expect(await claims(txHash, "late")).toEqual({ outcome: "credited", fula: "1", isNew: true });
        await scanChains(scan);
        expect(await balances(target)).toEqual(["late 1"]);
        expect(await sql(target, "SELECT block_number::int AS block, log_index FROM deposits")).toEqual([
          { block: 960, log_index: logIndex },
        ]);
        expect(await sql(target, "SELECT block_number::int AS block FROM token_transactions")).toEqual([
          { block: 960 },
        ]);
        expect(await reasons(target)).toEqual([]);
      });

      test("of one transaction, who has a credit gets no other one, and who has none gets it", async () => {
        const { target, chain, scan, claims } = await start(["a"]);
        const pay = (block: number, first: number): string => {
          chain.pay({ tx: "both", block, from: walletOf("a"), units: ONE, logIndex: first });
          return chain.pay({
            tx: "both",
            block,
            from: walletOf("late"),
            units: 2n * ONE,
            logIndex: first + 1,
          });
        };
        pay(950, 0);
        await scanChains(scan);
        chain.reorganise(940);
        const txHash = pay(960, 0);
        await linkWallet(target, "late");
        expect(await claims(txHash, "late")).toEqual({ outcome: "credited", fula: "2", isNew: true });
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 1", "late 2"]);
        expect(await reasons(target)).toEqual([expect.stringMatching(/block 950 .* now block 960/)]);
      });

      test("a credited transfer whose block is gone stands in the list, and only the operator takes it off", async () => {
        const { target, chain, scan } = await start(["a", "b"]);
        chain.pay({ block: 930, from: walletOf("b"), units: ONE });
        chain.pay({ block: 950, from: walletOf("a"), units: ONE });
        await scanChains(scan);
        // Not listed, but its block is there.
        chain.nodes = [{ half: true }];
        await scanChains(scan);
        expect(await reasons(target)).toEqual([]);
        chain.nodes = [{}];
        chain.reorganise(940);
        await scanChains(scan);
        const gone = "it was credited, and block 950, which had it, is not in the chain any more";
        expect(await reasons(target)).toEqual([gone]);
        expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 1 });
        expect(await reasons(target)).toEqual([gone]);
        expect(await balances(target)).toEqual(["a 1", "b 1"]);
      });
    });

    test("of claims that race, one says that the credit is new", async () => {
      const { target, chain, claims } = await start();
      const txHash = chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      const answers = await Promise.all(Array.from({ length: 8 }, () => claims(txHash)));
      expect(answers.filter((one) => one.outcome === "credited" && one.isNew)).toHaveLength(1);
      expect(answers.every((one) => one.outcome === "credited" && one.fula === "1")).toBe(true);
      expect(await balances(target)).toEqual(["a 1"]);
    });
  },
  { template: migrate },
);
