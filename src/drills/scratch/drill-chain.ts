import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Transfer } from "../../billing/transfer.ts";
import { TRANSFER_TOPIC, topicOf } from "../../billing/transfer.ts";

/** A chain that a drill has made up, behind JSON-RPC on 127.0.0.1. */
export interface DrillChain {
  readonly url: string;
  close(): Promise<void>;
}

/** What such a chain has. */
export interface ChainContent {
  readonly chainId: number;
  /** Its newest block. */
  readonly head: number;
  /** The contract of FULA. */
  readonly token: string;
  readonly transfers: readonly Transfer[];
}

interface Question {
  readonly id: number;
  readonly method: string;
  readonly params: readonly unknown[];
}

/** The hash of a block of such a chain. */
export function drillBlockHash(block: number): string {
  return `0x${block.toString(16).padStart(64, "b")}`;
}

/** Starts it on a free port. It answers what the scan of deposits asks, and only to this machine. */
export async function startDrillChain(content: ChainContent): Promise<DrillChain> {
  const server = createServer((request, response) => {
    answerAll(content, request).then(
      (answers) => sendJson(response, 200, answers),
      // A question that is not JSON-RPC, from another program on this machine.
      () => sendJson(response, 400, {}),
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { readonly port: number };
  return {
    url: `http://127.0.0.1:${port}/`,
    async close() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function answerAll(content: ChainContent, request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const questions = JSON.parse(Buffer.concat(parts).toString("utf8")) as readonly Question[];
  return questions.map(({ id, method, params }) => ({
    jsonrpc: "2.0",
    id,
    result: answerTo(content, method, params),
  }));
}

function answerTo(
  { chainId, head, token, transfers }: ChainContent,
  method: string,
  [first]: readonly unknown[],
): unknown {
  switch (method) {
    case "eth_chainId":
      return hex(chainId);
    case "eth_blockNumber":
      return hex(head);
    case "eth_getBlockByNumber": {
      const number = Number(first);
      if (number > head) return null;
      return { number: hex(number), hash: drillBlockHash(number), timestamp: hex(1_750_000_000 + number) };
    }
    case "eth_getLogs": {
      const { fromBlock, toBlock } = first as { readonly fromBlock: string; readonly toBlock: string };
      const isIn = ({ block }: Transfer): boolean => block >= Number(fromBlock) && block <= Number(toBlock);
      return transfers.filter(isIn).map((one) => logOf(token, one));
    }
    default:
      throw new TypeError(`the scan asks ${method}`);
  }
}

function logOf(token: string, transfer: Transfer): unknown {
  return {
    address: token,
    topics: [TRANSFER_TOPIC, topicOf(transfer.from), topicOf(transfer.to)],
    data: `0x${BigInt(transfer.amount).toString(16).padStart(64, "0")}`,
    transactionHash: transfer.txHash,
    logIndex: hex(transfer.logIndex),
    blockNumber: hex(transfer.block),
    blockHash: transfer.blockHash,
    removed: false,
  };
}

function hex(number: number): string {
  return `0x${number.toString(16)}`;
}
