import { isNoAmount } from "../database/connection-fault.ts";
import { refusalOf } from "./deduction.ts";
import { BONUS, CREDITED_AS, GIVEN_BONUSES, REFERRERS } from "./deposit-sql.ts";
import type { Bank } from "./lease.ts";

type Database = Pick<Bank, "query">;

/** Who gets a bonus for a deposit. */
export interface Referrer extends Record<string, unknown> {
  readonly account: string;
  readonly code: string;
  /** 1 has referred the account itself. */
  readonly level: number;
}

/** A deposit that was credited. */
export interface Source {
  /** The account that got it. */
  readonly account: string;
  readonly amount: string;
  /** credit_history.id of the credit. */
  readonly historyId: number | undefined;
}

/** Bonuses of a credited transfer that the balances of their referrers did not take, and why. */
export interface Unpaid {
  readonly referrers: readonly Referrer[];
  readonly reason: string;
}

/** Who gets a bonus for a deposit of an account. */
export async function referrersOf(database: Database, account: string): Promise<readonly Referrer[]> {
  return database.query<Referrer>(REFERRERS, [account]);
}

/**
 * Gives each referrer of a deposit its bonus. A balance that takes none keeps neither the one who paid nor the other referrers
 * from theirs: it is returned; null if each got its bonus. `up`: all referrers of the account; the caller has locked their rows.
 */
export async function giveBonuses(
  database: Database,
  { account, amount, historyId }: Source,
  up: readonly Referrer[],
  referrers: readonly Referrer[] = up,
): Promise<Unpaid | null> {
  const first = up.find(({ level }) => level === 1)?.code;
  const refused: { readonly referrer: Referrer; readonly why: string }[] = [];
  for (const referrer of referrers) {
    await database.query("SAVEPOINT bonus");
    try {
      const { account: to, code, level } = referrer;
      await database.query(BONUS, [to, code, level, historyId, account, amount, first]);
    } catch (thrown) {
      if (!isNoAmount(thrown)) throw thrown;
      await database.query("ROLLBACK TO SAVEPOINT bonus");
      refused.push({ referrer, why: refusalOf(thrown, referrer.account) });
    }
    await database.query("RELEASE SAVEPOINT bonus");
  }
  if (refused.length === 0) return null;
  return {
    referrers: refused.map(({ referrer }) => referrer),
    reason: `the payment is credited, and the bonus of who referred ${account} is not: ${refused.map(({ why }) => why).join("; ")}`,
  };
}

/** The bonuses of a credited transfer that its referrers still lack, tried again. The caller has locked their rows. */
export async function giveUnpaid(
  database: Database,
  key: readonly [chainId: number, txHash: string, logIndex: number],
  referrers: readonly Referrer[],
): Promise<Unpaid | null> {
  const [source] = await database.query<Source & Record<string, unknown>>(CREDITED_AS, key);
  if (source === undefined) return null;
  const given = await database.query<{ account: string }>(GIVEN_BONUSES, [source.historyId]);
  const lacking = referrers.filter((one) => !given.some(({ account }) => account === one.account));
  return giveBonuses(database, source, await referrersOf(database, source.account), lacking);
}
