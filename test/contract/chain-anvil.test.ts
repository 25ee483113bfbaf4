import { describe, expect, test } from "vitest";
import { openChain } from "../../src/billing/chain-node.ts";
import { claim } from "../../src/billing/claim.ts";
import { scanChains } from "../../src/billing/scan.ts";
import { findAnvil, startAnvil } from "../support/anvil.ts";
import { BILLING } from "../support/billing.ts";
import {
  addChain,
  balances,
  CONFIRMATIONS,
  cursorOf,
  linkWallet,
  ONE,
  scanOf,
  walletOf,
} from "../support/deposits.ts";
import { VAULT } from "../support/fake-chain.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const anvil = findAnvil();
if (typeof anvil === "string") {
  if (process.env["CI"] !== undefined) throw new Error(anvil);
  console.warn(`skipped: deposits on a real chain: ${anvil}`);
}

describe.skipIf(typeof anvil === "string")("a real chain", () => {
  describeOnPostgres(
    "deposits",
    (postgres) => {
      async function start() {
        const target = await postgres.createDatabase();
        const chain = await startAnvil(typeof anvil === "string" ? "" : anvil.program);
        await addChain(target, 0);
        for (const account of ["a", "b"]) await linkWallet(target, account);
        const pay = (...transfers: readonly (readonly [string, bigint])[]) =>
          chain.pay(transfers.map(([account, units]) => ({ from: walletOf(account), to: VAULT, units })));
        return { target, chain, pay, scan: scanOf(target, chain) };
      }

      test("H08: two transfers in one transaction, over twenty scans", async () => {
        const { target, chain, pay, scan } = await start();
        await pay(["a", 5n * ONE], ["a", 7n * ONE]);
        await pay(["a", 5n * ONE], ["b", 7n * ONE]);
        await pay(["a", ONE / 2_000n], ["a", ONE / 2_000n]);
        await chain.pay([{ from: walletOf("a"), to: walletOf("b"), units: 100n * ONE }]);
        await scanChains(scan);
        expect(await balances(target)).toEqual([]);
        await chain.mine(CONFIRMATIONS);
        for (let n = 0; n < 20; n += 1) await scanChains(scan);
        expect(await balances(target)).toEqual(["a 17", "b 7"]);
        expect(await cursorOf(target)).toBe((await chain.head()) - CONFIRMATIONS);
        expect(
          await sql(
            target,
            "SELECT amount_fula AS sum, block_timestamp > 1700000000 AS recent FROM token_transactions ORDER BY id",
          ),
        ).toEqual([
          { sum: 12, recent: true },
          { sum: 12, recent: true },
        ]);
        expect(await sql(target, "SELECT fault FROM chain_scans")).toEqual([{ fault: null }]);
      });

      test("a transfer that a reorganisation takes away before it is confirmed is not credited", async () => {
        const { target, chain, pay, scan } = await start();
        await pay(["a", ONE]);
        await chain.mine(3);
        await scanChains(scan);
        await chain.reorganise(4);
        await pay(["b", ONE]);
        await chain.mine(CONFIRMATIONS + 5);
        await scanChains(scan);
        expect(await balances(target)).toEqual(["b 1"]);
      });

      test("a claim", async () => {
        const { target, chain, pay, scan } = await start();
        const txHash = await pay(["a", 5n * ONE]);
        const deps = {
          pool: scan.bank,
          billing: { ...BILLING, vault: VAULT, chains: scan.chains },
          open: openChain,
        };
        const wish = { account: "a", chainId: 8_453, txHash };
        expect(await claim(deps, wish)).toEqual({ outcome: "unconfirmed", missing: CONFIRMATIONS });
        await chain.mine(CONFIRMATIONS);
        expect(await claim(deps, wish)).toEqual({ outcome: "credited", fula: "5", isNew: true });
        expect(await claim(deps, { ...wish, account: "b" })).toEqual({ outcome: "other-wallet" });
        expect(await claim(deps, { ...wish, txHash: `0x${"1".repeat(64)}` })).toEqual({
          outcome: "no-transaction",
        });
        expect(await balances(target)).toEqual(["a 5"]);
      });
    },
    { template: migrate },
  );
});
