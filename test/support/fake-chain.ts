import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { once } from "node:events";
import { onTestFinished } from "vitest";
import { TRANSFER_TOPIC, topicOf } from "../../src/billing/transfer.ts";

export const TOKEN = `0x${"70".repeat(20)}`;
export const VAULT = `0x${"1a".repeat(20)}`;

/** A transfer to the vault, as a test makes it. */
export interface MadeTransfer {
  readonly block: number;
  readonly from: string;
  /** In units of 10^-18. */
  readonly units: bigint;
  /** Names the transaction. Default: one of its own. */
  readonly tx?: string;
  readonly logIndex?: number;
}

/** How one node behind the address differs from an honest one. */
export interface NodeFault {
  /** So many blocks behind. It says so about its head, and lists nothing for later blocks, without an error. */
  readonly behind?: number;
  /** What it says its head is. */
  readonly head?: number;
  readonly chainId?: number;
  /** It refuses questions about more blocks. */
  readonly maxBlocks?: number;
  /** It refuses every question about logs with these words. */
  readonly refusal?: string;
  /** It has no logs before this block, and refuses questions about them. */
  readonly prunedBefore?: number;
  /** It leaves out every second log. */
  readonly half?: boolean;
  /** It answers this in place of everything. */
  readonly answer?: { readonly status: number; readonly type: string; readonly body: string | Buffer };
  /** It closes the connection without an answer. */
  readonly silent?: boolean;
  /** It takes no lists of questions: it refuses them, or answers the first one only. */
  readonly single?: "refuses" | "first";
  /** It never answers. */
  readonly hangs?: boolean;
  /** Changes each log before it is listed. */
  readonly forge?: (log: Record<string, unknown>) => Record<string, unknown>;
}

/** A chain with several nodes behind one address, which answer in turn. */
export interface FakeChain {
  readonly url: string;
  readonly made: readonly MadeTransfer[];
  head: number;
  /** The nodes. A request is answered by the next one. */
  nodes: NodeFault[];
  /** The methods of each request so far. */
  readonly asked: string[];
  pay(transfer: MadeTransfer): string;
  /** From this block on, all blocks have other hashes; transfers there are gone. */
  reorganise(from: number): void;
}

/** A hash from words. */
export function hashOf(...words: readonly unknown[]): string {
  return `0x${createHash("sha256").update(words.join(" ")).digest("hex")}`;
}

/** Starts it. It ends with the test. */
export async function startFakeChain({ chainId = 8_453, head = 1_000 } = {}): Promise<FakeChain> {
  let made: MadeTransfer[] = [];
  let forks: readonly number[] = [];
  let turn = 0;
  const blockHash = (block: number): string =>
    hashOf("block", block, ...forks.filter((from) => from <= block));
  const nameOf = (transfer: MadeTransfer): string =>
    transfer.tx ?? `${transfer.block} ${made.indexOf(transfer)}`;
  const logOf = (transfer: MadeTransfer): Record<string, unknown> => ({
    address: TOKEN,
    topics: [TRANSFER_TOPIC, topicOf(transfer.from), topicOf(VAULT)],
    data: `0x${transfer.units.toString(16).padStart(64, "0")}`,
    transactionHash: hashOf("tx", nameOf(transfer)),
    logIndex: hex(transfer.logIndex ?? made.indexOf(transfer)),
    blockNumber: hex(transfer.block),
    blockHash: blockHash(transfer.block),
    removed: false,
  });

  function answer(node: NodeFault, method: string, params: readonly unknown[]): unknown {
    const own = chain.head - (node.behind ?? 0);
    const blockOf = (number: number) =>
      number > (node.head ?? own)
        ? null
        : { number: hex(number), hash: blockHash(number), timestamp: hex(1_700_000_000 + number * 2) };
    const list = (logs: readonly MadeTransfer[]) =>
      logs
        .filter(({ block }, n) => block <= own && (node.half !== true || n % 2 === 0))
        .map((one) => (node.forge ?? ((log) => log))(logOf(one)));
    if (method === "eth_chainId") return hex(node.chainId ?? chainId);
    if (method === "eth_blockNumber") return hex(node.head ?? own);
    if (method === "eth_getBlockByNumber") {
      const number = Number(params[0]);
      return number > own ? null : blockOf(number);
    }
    if (method === "eth_getTransactionReceipt") {
      const logs = made.filter((one) => hashOf("tx", nameOf(one)) === params[0] && one.block <= own);
      const [first] = logs;
      if (first === undefined) return null;
      return {
        status: "0x1",
        blockNumber: hex(first.block),
        blockHash: blockHash(first.block),
        logs: [...list(logs), { ...logOf(first), address: `0x${"99".repeat(20)}` }],
      };
    }
    const { fromBlock, toBlock, address, topics } = params[0] as Record<string, never>;
    const [from, to] = [Number(fromBlock), Number(toBlock)];
    if (address !== TOKEN || String(topics) !== String([TRANSFER_TOPIC, null, topicOf(VAULT)]))
      throw new Error("another filter");
    if (node.refusal !== undefined) throw new RpcError(-32_005, node.refusal);
    if (to - from + 1 > (node.maxBlocks ?? Infinity))
      throw new RpcError(-32_005, "query exceeds max block range");
    if (from < (node.prunedBefore ?? 0))
      throw new RpcError(-32_000, "history has been pruned for this block");
    return list(made.filter(({ block }) => block >= from && block <= to));
  }

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const node = chain.nodes[turn % chain.nodes.length] ?? {};
    turn += 1;
    if (node.hangs === true) return void chain.asked.push("hangs");
    if (node.silent === true) return void request.socket.destroy();
    const given = node.answer;
    if (given !== undefined) {
      response.writeHead(given.status, { "content-type": given.type }).end(given.body);
      return;
    }
    const asked = JSON.parse(Buffer.concat(parts).toString()) as Asked | Asked[];
    const isList = Array.isArray(asked);
    const body = isList ? asked : [asked];
    chain.asked.push(body.map(({ method }) => method.replace("eth_", "")).join(" "));
    const answers = body.map(({ id, method, params }) => {
      try {
        return { jsonrpc: "2.0", id, result: answer(node, method, params) };
      } catch (thrown) {
        const { code, message } = thrown as RpcError;
        return { jsonrpc: "2.0", id, error: { code, message } };
      }
    });
    const refusal = {
      jsonrpc: "2.0",
      id: null,
      error: { code: -32_600, message: "batches are not supported" },
    };
    const whole =
      isList && node.single === undefined
        ? answers
        : node.single === "refuses" && isList
          ? refusal
          : answers[0];
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(whole));
  };
  const server = createServer((request, response) => void serve(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const chain: FakeChain = {
    url: `http://127.0.0.1:${address.port}/v1/secret-key`,
    get made() {
      return made;
    },
    head,
    nodes: [{}],
    asked: [],
    pay(transfer) {
      made.push(transfer);
      return hashOf("tx", nameOf(transfer));
    },
    reorganise(from) {
      made = made.filter(({ block }) => block < from);
      forks = [...forks, from];
    },
  };
  return chain;
}

interface Asked {
  readonly id: number;
  readonly method: string;
  readonly params: readonly unknown[];
}

class RpcError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

function hex(number: number): string {
  return `0x${number.toString(16)}`;
}
