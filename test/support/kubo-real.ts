import { execFile, spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, findPrograms } from "./cluster-real.ts";
import { freePort } from "./free-port.ts";

const run = promisify(execFile);

/** A real kubo without other peers, on free ports of the loopback interface. */
export interface RealKubo {
  readonly url: string;
  readonly pid: number;
  /** The bytes that it has itself for this CID, or null. */
  block(cid: string): Promise<Buffer | null>;
  /** The number of its blocks. */
  countBlocks(): Promise<number>;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Stops it and removes its data. */
  remove(): Promise<void>;
}

/** The path of `ipfs`, as findPrograms finds it, or a sentence that says why there is none. */
export async function findKubo(): Promise<{ readonly ipfs: string } | string> {
  const ipfs = join(process.env["FULA_TEST_BINARIES"] ?? "", "ipfs");
  if (process.env["FULA_TEST_BINARIES"] !== undefined && existsSync(ipfs)) return { ipfs };
  return findPrograms();
}

/** Creates a repository with the profile of storage nodes, and starts kubo with it. */
export async function startRealKubo(
  { ipfs }: { readonly ipfs: string },
  storageMax = "10GB",
): Promise<RealKubo> {
  const directory = await mkdtemp(join(tmpdir(), "fula-kubo-"));
  const environment = { PATH: process.env["PATH"], IPFS_PATH: join(directory, "repo"), HOME: directory };
  const env = { ...environment, IPFS_TELEMETRY: "off" };
  await run(ipfs, ["init", "--profile=server"], { env });
  const port = await freePort();
  await configure(join(directory, "repo", "config"), port, storageMax);
  const url = `http://127.0.0.1:${port}`;
  let daemon: ChildProcess | null = null;

  const kubo: RealKubo & { pid: number } = {
    url,
    pid: 0,
    async block(cid) {
      const answer = await fetch(`${url}/api/v0/block/get?offline=true&arg=${cid}`, { method: "POST" });
      return answer.ok ? Buffer.from(await answer.arrayBuffer()) : null;
    },
    async countBlocks() {
      const answer = await fetch(`${url}/api/v0/repo/stat`, { method: "POST" });
      return ((await answer.json()) as { NumObjects: number }).NumObjects;
    },
    async start() {
      daemon = spawn(ipfs, ["daemon"], { env, stdio: "ignore" });
      kubo.pid = daemon.pid ?? 0;
      await eventually("kubo answers", async () => (await fetch(`${url}/api/v0/id`, { method: "POST" })).ok);
    },
    async stop() {
      if (daemon === null) return;
      const gone = new Promise((resolve) => daemon?.once("exit", resolve));
      daemon.kill("SIGKILL");
      await gone;
      daemon = null;
    },
    async remove() {
      await kubo.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
  await kubo.start();
  return kubo;
}

async function configure(file: string, port: number, storageMax: string): Promise<void> {
  const config = JSON.parse(await readFile(file, "utf8")) as Record<string, Record<string, unknown>>;
  const addresses = { ...config["Addresses"], API: `/ip4/127.0.0.1/tcp/${port}`, Gateway: "", Swarm: [] };
  const quiet = {
    Addresses: addresses,
    AutoConf: { Enabled: false },
    Bootstrap: [],
    Datastore: { ...config["Datastore"], StorageMax: storageMax },
    DNS: { Resolvers: {} },
    Routing: { Type: "none", DelegatedRouters: [] },
    Ipns: { ...config["Ipns"], DelegatedPublishers: [] },
  };
  await writeFile(file, JSON.stringify({ ...config, ...quiet }));
}
