import { openChain } from "../billing/chain-node.ts";
import { BATCH_SIZE, runDeduction } from "../billing/deduction.ts";
import { settle } from "../billing/deposits.ts";
import { tariffOf } from "../billing/fee.ts";
import { scanChains } from "../billing/scan.ts";
import { byTransaction, type Transfer } from "../billing/transfer.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { countOf } from "../units.ts";
import { type CronDrillDeps, lastOf, withCrons } from "./scratch/cron-group.ts";
import type { Drill, DrillContext, DrillOutcome } from "./drill.ts";
import { type DrillChain, drillBlockHash, startDrillChain } from "./scratch/drill-chain.ts";
import { DrillFinding, findingOf } from "./drill-finding.ts";
import {
  addAccounts,
  billFaults,
  DRILL_BILLING,
  DRILL_PRICING,
  finishedHours,
  type ScratchAccounts,
} from "./scratch/scratch-accounts.ts";
import { dropScratches, type Scratch, withScratch } from "./scratch/scratch-database.ts";

type Database = Pick<PostgresPool, "query">;

const ACCOUNTS = 40;
const MISSED_HOURS = 3;
/** How long the two processes may take to bill all hours and to scan the chain. */
const DONE_MS = 30_000;

const CHAIN = { chainId: 8_453, head: 1_200, token: `0x${"f1".repeat(20)}` } as const;
const CONFIRMATIONS = 12;
/** Where the scan begins. */
const FIRST_BLOCK = 900;
const VAULT = DRILL_BILLING.vault;
const WALLET = `0x${"a1".repeat(20)}`;
/** It stores nothing, so its balance is what was credited. */
const PAYER = "drill-payer";

/** Two transactions: the first one has two transfers. In units of 10^-18 FULA. */
const TRANSFERS: readonly Transfer[] = [
  transfer({ tx: "1", block: 950, logIndex: 3, amount: "1000000000000000001" }),
  transfer({ tx: "1", block: 950, logIndex: 4, amount: "2000000000000000020" }),
  transfer({ tx: "2", block: 1_100, logIndex: 0, amount: "4000000000000000300" }),
];
const CREDITED = "7.000000000000000321";

function transfer({
  tx,
  block,
  ...more
}: Pick<Transfer, "block" | "logIndex" | "amount"> & { readonly tx: string }): Transfer {
  return {
    txHash: `0x${tx.padStart(64, "c")}`,
    from: WALLET,
    to: VAULT,
    block,
    blockHash: drillBlockHash(block),
    ...more,
  };
}

/** D5: an hour that is billed again costs nothing, and a deposit that is seen again is credited once. */
export const replayDrill: Drill<CronDrillDeps> = {
  id: "D5",
  title: "billing replay",
  proves:
    "An hour that is billed again, or by two masters without a lease, is charged once; a deposit that is scanned or claimed again is credited once.",
  isScheduled: true,
  deadlineMs: 120_000,
  run: (deps, context) =>
    findingOf(context.stop, () =>
      withScratch(deps, context, async (scratch) => {
        const chain = await startDrillChain({ ...CHAIN, transfers: TRANSFERS });
        try {
          return await replay(deps, context, { scratch, chain });
        } finally {
          await chain.close();
        }
      }),
    ),
  cleanUp: dropScratches,
};

async function replay(
  deps: CronDrillDeps,
  { stop, report }: DrillContext,
  { scratch: { target, pool }, chain }: { readonly scratch: Scratch; readonly chain: DrillChain },
): Promise<DrillOutcome> {
  const accounts = await addAccounts(pool, { count: ACCOUNTS, missedHours: MISSED_HOURS });
  await pool.query(ADD_WALLET, [PAYER, WALLET]);
  await pool.query(ADD_CHAIN, [CHAIN.chainId, FIRST_BLOCK, CHAIN.token, VAULT]);
  const chains = [{ id: CHAIN.chainId, url: chain.url, confirmations: CONFIRMATIONS }];
  await withCrons(deps, { target, stop, batchSize: 10 }, async (crons) => {
    const pair = ["drill-master-a", "drill-master-b"].map((name) =>
      crons.start(name, { lease: false, chains }),
    );
    for (const cron of pair) await crons.untilUp(cron);
    await crons.until(
      DONE_MS,
      async () => {
        const isBilled = (await finishedHours(pool, accounts)) >= accounts.hours.length;
        const haveRun = pair.every((cron) =>
          ["deduction", "scanner"].every((name) => (cron.state()?.runs[name] ?? 0) > 1),
        );
        return isBilled && haveRun ? true : null;
      },
      () => `two masters did not bill and scan within ${DONE_MS / 1_000} s${pair.map(lastOf).join("")}`,
    );
  });
  const together = await lookAtBooks(
    pool,
    accounts,
    "two masters without a lease billed and scanned at once",
  );
  report("two masters without a lease billed and scanned");

  stop.throwIfAborted();
  const again = await billAgain(pool, accounts, stop);
  const settled = await scanAgain(pool, { chains, stop });
  const replayed = await lookAtBooks(pool, accounts, "everything was billed, scanned and claimed again");
  // An hour may have begun since.
  if (replayed.charges !== together.charges + again)
    throw unlike(`${replayed.charges - together.charges} charges came with a run that says it made ${again}`);
  return {
    state: "passed",
    summary: `${countOf(together.charges, "charge")} by two masters without a lease, each once; the same ${countOf(accounts.hours.length, "hour")} again: none; ${countOf(TRANSFERS.length, "transfer")} scanned by both, scanned and claimed again: credited once, ${CREDITED} FULA`,
    todo: null,
    evidence: {
      charges: String(together.charges),
      "charges of the same hours, billed again": "0",
      "transactions settled by the second scan": String(settled),
      "FULA credited": CREDITED,
    },
  };
}

/** Charges and credits as they have to be. Throws a DrillFinding if they are not. */
async function lookAtBooks(
  pool: Database,
  accounts: ScratchAccounts,
  after: string,
): Promise<{ readonly charges: number }> {
  const { charges, faults } = await billFaults(pool, accounts);
  const [row] = await pool.query<{ lines: number; balance: string | null; failed: number }>(CREDITS, [PAYER]);
  if (row?.lines !== TRANSFERS.length || row.balance !== CREDITED)
    faults.push(
      `${countOf(TRANSFERS.length, "transfer")} of ${CREDITED} FULA ${TRANSFERS.length === 1 ? "has" : "have"} ${countOf(row?.lines ?? 0, "credit")}, and the balance is ${row?.balance ?? 0} FULA`,
    );
  if ((row?.failed ?? 0) > 0) faults.push(`${countOf(row?.failed ?? 0, "transfer")} could not be credited`);
  if (faults.length > 0) throw unlike(`after ${after}, ${faults.join("; ")}`);
  return { charges };
}

function unlike(summary: string): DrillFinding {
  return new DrillFinding(summary, {
    todo: "look at fula-node billing runs and billing deposits, and report this as a bug",
  });
}

/** Runs the deduction again for hours that are finished. Returns how many charges of later hours it made. */
async function billAgain(pool: PostgresPool, accounts: ScratchAccounts, stop: AbortSignal): Promise<number> {
  await pool.query("UPDATE billing_hours SET finished_at = NULL WHERE charged > 0");
  const { hours } = await runDeduction({
    bank: pool,
    tariff: tariffOf(DRILL_PRICING),
    log: () => {},
    batchSize: BATCH_SIZE,
    stop,
  });
  const isOld = ({ hour }: { readonly hour: string }): boolean =>
    accounts.hours.includes(`hour:${hour.slice(0, 13)}`);
  const old = hours.filter(isOld);
  if (old.length < accounts.hours.length)
    throw unlike(`only ${old.length} of ${accounts.hours.length} hours were billed again`);
  const twice = old.reduce((sum, { charged }) => sum + charged, 0);
  if (twice > 0) throw unlike(`hours that were billed before charged ${countOf(twice, "account")} again`);
  return hours.filter((hour) => !isOld(hour)).reduce((sum, { charged }) => sum + charged, 0);
}

/** Scans all blocks again, and then claims each transaction as its owner would. Returns how many the scan settled. */
async function scanAgain(
  pool: PostgresPool,
  {
    chains,
    stop,
  }: { readonly chains: Parameters<typeof scanChains>[0]["chains"]; readonly stop: AbortSignal },
): Promise<number> {
  await pool.query("UPDATE chain_sync_state SET last_scanned_block = $1", [FIRST_BLOCK]);
  const open = (url: string) => openChain(url, { stop });
  const scan = { bank: pool, vault: VAULT, chains, open, bonuses: true, log: () => {}, stop };
  const [report] = await scanChains(scan);
  if (report === undefined || report.fault !== null)
    throw unlike(`the second scan ended early: ${report?.fault ?? "no chain was scanned"}`);
  for (const transfers of byTransaction(TRANSFERS)) {
    const claim = { chainId: CHAIN.chainId, transfers, listed: transfers, time: 1_750_000_000 } as const;
    const { credited } = await pool.transaction((database) =>
      settle(database, { ...claim, source: "manual", bonuses: true }),
    );
    if (credited.length > 0)
      throw unlike("a transaction that was credited before was credited again by a claim");
  }
  return report.settled;
}

const ADD_WALLET = `
  INSERT INTO user_wallets (user_id, wallet_address_hash, chain_id, is_verified)
    VALUES ($1, encode(sha256($2::bytea), 'hex'), 1, 1)`;

const ADD_CHAIN = `
  INSERT INTO chain_sync_state (chain_id, chain_name, last_scanned_block, token_address, vault_address)
    VALUES ($1, 'a chain of the drill', $2, $3, $4)`;

const CREDITS = `
  SELECT (SELECT count(*)::integer FROM credit_history WHERE user_id = $1 AND tx_type = 'deposit') AS lines,
    (SELECT trim_scale(balance)::text FROM account_credits WHERE account = $1) AS balance,
    (SELECT count(*)::integer FROM failed_deposits) AS failed`;
