import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { scanChains } from "../../src/billing/scan.ts";
import { billingDeposits } from "../../src/commands/billing/billing-deposits.ts";
import { createPostgres } from "../../src/database/postgres.ts";
import { startBillingCrons } from "../../src/services/billing-crons.ts";
import { lookAtBilling } from "../../src/status/billing-part.ts";
import { BILLING, PRICING } from "../support/billing.ts";
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
import { hashOf, type NodeFault, startFakeChain, VAULT } from "../support/fake-chain.ts";
import { until } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { masterOn } from "./verbs-master.ts";
import { ask, send, startWebui, webuiSettings } from "./web-api.ts";

const ON = { VAULT_ADDRESS: VAULT, JWT_SECRET: "jwt-secret-of-the-test", ENCRYPTION_KEY: "ab".repeat(32) };
const KEYS: Readonly<Record<string, string>> = {
  a: `eyJhbGciOiJIUzI1NiJ9.e30.${"s".repeat(43)}`,
  b: `eyJhbGciOiJIUzI1NiJ9.e30.${"t".repeat(43)}`,
};

describeOnPostgres(
  "deposits of accounts",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const chain = await startFakeChain();
      await addChain(target);
      for (const account of ["a", "b"]) await linkWallet(target, account);
      const chains = [{ id: 8_453, url: chain.url, confirmations: CONFIRMATIONS }];
      return { target, chain, billing: { ...BILLING, chains } };
    }

    async function startApi() {
      const { target, chain, billing } = await start();
      // Somebody else leads: only claims credit here.
      const { client } = await holdLease(target);
      const webui = await startWebui(target, { billing });
      for (const [account, key] of Object.entries(KEYS)) {
        await sql(target, "INSERT INTO webui_users (user_id) VALUES ($1)", [account]);
        const hash = createHash("sha256").update(key).digest("hex");
        await sql(target, "INSERT INTO api_keys (key_hash, user_id) VALUES ($1, $2)", [hash, account]);
      }
      const claim = async (body: unknown, account = "a") => {
        const { status, body: answer } = await ask(
          webui,
          "/api/v1/credits/claim",
          send("POST", body, { authorization: `Bearer ${KEYS[account]}` }),
        );
        const { code } = answer as { code?: string };
        return code === undefined ? answer : `${status} ${code}`;
      };
      return { target, chain, claim, client, webui };
    }

    test("a claim asks the chain, credits what each wallet has paid, and nothing twice", async () => {
      const { target, chain, claim } = await startApi();
      const txHash = chain.pay({ block: 980, from: walletOf("a"), units: 5n * ONE, tx: "both" });
      chain.pay({ block: 980, from: walletOf("b"), units: 7n * ONE, tx: "both" });
      const paid = { txHash, chainId: 8_453 };
      const [one, other] = await Promise.all([
        claim(paid),
        claim({ ...paid, txHash: txHash.toUpperCase().replace("0X", "0x") }),
      ]);
      expect([one, other]).toEqual([
        { ...paid, amountFula: 5, isNew: expect.any(Boolean) },
        { ...paid, amountFula: 5, isNew: expect.any(Boolean) },
      ]);
      expect(await claim(paid, "b")).toEqual({ ...paid, amountFula: 7, isNew: false });
      await scanChains(scanOf(target, chain));
      expect(await claim(paid)).toEqual({ ...paid, amountFula: 5, isNew: false });
      expect(await balances(target)).toEqual(["a 5", "b 7"]);
      expect(
        await sql(target, "SELECT ingestion_source AS source, amount_fula AS sum FROM token_transactions"),
      ).toEqual([{ source: "manual", sum: 12 }]);
    });

    test("a claim of what the chain does not say is refused", async () => {
      const { target, chain, claim } = await startApi();
      const pay = (block: number, from: string, units: bigint) =>
        chain.pay({ block, from: walletOf(from), units });
      const of = (txHash: string, chainId = 8_453) => ({ txHash, chainId });
      expect(await claim(of(hashOf("x")))).toBe("404 no-transaction");
      expect(await claim(of(pay(995, "a", ONE)))).toBe("409 unconfirmed");
      expect(await claim(of(pay(950, "a", 1n)))).toBe("409 too-small");
      expect(await claim(of(pay(950, "nobody", ONE)))).toBe("403 other-wallet");
      expect(await claim(of(hashOf("x"), 1))).toBe("400 unknown-chain");
      expect(await balances(target)).toEqual([]);
    });

    const html = { status: 200, type: "text/html", body: "<html>Sign in</html>" };
    const badNodes: readonly (readonly [string, NodeFault, RegExp])[] = [
      ["HTML", { answer: html }, /not a list of JSON-RPC answers/],
      ["nothing", { silent: true }, /does not answer/],
      ["10 MB", { answer: { ...html, body: Buffer.alloc(10_000_000, 32) } }, /longer than 8 MiB/],
      ["another chain that has it", { chainId: 1 }, /leads to the chain 1, not to 8453/],
      ["another chain that has not got it", { chainId: 1, behind: 100 }, /leads to the chain 1, not to 8453/],
      ["another block's logs", { forge: (log) => ({ ...log, blockHash: hashOf("x") }) }, /is not the one of/],
      ["a negative amount", { forge: (log) => ({ ...log, data: `-${String(log["data"])}` }) }, /malformed/],
      ["a removed block", { forge: (log) => ({ ...log, removed: true }) }, /malformed/],
    ];
    test.each(badNodes)(
      "a claim where the endpoint answers with %s says nothing about the payment",
      async (_, fault, why) => {
        const { target, chain, claim, webui } = await startApi();
        const paid = { txHash: chain.pay({ block: 950, from: walletOf("a"), units: ONE }), chainId: 8_453 };
        chain.nodes = [fault];
        expect(await claim(paid)).toBe("503 no-chain");
        expect(webui.lines.join("\n")).toMatch(why);
        expect(await balances(target)).toEqual([]);
        for (const table of ["token_transactions", "failed_deposits"])
          expect(await sql(target, `SELECT FROM ${table}`)).toEqual([]);
        chain.nodes = [{}];
        expect(await claim(paid)).toEqual({ ...paid, amountFula: 1, isNew: true });
      },
    );

    test("a claim of what upstream's image has settled, or of a wallet that was linked later", async () => {
      const { target, chain, claim } = await startApi();
      const settled = chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      await sql(
        target,
        `INSERT INTO token_transactions (tx_hash, chain_id, from_address, to_address, amount_raw, amount_fula, block_number,
           block_timestamp) VALUES ($1, 8453, 'f', 't', '1', 1, 950, 1)`,
        [settled],
      );
      expect(await claim({ txHash: settled, chainId: 8_453 })).toBe("409 settled-elsewhere");
      const txHash = chain.pay({ block: 960, from: walletOf("late"), units: 3n * ONE });
      await scanChains(scanOf(target, chain));
      await sql(
        target,
        `INSERT INTO user_wallets (user_id, wallet_address_hash, chain_id, is_verified)
         VALUES ('a', encode(sha256($1::bytea), 'hex'), 1, 1)`,
        [walletOf("late")],
      );
      expect(await claim({ txHash, chainId: 8_453 })).toEqual({
        txHash,
        chainId: 8_453,
        amountFula: 3,
        isNew: true,
      });
      expect(await balances(target)).toEqual(["a 3"]);
    });

    test.each([
      ["the sequence is at its end", "SELECT"],
      ["the sequence has 8 bytes, and the column 4", "ALTER SEQUENCE credit_history_id_seq AS bigint"],
    ])("a claim that no row number is left for has to be tried again: %s", async (_what, change) => {
      const { target, chain, claim, webui } = await startApi();
      const paid = { txHash: chain.pay({ block: 950, from: walletOf("a"), units: ONE }), chainId: 8_453 };
      await sql(target, change);
      await sql(target, "SELECT setval('credit_history_id_seq', 2147483647)");
      expect(await claim(paid)).toBe("503 database-unavailable");
      expect(webui.lines.join("\n")).toMatch(/no number for another row \(docs\/billing\.md#row-numbers/);
      expect(await balances(target)).toEqual([]);
      expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
      await sql(
        target,
        "ALTER SEQUENCE credit_history_id_seq MINVALUE -2147483647 MAXVALUE -1 START WITH -9 RESTART",
      );
      expect(await claim(paid)).toEqual({ ...paid, amountFula: 1, isNew: true });
      expect(await balances(target)).toEqual(["a 1"]);
    });

    test("a claim with a bad body, without a chain, too often, or without a key", async () => {
      const { chain, claim, webui } = await startApi();
      const good = { txHash: hashOf("x"), chainId: 8_453 };
      for (const body of [
        {},
        [],
        { ...good, amount: 5 },
        { ...good, chainId: "8453" },
        { ...good, txHash: "0x12" },
      ])
        expect(await claim(body)).toBe("400 bad-claim");
      expect(await claim(good)).toBe("429 too-many");
      chain.nodes = [{ answer: { status: 200, type: "text/html", body: "<html>" } }];
      expect(await claim(good, "b")).toBe("503 no-chain");
      expect((await ask(webui, "/api/v1/credits/claim", send("POST", good))).status).toBe(401);
      const off = await startWebui(await postgres.createDatabase(), { billing: null });
      expect((await ask(off, "/api/v1/credits/claim", send("POST", good))).status).toBe(401);
    });

    test("billing deposits shows the chains and what failed, and tries it again; status says it", async () => {
      const { target, chain, billing } = await start();
      const { baseDir, world, results } = await masterOn(target, ON);
      chain.pay({ block: 950, from: walletOf("a"), units: 10n ** 31n * ONE });
      chain.pay({ block: 950, from: walletOf("nobody"), units: ONE });
      await scanChains(scanOf(target, chain, { chains: billing.chains }));
      const status = () =>
        lookAtBilling(
          { postgres: createPostgres() },
          {
            values: (key) =>
              ({
                VAULT_ADDRESS: VAULT,
                BILLING_IDEMPOTENCY: "true",
                BASE_RPC_URL: chain.url,
                POSTGRES_HOST: target.host,
                POSTGRES_PORT: String(target.port),
                POSTGRES_DB: target.database,
                POSTGRES_USER: target.user,
                POSTGRES_PASSWORD: target.password,
              })[key],
            ask: (question) => question(),
          },
        );
      expect(await status()).toMatchObject({
        state: "attention",
        summary: "1 deposit could not be credited",
        todo: "fula-node billing deposits",
        evidence: { Base: "block 988", "failed deposits": "1", "deposits of unlinked wallets": "1" },
      });
      expect(await billingDeposits({ baseDir }, world)).toBe("pending");
      expect(results.at(-1)?.lines[0]).toBe("Nobody looks for deposits now: no master runs it.");
      await sql(
        target,
        `INSERT INTO cron_lease (name, generation, holder, pid, backend_start, acquired_at, heartbeat_at)
         VALUES ('billing', 1, 'm1', 1, now(), now(), now() + interval '1 hour')`,
      );
      expect(await billingDeposits({ baseDir }, world)).toBe("pending");
      const shown = results.at(-1)?.lines.join("\n") ?? "";
      expect(shown).toMatch(/Base +block 988 of 1000, scanned \d+ s ago/);
      expect(shown).toMatch(/8453:0x[0-9a-f]{64}:0\s+10{31} FULA, tried 1 time: /);
      expect(shown.split("\n").filter((line) => line.length > 80)).toEqual([]);
      expect(shown).toContain("1 payment came from wallets that no account had linked");
      expect(shown).not.toContain("Every deposit was credited.");
      for (const [limit, count] of [
        ["1", 1],
        ["2", 2],
      ] as const) {
        if (count === 2) {
          chain.pay({ block: 951, from: walletOf("nobody"), units: ONE });
          await scanChains(scanOf(target, chain, { chains: billing.chains }));
        }
        expect(await billingDeposits({ baseDir, unclaimed: true, limit }, world)).toBe("ok");
        expect(results.at(-1)?.data).toMatchObject({
          unclaimed: Array.from({ length: count }, () => ({ from: walletOf("nobody"), fula: "1" })),
          next: null,
        });
      }
      await billingDeposits({ baseDir, unclaimed: true, limit: "1" }, world);
      const next = String((results.at(-1)?.data as { next: string } | undefined)?.next);
      await billingDeposits({ baseDir, unclaimed: true, after: next }, world);
      expect(results.at(-1)?.data).toMatchObject({ unclaimed: [{ fula: "1" }], next: null });
      expect(results.at(-1)?.lines.filter((line) => line.length > 80 && !/^\s+\S+$/.test(line))).toEqual([]);
      await sql(target, "DELETE FROM deposits WHERE account IS NULL");
      expect(await billingDeposits({ baseDir, retry: true }, world)).toBe("pending");
      expect(results.at(-1)?.lines[0]).toBe("Tried again: 0 settled, 1 failed.");
      await sql(
        target,
        "UPDATE failed_deposits SET transfer = jsonb_set(transfer, '{amount}', '\"2000000000000000000\"')",
      );
      expect(await billingDeposits({ baseDir, retry: true }, world)).toBe("ok");
      expect(results.at(-1)?.lines).toContain("Every deposit was credited.");
      expect(await balances(target)).toEqual(["a 2"]);
      expect(await status()).toMatchObject({ state: "ok" });
      const fault = (seconds: number) =>
        sql(
          target,
          "UPDATE chain_scans SET fault = 'it does not answer', fault_since = now() - $1 * interval '1 s'",
          [seconds],
        );
      await fault(10);
      expect(await billingDeposits({ baseDir }, world)).toBe("ok");
      expect(results.at(-1)?.lines.join("\n")).toContain("What a chain did not report is not known yet.");
      await fault(2_000);
      expect(await billingDeposits({ baseDir }, world)).toBe("pending");
      expect(results.at(-1)?.lines.join("\n")).not.toContain("Every deposit was credited.");
      await sql(target, "UPDATE chain_scans SET fault = NULL, fault_since = NULL");
      const huge = chain.pay({ block: 951, from: walletOf("b"), units: 10n ** 31n * ONE, logIndex: 9 });
      await scanChains(scanOf(target, chain, { chains: billing.chains }));
      for (const wrong of [`8453:${huge}:8`, huge, "x"])
        await expect(billingDeposits({ baseDir, dismiss: wrong }, world)).rejects.toMatchObject({
          exit: "usage",
        });
      expect(await billingDeposits({ baseDir }, world)).toBe("pending");
      await expect(
        billingDeposits({ baseDir, retry: true, dismiss: `8453:${huge}:9` }, world),
      ).rejects.toMatchObject({ exit: "usage" });
      expect(await billingDeposits({ baseDir, dismiss: `8453:${huge}:9` }, world)).toBe("ok");
      expect(results.at(-1)?.lines.join("\n")).toMatch(/^Dismissed 10{31} FULA from\s+0x/);
      for (let n = 0; n < 2; n += 1) {
        // A scan in which the credit would succeed.
        await sql(target, "ALTER TABLE exact_credits DROP CONSTRAINT IF EXISTS exact_credits_range");
        await scanChains(scanOf(target, chain, { chains: billing.chains }));
        expect(await billingDeposits({ baseDir, retry: true }, world)).toBe("ok");
      }
      expect(results.at(-1)?.lines).toContain("1 deposit dismissed: not credited.");
      expect(await balances(target)).toEqual(["a 2"]);
      expect(
        await sql(
          target,
          "SELECT action, details->>'tx_hash' AS tx FROM admin_audit_log WHERE action = 'dismiss deposit'",
        ),
      ).toEqual([{ action: "dismiss deposit", tx: huge }]);
      expect(await balances(target)).toEqual(["a 2"]);
      chain.nodes = [{ silent: true }];
      await scanChains(scanOf(target, chain, { chains: billing.chains }));
      expect(await status()).toMatchObject({ state: "ok" });
      await sql(target, "UPDATE chain_scans SET fault_since = now() - interval '1 hour'");
      expect(await status()).toMatchObject({
        state: "attention",
        summary: expect.stringMatching(/^no deposits from Base for 60 min: it does not answer/) as string,
      });
      await expect(
        billingDeposits({ baseDir: (await masterOn(target, { ...ON, VAULT_ADDRESS: "" })).baseDir }, world),
      ).rejects.toMatchObject({ exit: "settings", what: "This master looks for no deposits." });
    });

    test("the crons scan and deduct on the master that leads, and metrics say so", async () => {
      const { target, chain, billing } = await start();
      chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      const lines: string[] = [];
      const settings = webuiSettings(target, {
        billing: { ...billing, scannerIntervalMs: 1_000 },
        pricing: PRICING,
      });
      const pool = poolOf(target);
      const crons = startBillingCrons(
        settings,
        { pool, log: (line) => void lines.push(line) },
        { beatMs: 100, retryMs: 200 },
      );
      const standby = startBillingCrons(
        settings,
        { pool, log: (line) => void lines.push(`b ${line}`) },
        { beatMs: 100 },
      );
      await until("the deposit is credited", async () => (await balances(target)).length === 1);
      await until("the standby says so", async () =>
        lines.some((line) => /scanner: standby \(lease held/.test(line)),
      );
      const read = (name: string) =>
        crons.gauges.find((gauge) => gauge.name === `fula_billing_${name}`)?.read();
      const leads = lines.some((line) => line.startsWith("[leaderLease] acquired"));
      expect(read("leads")).toBe(leads ? 1 : 0);
      chain.nodes = [{ silent: true }];
      chain.head += 1;
      await until("a scan fails", async () => lines.some((line) => /Base: the scan ended early/.test(line)));
      if (leads) {
        await until("it is counted", async () => Number(Object(read("cron_failures"))["scanner"]) > 0);
        expect(read("cron_runs")).toMatchObject({
          deduction: expect.any(Number),
          scanner: expect.any(Number),
        });
        expect(read("cron_failures")).toMatchObject({ deduction: 0 });
        const at = Object(read("cron_last_success_timestamp_seconds"))["deduction"] as number;
        expect(Math.abs(at - new Date().getTime() / 1_000)).toBeLessThan(60);
      }
      await Promise.all([crons.close(), standby.close()]);
      expect(await cursorOf(target)).toBe(988);
    });

    test("the crons end at once while a chain does not answer, which is no fault of it", async () => {
      const { target, chain, billing } = await start();
      chain.nodes = [{ hangs: true }];
      const crons = startBillingCrons(webuiSettings(target, { billing, pricing: PRICING }), {
        pool: poolOf(target),
        log: () => {},
      });
      await until("the chain is asked", async () => chain.asked.includes("hangs"));
      const startedAt = performance.now();
      await crons.close();
      expect(performance.now() - startedAt).toBeLessThan(5_000);
      expect(await sql(target, "SELECT fault FROM chain_scans WHERE chain_id = 8453")).toEqual([
        { fault: null },
      ]);
    });
  },
  { template: migrate },
);

/** Holds the lock of the crons as upstream's image does. */
async function holdLease(target: Parameters<typeof poolOf>[0]) {
  const client = poolOf(target);
  await client.query("SELECT pg_try_advisory_lock(815551001)");
  return { client };
}
