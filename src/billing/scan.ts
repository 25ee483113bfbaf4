import type { Log } from "../errors.ts";
import type { ChainAccess } from "../settings/billing.ts";
import { countOf } from "../units.ts";
import type { BlockRange, Chain } from "./chain-node.ts";
import { KNOWN } from "./deposit-sql.ts";
import { type FailedTransfer, noteFailed, settleOrRefuse } from "./deposits.ts";
import type { Bank } from "./lease.ts";
import {
  CHAINS,
  FILL_VAULT,
  MOVE_CURSOR,
  NOTE_FAULT,
  NOTE_SCAN,
  OPEN_SCANS,
  SEED_CHAINS,
  STEP_BACK,
} from "./scan-sql.ts";
import { findGone } from "./same-transfers.ts";
import { byTransaction, ChainFault, isDeposit, leadsTo, otherVault, type Transfer } from "./transfer.ts";

/** What a scan needs. */
export interface Scan {
  readonly bank: Bank;
  /** VAULT_ADDRESS. */
  readonly vault: string;
  /** The chains that can be asked: those with an RPC URL. */
  readonly chains: readonly ChainAccess[];
  readonly open: (url: string) => Chain;
  /** REFERRAL_BONUSES_ENABLED. */
  readonly bonuses: boolean;
  readonly log: Log;
  /** Ends the scan between two transactions. */
  readonly stop?: AbortSignal;
}

/** How a scan of one chain ended. */
export interface ScanReport {
  readonly chain: string;
  /** Transactions that were settled now. */
  readonly settled: number;
  readonly failed: number;
  /** The last block that was looked at; null: none. */
  readonly block: number | null;
  /** Why it ended early; null if it did not. */
  readonly fault: string | null;
}

/** Blocks asked for at once. A node that refuses gets fewer. */
const BLOCKS = 10_000;
/**
 * Blocks before the cursor that each scan looks at again, for a node that listed its logs late or in part: half an hour of Base,
 * hours of the others.
 */
const AGAIN = 1_000;
/** So many more after a reorganisation that was deeper than the confirmations. */
const AGAIN_REORGANISED = 10_000;

/** A chain as chain_sync_state and chain_scans have it. */
export interface KnownChain extends Record<string, unknown> {
  readonly id: number;
  readonly name: string;
  readonly token: string;
  readonly vault: string;
  readonly cursor: number;
  readonly first: number;
  /** The hash of the block at the cursor; null if it is not known. */
  readonly hash: string | null;
}

/**
 * Looks for deposits on every enabled chain that has an RPC URL, up to the newest block with enough confirmations. A chain
 * whose node fails stops no other one. Throws an error of the database: nothing is skipped, and the next scan goes on.
 */
export async function scanChains(scan: Scan): Promise<readonly ScanReport[]> {
  const { bank, vault, chains, stop } = scan;
  const reports: ScanReport[] = [];
  for (const known of await knownChains(bank, vault)) {
    const access = chains.find(({ id }) => id === known.id);
    if (access === undefined || stop?.aborted === true) continue;
    reports.push(await scanChain(scan, known, access));
  }
  return reports;
}

/** The enabled chains, with upstream's ones for a database that has none. */
export async function knownChains(
  bank: Pick<Bank, "transaction">,
  vault: string,
): Promise<readonly KnownChain[]> {
  return bank.transaction(async (database) => {
    await database.query(SEED_CHAINS, [vault]);
    await database.query(FILL_VAULT, [vault]);
    await database.query(OPEN_SCANS);
    return database.query<KnownChain>(CHAINS);
  });
}

async function scanChain(scan: Scan, known: KnownChain, access: ChainAccess): Promise<ScanReport> {
  const { bank, open, log, stop } = scan;
  const sum: Sum = { settled: 0, failed: 0, block: null };
  const chain = open(access.url);
  try {
    const head = await walk(scan, { known, access, chain, sum });
    await bank.transaction((database) => database.query(NOTE_SCAN, [known.id, head]));
    return { chain: known.name, ...sum, fault: null };
  } catch (thrown) {
    if (!(thrown instanceof ChainFault)) throw thrown;
    // The node has done nothing wrong.
    if (stop?.aborted === true) return { chain: known.name, ...sum, fault: "it was stopped" };
    await bank.transaction((database) =>
      database.query(NOTE_FAULT, [known.id, thrown.message, thrown.lasts]),
    );
    log(`scanner: ${known.name}: the scan ended early and is tried again: ${thrown.message}`);
    return { chain: known.name, ...sum, fault: thrown.message };
  } finally {
    chain.close();
  }
}

interface Sum {
  settled: number;
  failed: number;
  block: number | null;
}

interface Walk {
  readonly known: KnownChain;
  readonly access: ChainAccess;
  readonly chain: Chain;
  readonly sum: Sum;
}

/** Scans up to the newest block with enough confirmations. Returns the head. */
async function walk(scan: Scan, { known, access, chain, sum }: Walk): Promise<number> {
  const { bank, vault, log, stop } = scan;
  const { id, cursor } = known;
  if (known.vault.toLowerCase() !== vault.toLowerCase()) throw otherVault(known.vault, vault);
  const { chainId, head, hash } = await chain.look(cursor);
  if (chainId !== id) throw leadsTo(chainId, id);
  const target = head - access.confirmations;
  if (head < cursor) throw new ChainFault(`it is at block ${head}, and block ${cursor} was scanned before`);
  if (target < cursor) return head;
  // A node that has not got the block of the cursor is behind.
  if (hash === null)
    throw new ChainFault(`it says that it is at block ${head}, and has not got block ${cursor}`);
  const isReorganised = known.hash !== null && known.hash !== hash;
  if (isReorganised)
    log(`scanner: ${known.name}: block ${cursor} is another one now; the blocks before it are scanned again`);
  const back = isReorganised ? AGAIN_REORGANISED : AGAIN;
  // Until these blocks are scanned again, the cursor is before them, also if this run is killed.
  if (isReorganised) await bank.transaction((database) => database.query(STEP_BACK, [id, back]));
  let from = Math.max(known.first, cursor - back) + 1;
  let size = BLOCKS;
  while (from <= target) {
    if (stop?.aborted === true) break;
    const blocks = { from, to: Math.min(from + size - 1, target) };
    try {
      await scanBlocks(scan, { known, chain, blocks, sum });
      from = blocks.to + 1;
    } catch (thrown) {
      if (!(thrown instanceof ChainFault && thrown.isTooMuch && blocks.to > blocks.from)) throw thrown;
      size = Math.ceil((blocks.to - blocks.from + 1) / 2);
    }
  }
  return head;
}

/** Settles the deposits of some blocks, and then moves the cursor. */
async function scanBlocks(
  { bank, bonuses, log, stop }: Scan,
  {
    known,
    chain,
    blocks,
    sum,
  }: { readonly known: KnownChain; readonly chain: Chain; readonly blocks: BlockRange; readonly sum: Sum },
): Promise<void> {
  const { id, token, vault, name } = known;
  const { transfers, hash } = await chain.transfers({ token, vault }, blocks);
  if (hash === null) throw new ChainFault(`it has not got block ${blocks.to} yet: it is behind`);
  const deposits = transfers.filter(isDeposit);
  const fresh = await unknownOf(bank, id, deposits);
  const times = await timesOf(chain, fresh);
  const failed: (FailedTransfer & { readonly time: number })[] = [];
  for (const listed of byTransaction(deposits)) {
    const list = listed.filter((one) => fresh.has(one));
    if (list.length === 0) continue;
    if (listed.some(({ blockHash }) => blockHash !== list[0]?.blockHash))
      throw new ChainFault(`it lists a transaction in two blocks: ${list[0]?.txHash}`);
    if (stop?.aborted === true) return;
    const time = times.get(list[0]?.block ?? 0) ?? 0;
    const settled = await settleOrRefuse(bank, {
      chainId: id,
      transfers: list,
      listed,
      time,
      source: "cron",
      bonuses,
    });
    if (settled.outcome === "settled") sum.settled += 1;
    failed.push(...settled.failed.map((one) => ({ ...one, time })));
  }
  if (blocks.from <= known.cursor)
    for (const transfer of await findGone(bank, chain, { chainId: id, vault, blocks, listed: transfers }))
      failed.push({
        transfer,
        reason: `it was credited, and block ${transfer.block}, which had it, is not in the chain any more`,
        time: 0,
      });
  // What failed is in the list from the same moment on in which the cursor is behind it.
  await bank.transaction(async (database) => {
    await noteFailed(database, id, failed);
    await database.query(MOVE_CURSOR, [id, blocks.to, hash]);
  });
  for (const { transfer, reason } of failed)
    log(
      `scanner: ${name}: a transfer of ${transfer.txHash} can't be credited: ${reason}. See fula-node billing deposits`,
      "warn",
    );
  sum.failed += failed.length;
  sum.block = blocks.to;
}

/** Those that have no row yet: most blocks are looked at several times. */
async function unknownOf(
  bank: Pick<Bank, "query">,
  chainId: number,
  transfers: readonly Transfer[],
): Promise<ReadonlySet<Transfer>> {
  if (transfers.length === 0) return new Set();
  const rows = await bank.query<{ tx_hash: string; log_index: number }>(KNOWN, [
    chainId,
    transfers.map(({ txHash }) => txHash),
    transfers.map(({ logIndex }) => logIndex),
    transfers.map(({ blockHash }) => blockHash),
  ]);
  const known = new Set(rows.map(({ tx_hash, log_index }) => `${tx_hash} ${log_index}`));
  return new Set(transfers.filter(({ txHash, logIndex }) => !known.has(`${txHash} ${logIndex}`)));
}

/** The times of the transfers' blocks. Throws if a block is not the one that the log names: the chain changes just now. */
async function timesOf(chain: Chain, fresh: ReadonlySet<Transfer>): Promise<ReadonlyMap<number, number>> {
  const transfers = [...fresh];
  const hashes = new Map(transfers.map(({ block, blockHash }) => [block, blockHash]));
  const numbers = [...hashes.keys()];
  const blocks = await chain.blocks(numbers);
  const times = new Map<number, number>();
  for (const [n, number] of numbers.entries()) {
    const block = blocks[n] ?? null;
    if (block === null) throw new ChainFault(`it has not got block ${number}, whose logs it lists`);
    times.set(number, block.time);
  }
  const wrong = transfers.find(({ block, blockHash }) => blocks[numbers.indexOf(block)]?.hash !== blockHash);
  if (wrong !== undefined)
    throw new ChainFault(`its logs are of another block ${wrong.block} than its block`);
  return times;
}

/** One line for the log about a scan that found something; null if there is nothing to say. */
export function describeScan({ chain, settled, failed, block }: ScanReport): string | null {
  if (settled + failed === 0) return null;
  return `scanner: ${chain}: up to block ${block}: ${countOf(settled, "transaction")} settled, ${failed} failed`;
}
