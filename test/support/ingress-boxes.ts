import { createHash, randomBytes } from "node:crypto";
import { type OutgoingHttpHeaders, request } from "node:http";
import { text } from "node:stream/consumers";
import { openBlake3 } from "../../src/ingest/blake3.ts";
import { blockCidOf } from "../../src/ingest/cid.ts";
import { fulaNode } from "./artifact.ts";
import type { Box } from "./box.ts";
import { eventually } from "./cluster-real.ts";
import { expectExit } from "./master-box.ts";

/** A block, and the CID that its bytes have. */
export interface Block {
  readonly cid: string;
  readonly bytes: Buffer;
}

export interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

const { hash } = await openBlake3();

/** Bytes that no other node has. */
export function someBlock(sizeBytes = 4_096): Block {
  const bytes = randomBytes(sizeBytes);
  return { bytes, cid: blockCidOf(hash(bytes)).text };
}

/** Clients of a node's ingest on the network. Each request has its own connection. */
export class Ingest {
  readonly #origin: string;

  private constructor(origin: string) {
    this.#origin = origin;
  }

  static async of(node: Box): Promise<Ingest> {
    return new Ingest(`http://${await node.address()}:3601`);
  }

  put({ cid, bytes }: Block, bearer: string | null): Promise<Answer> {
    const headers = { "content-length": bytes.length, ...authorization(bearer) };
    return this.#send("PUT", `/v0/block?cid=${cid}`, headers, (sent) => sent.end(bytes));
  }

  /** Sends these bytes with these headers and does not end the request: an answer can come only while the body is read. */
  putEndless(cid: string, bytes: Buffer, headers: OutgoingHttpHeaders): Promise<Answer> {
    return this.#send("PUT", `/v0/block?cid=${cid}`, headers, (sent) => {
      sent.flushHeaders();
      if (bytes.length > 0) sent.write(bytes);
    });
  }

  /** Sends the first half of a block, then closes the connection. */
  async putHalf({ cid, bytes }: Block, bearer: string): Promise<void> {
    const headers = { "content-length": bytes.length, ...authorization(bearer) };
    const url = `${this.#origin}/v0/block?cid=${cid}`;
    const sent = request(url, { method: "PUT", headers, agent: false }).on("error", () => undefined);
    await new Promise((resolve) => sent.write(bytes.subarray(0, bytes.length / 2), resolve));
    sent.destroy();
  }

  health(): Promise<Answer> {
    return this.#send("GET", "/health", {}, (sent) => sent.end());
  }

  async #send(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    write: (sent: ReturnType<typeof request>) => void,
  ): Promise<Answer> {
    const kept = { ...headers, connection: "keep-alive" };
    const sent = request(this.#origin + path, { method, headers: kept, agent: false, timeout: 60_000 });
    try {
      return await new Promise<Answer>((resolve, reject) => {
        sent.on("error", reject).on("timeout", () => reject(new Error("no answer within 60 s")));
        sent.on("response", (answer) => {
          text(answer).then(
            (body) => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(body) as Answer["body"] }),
            reject,
          );
        });
        write(sent);
      });
    } finally {
      sent.destroy();
    }
  }
}

export function authorization(bearer: string | null): { readonly authorization?: string } {
  return bearer === null ? {} : { authorization: `Bearer ${bearer}` };
}

/** Clients that send blocks one after the other until they are stopped. */
export interface Load {
  /** The CIDs of everything that was sent. */
  readonly sent: ReadonlySet<string>;
  /** The blocks that were answered with 200. */
  readonly acknowledged: readonly Block[];
  /** All other answers. */
  readonly refusals: ReadonlySet<number>;
  stop(): Promise<void>;
}

/** Starts them. A client that is refused or gets no answer continues when the ingest is healthy. */
export function startLoad(ingest: Ingest, bearer: string, clients = 4): Load {
  const sent = new Set<string>();
  const acknowledged: Block[] = [];
  const refusals = new Set<number>();
  const over = new AbortController();
  const putNext = async (): Promise<boolean> => {
    const block = someBlock(200_000);
    sent.add(block.cid);
    const answer = await ingest.put(block, bearer).catch(() => null);
    if (answer?.status === 200) acknowledged.push(block);
    else if (answer !== null) refusals.add(answer.status);
    return answer?.status === 200;
  };
  const work = async (): Promise<void> => {
    while (!over.signal.aborted) {
      if (await putNext()) continue;
      await eventually("the ingest is well", async () => (await ingest.health()).status === 200, 120_000);
    }
  };
  const all = Promise.all(Array.from({ length: clients }, work));
  // stop() reports it.
  all.catch(() => undefined);
  return {
    sent,
    acknowledged,
    refusals,
    stop: async () => {
      over.abort();
      await all;
    },
  };
}

/** The CIDs of all blocks in a node's kubo, as raw ones. */
export async function localBlocks(node: Box): Promise<ReadonlySet<string>> {
  const { stdout } = await node.run("docker exec ipfs_host ipfs --api=/ip4/127.0.0.1/tcp/5001 refs local");
  return new Set(stdout.split("\n"));
}

/** The number of peers that a node's kubo is connected to. */
export async function kuboPeers(node: Box): Promise<number> {
  const { stdout } = await node.run("docker exec ipfs_host ipfs --api=/ip4/127.0.0.1/tcp/5001 swarm peers");
  return stdout.split("\n").filter((line) => line !== "").length;
}

/** The sha256 of the content that a node's kubo has itself for these CIDs, in order. */
export async function readBack(node: Box, blocks: readonly Block[]): Promise<string> {
  const urls = blocks.map(
    ({ cid }) => `url = "http://127.0.0.1:5001/api/v0/block/get?arg=${cid}&offline=true"`,
  );
  const { stdout } = await node.run("curl -s -X POST -K - | sha256sum", { input: `${urls.join("\n")}\n` });
  return stdout.slice(0, 64);
}

/** The sha256 of the content that was sent, in order. */
export function digestOf(blocks: readonly Block[]): string {
  const digest = createHash("sha256");
  for (const { bytes } of blocks) digest.update(bytes);
  return digest.digest("hex");
}

/** The state of a container: the result of its healthcheck, and the number of its starts. */
export async function startOf(
  box: Box,
  container: string,
): Promise<{ readonly health: string; readonly restarts: number; readonly startedAt: string }> {
  const format = "{{.State.Health.Status}} {{.RestartCount}} {{.State.StartedAt}}";
  const { stdout } = await box.run(["docker", "inspect", "--format", format, container]);
  const [health = "", restarts = "", startedAt = ""] = stdout.split(" ");
  return { health, restarts: Number(restarts), startedAt };
}

/** Kills the process with that command line (SIGKILL), and waits until its container has started another one. */
export async function killProcess(box: Box, commandLine: string, container: string): Promise<void> {
  const find = async () => (await box.exec(["pgrep", "-f", commandLine])).stdout;
  const [pid, before] = [await find(), await startOf(box, container)];
  if (!/^\d+$/.test(pid)) throw new Error(`not one process is ${commandLine}: ${pid}`);
  await box.run(["kill", "-KILL", pid]);
  await eventually(`${container} has come back`, async () => {
    const [now, after] = [await find(), await startOf(box, container)];
    const isNew = after.restarts === before.restarts + 1 && after.startedAt !== before.startedAt;
    return isNew && /^\d+$/.test(now) && now !== pid;
  });
}

/** An account of the master. */
export interface Account {
  readonly userId: string;
  /** A new API key, which no ingest has in its cache. */
  token(): Promise<string>;
}

export async function createAccount(master: Box, email: string): Promise<Account> {
  const created = await fulaNode(master, ["user", "create", "--json", "--email", email]);
  expectExit(created, 0);
  const { userId } = JSON.parse(created.stdout) as { userId: string };
  return {
    userId,
    token: async () => (await fulaNode(master, ["user", "token", "--email", email])).stdout.trim(),
  };
}

/** Runs SQL on the master's database. */
export async function runSql(master: Box, sql: string): Promise<void> {
  const psql = "psql -U pinning_user -d pinning_service -v ON_ERROR_STOP=1 -q";
  await master.run(`docker exec -i postgres-pinning ${psql}`, { input: sql });
}
