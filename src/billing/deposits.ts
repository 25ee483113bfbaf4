import { messageOf } from "../errors.ts";
import { isOfData } from "./deduction.ts";
import { ADD_MISSING, lockSql } from "./deduction-sql.ts";
import {
  ADD_TRANSFERS,
  BONUS,
  CREDIT,
  CREDITABLE,
  DISMISS,
  FAILED_ROWS,
  FORGET_FAILED,
  LOCK_TRANSACTION,
  NOTE_FAILED,
  OPEN_TRANSACTION,
  REFERRERS,
  SUM_UP,
} from "./deposit-sql.ts";
import type { Bank } from "./lease.ts";
import { compareRecorded, DepositRefused } from "./same-transfers.ts";
import type { Transfer } from "./transfer.ts";

type Database = Pick<Bank, "query">;

/** One transaction of a chain with its transfers to the vault. */
export interface Deposit {
  readonly chainId: number;
  /** All of one transaction, and each large enough to count (isDeposit). At least one. */
  readonly transfers: readonly Transfer[];
  /** All transfers of the transaction that count, in the answer which has these; without it, that is not known. */
  readonly listed?: readonly Transfer[];
  /** Of the block: seconds since 1970. */
  readonly time: number;
  readonly source: "cron" | "manual";
  /** REFERRAL_BONUSES_ENABLED. */
  readonly bonuses: boolean;
}

/** `elsewhere`: upstream's image settled the transaction. */
export type SettleOutcome = "settled" | "elsewhere";

/** What became of a transaction. */
export interface Settled {
  readonly outcome: SettleOutcome;
  /** Who got a credit by this. */
  readonly credited: readonly string[];
}

/**
 * Settles a transaction inside of a database transaction: rows, credit, bonuses and claim, all or nothing. Doing it again, or
 * on several masters at once, credits nothing twice. A transfer from a wallet that nobody has linked is recorded without
 * a credit; once the wallet is linked, a claim credits it.
 */
export async function settle(database: Database, deposit: Deposit): Promise<Settled> {
  const { chainId, time, source, bonuses } = deposit;
  const [first] = deposit.transfers;
  if (first === undefined) return { outcome: "settled", credited: [] };
  const { txHash, block, blockHash } = first;
  const key = [chainId, txHash] as const;
  const [opened] = await database.query(OPEN_TRANSACTION, [
    ...key,
    first.from,
    first.to,
    first.amount,
    block,
    time,
    source,
  ]);
  if (opened === undefined) {
    const [found] = await database.query<{ ours: boolean }>(LOCK_TRANSACTION, key);
    if (found?.ours !== true) {
      await database.query(FORGET_FAILED, [...key, deposit.transfers.map(({ logIndex }) => logIndex)]);
      return { outcome: "elsewhere", credited: [] };
    }
  }
  const transfers = await compareRecorded(database, key, { ...deposit, listed: deposit.listed ?? null });
  await database.query(ADD_TRANSFERS, [
    ...key,
    transfers.map(({ logIndex }) => logIndex),
    transfers.map(({ from }) => from),
    transfers.map(({ amount }) => amount),
    block,
    blockHash,
  ]);
  const credited = await credit(database, key, bonuses);
  await database.query(SUM_UP, key);
  await database.query(FORGET_FAILED, [...key, transfers.map(({ logIndex }) => logIndex)]);
  return { outcome: "settled", credited };
}

interface Creditable extends Record<string, unknown> {
  readonly log_index: number;
  readonly amount: string;
  readonly account: string;
}

interface Referrer extends Record<string, unknown> {
  readonly account: string;
  readonly code: string;
  readonly level: number;
}

async function credit(
  database: Database,
  key: readonly unknown[],
  bonuses: boolean,
): Promise<readonly string[]> {
  const open = await database.query<Creditable>(CREDITABLE, key);
  const referrers = new Map<string, readonly Referrer[]>();
  for (const { account } of open)
    referrers.set(account, bonuses ? await database.query<Referrer>(REFERRERS, [account]) : []);
  const touched = [
    ...new Set([...referrers].flatMap(([account, up]) => [account, ...up.map((one) => one.account)])),
  ];
  // All rows in one order, as the deduction locks them: nobody waits for somebody who waits for this.
  await database.query(ADD_MISSING, [touched]);
  await database.query(lockSql(true), [touched]);
  for (const { log_index, amount, account } of open) {
    const [credited] = await database.query<{ history_id: number }>(CREDIT, [
      ...key,
      log_index,
      account,
      amount,
    ]);
    const up = referrers.get(account) ?? [];
    for (const { account: referrer, code, level } of up)
      await database.query(BONUS, [
        referrer,
        code,
        level,
        credited?.history_id,
        account,
        amount,
        up[0]?.code,
      ]);
  }
  return [...referrers.keys()];
}

/** A transfer that could not be credited, and why. */
export interface FailedTransfer {
  readonly transfer: Transfer;
  readonly reason: string;
}

/**
 * Settles a transaction. If the database refuses it for what it has or what the account has, each of its transfers is tried by
 * itself; those that fail are returned. Every other error is thrown: it says nothing about the transfer.
 */
export async function settleOrRefuse(
  bank: Pick<Bank, "transaction">,
  deposit: Deposit,
): Promise<SettledOrFailed> {
  const { transfers } = deposit;
  try {
    return { ...(await bank.transaction((database) => settle(database, deposit))), failed: [] };
  } catch (thrown) {
    if (!isOfDeposit(thrown)) throw thrown;
    const [transfer] = transfers;
    if (transfer !== undefined && transfers.length === 1)
      return { outcome: "failed", credited: [], failed: [{ transfer, reason: messageOf(thrown) }] };
  }
  const parts: SettledOrFailed[] = [];
  for (const transfer of transfers)
    parts.push(await settleOrRefuse(bank, { ...deposit, transfers: [transfer] }));
  const failed = parts.flatMap((part) => part.failed);
  return {
    outcome: failed.length < transfers.length ? "settled" : "failed",
    credited: parts.flatMap((part) => part.credited),
    failed,
  };
}

interface SettledOrFailed extends Pick<Settled, "credited"> {
  readonly outcome: SettleOutcome | "failed";
  readonly failed: readonly FailedTransfer[];
}

/** Errors that a transfer, or what an account has, can cause, and what we refuse ourselves. */
function isOfDeposit(thrown: unknown): boolean {
  return thrown instanceof DepositRefused || isOfData(thrown);
}

/** Puts transfers that failed into the list that status shows and the operator has tried again. `time` is the block's. */
export async function noteFailed(
  database: Database,
  chainId: number,
  failed: readonly (FailedTransfer & { readonly time: number })[],
): Promise<void> {
  for (const { transfer, reason, time } of failed)
    await database.query(NOTE_FAILED, [
      chainId,
      transfer.txHash,
      transfer.logIndex,
      JSON.stringify({ ...transfer, time }),
      reason,
    ]);
}

/** Takes a transfer off the list, without a credit. False if it does not stand there. */
export async function dismissFailed(
  database: Database,
  {
    chainId,
    txHash,
    logIndex,
  }: { readonly chainId: number; readonly txHash: string; readonly logIndex: number },
  actor: string,
): Promise<boolean> {
  const rows = await database.query(DISMISS, [chainId, txHash, logIndex, actor]);
  return rows.length > 0;
}

interface FailedRow extends Record<string, unknown> {
  readonly chain_id: number;
  readonly transfer: Transfer & { readonly time: number; readonly gone?: boolean };
  readonly reason: string;
}

/** Tries the transfers of the list again, the oldest first. Returns how many were settled, and how many failed again. */
export async function retryFailed(
  bank: Bank,
  bonuses: boolean,
): Promise<{ readonly settled: number; readonly failed: number }> {
  const rows = await bank.query<FailedRow>(FAILED_ROWS);
  let failures = 0;
  for (const { chain_id: chainId, transfer, reason } of rows) {
    const { time } = transfer;
    const deposit = { chainId, transfers: [transfer], time, source: "cron", bonuses } as const;
    // Only the chain can bring back a block that is gone.
    const { failed } =
      transfer.gone === true ? { failed: [{ transfer, reason }] } : await settleOrRefuse(bank, deposit);
    failures += failed.length;
    if (failed.length > 0)
      await bank.transaction((database) =>
        noteFailed(
          database,
          chainId,
          failed.map((one) => ({ ...one, time })),
        ),
      );
  }
  return { settled: rows.length - failures, failed: failures };
}
