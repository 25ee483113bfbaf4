import type { PostgresPool } from "../database/postgres.ts";
import { ChainFault, type Transfer } from "./transfer.ts";
import type { Chain } from "./chain-node.ts";

type Database = Pick<PostgresPool, "query">;

/** A transfer that can't be credited as it is. */
export class DepositRefused extends Error {}

interface Recorded extends Record<string, unknown> {
  readonly logIndex: number;
  readonly from: string;
  readonly amount: string;
  readonly block: string;
  readonly blockHash: string;
  readonly credited: boolean;
}

/** A transfer that the operator has decided not to credit. */
export type Dismissed = Pick<Recorded, "logIndex" | "from" | "amount" | "blockHash">;

const RECORDED = `
  SELECT log_index AS "logIndex", from_address AS "from", amount::text AS amount, block_number::text AS block,
    block_hash AS "blockHash", account IS NOT NULL AS credited
  FROM deposits WHERE chain_id = $1 AND tx_hash = $2 ORDER BY log_index`;

/** Rows of blocks that are not $3, without a credit, of the senders $4. */
const FORGET_MOVED = `
  DELETE FROM deposits WHERE chain_id = $1 AND tx_hash = $2 AND block_hash <> $3 AND account IS NULL AND from_address = ANY ($4::text[])`;

/** $3 block, $4 its time. */
const MOVE_TRANSACTION =
  "UPDATE token_transactions SET block_number = $3, block_timestamp = $4 WHERE chain_id = $1 AND tx_hash = $2";

/**
 * Compares transfers with those that are recorded of the same transaction, whose row is locked, and returns which are to be
 * added. A log index alone can't tell two transfers apart: not every node numbers logs as the others do, and a reorganisation
 * numbers them anew. `listed`: all transfers of the transaction in one answer of a node; null if they are not known.
 *
 * - In one block, everything that is recorded, or dismissed, must be listed again, with the same number, sender and amount.
 * - In another block, whoever has a credit of this transaction gets no other one. What was never credited follows the chain.
 */
export async function compareRecorded(
  database: Database,
  [chainId, txHash]: readonly [number, string],
  {
    transfers,
    listed,
    dismissed,
    time,
  }: {
    readonly dismissed: readonly Dismissed[];
    readonly transfers: readonly Transfer[];
    readonly listed: readonly Transfer[] | null;
    readonly time: number;
  },
): Promise<readonly Transfer[]> {
  const [first] = transfers;
  if (first === undefined) return [];
  const { block, blockHash } = first;
  const recorded = await database.query<Recorded>(RECORDED, [chainId, txHash]);
  const here = [...recorded, ...dismissed].filter((one) => one.blockHash === blockHash);
  const isSame = (one: Dismissed, other: Transfer): boolean =>
    one.logIndex === other.logIndex && isAlike(one, other);
  const strange =
    listed === null
      ? here.some((one) => transfers.some((other) => isAlike(one, other) && one.logIndex !== other.logIndex))
      : !here.every((one) => listed.some((other) => isSame(one, other)));
  if (strange)
    throw new DepositRefused(
      `block ${block} has this transaction with other transfers, or other numbers of them, than were recorded before: nodes that differ, or one that lists a part`,
    );
  const senders = [...new Set(transfers.map(({ from }) => from))];
  const moved = recorded.filter((one) => one.blockHash !== blockHash && senders.includes(one.from));
  if (moved.length === 0) return transfers;
  const paid = moved.find(({ credited }) => credited);
  if (paid !== undefined)
    throw new DepositRefused(
      `the chain was reorganised: block ${paid.block} had this transaction, and it was settled; now block ${block} has it`,
    );
  await database.query(FORGET_MOVED, [chainId, txHash, blockHash, senders]);
  await database.query(MOVE_TRANSACTION, [chainId, txHash, block, time]);
  return listed === null ? transfers : listed.filter(({ from }) => senders.includes(from));
}

function isAlike(one: Pick<Transfer, "from" | "amount">, other: Pick<Transfer, "from" | "amount">): boolean {
  return one.from === other.from && one.amount === other.amount;
}

/** A transfer that was credited, and whose block the chain has not got any more. */
export interface GoneTransfer extends Transfer {
  readonly gone: true;
}

const CREDITED_IN = `
  SELECT tx_hash AS "txHash", log_index AS "logIndex", from_address AS "from", amount::text AS amount,
    block_number::float8 AS block, block_hash AS "blockHash"
  FROM deposits WHERE chain_id = $1 AND block_number BETWEEN $2 AND $3 AND account IS NOT NULL
    AND NOT tx_hash = ANY ($4::text[])`;

/**
 * The credited transfers in some blocks whose transaction the node does not list there, and whose block is not in the chain any
 * more. One of a block that is still there is only not listed.
 */
export async function findGone(
  database: Database,
  chain: Chain,
  {
    chainId,
    vault,
    blocks,
    listed,
  }: {
    readonly chainId: number;
    readonly vault: string;
    readonly blocks: { readonly from: number; readonly to: number };
    readonly listed: readonly Transfer[];
  },
): Promise<readonly GoneTransfer[]> {
  const missing = await database.query<Omit<Transfer, "to"> & Record<string, unknown>>(CREDITED_IN, [
    chainId,
    blocks.from,
    blocks.to,
    [...new Set(listed.map(({ txHash }) => txHash))],
  ]);
  if (missing.length === 0) return [];
  const numbers = [...new Set(missing.map(({ block }) => block))];
  const found = await chain.blocks(numbers);
  return missing.flatMap((transfer) => {
    const now = found[numbers.indexOf(transfer.block)] ?? null;
    if (now === null)
      throw new ChainFault(`it has not got block ${transfer.block}, which was scanned before`);
    return now.hash === transfer.blockHash ? [] : [{ ...transfer, to: vault.toLowerCase(), gone: true }];
  });
}
