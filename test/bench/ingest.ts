import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request as requestHttp } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { openBlake3, type HashBlake3 } from "../../src/ingest/blake3.ts";
import { blockCidOf } from "../../src/ingest/cid.ts";
import { BED_STORE } from "../support/bed.ts";
import { tokenOf } from "../support/kubo-ingest.ts";
import { findKubo, startRealKubo } from "../support/kubo-real.ts";
import { answering, startStandIn } from "../support/kubo-stand-in.ts";
import type { Bench, Measurement } from "./report.ts";

const run = promisify(execFile);
const RELAY = fileURLToPath(new URL("relay", import.meta.url));
const PROGRAM = fileURLToPath(new URL("../../bin/fula-node.js", import.meta.url));
const MIB = 1_048_576;
const ROUNDS = 11;
const ROUND_BYTES = 64 * MIB;
/** The number of small blocks for each side before anything counts: a service runs for months, so its first second does not matter. */
const WARM_UP = { sizeBytes: MIB / 16, clients: 8, bytes: 128 * MIB };
/** Kubo 0.42's block/put answers 500 to anything over 2 MiB, so larger blocks can't be compared. */
const SIZES = [MIB / 4, MIB, 2 * MIB];
const CLIENTS = [1, 32];
/** More than all rounds together write. */
const STORAGE_MAX = "1TB";
const AUTHORIZATION = { authorization: `Bearer ${tokenOf("somebody")}` };

/** The shipped program's `serve ingest` against the same blocks sent to kubo directly, and through a minimal relay in Go. */
export const benches: readonly Bench[] = [{ name: "ingest", run: measureIngest }];

async function measureIngest(): Promise<readonly Measurement[]> {
  const program = await findKubo();
  if (typeof program === "string") throw new Error(program);
  const started: (() => Promise<void>)[] = [];
  try {
    const kubo = await startRealKubo(program, STORAGE_MAX);
    started.push(() => kubo.remove());
    const storage = await startStandIn(answering(200, { canUpload: true }));
    started.push(() => storage.close());
    const relay = await startRelay(kubo.url);
    started.push(() => relay.stop());
    const ingest = await startIngestProcess(kubo.url, storage.url);
    started.push(() => ingest.stop());
    const sides = { ours: ingest.url, relay: relay.url, kubo: kubo.url };
    return await measureAll({ sides, hash: (await openBlake3()).hash });
  } finally {
    for (const stop of started.toReversed()) await stop();
  }
}

async function measureAll(where: Pick<Load, "sides" | "hash">): Promise<readonly Measurement[]> {
  const measurements: Measurement[] = [];
  for (const side of SIDES) await sendAll({ ...where, ...WARM_UP }, side);
  for (const clients of CLIENTS) {
    for (const sizeBytes of SIZES) {
      const { ours, relay, kubo } = await takeTurns({ ...where, sizeBytes, clients, bytes: ROUND_BYTES });
      const name = `${sizeBytes / 1024} KiB blocks, ${clients} at once`;
      const common = { name, what: "PUT /v0/block to serve ingest, quota cached", unit: "MB/s", ours };
      const anchors = [
        { against: "POST /api/v0/block/put to the same kubo", anchor: kubo, value: 0.8 },
        { against: "the Go relay before the same kubo", anchor: relay, value: 0.9 },
      ];
      for (const { value, ...pairs } of anchors)
        measurements.push({ ...common, ...pairs, target: { of: "ratio", bound: "at least", value } });
    }
  }
  return measurements;
}

const SIDES = ["ours", "relay", "kubo"] as const;
type Side = (typeof SIDES)[number];

interface Load {
  readonly sides: Readonly<Record<Side, string>>;
  readonly hash: HashBlake3;
  readonly sizeBytes: number;
  readonly clients: number;
  /** The amount that one round sends. */
  readonly bytes: number;
}

/** Each round takes all sides, in changing order; the first round does not count. */
async function takeTurns(load: Load): Promise<Readonly<Record<Side, readonly number[]>>> {
  const taken: Record<Side, number[]> = { ours: [], relay: [], kubo: [] };
  for (let round = 0; round <= ROUNDS; round += 1) {
    const first = round % SIDES.length;
    const order = [...SIDES.slice(first), ...SIDES.slice(0, first)];
    for (const side of round % 2 === 0 ? order : order.toReversed()) {
      const speed = await sendAll(load, side);
      if (round > 0) taken[side].push(speed);
    }
  }
  return taken;
}

/** Megabytes per second, for blocks that are new to kubo. The time to make them and their CIDs does not count. */
async function sendAll({ sides, hash, sizeBytes, clients, bytes: total }: Load, side: Side): Promise<number> {
  const each = Math.ceil(total / sizeBytes / clients);
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
        await (side === "kubo"
          ? send(agent, "POST", sides.kubo + PUT_PATH, { "content-type": MULTIPART }, [HEAD, bytes, TAIL])
          : send(agent, "PUT", `${sides[side]}/v0/block?cid=${cid}`, AUTHORIZATION, [bytes]));
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
  return startServer(process.execPath, [PROGRAM, "serve", "ingest"], {
    NODE_ENV: "production",
    NODE_OPTIONS: "--max-semi-space-size=1",
    INGEST_BIND: "127.0.0.1",
    INGEST_PORT: String(20_000 + (process.pid % 10_000)),
    INGEST_METRICS_PORT: String(30_000 + (process.pid % 10_000)),
    KUBO_API: kuboUrl,
    STORAGE_API_URL: storageUrl,
  });
}

/** Compiles the relay with the Go that the test bed also uses (test/images/lib/go.sh), and starts it. */
async function startRelay(kuboUrl: string) {
  const program = join(await mkdtemp(join(tmpdir(), "fula-relay-")), "relay");
  const go = join(BED_STORE, "go");
  const env = {
    ...process.env,
    PATH: [process.env["PATH"], "/usr/local/go/bin", join(go, "debian/usr/lib/go-1.24/bin")].join(":"),
    CGO_ENABLED: "0",
    GOMODCACHE: join(go, "modules"),
    GOCACHE: join(go, "cache"),
  };
  await run("go", ["build", "-mod=readonly", "-buildvcs=false", "-o", program, "."], { cwd: RELAY, env });
  const server = await startServer(program, [kuboUrl], {});
  return {
    url: server.url,
    async stop() {
      await server.stop();
      await rm(dirname(program), { recursive: true });
    },
  };
}

/** Starts a server that prints its address at the end of a line. */
async function startServer(program: string, args: readonly string[], env: NodeJS.ProcessEnv) {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    const lines: string[] = [];
    const take = (line: string): void => {
      lines.push(line);
      // The relay prints a plain line, the ingest JSON.
      const address = / listens on ([^\s"]+)(?:"\})?$/.exec(line)?.[1];
      if (address !== undefined) resolve(`http://${address}`);
    };
    createInterface(child.stdout).on("line", take);
    createInterface(child.stderr).on("line", take);
    child.once("error", reject);
    void gone.then(() => reject(new Error(`${program} ended: ${lines.join("\n")}`)));
  });
  return {
    url,
    async stop() {
      child.kill("SIGTERM");
      await gone;
    },
  };
}
