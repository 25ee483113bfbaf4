import { describe, expect, test } from "vitest";
import { claim } from "../../src/billing/claim.ts";
import {
  judgeDeposits,
  listFailedDeposits,
  readDepositStanding,
} from "../../src/billing/deposit-standing.ts";
import { dismissFailed, retryFailed, settle } from "../../src/billing/deposits.ts";
import { scanChains } from "../../src/billing/scan.ts";
import type { Transfer } from "../../src/billing/transfer.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import {
  addChain,
  balances,
  CONFIRMATIONS,
  cursorOf,
  linkWallet,
  ONE,
  refer,
  scanOf,
  walletOf,
} from "../support/deposits.ts";
import { hashOf, type NodeFault, startFakeChain, VAULT } from "../support/fake-chain.ts";
import { startBilling } from "../support/billing-process.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { listen, migratorOf, until } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

describeOnPostgres(
  "deposits",
  (postgres) => {
    async function start(accounts: readonly string[] = ["a"]) {
      const target = await postgres.createDatabase();
      const chain = await startFakeChain();
      await addChain(target);
      for (const account of accounts) await linkWallet(target, account);
      const scan = scanOf(target, chain);
      return { target, chain, scan };
    }
    const standingOf = async (target: PostgresTarget) => {
      const standing = await readDepositStanding(poolOf(target));
      return {
        standing,
        judged: standing && judgeDeposits(standing, { chains: [{ id: 8_453 }], scannerIntervalMs: 600_000 }),
      };
    };

    test("a deposit is credited once it is confirmed: row, balance, history and claim", async () => {
      const { target, chain, scan } = await start();
      const txHash = chain.pay({ block: 989, from: walletOf("a"), units: (5n * ONE) / 2n });
      await scanChains(scan);
      expect(await balances(target)).toEqual([]);
      expect(await cursorOf(target)).toBe(988);
      chain.head += 1;
      for (let n = 0; n < 3; n += 1) await scanChains(scan);
      expect(await balances(target)).toEqual(["a 2.5"]);
      expect(await cursorOf(target)).toBe(989);
      expect(
        await sql(
          target,
          `SELECT tx_hash, chain_id, from_address, to_address, amount_raw, amount_fula, block_number::int, block_timestamp::int,
             ingestion_source, user_id, claimed_at IS NOT NULL AS claimed FROM token_transactions`,
        ),
      ).toEqual([
        {
          tx_hash: txHash,
          chain_id: 8_453,
          from_address: walletOf("a"),
          to_address: VAULT,
          amount_raw: "2500000000000000000",
          amount_fula: 2.5,
          block_number: 989,
          block_timestamp: 1_700_001_978,
          ingestion_source: "cron",
          user_id: "a",
          claimed: true,
        },
      ]);
      expect(
        await sql(
          target,
          "SELECT user_id, tx_type, amount_fula, balance_after, reference_id FROM credit_history",
        ),
      ).toEqual([
        {
          user_id: "a",
          tx_type: "deposit",
          amount_fula: 2.5,
          balance_after: 2.5,
          reference_id: `8453:${txHash}`,
        },
      ]);
      expect(
        await sql(target, "SELECT balance_fula, total_deposited_fula, is_suspended FROM user_credits"),
      ).toEqual([{ balance_fula: 2.5, total_deposited_fula: 2.5, is_suspended: 0 }]);
    });

    test("upstream's rules: a wallet that nobody linked is recorded; a credit ends a suspension, but not the operator's", async () => {
      const { target, chain, scan } = await start(["a", "held", "nobody"]);
      await sql(
        target,
        "INSERT INTO user_credits (user_id, balance_fula, is_suspended) VALUES ('a', -1, 1), ('held', 0, 1)",
      );
      await sql(target, "INSERT INTO account_holds (account, reason, actor) VALUES ('held', 'r', 'a')");
      for (const account of ["a", "held", "nobody"])
        chain.pay({ block: 950, from: walletOf(account), units: 3n * ONE });
      await sql(target, "UPDATE user_wallets SET is_verified = 0 WHERE user_id = 'nobody'");
      await scanChains(scan);
      expect(await balances(target)).toEqual(["a 2", "held 3"]);
      expect(await sql(target, "SELECT user_id FROM user_credits WHERE is_suspended = 1")).toEqual([
        { user_id: "held" },
      ]);
      expect(
        await sql(target, "SELECT user_id, claimed_at FROM token_transactions WHERE from_address = $1", [
          walletOf("nobody"),
        ]),
      ).toEqual([{ user_id: null, claimed_at: null }]);
      expect((await standingOf(target)).standing).toMatchObject({ failed: 0, unclaimed: 1 });
    });

    test("three levels of referrers get 10, 1 and 1 percent, once, and a suspension stays; a circle ends", async () => {
      const { target, chain, scan } = await start(["a", "b"]);
      for (const [up, down] of [
        ["r1", "a"],
        ["r2", "r1"],
        ["r3", "r2"],
        ["r4", "r3"],
        ["c", "b"],
        ["b", "c"],
      ] as const)
        await refer(target, up, down);
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula, is_suspended) VALUES ('r2', 0, 1)");
      chain.pay({ block: 950, from: walletOf("a"), units: 123_456_789_123_456_789n });
      chain.pay({ block: 951, from: walletOf("b"), units: 7n * ONE });
      for (let n = 0; n < 2; n += 1) await scanChains(scan);
      expect(await balances(target)).toEqual([
        "a 0.123456789123456789",
        "b 7",
        "c 0.7",
        "r1 0.012346",
        "r2 0.001235",
        "r3 0.001235",
      ]);
      expect(await sql(target, "SELECT user_id FROM user_credits WHERE is_suspended = 1")).toEqual([
        { user_id: "r2" },
      ]);
      expect(
        await sql(
          target,
          `SELECT b.recipient_user_id AS to, b.recipient_referral_code AS code, b.level, b.bonus_amount_fula::float8 AS bonus,
             b.source_user_id AS source, s.tx_type AS source_type, h.tx_type AS type
           FROM referral_bonuses b JOIN credit_history h ON h.id = b.credit_history_id
             JOIN credit_history s ON s.id = b.source_credit_history_id ORDER BY 1`,
        ),
      ).toMatchObject([
        {
          to: "c",
          code: "code-c",
          level: 1,
          bonus: 0.7,
          source: "b",
          source_type: "deposit",
          type: "referral_bonus",
        },
        { to: "r1", code: "code-r1", level: 1, bonus: 0.012346 },
        { to: "r2", code: "code-r2", level: 2, bonus: 0.001235 },
        { to: "r3", code: "code-r3", level: 3, bonus: 0.001235 },
      ]);
      expect(
        await sql(
          target,
          "SELECT total_bonus_received_fula AS b, total_deposited_fula AS d FROM user_credits WHERE user_id = 'c'",
        ),
      ).toEqual([{ b: 0.7, d: 0 }]);
    });

    test("H08: each transfer of one transaction counts, by itself and once, in whatever order they are listed", async () => {
      const { target, chain, scan } = await start(["a", "b"]);
      const pay = (tx: string, block: number, from: string, units: bigint) =>
        chain.pay({ tx, block, from: walletOf(from), units });
      pay("one", 950, "a", 5n * ONE);
      pay("one", 950, "a", 7n * ONE);
      pay("two", 951, "a", 5n * ONE);
      pay("two", 951, "b", 7n * ONE);
      // Each is below the minimum, though their sum is not.
      pay("small", 952, "a", ONE / 2_000n);
      pay("small", 952, "a", ONE / 2_000n);
      pay("edge", 953, "b", ONE / 1_000n);
      for (let n = 0; n < 20; n += 1) {
        chain.nodes = [{ half: n % 3 !== 2 }];
        await scanChains(scan);
      }
      expect(await balances(target)).toEqual(["a 17", "b 7.001"]);
      expect(
        await sql(
          target,
          "SELECT amount_fula AS sum, user_id, from_address AS from FROM token_transactions ORDER BY block_number",
        ),
      ).toEqual([
        { sum: 12, user_id: "a", from: walletOf("a") },
        { sum: 12, user_id: "a", from: walletOf("a") },
        { sum: expect.closeTo(0.001, 6), user_id: "b", from: walletOf("b") },
      ]);
    });

    test("what upstream's image has settled is never credited again", async () => {
      const { target, chain, scan } = await start();
      const txHash = chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      await sql(
        target,
        `INSERT INTO token_transactions (tx_hash, chain_id, from_address, to_address, amount_raw, amount_fula, block_number,
           block_timestamp) VALUES ($1, 8453, 'f', 't', '1', 1, 950, 1)`,
        [txHash],
      );
      await scanChains(scan);
      expect(await balances(target)).toEqual([]);
      expect(await sql(target, "SELECT FROM deposits")).toEqual([]);
      expect(await cursorOf(target)).toBe(988);
    });

    test("what we have recorded and upstream's image has credited is not credited again", async () => {
      const { target, chain, scan } = await start(["b"]);
      const paid = { block: 950, from: walletOf("late"), units: ONE };
      chain.pay(paid);
      await scanChains(scan);
      await sql(target, "UPDATE token_transactions SET user_id = 'late', claimed_at = now()");
      await linkWallet(target, "late");
      await sql(target, "UPDATE deposits SET log_index = 7");
      await scanChains(scan);
      expect(await balances(target)).toEqual([]);
    });

    test("a chain without a vault, as upstream's image writes it, gets this master's", async () => {
      const { target, chain, scan } = await start();
      await sql(target, "UPDATE chain_sync_state SET vault_address = $1", [`0x${"0".repeat(40)}`]);
      chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      await scanChains(scan);
      expect(await balances(target)).toEqual(["a 1"]);
    });

    describe("H02: nodes that are behind, lie, or list a part", () => {
      test("one that lists nothing for blocks that it has not got", async () => {
        const { target, chain, scan } = await start();
        chain.pay({ block: 985, from: walletOf("a"), units: ONE });
        const late: NodeFault = { behind: 25 };
        for (const nodes of [[{}, late], [late], [late, {}], [{}, late, late]]) {
          chain.nodes = nodes;
          await scanChains(scan);
          expect(await cursorOf(target)).toBeLessThan(985);
        }
        expect((await standingOf(target)).standing?.chains[0]?.fault).toMatch(/behind|at block/);
        chain.nodes = [{}, {}];
        chain.head = 1_001;
        for (let n = 0; n < 3; n += 1) await scanChains(scan);
        expect(await balances(target)).toEqual(["a 1"]);
      });

      test("a head that goes back moves nothing", async () => {
        const { target, chain, scan } = await start();
        for (const [head, cursor] of [
          [1_000, 988],
          [997, 988],
          [1_001, 989],
          [950, 989],
          [100, 989],
        ] as const) {
          chain.head = head;
          await scanChains(scan);
          expect(await cursorOf(target)).toBe(cursor);
        }
        expect((await standingOf(target)).standing?.chains[0]?.fault).toBe(
          "it is at block 100, and block 989 was scanned before",
        );
      });

      test("a head that is a lie: no block stands behind it", async () => {
        const { target, chain, scan } = await start();
        chain.nodes = [{ head: 5_000_000 }];
        await scanChains(scan);
        expect(await cursorOf(target)).toBeLessThan(1_000);
        expect((await standingOf(target)).standing?.chains[0]?.fault).toMatch(/has not got block/);
      });

      test("half of the logs at first: the others are found within the blocks that are scanned again", async () => {
        const { target, chain, scan } = await start();
        for (let n = 0; n < 4; n += 1) chain.pay({ block: 950, from: walletOf("a"), units: ONE });
        chain.nodes = [{ half: true }];
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 2"]);
        expect(await cursorOf(target)).toBe(988);
        chain.nodes = [{}];
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 4"]);
      });

      test("a limit of blocks: fewer are asked for; pruned logs: the cursor stays", async () => {
        const { target, chain, scan } = await start();
        chain.head = 9_000;
        chain.pay({ block: 950, from: walletOf("a"), units: ONE });
        chain.pay({ block: 8_000, from: walletOf("a"), units: ONE });
        chain.nodes = [{ maxBlocks: 700 }];
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 2"]);
        expect(await cursorOf(target)).toBe(9_000 - CONFIRMATIONS);
        chain.head = 20_000;
        chain.nodes = [{ prunedBefore: 15_000 }];
        await scanChains(scan);
        expect(await cursorOf(target)).toBe(9_000 - CONFIRMATIONS);
        expect((await standingOf(target)).standing?.chains[0]?.fault).toMatch(
          /refuses eth_getLogs: history has been pruned/,
        );
      });

      test("a node that is asked too often is not asked for fewer blocks again and again", async () => {
        const { target, chain, scan } = await start();
        chain.nodes = [{ refusal: "over rate limit" }];
        await scanChains(scan);
        expect(chain.asked).toHaveLength(2);
        expect((await standingOf(target)).standing?.chains[0]?.fault).toBe(
          "it refuses eth_getLogs: over rate limit (-32005)",
        );
      });

      test("a reorganisation below the confirmations loses nothing, and credits nothing twice", async () => {
        const { target, chain, scan } = await start(["a", "b"]);
        chain.pay({ block: 960, from: walletOf("a"), units: ONE, tx: "kept", logIndex: 1 });
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 1"]);
        chain.reorganise(955);
        // The same transaction is in another block and place now, and another one was in time.
        chain.pay({ block: 958, from: walletOf("b"), units: 2n * ONE, tx: "moved" });
        chain.pay({ block: 970, from: walletOf("a"), units: ONE, tx: "kept", logIndex: 5 });
        await scanChains(scan);
        expect(scan.lines).toContainEqual(expect.stringMatching(/block 988 is another one now/));
        expect(await balances(target)).toEqual(["a 1", "b 2"]);
        expect(await cursorOf(target)).toBe(988);
        expect(await sql(target, "SELECT reason FROM failed_deposits")).toEqual([
          { reason: expect.stringMatching(/reorganised: block 960 had this transaction.*now block 970/) },
        ]);
      });
    });

    describe("bad answers: nothing is credited, nothing is skipped, and the status says why", () => {
      const html = { status: 200, type: "text/html", body: "<html>Sign in</html>" };
      const faults: readonly (readonly [string, NodeFault, RegExp])[] = [
        ["HTML", { answer: html }, /not a list of JSON-RPC answers/],
        ["HTML with 502", { answer: { ...html, status: 502 } }, /HTTP status 502/],
        ["nothing", { silent: true }, /does not answer/],
        ["an empty answer", { answer: { status: 200, type: "text/plain", body: "" } }, /not a list/],
        [
          "10 MB",
          { answer: { status: 200, type: "application/json", body: Buffer.alloc(10_000_000, 32) } },
          /longer than 8 MiB/,
        ],
        ["null", { answer: { status: 200, type: "application/json", body: "null" } }, /not a list/],
        [
          "an empty list",
          { answer: { status: 200, type: "application/json", body: "[]" } },
          /does not answer as a JSON-RPC node/,
        ],
        [
          "no lists of questions",
          {
            answer: {
              status: 200,
              type: "application/json",
              body: '{"id":null,"error":{"code":-32600,"message":"no batch\\u0000 see https://x.example/key"}}',
            },
          },
          /refuses the request: no batch {2}see URL \(-32600\)/,
        ],
        [
          "its own path",
          {
            answer: {
              status: 404,
              type: "application/json",
              body: '{"id":null,"error":{"code":-32601,"message":"Cannot POST /v1/secret-key"}}',
            },
          },
          /refuses the request: words that are not shown, as they have a part of the RPC URL \(-32601\)/,
        ],
        [
          "its own path, to a question about logs",
          { refusal: "no logs for /v1/secret%2Dkey" },
          /refuses eth_getLogs: words that are not shown/,
        ],
        [
          "a node that refuses lists of questions",
          { single: "refuses" },
          /refuses the request: batches are not supported \(-32600\); single questions it answers: it may not take batches/,
        ],
        [
          "a node that answers the first of a list only",
          { single: "first" },
          /not a list of JSON-RPC answers; single questions it answers/,
        ],
        ["no answer within the time", { hangs: true }, /does not answer/],
        ["another chain", { chainId: 1 }, /leads to the chain 1, not to 8453/],
        ["a log of another contract", { forge: (log) => ({ ...log, address: VAULT }) }, /nobody asked for/],
        [
          "a log of another receiver",
          { forge: (log) => ({ ...log, topics: [(log["topics"] as string[])[0], hashOf(1), hashOf(2)] }) },
          /nobody asked for/,
        ],
        ["a negative amount", { forge: (log) => ({ ...log, data: `-${String(log["data"])}` }) }, /malformed/],
        [
          "an amount of 33 bytes",
          { forge: (log) => ({ ...log, data: `${String(log["data"])}00` }) },
          /malformed/,
        ],
        [
          "a log of a later block",
          { forge: (log) => ({ ...log, blockNumber: "0x3e7" }) },
          /nobody asked for/,
        ],
        ["a log of a removed block", { forge: (log) => ({ ...log, removed: true }) }, /malformed/],
        [
          "a log of another block's hash",
          { forge: (log) => ({ ...log, blockHash: hashOf("x") }) },
          /of another block 950/,
        ],
        ["a number beyond every block", { head: 2 ** 60 }, /not a block number/],
      ];
      test.each(faults)("%s", async (_, fault, why) => {
        const { target, chain, scan } = await start();
        chain.pay({ block: 950, from: walletOf("a"), units: ONE });
        chain.nodes = [fault];
        const [report] = await scanChains(scan);
        expect(report?.fault).toMatch(why);
        expect(await balances(target)).toEqual([]);
        expect(await cursorOf(target)).toBe(900);
        await sql(target, "UPDATE chain_scans SET fault_since = now() - interval '1 hour'");
        const { judged } = await standingOf(target);
        expect(judged?.sentence).toMatch(/^no deposits from Base for 60 min: /);
        const shown = `${JSON.stringify([report, judged])}${scan.lines.join("")}`;
        expect(shown).not.toMatch(/secret.{0,3}key/);
        chain.nodes = [{}];
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 1"]);
        expect((await standingOf(target)).judged).toBeNull();
      });

      test.each([
        ["another chain", { chainId: 1 }, VAULT, /--set-file BASE_RPC_URL=PATH$/],
        [
          "the HTTP status 404",
          { answer: { status: 404, type: "text/plain", body: "no" } },
          VAULT,
          /--set-file BASE_RPC_URL=PATH$/,
        ],
        ["another vault", {}, `0x${"2".repeat(40)}`, /^see docs\/billing\.md#chains$/],
      ] as readonly (readonly [string, NodeFault, string, RegExp])[])(
        "a mistake in the settings is said at once: %s",
        async (_, fault, vault, todo) => {
          const { target, chain, scan } = await start();
          chain.nodes = [fault];
          await scanChains({ ...scan, vault });
          expect((await standingOf(target)).judged?.todo).toMatch(todo);
          chain.nodes = [{ answer: { status: 502, type: "text/plain", body: "no" } }];
          await scanChains(scan);
          expect((await standingOf(target)).judged).toBeNull();
        },
      );

      test("another vault than in the database", async () => {
        const { target, chain, scan } = await start();
        chain.pay({ block: 950, from: walletOf("a"), units: ONE });
        await scanChains({ ...scan, vault: `0x${"2".repeat(40)}` });
        expect((await standingOf(target)).standing?.chains[0]?.fault).toMatch(/one of them is wrong/);
        expect(await cursorOf(target)).toBe(900);
      });

      test.each([
        ["the largest REAL", 340_282_346_638_528_859_811_704_183_484_516_925_440n * ONE],
        ["more than a REAL holds", 10n ** 39n * ONE],
        ["more than a balance may have", 10n ** 31n * ONE],
        ["all that 256 bits hold", 2n ** 256n - 1n],
      ])("an amount that can't be credited stops nobody else: %s", async (_, units) => {
        const { target, chain, scan } = await start(["a", "b"]);
        chain.pay({ block: 950, from: walletOf("a"), units, tx: "mixed" });
        chain.pay({ block: 950, from: walletOf("b"), units: ONE, tx: "mixed" });
        await scanChains(scan);
        expect(await balances(target)).toEqual(["b 1"]);
        expect(await cursorOf(target)).toBe(988);
        expect(await sql(target, "SELECT log_index, tries FROM failed_deposits")).toEqual([
          { log_index: 0, tries: 1 },
        ]);
      });

      test("an amount between those: 10^12 and a unit is exact", async () => {
        const { target, chain, scan } = await start();
        chain.pay({ block: 950, from: walletOf("a"), units: 10n ** 30n + 1n });
        await scanChains(scan);
        expect(await balances(target)).toEqual(["a 1000000000000.000000000000000001"]);
      });
    });

    describe("H16: a transfer that fails", () => {
      async function five() {
        const started = await start(["a", "b", "c", "d", "e"]);
        const { chain, target } = started;
        for (const [n, account] of ["a", "b", "c", "d", "e"].entries())
          chain.pay({ block: 910 + n * 10, from: walletOf(account), units: ONE });
        await sql(
          target,
          `CREATE TABLE faults (code text); CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           DECLARE fault text; BEGIN
             SELECT code INTO fault FROM faults;
             IF fault IS NOT NULL AND NEW.user_id = 'c' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = fault; END IF;
             RETURN NEW;
           END $$;
           CREATE TRIGGER refuse BEFORE INSERT ON credit_history FOR EACH ROW EXECUTE FUNCTION refuse()`,
        );
        return {
          ...started,
          fail: (code: string) => sql(target, "INSERT INTO faults VALUES ($1)", [code]),
          heal: () => sql(target, "DELETE FROM faults"),
        };
      }
      const ALL = ["a 1", "b 1", "c 1", "d 1", "e 1"];

      test.each([
        ["a deadlock", "40P01"],
        ["Postgres stops", "57P01"],
        ["no space", "53100"],
      ])("for a reason that passes (%s): the cursor waits before it", async (_, code) => {
        const { target, scan, fail, heal } = await five();
        await fail(code);
        await expect(scanChains(scan)).rejects.toThrow("not this one");
        expect(await cursorOf(target)).toBe(900);
        await heal();
        await scanChains(scan);
        expect(await balances(target)).toEqual(ALL);
        expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
      });

      test("always: the others are credited, it stands in a list, and a command tries it again", async () => {
        const { target, scan, fail, heal } = await five();
        await fail("22003");
        await scanChains(scan);
        expect(await balances(target)).toEqual(ALL.filter((line) => line !== "c 1"));
        expect(await cursorOf(target)).toBe(988);
        expect((await standingOf(target)).judged).toEqual({
          sentence: "1 deposit could not be credited",
          todo: "fula-node billing deposits",
        });
        expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 1 });
        expect(await sql(target, "SELECT tries, reason FROM failed_deposits")).toEqual([
          { tries: 2, reason: "not this one" },
        ]);
        expect(
          await sql(target, "SELECT FROM token_transactions WHERE from_address = $1", [walletOf("c")]),
        ).toEqual([]);
        await heal();
        expect(await retryFailed(scan.bank, true)).toEqual({ settled: 1, failed: 0 });
        expect(await balances(target)).toEqual(ALL);
        expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
        await scanChains(scan);
        expect(await balances(target)).toEqual(ALL);
      });

      test("and the cursor is behind it only from the moment on in which it stands in the list", async () => {
        const { target, scan, fail } = await five();
        await fail("22003");
        await sql(
          target,
          `CREATE FUNCTION no_list() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no list'; END $$;
           CREATE TRIGGER no_list BEFORE INSERT ON failed_deposits FOR EACH ROW EXECUTE FUNCTION no_list()`,
        );
        await expect(scanChains(scan)).rejects.toThrow("no list");
        expect(await cursorOf(target)).toBe(900);
      });
    });

    test("twenty replays in random order with crashes, on several masters at once: each is credited once", async () => {
      const { target, scan } = await start(["a", "b", "c"]);
      await refer(target, "b", "a");
      const accounts = ["a", "b", "c"];
      const transfers = Array.from({ length: 12 }, (_, n): Transfer => ({
        txHash: hashOf("tx", Math.floor(n / 2)),
        logIndex: n,
        from: walletOf(accounts[n % 3] ?? ""),
        to: VAULT,
        amount: String(BigInt(n + 1) * ONE),
        block: 950,
        blockHash: hashOf("block"),
      }));
      const settleAt = async (list: readonly Transfer[], crash: boolean): Promise<void> => {
        const deposit = { chainId: 8_453, transfers: list, time: 1, source: "cron", bonuses: true } as const;
        await scan.bank.transaction(async (database) => {
          let left = crash ? Math.floor(Math.random() * 12) : Infinity;
          const query: typeof database.query = (...statement) => {
            left -= 1;
            if (left < 0) throw new Error("crash");
            return database.query(...statement);
          };
          await settle({ query }, deposit);
          if (crash) throw new Error("crash");
        });
      };
      for (let round = 0; round < 20; round += 1) {
        const lists = [...Array(6).keys()].flatMap((n) => {
          const both = transfers.slice(2 * n, 2 * n + 2);
          return round % 2 === 0 ? [both] : both.map((one) => [one]);
        });
        const work = [...lists, ...lists]
          .map((list) => ({ list, at: Math.random() }))
          .toSorted((x, y) => x.at - y.at);
        const settled = await Promise.allSettled(
          work.map(({ list }) => settleAt(list, round < 16 && Math.random() < 0.6)),
        );
        for (const one of settled)
          if (one.status === "rejected") expect(String(one.reason)).toBe("Error: crash");
      }
      // a: 1 + 4 + 7 + 10, b: 2 + 5 + 8 + 11 and a tenth of a's, c: 3 + 6 + 9 + 12.
      expect(await balances(target)).toEqual(["a 22", "b 28.2", "c 30"]);
      expect(
        await sql(
          target,
          "SELECT sum(amount_fula)::float8 AS sum, count(*)::int AS rows FROM token_transactions",
        ),
      ).toEqual([{ sum: 78, rows: 6 }]);
      expect(
        await sql(target, "SELECT count(*)::int AS n FROM credit_history WHERE tx_type = 'deposit'"),
      ).toEqual([{ n: 12 }]);
      expect(await sql(target, "SELECT count(*)::int AS n FROM referral_bonuses")).toEqual([{ n: 4 }]);
    });

    test("masters that are killed while they scan: another goes on, and each deposit is credited once", async () => {
      const { target, chain } = await start(["a", "b"]);
      for (let n = 0; n < 400; n += 1)
        chain.pay({ block: 901 + (n % 80), from: walletOf(n % 2 === 0 ? "a" : "b"), units: ONE });
      const billing = {
        vault: VAULT,
        chains: [{ id: 8_453, url: chain.url, confirmations: CONFIRMATIONS }],
      };
      const credited = async () =>
        (
          await sql<{ n: number }>(
            target,
            "SELECT count(*)::int AS n FROM deposits WHERE account IS NOT NULL",
          )
        )[0]?.n ?? 0;
      for (let kills = 0; kills < 3; kills += 1) {
        const before = await credited();
        const master = await startBilling(target, { master: `m${kills}`, billing });
        await until("it has credited some", async () => (await credited()) > before + 20);
        master.signal("SIGKILL");
        expect(await master.ended).toBe("SIGKILL");
        // It was killed in the middle.
        expect(await credited()).toBeLessThan(400);
      }
      await startBilling(target, { master: "last", billing });
      await until("all are credited", async () => (await cursorOf(target)) === 988, 120_000);
      expect(await balances(target)).toEqual(["a 200", "b 200"]);
      expect(await sql(target, "SELECT count(*)::int AS n FROM credit_history")).toEqual([{ n: 400 }]);
    }, 240_000);

    test("a database without chains gets upstream's", async () => {
      const target = await postgres.createDatabase();
      const scan = scanOf(target, { url: "http://127.0.0.1:1" }, { chains: [] });
      expect(await scanChains(scan)).toEqual([]);
      expect(
        await sql(
          target,
          "SELECT chain_id, chain_name, last_scanned_block::int AS block, vault_address FROM chain_sync_state ORDER BY 1",
        ),
      ).toEqual([
        { chain_id: 1, chain_name: "Ethereum", block: 24_179_670, vault_address: VAULT },
        { chain_id: 8_453, chain_name: "Base", block: 40_480_508, vault_address: VAULT },
        { chain_id: 2_046_399_126, chain_name: "Skale Europa", block: 22_856_425, vault_address: VAULT },
      ]);
    });

    test("a payment whose credit failed after its wallet was linked stands in one list, and dismissed, in none", async () => {
      const { target, chain, scan } = await start([]);
      const txHash = chain.pay({ block: 950, from: walletOf("late"), units: ONE, tx: "two" });
      await scanChains(scan);
      await linkWallet(target, "late");
      await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ('late', 'NaN')");
      const wish = { account: "late", chainId: 8_453, txHash };
      const deps = {
        pool: scan.bank,
        billing: { vault: VAULT, chains: scan.chains, bonuses: true },
        open: scan.open,
      };
      expect(await claim(deps, wish)).toEqual({ outcome: "not-credited" });
      expect((await standingOf(target)).standing).toMatchObject({ failed: 1, unclaimed: 0, dismissed: 0 });
      const [failed] = await listFailedDeposits(scan.bank, 9);
      expect(failed?.reason).toMatch(/^the balance of late is not an amount/);
      const name = { chainId: 8_453, txHash, logIndex: failed?.logIndex ?? -1 };
      await dismissFailed(scan.bank, name, "me");
      await sql(target, "UPDATE user_credits SET balance_fula = 0");
      expect(await claim(deps, wish)).toEqual({ outcome: "not-credited" });
      // Another transfer of the transaction is credited without it.
      chain.pay({ block: 950, from: walletOf("late"), units: 2n * ONE, tx: "two", logIndex: 77 });
      await scanChains(scan);
      expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 0 });
      expect((await standingOf(target)).standing).toMatchObject({ failed: 0, unclaimed: 0, dismissed: 1 });
      const before = await balances(target);
      expect(before).not.toContain("late 3");
      await expect(migratorOf().down(target, [35], listen())).rejects.toMatchObject({
        what: expect.stringMatching(/refuses: failed_deposits has 1 dismissed transfer/),
      });
      expect(await retryFailed(scan.bank, true, { ...name, by: "me" })).toEqual({ settled: 1, failed: 0 });
      expect(await balances(target)).not.toEqual(before);
      await migratorOf().down(target, [35], listen());
    });

    test("a referrer whose balance takes no bonus keeps nobody from a credit; the bonus waits in the list", async () => {
      const { target, chain, scan } = await start(["paid", "paid2"]);
      await refer(target, "top", "sick");
      await refer(target, "sick", "paid");
      await sql(
        target,
        `INSERT INTO user_credits (user_id, balance_fula) VALUES ('sick', 'NaN')
         ON CONFLICT (user_id) DO UPDATE SET balance_fula = 'NaN'`,
      );
      const txHash = chain.pay({ block: 950, from: walletOf("paid"), units: 10n * ONE, tx: "one" });
      chain.pay({ block: 950, from: walletOf("paid2"), units: ONE, tx: "one", logIndex: 70 });
      await scanChains(scan);
      const got = () =>
        sql<{ account: string; balance: string }>(
          target,
          "SELECT account, trim_scale(balance)::text AS balance FROM account_credits WHERE account <> 'sick' ORDER BY 1",
        );
      const credited = [
        { account: "paid", balance: "10" },
        { account: "paid2", balance: "1" },
        { account: "top", balance: "0.1" },
      ];
      expect(await got()).toEqual(credited);
      expect((await standingOf(target)).standing).toMatchObject({ failed: 1, unclaimed: 0 });
      expect((await listFailedDeposits(scan.bank, 9)).map(({ reason, fula }) => [fula, reason])).toEqual([
        [
          "10",
          expect.stringMatching(
            /^the payment is credited, and the bonus of who referred paid is not: the balance of sick is not an amount/,
          ),
        ],
      ]);
      // Neither a scan nor a claim takes it off the list, and a retry gives nobody anything twice.
      await scanChains(scan);
      const deps = {
        pool: scan.bank,
        billing: { vault: VAULT, chains: scan.chains, bonuses: true },
        open: scan.open,
      };
      expect(await claim(deps, { account: "paid", chainId: 8_453, txHash })).toMatchObject({
        outcome: "credited",
      });
      expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 1 });
      expect(await got()).toEqual(credited);
      await sql(target, "UPDATE user_credits SET balance_fula = 0 WHERE user_id = 'sick'");
      await sql(target, "CREATE TABLE as_before AS TABLE failed_deposits");
      expect(await retryFailed(scan.bank, true)).toEqual({ settled: 1, failed: 0 });
      await sql(target, "INSERT INTO failed_deposits TABLE as_before");
      expect(await retryFailed(scan.bank, true)).toEqual({ settled: 1, failed: 0 });
      expect(await retryFailed(scan.bank, true)).toEqual({ settled: 0, failed: 0 });
      expect(await got()).toEqual(credited);
      expect(
        await sql(
          target,
          "SELECT trim_scale(balance)::text AS b FROM account_credits WHERE account = 'sick'",
        ),
      ).toEqual([{ b: "1" }]);
      expect(
        await sql(
          target,
          "SELECT recipient_user_id AS who, level, source_referral_code AS code FROM referral_bonuses ORDER BY level",
        ),
      ).toEqual([
        { who: "sick", level: 1, code: "code-sick" },
        { who: "top", level: 2, code: "code-sick" },
      ]);
    });

    test("033 refuses to go while it has a deposit", async () => {
      const { target, chain, scan } = await start();
      chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      await scanChains(scan);
      await expect(migratorOf().down(target, [33], listen())).rejects.toMatchObject({
        exit: "drift",
        what: expect.stringMatching(/refuses: deposits has 1 transfer\(s\), and failed_deposits has 0/),
      });
      await sql(target, "DELETE FROM deposits");
      await migratorOf().down(target, [33], listen());
    });

    declarePartTests(postgres, {
      file: "033_deposits.sql",
      breaks: [
        ["DROP TABLE failed_deposits", "table failed_deposits"],
        [
          "ALTER TABLE deposits DROP CONSTRAINT deposits_pkey",
          "primary key (chain_id, tx_hash, log_index) of deposits",
        ],
        ["ALTER TABLE chain_scans DROP COLUMN first_block", "column chain_scans.first_block int8"],
      ],
    });
  },
  { template: migrate },
);
