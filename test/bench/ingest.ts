import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { Agent, request as requestHttp } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { openBlake3, type HashBlake3 } from "../../src/machine/blake3.ts";
import { blockCidOf } from "../../src/ingest/cid.ts";
import { findKubo, startRealKubo } from "../support/kubo-real.ts";
import { answering, startStandIn } from "../support/kubo-stand-in.ts";
import type { Bench, Measurement } from "./report.ts";

const PROGRAM = fileURLToPath(new URL("../../bin/fula-node.js", import.meta.url));
const MIB = 1_048_576;
const ROUNDS = 11;
const ROUND_BYTES = 64 * MIB;
/** The number of small blocks for each side before anything counts: a service runs for months, so its first second does not matter. */
const WARM_UP = { sizeBytes: MIB / 16, clients: 8, bytes: 128 * MIB };
/** Kubo 0.42's block/put answers 500 to anything over 2 MiB, so larger blocks can't be compared. */
const SIZES = [MIB / 4, MIB, 2 * MIB];
const CLIENTS = [1, 32];

/** The shipped program's `serve ingest` against the same blocks posted straight to the kubo behind it. */
export const benches: readonly Bench[] = [{ name: "ingest", run: measureIngest }];

async function measureIngest(): Promise<readonly Measurement[]> {
  const program = await findKubo();
  if (typeof program === "string") throw new Error(program);
  const kubo = await startRealKubo(program);
  const storage = await startStandIn(answering(200, { canUpload: true }));
  const { hash } = await openBlake3();
  try {
    const ingest = await startIngestProcess(kubo.url, storage.url);
    try {
      const measurements: Measurement[] = [];
      const both = { ingest: ingest.url, kubo: kubo.url, hash };
      for (const side of ["ours", "anchor"] as const) await sendAll({ ...both, ...WARM_UP }, side);
      for (const clients of CLIENTS) {
        for (const sizeBytes of SIZES) {
          const pairs = await takeTurns({ ...both, sizeBytes, clients, bytes: ROUND_BYTES });
          measurements.push({
            name: `${sizeBytes / 1024} KiB blocks, ${clients} at once`,
            what: "PUT /v0/block to serve ingest, quota cached",
            against: "POST /api/v0/block/put to the same kubo",
            unit: "MB/s",
            ...pairs,
            target: { of: "ratio", bound: "at least", value: 0.8 },
          });
        }
      }
      return measurements;
    } finally {
      await ingest.stop();
    }
  } finally {
    await storage.close();
    await kubo.remove();
  }
}

interface Load {
  readonly ingest: string;
  readonly kubo: string;
  readonly hash: HashBlake3;
  readonly sizeBytes: number;
  readonly clients: number;
  /** The amount that one round sends. */
  readonly bytes: number;
}

/** Each round takes both, in changing order; the first does not count. */
async function takeTurns(load: Load): Promise<Pick<Measurement, "ours" | "anchor">> {
  const taken = { ours: [] as number[], anchor: [] as number[] };
  for (let round = 0; round <= ROUNDS; round += 1) {
    const order = round % 2 === 0 ? (["ours", "anchor"] as const) : (["anchor", "ours"] as const);
    for (const side of order) {
      const speed = await sendAll(load, side);
      if (round > 0) taken[side].push(speed);
    }
  }
  return taken;
}

/** Megabytes per second, for blocks that are new to kubo. The time to make them and their CIDs does not count. */
async function sendAll(load: Load, side: "ours" | "anchor"): Promise<number> {
  const { hash, sizeBytes, clients } = load;
  const each = Math.ceil(load.bytes / sizeBytes / clients);
  const agent = new Agent({ keepAlive: true });
  const workers = Array.from({ length: clients }, () => {
    const bytes = randomBytes(sizeBytes);
    const cids = Array.from({ length: each }, (_, index) => {
      bytes.writeUInt32LE(index);
      return blockCidOf(hash(bytes)).text;
    });
    return { bytes, cids };
  });
  const startedAt = performance.now();
  await Promise.all(
    workers.map(async ({ bytes, cids }) => {
      for (const [index, cid] of cids.entries()) {
        bytes.writeUInt32LE(index);
        await (side === "ours"
          ? send(agent, "PUT", `${load.ingest}/v0/block?cid=${cid}`, { authorization: "Bearer a-token" }, [
              bytes,
            ])
          : send(agent, "POST", load.kubo + PUT_PATH, { "content-type": MULTIPART }, [HEAD, bytes, TAIL]));
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  agent.destroy();
  return (each * clients * sizeBytes) / 1e6 / seconds;
}

const PUT_PATH = "/api/v0/block/put?cid-codec=raw&mhtype=blake3&mhlen=32&pin=false";
const MULTIPART = "multipart/form-data; boundary=straight-to-kubo";
const HEAD = Buffer.from(
  '--straight-to-kubo\r\ncontent-disposition: form-data; name="data"; filename="blob"\r\n\r\n',
);
const TAIL = Buffer.from("\r\n--straight-to-kubo--\r\n");

function send(
  agent: Agent,
  method: string,
  url: string,
  given: Readonly<Record<string, string>>,
  parts: readonly Buffer[],
): Promise<void> {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const headers = { ...given, "content-length": length };
  return new Promise((resolve, reject) => {
    const sent = requestHttp(url, { method, agent, headers }, (answer) => {
      let text = "";
      answer.on("data", (part: Buffer) => (text += part.toString()));
      answer.on("end", () => {
        if (answer.statusCode === 200) resolve();
        else reject(new Error(`${url} answers ${answer.statusCode}: ${text}`));
      });
    });
    sent.on("error", reject);
    sent.cork();
    for (const part of parts) sent.write(part);
    sent.end();
    sent.uncork();
  });
}

async function startIngestProcess(kuboUrl: string, storageUrl: string) {
  const env = {
    ...process.env,
    NODE_ENV: "production",
    NODE_OPTIONS: "--max-semi-space-size=1",
    INGEST_BIND: "127.0.0.1",
    INGEST_PORT: String(20_000 + (process.pid % 10_000)),
    KUBO_API: kuboUrl,
    STORAGE_API_URL: storageUrl,
  };
  const child = spawn(process.execPath, [PROGRAM, "serve", "ingest"], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    const lines: string[] = [];
    const take = (line: string): void => {
      lines.push(line);
      const address = / listens on (\S+)$/.exec(line)?.[1];
      if (address !== undefined) resolve(`http://${address}`);
    };
    createInterface(child.stdout).on("line", take);
    createInterface(child.stderr).on("line", take);
    void gone.then(() => reject(new Error(`serve ingest ended: ${lines.join("\n")}`)));
  });
  return {
    url,
    async stop() {
      child.kill("SIGTERM");
      await gone;
    },
  };
}
