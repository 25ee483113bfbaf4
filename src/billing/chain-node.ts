import * as z from "zod";
import type { JsonRpc, Question } from "./json-rpc.ts";
import {
  ChainFault,
  QUANTITY,
  readTransfers,
  topicOf,
  type Transfer,
  TRANSFER_TOPIC,
  transfersOf,
  type Vault,
} from "./transfer.ts";

/** A blockchain, as one node of it answers. Every function throws a ChainFault if the node gives no usable answer. */
export interface Chain {
  /** The chain's id, its newest block, and the hash of one block, as one node has them; null if it has not got that block. */
  look(
    block: number,
  ): Promise<{ readonly chainId: number; readonly head: number; readonly hash: string | null }>;
  /**
   * The transfers to the vault in some blocks, and the hash of the last of these, from one node: one that is behind lists
   * nothing for blocks that it has not got, without an error, and then has no hash either.
   */
  transfers(
    vault: Vault,
    blocks: BlockRange,
  ): Promise<{ readonly transfers: readonly Transfer[]; readonly hash: string | null }>;
  /** Hash and time (in seconds) of blocks, in the order of the numbers; null for one that the node has not got. */
  blocks(numbers: readonly number[]): Promise<readonly (ChainBlock | null)[]>;
  /** One transaction, and which chain was asked, as one node has them. */
  transaction(vault: Vault, txHash: string): Promise<LookedUp>;
  close(): void;
}

/** Both ends included. */
export interface BlockRange {
  readonly from: number;
  readonly to: number;
}

/** A block. */
export interface ChainBlock {
  readonly hash: string;
  /** Seconds since 1970. */
  readonly time: number;
}

/** A transaction that was looked up. */
export interface LookedUp {
  readonly chainId: number;
  readonly head: number;
  /** Null if no block has it. */
  readonly found: ChainTransaction | null;
}

/** A transaction that a block has, and its transfers to the vault. */
interface ChainTransaction {
  readonly transfers: readonly Transfer[];
  readonly isDone: boolean;
  readonly block: number;
}

/** How many questions go in one request. Public nodes accept 10. */
const BATCH = 10;

/**
 * A chain behind a JSON-RPC endpoint. Questions that belong together go in one request, so that one node answers them, also if
 * several share the address.
 */
export function openChain(
  url: string,
  {
    answerMs = 30_000,
    stop,
    proxy = null,
  }: { readonly answerMs?: number; readonly stop?: AbortSignal; readonly proxy?: string | null } = {},
): Chain {
  let opened: Promise<JsonRpc> | null = null;
  return chainOf(
    async (questions) => {
      // Its package is loaded with the first question.
      opened ??= import("./json-rpc.ts").then(({ openJsonRpc }) =>
        openJsonRpc(url, { answerMs, batch: BATCH, stop, proxy }),
      );
      return (await opened).ask(questions);
    },
    () =>
      void opened?.then(
        (rpc) => rpc.close(),
        // Whoever asked got the error.
        () => {},
      ),
  );
}

const BLOCK = z.object({
  hash: z.string().regex(/^0x[0-9a-fA-F]{64}$/),
  number: QUANTITY,
  timestamp: QUANTITY,
});
const RECEIPT = z.object({
  status: QUANTITY,
  blockNumber: QUANTITY,
  blockHash: z.string(),
  logs: z.array(z.unknown()),
});

function chainOf(
  ask: (questions: readonly Question[]) => Promise<readonly unknown[]>,
  close: () => void,
): Chain {
  const hex = (block: number): string => `0x${block.toString(16)}`;
  const blockQuestion = (block: number): Question => ({
    method: "eth_getBlockByNumber",
    params: [hex(block), false],
  });
  const readBlock = (answer: unknown, asked: number): ChainBlock | null => {
    if (answer === null) return null;
    const { hash, number, timestamp } = read(BLOCK, answer, "a block");
    if (number !== asked) throw new ChainFault(`it was asked for block ${asked}, and answers with ${number}`);
    return { hash: hash.toLowerCase(), time: timestamp };
  };
  return {
    async look(block) {
      const [id, head, at] = await ask([
        { method: "eth_chainId", params: [] },
        { method: "eth_blockNumber", params: [] },
        blockQuestion(block),
      ]);
      return {
        chainId: read(QUANTITY, id, "the chain's id"),
        head: read(QUANTITY, head, "a block number"),
        hash: readBlock(at, block)?.hash ?? null,
      };
    },
    async transfers(vault, blocks) {
      const filter = {
        address: vault.token,
        topics: [TRANSFER_TOPIC, null, topicOf(vault.vault)],
        fromBlock: hex(blocks.from),
        toBlock: hex(blocks.to),
      };
      const [logs, at] = await ask([{ method: "eth_getLogs", params: [filter] }, blockQuestion(blocks.to)]);
      const transfers = readTransfers(logs, vault, blocks);
      if (transfers === null)
        throw new ChainFault("it lists logs that nobody asked for, or that are malformed");
      return { transfers, hash: readBlock(at, blocks.to)?.hash ?? null };
    },
    async blocks(numbers) {
      const found: (ChainBlock | null)[] = [];
      for (let at = 0; at < numbers.length; at += BATCH) {
        const part = numbers.slice(at, at + BATCH);
        const answers = await ask(part.map(blockQuestion));
        found.push(...part.map((number, n) => readBlock(answers[n], number)));
      }
      return found;
    },
    async transaction(vault, txHash) {
      const [answer, height, id] = await ask([
        { method: "eth_getTransactionReceipt", params: [txHash] },
        { method: "eth_blockNumber", params: [] },
        { method: "eth_chainId", params: [] },
      ]);
      const head = read(QUANTITY, height, "a block number");
      const chainId = read(QUANTITY, id, "the chain's id");
      if (answer === null) return { chainId, head, found: null };
      const { status, blockNumber, logs } = read(RECEIPT, answer, "a receipt");
      const transfers = transfersOf(logs, vault, blockNumber);
      if (transfers === null || transfers.some((one) => one.txHash !== txHash))
        throw new ChainFault("it answers with logs of another transaction, or that are malformed");
      return { chainId, head, found: { transfers, isDone: status === 1, block: blockNumber } };
    },
    close,
  };
}

function read<Shape extends z.ZodType>(shape: Shape, answer: unknown, what: string): z.output<Shape> {
  const found = shape.safeParse(answer);
  if (!found.success) throw new ChainFault(`it answers with something that is not ${what}`);
  return found.data;
}
