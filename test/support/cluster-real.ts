import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { BED_PROGRAMS } from "./bed.ts";
import { freePort } from "./free-port.ts";

const run = promisify(execFile);

/** The real programs' paths. */
export interface Programs {
  readonly ipfs: string;
  readonly service: string;
}

/** One kubo with its ipfs-cluster peer, on free ports of the loopback. */
export interface RealPeer {
  readonly id: string;
  readonly apiUrl: string;
  /** Kubo's RPC API. */
  readonly kuboUrl: string;
  /** ipfs-cluster's own pinning service (`pinsvcapi`). Nothing listens there if it was not asked for. */
  readonly pinningUrl: string;
  /** Runs `ipfs ARGS` with this peer's kubo. `input` is its standard input. */
  ipfs(args: readonly string[], input?: string): Promise<string>;
  /** Sends a signal to ipfs-cluster-service and waits for its end. */
  stopCluster(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
  startCluster(): Promise<void>;
  /** Sends a signal without waiting. */
  signalCluster(signal: "SIGTERM" | "SIGKILL"): void;
  stopKubo(): Promise<void>;
  startKubo(): Promise<void>;
}

/** A real cluster. The first peer is the master. The others follow it and trust only it. */
export interface RealCluster {
  readonly peers: readonly RealPeer[];
  stop(): Promise<void>;
}

/**
 * The programs from the directory that FULA_TEST_BINARIES names (`ipfs`, `ipfs-cluster-service`), else those of the
 * test bed. A sentence if there are none: throw it if CI is set, and skip with it elsewhere.
 */
export async function findPrograms(): Promise<Programs | string> {
  const directory = process.env["FULA_TEST_BINARIES"] ?? BED_PROGRAMS;
  const programs = { ipfs: join(directory, "ipfs"), service: join(directory, "ipfs-cluster-service") };
  if (!existsSync(programs.ipfs) || !existsSync(programs.service)) {
    return `no real kubo and ipfs-cluster in ${directory} (FULA_TEST_BINARIES, or test/images/up)`;
  }
  await run(programs.ipfs, ["version"]);
  await run(programs.service, ["--version"]);
  return programs;
}

/** Starts peers and waits until the master sees all of them. Every ipfs-cluster-service gets `environment`. */
export async function startRealCluster(
  programs: Programs,
  options: {
    readonly peers: number;
    readonly environment?: Readonly<Record<string, string>>;
    readonly pinset?: string;
    /** The address on which the REST APIs listen; 127.0.0.1 by default. */
    readonly apiHost?: string;
    /** True: ipfs-cluster's own pinning service runs too. */
    readonly pinningService?: boolean;
  },
): Promise<RealCluster> {
  const directory = await mkdtemp(join(tmpdir(), "fula-cluster-"));
  const peers: Peer[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(peers.map((peer) => peer.stop()));
    await rm(directory, { recursive: true, force: true });
  };
  try {
    for (let index = 0; index < options.peers; index++) {
      const peer = new Peer(programs, join(directory, `peer-${index}`), index, peers[0]);
      peers.push(peer);
      await peer.prepare(options, index === 0 ? options.pinset : undefined);
      await peer.startKubo();
      await peer.startCluster();
    }
    await connectAll(peers);
    return { peers, stop };
  } catch (cause) {
    await stop();
    throw cause;
  }
}

/** Polls until the check returns something true. Throws with the last state after the timeout. */
export async function eventually<T>(
  what: string,
  check: () => Promise<T | false | null>,
  timeoutMs = 60_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown = "never checked";
  while (Date.now() < deadline) {
    try {
      const value = await check();
      if (value !== false && value !== null) return value;
      last = value;
    } catch (cause) {
      last = cause;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${what}: not within ${timeoutMs} ms; last: ${String(last)}`);
}

class Peer implements RealPeer {
  id = "";
  apiUrl = "";
  kuboUrl = "";
  pinningUrl = "";
  readonly #programs: Programs;
  readonly #directory: string;
  readonly #index: number;
  readonly #master: Peer | undefined;
  #environment: NodeJS.ProcessEnv = {};
  #listen = "";
  #kubo: ChildProcess | null = null;
  #cluster: ChildProcess | null = null;

  constructor(programs: Programs, directory: string, index: number, master: Peer | undefined) {
    this.#programs = programs;
    this.#directory = directory;
    this.#index = index;
    this.#master = master;
  }

  async prepare(
    {
      environment = {},
      apiHost = "127.0.0.1",
      pinningService = false,
    }: Pick<Parameters<typeof startRealCluster>[1], "environment" | "apiHost" | "pinningService">,
    pinset: string | undefined,
  ): Promise<void> {
    const kuboPath = join(this.#directory, "kubo");
    const clusterPath = join(this.#directory, "cluster");
    await mkdir(this.#directory, { recursive: true });
    const [kuboPort, apiPort] = [await freePort(), await freePort()];
    const [swarmPort, pinningPort] = [await freePort(), await freePort()];
    const kuboEnvironment = {
      PATH: process.env["PATH"],
      IPFS_PATH: kuboPath,
      IPFS_TELEMETRY: "off",
      HOME: this.#directory,
    };
    await run(this.#programs.ipfs, ["init", "--profile=test"], { env: kuboEnvironment });
    const configFile = join(kuboPath, "config");
    const config = JSON.parse(await readFile(configFile, "utf8")) as Record<string, Record<string, unknown>>;
    config["Addresses"] = { ...config["Addresses"], API: `/ip4/127.0.0.1/tcp/${kuboPort}` };
    config["AutoConf"] = { Enabled: false };
    config["DNS"] = { Resolvers: {} };
    config["Routing"] = { Type: "dht", DelegatedRouters: [] };
    config["Ipns"] = { ...config["Ipns"], DelegatedPublishers: [] };
    await writeFile(configFile, JSON.stringify({ ...config, Bootstrap: [] }));

    this.kuboUrl = `http://127.0.0.1:${kuboPort}`;
    this.apiUrl = `http://127.0.0.1:${apiPort}`;
    this.pinningUrl = `http://127.0.0.1:${pinningPort}`;
    this.#listen = `/ip4/127.0.0.1/tcp/${swarmPort}`;
    const master = this.#master;
    this.#environment = {
      ...kuboEnvironment,
      IPFS_CLUSTER_PATH: clusterPath,
      CLUSTER_SECRET: "5".repeat(64),
      CLUSTER_PEERNAME: this.#index === 0 ? "master" : `follower-${this.#index}`,
      CLUSTER_LISTENMULTIADDRESS: this.#listen,
      CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS: `/ip4/${apiHost}/tcp/${apiPort}`,
      CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS: `/ip4/127.0.0.1/tcp/${pinningPort}`,
      CLUSTER_IPFSHTTP_NODEMULTIADDRESS: `/ip4/127.0.0.1/tcp/${kuboPort}`,
      CLUSTER_IPFSHTTP_CONNECTSWARMSDELAY: "1s",
      CLUSTER_MDNSINTERVAL: "0s",
      CLUSTER_MONITORPINGINTERVAL: "1s",
      CLUSTER_DISK_METRICTTL: "5s",
      CLUSTER_TAGS_METRICTTL: "5s",
      CLUSTER_PUBSUBMON_CHECKINTERVAL: "1s",
      CLUSTER_CRDT_TRUSTEDPEERS: master === undefined ? "" : master.id,
      CLUSTER_FOLLOWERMODE: master === undefined ? "false" : "true",
      ...(master === undefined ? {} : { CLUSTER_PEERADDRESSES: `${master.#listen}/p2p/${master.id}` }),
      ...environment,
    };
    await run(this.#programs.service, ["init", "--consensus", "crdt"], { env: this.#environment });
    const serviceFile = join(clusterPath, "service.json");
    const service = JSON.parse(await readFile(serviceFile, "utf8")) as { api: Record<string, unknown> };
    const { restapi, pinsvcapi } = service.api;
    service.api = pinningService ? { restapi, pinsvcapi } : { restapi };
    await writeFile(serviceFile, JSON.stringify(service));
    this.id = (JSON.parse(await readFile(join(clusterPath, "identity.json"), "utf8")) as { id: string }).id;
    if (pinset === undefined) return;
    await writeFile(join(this.#directory, "pinset.json"), pinset);
    await run(this.#programs.service, ["state", "import", "-f", join(this.#directory, "pinset.json")], {
      env: this.#environment,
      maxBuffer: 64 * 1024 * 1024,
    });
  }

  async ipfs(args: readonly string[], input = ""): Promise<string> {
    const child = run(this.#programs.ipfs, [...args], { env: this.#environment });
    child.child.stdin?.end(input);
    return (await child).stdout.trim();
  }

  async startKubo(): Promise<void> {
    this.#kubo = spawn(this.#programs.ipfs, ["daemon"], { env: this.#environment, stdio: "ignore" });
    const url = `${this.kuboUrl}/api/v0/id`;
    await eventually("kubo answers", async () => (await fetch(url, { method: "POST" })).ok);
  }

  async startCluster(): Promise<void> {
    this.#cluster = spawn(this.#programs.service, ["daemon"], { env: this.#environment, stdio: "ignore" });
    await eventually("ipfs-cluster answers", async () => (await fetch(`${this.apiUrl}/id`)).ok);
  }

  signalCluster(signal: "SIGTERM" | "SIGKILL"): void {
    this.#cluster?.kill(signal);
  }

  async stopCluster(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    await end(this.#cluster, signal);
    this.#cluster = null;
  }

  async stopKubo(): Promise<void> {
    await end(this.#kubo, "SIGTERM");
    this.#kubo = null;
  }

  async stop(): Promise<void> {
    await end(this.#cluster, "SIGKILL");
    await end(this.#kubo, "SIGKILL");
  }
}

async function connectAll(peers: readonly Peer[]): Promise<void> {
  const master = peers[0] as Peer;
  const addresses = (await master.ipfs(["swarm", "addrs", "local", "--id"])).split("\n");
  for (const peer of peers.slice(1)) await peer.ipfs(["swarm", "connect", addresses[0] as string]);
  await eventually("the master sees every peer", async () => {
    const text = await (await fetch(`${master.apiUrl}/peers`)).text();
    let metrics = 0;
    for (const name of ["ping", "freespace", "tag:group"]) {
      metrics += ((await (await fetch(`${master.apiUrl}/monitor/metrics/${name}`)).json()) as unknown[])
        .length;
    }
    return text.trim().split("\n").length === peers.length && metrics === 3 * peers.length;
  });
}

async function end(child: ChildProcess | null, signal: "SIGTERM" | "SIGKILL"): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill(signal);
  await gone;
}
