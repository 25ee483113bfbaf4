import type { PostgresPool } from "../database/postgres.ts";
import type { BillingSettings } from "../settings/billing.ts";
import type { Chain } from "./chain-node.ts";
import { CREDITED_TO } from "./deposit-sql.ts";
import { noteFailed, settleOrRefuse } from "./deposits.ts";
import { type KnownChain, knownChains } from "./scan.ts";
import { ChainFault, isDeposit, leadsTo } from "./transfer.ts";

/** What somebody who paid says: only the chain is believed. */
export interface ClaimWish {
  readonly account: string;
  readonly chainId: number;
  /** In lower case. */
  readonly txHash: string;
}

/** What became of a claim. */
export type ClaimOutcome =
  | { readonly outcome: "credited"; readonly fula: string; readonly isNew: boolean }
  /** So many blocks have to follow first. */
  | { readonly outcome: "unconfirmed"; readonly missing: number }
  | {
      readonly outcome:
        | "unknown-chain"
        | "no-transaction"
        | "reverted"
        | "no-transfer"
        | "too-small"
        | "other-wallet"
        | "settled-elsewhere"
        | "not-credited";
    }
  | { readonly outcome: "no-chain"; readonly why: string };

/** What a claim needs. */
export interface ClaimDeps {
  readonly pool: Pick<PostgresPool, "query" | "transaction">;
  readonly billing: Pick<BillingSettings, "vault" | "chains" | "bonuses">;
  readonly open: (url: string) => Chain;
}

/**
 * Looks a transaction up on its chain, and settles it as the scan does: every wallet's account gets what that wallet has paid,
 * whoever claims. Of the claimer only the account is used, to say what it got.
 */
export async function claim(deps: ClaimDeps, wish: ClaimWish): Promise<ClaimOutcome> {
  const { pool, billing, open } = deps;
  const access = billing.chains.find(({ id }) => id === wish.chainId);
  if (access === undefined) return { outcome: "unknown-chain" };
  const known = (await knownChains(pool, billing.vault)).find(({ id }) => id === wish.chainId);
  if (known === undefined || known.vault.toLowerCase() !== billing.vault.toLowerCase())
    return { outcome: "unknown-chain" };
  const chain = open(access.url);
  try {
    return await settleClaim(deps, wish, { chain, known, confirmations: access.confirmations });
  } catch (thrown) {
    if (thrown instanceof ChainFault) return { outcome: "no-chain", why: thrown.message };
    throw thrown;
  } finally {
    chain.close();
  }
}

async function settleClaim(
  { pool, billing }: ClaimDeps,
  { account, chainId, txHash }: ClaimWish,
  {
    chain,
    known,
    confirmations,
  }: { readonly chain: Chain; readonly known: KnownChain; readonly confirmations: number },
): Promise<ClaimOutcome> {
  const { token, vault } = known;
  const { found, ...asked } = await chain.transaction({ token, vault }, txHash);
  // Another chain may have the same contracts: what it says is no answer.
  if (asked.chainId !== chainId) throw leadsTo(asked.chainId, chainId);
  if (found === null) return { outcome: "no-transaction" };
  if (!found.isDone) return { outcome: "reverted" };
  const [first] = found.transfers;
  if (first === undefined) return { outcome: "no-transfer" };
  const transfers = found.transfers.filter(isDeposit);
  if (transfers.length === 0) return { outcome: "too-small" };
  const at = await chain.look(found.block);
  if (at.chainId !== chainId) throw leadsTo(at.chainId, chainId);
  const missing = found.block + confirmations - Math.min(asked.head, at.head);
  if (missing > 0) return { outcome: "unconfirmed", missing };
  const [block = null] = await chain.blocks([found.block]);
  if (
    block === null ||
    found.transfers.some(({ blockHash }) => blockHash !== block.hash || blockHash !== at.hash)
  )
    throw new ChainFault(`its block ${found.block} is not the one of the transaction`);
  const deposit = {
    chainId,
    transfers,
    listed: transfers,
    time: block.time,
    source: "manual",
    bonuses: billing.bonuses,
  } as const;
  const { outcome, credited, failed } = await settleOrRefuse(pool, deposit);
  if (failed.length > 0)
    await pool.transaction((database) =>
      noteFailed(
        database,
        chainId,
        failed.map((one) => ({ ...one, time: block.time })),
      ),
    );
  const [has] = await pool.query<{ fula: string; transfers: number }>(CREDITED_TO, [
    chainId,
    txHash,
    account,
  ]);
  if (has !== undefined && has.transfers > 0)
    return { outcome: "credited", fula: has.fula, isNew: credited.includes(account) };
  if (outcome === "elsewhere") return { outcome: "settled-elsewhere" };
  return { outcome: outcome === "settled" ? "other-wallet" : "not-credited" };
}
