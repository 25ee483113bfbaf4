import * as z from "zod";

/** A transfer of FULA to the vault, as a chain's node lists it. Hashes and addresses are in lower case. */
export interface Transfer {
  readonly txHash: string;
  /** Its place among the logs of its block. */
  readonly logIndex: number;
  readonly from: string;
  readonly to: string;
  /** In units of 10^-18 FULA; a decimal number. */
  readonly amount: string;
  readonly block: number;
  readonly blockHash: string;
}

/** Which transfers count. Addresses are in lower case. */
export interface Vault {
  /** The contract of FULA on this chain. */
  readonly token: string;
  readonly vault: string;
}

/** Transfer(address indexed from, address indexed to, uint256 value) of ERC-20. */
export const TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/** 0.001 FULA: a smaller transfer is not a deposit (blockScanner.ts of functionland/pinning-service). */
const SMALLEST = 1_000_000_000_000_000n;

/** An address as an indexed argument. */
export function topicOf(address: string): string {
  return `0x${"0".repeat(24)}${address.slice(2).toLowerCase()}`;
}

/** Whether a transfer is large enough to count, by itself. */
export function isDeposit({ amount }: Pick<Transfer, "amount">): boolean {
  return BigInt(amount) >= SMALLEST;
}

const hash = z
  .string()
  .regex(/^0x[0-9a-fA-F]{64}$/)
  .transform((text) => text.toLowerCase());
const address = z
  .string()
  .regex(/^0x[0-9a-fA-F]{40}$/)
  .transform((text) => text.toLowerCase());

/** A whole number as JSON-RPC writes it. */
export const QUANTITY = z
  .string()
  .regex(/^0x(?:0|[1-9a-fA-F][0-9a-fA-F]{0,12})$/)
  .transform(Number);

const LOG = z.object({
  address,
  topics: z.array(hash),
  data: z.string().regex(/^0x(?:[0-9a-fA-F]{2})*$/),
  transactionHash: hash,
  logIndex: QUANTITY.refine((index) => index <= 2_147_483_647),
  blockNumber: QUANTITY,
  blockHash: hash,
  removed: z.literal(false).optional(),
});

/** Enough to see whether a log is of a transfer to the vault, malformed or not. */
const ANY_LOG = z.object({ address: z.string(), topics: z.array(z.string()) });

/**
 * The transfers among logs that a node answered for a filter. Null if the answer is not what was asked for: a log that is
 * malformed, of other blocks, of another contract, or of another receiver. Then none of it is used.
 */
export function readTransfers(
  answer: unknown,
  { token, vault }: Vault,
  blocks: { readonly from: number; readonly to: number },
): readonly Transfer[] | null {
  const logs = z.array(LOG).safeParse(answer).data;
  if (logs === undefined) return null;
  const transfers: Transfer[] = [];
  for (const log of logs) {
    const [topic, from = "", to] = log.topics;
    const isAsked =
      log.address === token.toLowerCase() &&
      log.topics.length === 3 &&
      topic === TRANSFER_TOPIC &&
      to === topicOf(vault) &&
      from.startsWith(`0x${"0".repeat(24)}`) &&
      log.data.length === 66 &&
      log.blockNumber >= blocks.from &&
      log.blockNumber <= blocks.to;
    if (!isAsked) return null;
    transfers.push({
      txHash: log.transactionHash,
      logIndex: log.logIndex,
      from: `0x${from.slice(26)}`,
      to: vault.toLowerCase(),
      amount: BigInt(log.data).toString(),
      block: log.blockNumber,
      blockHash: log.blockHash,
    });
  }
  return transfers;
}

/** The transfers to the vault among all logs of one transaction; null if they are malformed. */
export function transfersOf(
  logs: readonly unknown[],
  vault: Vault,
  block: number,
): readonly Transfer[] | null {
  const asked = logs.filter((log) => {
    const seen = ANY_LOG.safeParse(log).data;
    return (
      seen?.address.toLowerCase() === vault.token.toLowerCase() &&
      seen.topics[0]?.toLowerCase() === TRANSFER_TOPIC &&
      seen.topics[2]?.toLowerCase() === topicOf(vault.vault)
    );
  });
  return readTransfers(asked, vault, { from: block, to: block });
}

/** One list for each transaction, in the order of blocks and of their logs. A log that is listed twice counts once. */
export function byTransaction(transfers: readonly Transfer[]): readonly (readonly Transfer[])[] {
  const sorted = transfers.toSorted((one, other) => one.block - other.block || one.logIndex - other.logIndex);
  const lists = new Map<string, Map<number, Transfer>>();
  for (const transfer of sorted) {
    const list = lists.get(transfer.txHash) ?? new Map<number, Transfer>();
    lists.set(transfer.txHash, list.set(transfer.logIndex, transfer));
  }
  return [...lists.values()].map((list) => [...list.values()]);
}

/** A chain's node gave no usable answer. The message is for operators, and never has the node's address: that may have a key. */
export class ChainFault extends Error {
  /** True if a question about fewer blocks may be answered. */
  readonly isTooMuch: boolean;
  /** True if it is a mistake in the settings: it does not end by itself. */
  readonly lasts: boolean;

  constructor(
    message: string,
    {
      isTooMuch = false,
      lasts = false,
      cause,
    }: { isTooMuch?: boolean; lasts?: boolean; cause?: unknown } = {},
  ) {
    super(message, { cause });
    this.lasts = lasts;
    this.name = "ChainFault";
    this.isTooMuch = isTooMuch;
  }
}

/** The node is one of another chain. */
export function leadsTo(found: number, expected: number): ChainFault {
  return new ChainFault(`the RPC URL leads to the chain ${found}, not to ${expected}`, { lasts: true });
}

const OF_VAULT = "the vault in chain_sync_state is ";

/** chain_sync_state has another vault than the settings. */
export function otherVault(known: string, setting: string): ChainFault {
  return new ChainFault(`${OF_VAULT}${known}, and VAULT_ADDRESS is ${setting}: one of them is wrong`, {
    lasts: true,
  });
}

/** True for a fault that no other node ends. */
export function isOfVault(fault: string): boolean {
  return fault.startsWith(OF_VAULT);
}
