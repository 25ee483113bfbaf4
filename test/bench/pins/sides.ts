import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { eventually, findPrograms, type RealPeer, startRealCluster } from "../../support/cluster-real.ts";
import { migrate } from "../../support/names-database.ts";
import { findPostgresPrograms } from "../../support/postgres-programs.ts";
import { freePort } from "../../support/free-port.ts";
import { sql, startPostgres } from "../../support/postgres-server.ts";
import type { PostgresTarget } from "../../../src/settings/postgres-target.ts";

const PROGRAM = fileURLToPath(new URL("../../../bin/fula-node.js", import.meta.url));

/** A real ipfs-cluster with its own pinning service, and the shipped `serve pinning-api` over a durable PostgreSQL. */
export interface Sides {
  readonly ours: { readonly url: string; readonly pid: number };
  readonly theirs: { readonly url: string };
  readonly peer: RealPeer;
  readonly database: PostgresTarget;
  stop(): Promise<void>;
}

/**
 * Starts both. NODE_ARGUMENTS are given to the node of ours, such as `--cpu-prof --cpu-prof-dir=/tmp/profile`. Throws if a
 * program is missing.
 */
export async function startSides(): Promise<Sides> {
  const args = (process.env["NODE_ARGUMENTS"] ?? "").split(" ").filter((one) => one !== "");
  const programs = await findPrograms();
  if (typeof programs === "string") throw new Error(programs);
  const postgresPrograms = await findPostgresPrograms();
  if (typeof postgresPrograms === "string") throw new Error(postgresPrograms);
  const started: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const end of started.toReversed()) await end();
  };
  try {
    const postgres = await startPostgres(postgresPrograms, {
      durable: true,
      settings: process.env["PGSTAT"]
        ? [
            "shared_preload_libraries=pg_stat_statements",
            "pg_stat_statements.track_planning=on",
            "pg_stat_statements.track=all",
          ]
        : [],
    });
    started.push(() => postgres.stop());
    const database = await postgres.createDatabase();
    await migrate(database);
    const cluster = await startRealCluster(programs, { peers: 1, pinningService: true });
    started.push(() => cluster.stop());
    const [peer] = cluster.peers;
    if (peer === undefined) throw new Error("the cluster has no peer");
    const ours = await startOurs(database, peer, args);
    started.push(() => ours.stop());
    return { ours, theirs: { url: peer.pinningUrl }, peer, database, stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

async function startOurs(database: PostgresTarget, peer: RealPeer, args: readonly string[]) {
  const port = (url: string): string => `/ip4/127.0.0.1/tcp/${new URL(url).port}`;
  const secret = randomBytes(16).toString("hex");
  const child = spawn(process.execPath, [...args, PROGRAM, "serve", "pinning-api"], {
    env: {
      PATH: process.env["PATH"],
      NODE_ENV: "production",
      PORT: String(await freePort()),
      PINNING_EDGE_PORT: String(await freePort()),
      PINNING_METRICS_PORT: String(await freePort()),
      POSTGRES_HOST: database.host,
      POSTGRES_PORT: String(database.port),
      POSTGRES_DB: database.database,
      POSTGRES_USER: database.user,
      POSTGRES_PASSWORD: database.password,
      JWT_SECRET: secret,
      SESSION_SECRET: secret,
      SYSTEM_KEY: secret,
      IPFS_API_ADDR: port(peer.kuboUrl),
      IPFS_CLUSTER_API_ADDR: port(peer.apiUrl),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const url = await addressOf(child);
  return {
    url,
    pid: child.pid ?? 0,
    async stop() {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await gone;
    },
  };
}

/** The address of the listener for this machine, from the service's log. */
function addressOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const lines: string[] = [];
    const take = (line: string): void => {
      lines.push(line);
      // The lines for the edge and for Prometheus have more after the address.
      const address = / listens on ([\d.]+:\d+)"/.exec(line)?.[1];
      if (address !== undefined) resolve(`http://${address}`);
    };
    for (const output of [child.stdout, child.stderr])
      if (output !== null) createInterface(output).on("line", take);
    child.once("exit", () => reject(new Error(`serve pinning-api ended:\n${lines.join("\n")}`)));
  });
}

/** An account with a balance, and the headers of its requests. */
export async function createAccount(
  database: PostgresTarget,
  name: string,
): Promise<{ readonly account: string; readonly headers: Readonly<Record<string, string>> }> {
  const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
  const token = `token-of-${name}`;
  const account = sha256(name);
  await sql(
    database,
    "INSERT INTO sessions (session_token, token_hash, user_id) VALUES ($1::text, $1::text, $2::text)",
    [sha256(token), account],
  );
  await sql(database, "INSERT INTO user_credits (user_id, balance_fula) VALUES ($1, 1000)", [account]);
  return { account, headers: { authorization: `Bearer ${token}` } };
}

/** As the clients see it: no request waits, and the cluster pins nothing. Sizes may still be asked for. */
export async function untilPinned({ database, peer }: Pick<Sides, "database" | "peer">): Promise<void> {
  await eventually(
    "no request waits",
    async () =>
      (await sql(database, "SELECT FROM pins WHERE status IN ('queued', 'pinning') LIMIT 1")).length === 0,
    300_000,
  );
  await untilClusterRests(peer);
}

/** Waits until nothing is left to do for any request, on both sides. */
export async function untilSettled({ database, peer }: Pick<Sides, "database" | "peer">): Promise<void> {
  await eventually(
    "the queue is empty",
    async () => (await sql(database, "SELECT FROM pin_work LIMIT 1")).length === 0,
    300_000,
  );
  await untilClusterRests(peer);
}

async function untilClusterRests(peer: RealPeer): Promise<void> {
  await eventually(
    "the cluster pins nothing",
    async () => {
      const answer = await fetch(`${peer.apiUrl}/pins?filter=queued,pinning,unpinning,unpin_queued`);
      return (await answer.text()).trim() === "";
    },
    300_000,
  );
}

/** Gives kubo so many new small blocks. Returns their CIDs. */
export async function makeBlocks({ kuboUrl }: RealPeer, count: number): Promise<readonly string[]> {
  const cids: string[] = [];
  while (cids.length < count) {
    const form = new FormData();
    const size = Math.min(500, count - cids.length);
    for (let n = 0; n < size; n += 1) form.append("data", new Blob([randomBytes(256)]), "block");
    const answer = await fetch(`${kuboUrl}/api/v0/block/put?cid-codec=raw`, { method: "POST", body: form });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`block/put answers ${answer.status}: ${text}`);
    for (const line of text.trim().split("\n")) cids.push((JSON.parse(line) as { Key: string }).Key);
  }
  return cids;
}
