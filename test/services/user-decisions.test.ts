import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { userToken } from "../../src/commands/accounts/user-key.ts";
import { userHistory } from "../../src/commands/accounts/user.ts";
import {
  userCreate,
  userCredit,
  userList,
  userSuspend,
  userUnsuspend,
} from "../../src/commands/accounts/user.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { World } from "../../src/world.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { masterOn } from "./verbs-master.ts";
import { ask, startWebui } from "./web-api.ts";

const email = "alice@example.org";
const ALICE = createHash("sha256").update(email).digest("hex");
const BOB = createHash("sha256").update("bob@example.org").digest("hex");

describeOnPostgres(
  "what the operator decides about accounts",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const { baseDir, world, results } = await masterOn(target);
      for (const address of [email, "bob@example.org"]) await userCreate({ baseDir, email: address }, world);
      results.length = 0;
      const last = () => results.at(-1)?.data;
      return {
        target,
        baseDir,
        world,
        results,
        last,
        credit: (amount: string, key: string, more: Readonly<Record<string, unknown>> = {}) =>
          userCredit(amount, { baseDir, email, reason: "invoice 117", key, ...more }, world),
      };
    }

    const balances = (target: PostgresTarget) =>
      sql(target, "SELECT user_id, balance_fula, is_suspended FROM user_credits ORDER BY user_id");

    test("a credit is booked once for a key: balance, history and audit log", async () => {
      const { target, credit, last, results } = await start();
      await credit("12.5", "invoice-117");
      expect(last()).toMatchObject({ verb: "user credit", account: ALICE, changed: true, balanceFula: 12.5 });
      const rows = async () => ({
        balances: await balances(target),
        history: await sql(
          target,
          "SELECT user_id, tx_type, amount_fula, balance_after, reference_id FROM credit_history",
        ),
        log: await sql(target, "SELECT actor, action, target_id, target_email, details FROM admin_audit_log"),
      });
      const after = {
        balances: [{ user_id: ALICE, balance_fula: 12.5, is_suspended: 0 }],
        history: [
          {
            user_id: ALICE,
            tx_type: "adjustment",
            amount_fula: 12.5,
            balance_after: 12.5,
            reference_id: "adjustment:invoice-117",
          },
        ],
        log: [
          {
            actor: "root@m1",
            action: "credit",
            target_id: ALICE,
            target_email: null,
            details: { amount: "12.50000000", key: "invoice-117", reason: "invoice 117", balanceAfter: 12.5 },
          },
        ],
      };
      expect(await rows()).toEqual(after);

      await credit("12.50", "invoice-117");
      expect(last()).toMatchObject({ changed: false });
      expect(results.at(-1)?.lines[0]).toMatch(
        /^Nothing to do: the key invoice-117 was already used for this/,
      );
      for (const change of [{ amount: "12.6" }, { deduct: true }, { email: "bob@example.org" }])
        await expect(credit(change.amount ?? "12.5", "invoice-117", change)).rejects.toMatchObject({
          exit: "drift",
          why: expect.stringContaining(`12.5 FULA were booked for the account ${ALICE}`) as string,
        });
      expect(await rows()).toEqual(after);

      await credit("20.25", "back-1", { deduct: true });
      expect(last()).toMatchObject({ amount: "-20.25", balanceFula: -7.75 });
    });

    test("twenty runs at once with one key book once; with twenty keys, twenty times", async () => {
      const { target, credit } = await start();
      await Promise.all(Array.from({ length: 20 }, () => credit("1", "same")));
      expect(await balances(target)).toMatchObject([{ balance_fula: 1 }]);
      await Promise.all(Array.from({ length: 20 }, (_, n) => credit("1", `k${n}`)));
      expect(await balances(target)).toMatchObject([{ balance_fula: 21 }]);
      const history = await sql<{ balance_after: number }>(
        target,
        "SELECT balance_after FROM credit_history",
      );
      expect(history.map(({ balance_after }) => balance_after).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 21 }, (_, n) => n + 1),
      );
      expect(await sql(target, "SELECT FROM admin_audit_log")).toHaveLength(21);
    });

    test("a credit ends a suspension by the billing, but not one by the operator; a deduction ends none", async () => {
      const { target, baseDir, world, credit } = await start();
      const suspend = "UPDATE user_credits SET is_suspended = 1, suspended_at = now()";
      await credit("1", "a");
      await sql(target, suspend);
      await credit("5", "b", { deduct: true });
      expect(await balances(target)).toMatchObject([{ balance_fula: -4, is_suspended: 1 }]);
      await credit("10", "c");
      expect(await balances(target)).toMatchObject([{ balance_fula: 6, is_suspended: 0 }]);
      expect(await sql(target, "SELECT suspended_at FROM user_credits")).toEqual([{ suspended_at: null }]);

      await userSuspend({ baseDir, email, reason: "abuse" }, world);
      await credit("10", "d");
      expect(await balances(target)).toMatchObject([{ balance_fula: 16, is_suspended: 1 }]);
    });

    test("an account that the operator suspended may not upload until it is released", async () => {
      const { target, baseDir, world, results, last } = await start();
      const webui = await startWebui(target);
      await userToken({ baseDir, email }, world);
      const headers = { authorization: `Bearer ${results.at(-1)?.lines[0] ?? ""}` };
      const quota = async () => (await ask(webui, "/api/v1/storage", { headers })).body;
      expect(await quota()).toMatchObject({ canUpload: true, isSuspended: false });

      await userSuspend({ baseDir, email, reason: "abuse" }, world);
      expect(last()).toMatchObject({ verb: "user suspend", account: ALICE, changed: true });
      expect(await quota()).toMatchObject({ canUpload: false, isSuspended: true });
      await userSuspend({ baseDir, account: ALICE, reason: "again" }, world);
      expect(last()).toMatchObject({ changed: false });
      // What upstream's billing does to an account with a balance.
      await sql(target, "UPDATE user_credits SET is_suspended = 0, suspended_at = NULL, balance_fula = 5");
      expect(await quota()).toMatchObject({ canUpload: false, isSuspended: true });

      await userUnsuspend({ baseDir, email, reason: "settled" }, world);
      expect(last()).toMatchObject({ verb: "user unsuspend", changed: true });
      expect(await quota()).toMatchObject({ canUpload: true, isSuspended: false });
      await userUnsuspend({ baseDir, email, reason: "settled" }, world);
      expect(last()).toMatchObject({ changed: false });
      expect(await sql(target, "SELECT action, target_id, details FROM admin_audit_log ORDER BY id")).toEqual(
        [
          { action: "suspend", target_id: ALICE, details: { reason: "abuse" } },
          { action: "unsuspend", target_id: ALICE, details: { reason: "settled" } },
        ],
      );
    });

    test("list shows every kind of account in pages, with addresses only by the right ENCRYPTION_KEY", async () => {
      const { target, baseDir, world, results, last, credit } = await start();
      const wallet = `0x${"c".repeat(40)}`;
      await credit("3", "a");
      await userSuspend({ baseDir, email: "bob@example.org", reason: "abuse" }, world);
      await sql(
        target,
        "INSERT INTO pins (requestid, user_id, cid, status, size) VALUES ('r', $1, 'c', 'pinned', 1500)",
        [wallet],
      );
      const all = [
        { account: ALICE, email, storageBytes: 0, balanceFula: 3, isSuspended: false, isHeld: false },
        {
          account: BOB,
          email: "bob@example.org",
          storageBytes: 0,
          balanceFula: 0,
          isSuspended: true,
          isHeld: true,
        },
        {
          account: wallet,
          email: null,
          storageBytes: 1_500,
          balanceFula: 0,
          isSuspended: false,
          isHeld: false,
        },
      ].sort((a, b) => (a.account < b.account ? -1 : 1));
      await userList({ baseDir }, world);
      expect(last()).toEqual({ verb: "user list", accounts: all, next: null });
      const seen: unknown[] = [];
      for (let after: string | undefined; seen.length < 9;) {
        await userList({ baseDir, limit: "1", ...(after === undefined ? {} : { after }) }, world);
        const page = last() as { readonly accounts: readonly unknown[]; readonly next: string | null };
        seen.push(...page.accounts);
        if (page.next === null) break;
        expect(results.at(-1)?.lines.at(-1)).toBe(`  fula-node user list --after ${page.next}`);
        expect(results.at(-1)?.lines[0]).toBe("The first 1 account:");
        after = page.next;
      }
      expect(seen).toEqual(all);

      const other = await masterOn(target, { JWT_SECRET: "x".repeat(40), ENCRYPTION_KEY: "cd".repeat(32) });
      await userList({ baseDir: other.baseDir }, other.world);
      expect(JSON.stringify(other.results)).not.toContain("example.org");
    });

    test("a full key expires with --expires, here and for the pinning API", async () => {
      const { target, baseDir, world, last } = await start();
      await userToken({ baseDir, email, expires: "30d" }, world);
      const { expiresAt, token } = last() as { readonly expiresAt: string; readonly token: string };
      expect((Date.parse(expiresAt) - new Date().getTime()) / 86_400_000).toBeCloseTo(30, 2);
      const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as object;
      expect(claims).toMatchObject({
        scope: "storage:read storage:write",
        exp: Date.parse(expiresAt) / 1_000,
      });
      expect(await sql(target, "SELECT expires_at FROM sessions")).toEqual([
        { expires_at: new Date(expiresAt) },
      ]);
      await userToken({ baseDir, email }, world);
      expect(await sql(target, "SELECT FROM sessions WHERE expires_at IS NULL")).toHaveLength(1);
    });

    test.each([
      [{ amount: "0" }, /above 0/],
      [{ amount: "0.00000000" }, /above 0/],
      [{ amount: "1.123456789" }, /above 0/],
      [{ amount: "1000000000.1" }, /at most 1,000,000,000/],
      [{ amount: "1e3" }, /above 0/],
      [{ amount: "+5" }, /above 0/],
      [{ amount: "05" }, /above 0/],
      [{ amount: "NaN" }, /above 0/],
      [{ amount: "-5" }, /must not be negative/],
      [{ key: "" }, /--key/],
      [{ key: "a b" }, /--key/],
      [{ key: "k".repeat(101) }, /--key/],
      [{ reason: " " }, /--reason/],
      [{ reason: "a\u0000b" }, /--reason/],
      [{ reason: "\ud800" }, /--reason/],
      [{ reason: "two\nlines" }, /--reason/],
      [{ reason: "r".repeat(501) }, /--reason/],
      [{ account: ALICE }, /--email or by --account/],
      [{ email: undefined }, /--email or by --account/],
      [{ email: undefined, account: "x@y" }, /account's id/],
      [{ email: "alice" }, /not an e-mail address/],
    ])("user credit refuses %j before anything is read", async (change, what) => {
      const { amount = "5", ...flags } = change as Readonly<Record<string, string>>;
      const given = { baseDir: "/nonexistent", email, reason: "r", key: "k", ...flags };
      await expect(userCredit(amount, given, {} as World)).rejects.toMatchObject({
        exit: "usage",
        what: expect.stringMatching(what) as string,
      });
    });

    test("what is printed fits 80 columns, and says what a balance below zero means", async () => {
      const { target, baseDir, world, results, credit } = await start();
      const text = () => (results.at(-1)?.lines ?? []).join(" ");
      await userCreate({ baseDir, email }, world);
      await userCreate({ baseDir, email: "carol@example.org" }, world);
      const held = { baseDir, email, reason: "abuse" };
      await userSuspend(held, world);
      await userSuspend(held, world);
      await sql(
        target,
        "INSERT INTO pins (requestid, user_id, cid, status, size) VALUES ('r', $1, 'c', 'pinned', 7e12)",
        [ALICE],
      );
      await credit("1234567.125", "a");
      await userList({ baseDir }, world);
      await userUnsuspend(held, world);
      expect(text()).not.toContain("billing");
      await credit("1234567.125", "b", { deduct: true });
      expect(text()).not.toContain("below zero");
      await credit("4", "c", { deduct: true });
      expect(text()).toContain("now -4 FULA. That is below zero: the account may store no more");
      expect(text()).toContain("The billing is off on this master, so it does not suspend it.");
      await credit("4", "c", { deduct: true });

      const vault = { VAULT_ADDRESS: `0x${"1".repeat(40)}`, BILLING_IDEMPOTENCY: "true" };
      const billed = await masterOn(target, {
        JWT_SECRET: "x".repeat(40),
        ENCRYPTION_KEY: "ab".repeat(32),
        ...vault,
      });
      for (const [balance, says] of [
        [-4, "the next run of the billing suspends it again, without a charge."],
        [0, "the next run of the billing charges it once more, and suspends it."],
        [5, "The billing suspends it again when its balance is used up."],
      ] as const) {
        await sql(
          target,
          "UPDATE user_credits SET is_suspended = 1, suspended_at = now(), balance_fula = $1",
          [balance],
        );
        await userUnsuspend({ ...held, baseDir: billed.baseDir }, billed.world);
        expect((billed.results.at(-1)?.lines ?? []).join(" ")).toContain(says);
        expect(billed.results.at(-1)?.data).toMatchObject({ changed: true, balanceFula: balance });
      }
      const lines = [...results, ...billed.results].flatMap((result) => result.lines);
      expect(lines.filter((line) => line.length > 80)).toEqual([]);
    });

    test("user history has each line with its digits, and of a charge the price of its hour", async () => {
      const { target, baseDir, world, credit, last, results } = await start();
      expect(await userHistory({ baseDir, email }, world)).toBe("ok");
      expect(results.at(-1)?.lines).toEqual(["Nothing has changed the balance of this account."]);
      await credit("200000.00000001", "k1");
      await credit("3", "k2", { deduct: true });
      const hash = `0x${"ab".repeat(32)}`;
      await sql(
        target,
        `WITH noted AS (
           INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id, created_at)
             VALUES ($1, 'deposit', 1.5, 9, '8453:' || $2::text, now() + interval '1 min'),
               ($1, 'hourly_deduction', -0.041666668, 9, 'hour:2026-01-31T12', now() + interval '2 min'),
               ($1, 'hourly_deduction', -1, 9, '2026-01-31T12:00:00.000Z', now() + interval '3 min') RETURNING id, tx_type
         ), deposited AS (
           INSERT INTO deposits SELECT 8453, $2::text, 0, '0x', 1500000000000000001, 1, '0x', $1, now(), id FROM noted WHERE tx_type = 'deposit'
         )
         INSERT INTO billing_hours (hour, free_bytes, fula_per_gib_month) VALUES ('2026-01-31T12:00Z', 524288000, 3)`,
        [ALICE, hash],
      );
      const kept = { freeBytes: "524288000", fulaPerGibMonth: "3" };
      const none = { freeBytes: null, fulaPerGibMonth: null };
      const all = [
        { type: "hourly_deduction", fula: "-1", ...none },
        { type: "hourly_deduction", fula: "-0.041666668", reference: "hour:2026-01-31T12", ...kept },
        { type: "deposit", fula: "1.500000000000000001", reference: `8453:${hash}`, ...none },
        { type: "adjustment", fula: "-3", ...none },
        { type: "adjustment", fula: "200000.00000001", reference: "adjustment:k1", ...none },
      ];
      await userHistory({ baseDir, email }, world);
      expect(last()).toMatchObject({ account: ALICE, lines: all, next: null });
      expect(results.at(-1)?.lines.join(" ").replace(/\s+/g, " ")).toContain(
        "about 10 GiB above 524288000 free bytes, at 3 FULA for a GiB and month",
      );
      const seen: unknown[] = [];
      for (let after: string | undefined; seen.length < 9;) {
        await userHistory({ baseDir, email, limit: "2", ...(after === undefined ? {} : { after }) }, world);
        const page = last() as { readonly lines: readonly unknown[]; readonly next: number | null };
        seen.push(...page.lines);
        if (page.next === null) break;
        after = String(page.next);
      }
      expect(seen).toMatchObject(all);
      for (const after of ["999999", "x"])
        await expect(userHistory({ baseDir, email, after }, world)).rejects.toMatchObject({ exit: "usage" });
      await expect(userHistory({ baseDir, email: "no@example.org" }, world)).rejects.toMatchObject({
        exit: "usage",
      });
    });

    test("an account that does not exist gets nothing", async () => {
      const { target, baseDir, world, credit } = await start();
      const nobody = { email: "nobody@example.org" };
      await expect(credit("5", "k", nobody)).rejects.toMatchObject({ exit: "usage" });
      for (const verb of [userSuspend, userUnsuspend])
        await expect(verb({ baseDir, ...nobody, reason: "r" }, world)).rejects.toMatchObject({
          exit: "usage",
          remedy: "See the accounts with fula-node user list.",
        });
      for (const table of [
        "user_credits",
        "credit_adjustments",
        "credit_history",
        "account_holds",
        "admin_audit_log",
      ])
        expect(await sql(target, `SELECT FROM ${table}`), table).toEqual([]);
    });
  },
  { template: migrate },
);

test.each([
  [{ expires: "0d" }, /must be a duration/],
  [{ expires: "4000d" }, /at most 3650 days/],
  [{ expires: "31d", upload: true }, /at most 30 days/],
  [{ expires: "1d", hours: "5", upload: true }, /both say when/],
  [{ expires: "1d", hours: "5" }, /--hours is only/],
])("user token refuses %j before anything is read", async (flags, what) => {
  const given = { baseDir: "/nonexistent", email, ...flags };
  await expect(userToken(given, {} as World)).rejects.toMatchObject({
    exit: "usage",
    what: expect.stringMatching(what) as string,
  });
});
