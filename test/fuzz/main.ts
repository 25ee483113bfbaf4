import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createMigrator } from "../../src/database/migrator.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { bedScratch } from "../support/bed.ts";
import { startClusterDouble } from "../support/cluster-double.ts";
import { announcementOf, makeIdentity, signAnnouncement } from "../support/node-identity.ts";
import { findPostgresPrograms } from "../support/postgres-programs.ts";
import { freePort } from "../support/free-port.ts";
import { sql, startPostgres } from "../support/postgres-server.ts";

// npm run test:fuzz: requests that schemathesis makes from the OpenAPI documents, right ones and wrong ones, against the
// built program's `serve pinning-api` and `serve webui`, over a real PostgreSQL and the double of ipfs-cluster.

const { values } = parseArgs({
  options: {
    schemathesis: { type: "string", default: "schemathesis" },
    seed: { type: "string", default: "1" },
    examples: { type: "string", default: "100" },
    only: { type: "string" },
  },
});
const PROGRAM = fileURLToPath(new URL("../../bin/fula-node.js", import.meta.url));
const MIGRATIONS = fileURLToPath(new URL("../../migrations", import.meta.url));
const HERE = fileURLToPath(new URL(".", import.meta.url));
const SYSTEM_KEY = "system-key-for-fuzzing";
const POOL = "pool-a";
/** More than one run has requests of accounts, so each account sends one. */
const ACCOUNTS = 30_000;
/** No request takes longer, also one that the service refuses because its body does not arrive. */
const MAX_SECONDS = "6";

/** One run of schemathesis. */
interface Run {
  readonly name: string;
  /** A document, as text. */
  readonly document: string;
  readonly url: string;
  /** The header of the credential, and what is in it: one line for each request, in turn. */
  readonly header: string;
  readonly keys: readonly string[];
  readonly args?: readonly string[];
}

const directory = await mkdtemp(join(bedScratch(), "fuzz-"));
const services: ChildProcess[] = [];
const log: string[] = [];
const programs = await findPostgresPrograms();
if (typeof programs === "string") throw new Error(programs);
const postgres = await startPostgres(programs);
const cluster = await startClusterDouble({});
try {
  const target = await postgres.createDatabase();
  await createMigrator({ directory: MIGRATIONS, toolVersion: "fuzz" }).up(target, { report: () => {} });
  await addAccounts(target);
  const pinning = await serve("pinning-api", target);
  const storage = await serve("webui", target);
  await addNodes(storage.url);
  const text = async (url: string) => (await fetch(url, { headers: { "x-system-key": SYSTEM_KEY } })).text();
  const bearer = accounts((n) => `Bearer ${tokenOf(n)}`);
  const edge = { url: pinning.edge, args: ["--include-path-regex", "^/pins"] };
  const pins = { document: await text(`${pinning.url}/openapi.json`), header: "Authorization" };
  const runs: readonly Run[] = [
    { name: "pinning", ...pins, url: pinning.url, keys: bearer.slice(0, 1) },
    { name: "edge", ...pins, ...edge, keys: bearer.slice(1, 2) },
    {
      name: "admin",
      document: await text(`${pinning.url}/admin/openapi.json`),
      url: pinning.url,
      header: "X-System-Key",
      keys: [SYSTEM_KEY],
      args: ["--rate-limit", "59/m", "--max-time", "100"],
    },
    {
      name: "storage",
      document: await text(`${storage.url}/openapi.json`),
      url: storage.url,
      header: "Authorization",
      keys: bearer.slice(2),
    },
  ];
  const wanted = runs.filter(({ name }) => values.only === undefined || values.only === name);
  const results: boolean[] = [];
  for (const run of wanted) results.push(await fuzz(run));
  const faults = log.filter((line) => /failed:|error/i.test(line));
  for (const line of new Set(faults)) console.log(`LOG  ${line.slice(0, 300)}`);
  const alive = services.every(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
  if (!alive) console.log("A service ended.");
  if (!alive || results.includes(false)) process.exitCode = 1;
} finally {
  for (const service of services) service.kill("SIGTERM");
  await Promise.all(services.map(async (service) => service.exitCode ?? once(service, "exit")));
  await cluster.stop();
  await postgres.stop();
  await rm(directory, { recursive: true, force: true });
}

/** Runs schemathesis and prints its report. True if it found nothing. */
async function fuzz({ name, document, url, header, keys, args = [] }: Run): Promise<boolean> {
  const [file, keysFile] = [join(directory, `${name}.json`), join(directory, `${name}.keys`)];
  await Promise.all([writeFile(file, document), writeFile(keysFile, keys.join("\n"))]);
  const began = performance.now();
  // One worker: with Python 3.11, ast.parse fails now and then in threads, and the run would say so as an error.
  const how = ["--url", url, "--seed", values.seed, "--max-examples", values.examples, "--workers", "1"];
  const bounds = ["--request-timeout", "15", "--max-response-time", MAX_SECONDS];
  const prints = [
    "--continue-on-failure",
    "--warnings",
    "off",
    "--no-color",
    "--generation-database",
    "none",
  ];
  const child = spawn(
    values.schemathesis,
    ["--config-file", join(HERE, "schemathesis.toml"), "run", file, ...how, ...bounds, ...prints, ...args],
    {
      cwd: directory,
      env: {
        ...process.env,
        SCHEMATHESIS_HOOKS: "hooks",
        PYTHONPATH: HERE,
        PYTHONDONTWRITEBYTECODE: "1",
        FUZZ_KEYS: keysFile,
        FUZZ_HEADER: header,
      },
      stdio: "inherit",
    },
  );
  const [status] = (await once(child, "exit")) as [number | null];
  console.log(`${name}: ${Math.round((performance.now() - began) / 1_000)} s, exit code ${status}`);
  return status === 0;
}

/** Starts a service of the built program, and waits until it listens. */
async function serve(
  name: string,
  target: PostgresTarget,
): Promise<{ readonly url: string; readonly edge: string }> {
  const [port, edgePort] = [await freePort(), await freePort()];
  const environment = {
    PATH: process.env["PATH"],
    NODE_ENV: "production",
    PORT: String(port),
    WEBUI_PORT: String(port),
    PINNING_EDGE_PORT: String(edgePort),
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    JWT_SECRET: "j".repeat(64),
    SESSION_SECRET: "s".repeat(64),
    ENCRYPTION_KEY: "0123456789abcdef".repeat(4),
    SYSTEM_KEY,
    PINNING_SYSTEM_KEY: SYSTEM_KEY,
    FULA_EIP712_AUTH: "true",
    IPFS_API_ADDR: "/ip4/127.0.0.1/tcp/9",
    IPFS_CLUSTER_API_ADDR: `/ip4/127.0.0.1/tcp/${new URL(cluster.url).port}`,
    CLUSTERNAME: POOL,
    NODE_REGISTRATION: "open",
  };
  const child = spawn(process.execPath, [PROGRAM, "serve", name], {
    env: environment,
    stdio: ["ignore", "pipe", "pipe"],
  });
  services.push(child);
  await new Promise<void>((resolve, reject) => {
    child.once("exit", (status) =>
      reject(new Error(`${name} ended with ${status}: ${log.slice(-5).join("\n")}`)),
    );
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        log.push(...chunk.toString().split("\n").filter(Boolean));
        if (chunk.toString().includes(` listens on 127.0.0.1:${port}`)) resolve();
      });
  });
  return { url: `http://127.0.0.1:${port}`, edge: `http://127.0.0.1:${edgePort}` };
}

function accounts<Item>(item: (n: number) => Item): readonly Item[] {
  return Array.from({ length: ACCOUNTS }, (_, n) => item(n));
}

function tokenOf(n: number): string {
  return `key-of-account-${n}`;
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Each account has a key for both services, a balance, a history and a wallet that was linked elsewhere. */
async function addAccounts(target: PostgresTarget): Promise<void> {
  const rows = [accounts((n) => sha256(`${n}@example.org`)), accounts((n) => sha256(tokenOf(n)))];
  const of = (into: string) =>
    sql(target, `INSERT INTO ${into} FROM unnest($1::text[], $2::text[]) AS a (id, hash)`, rows);
  await of("webui_users (user_id) SELECT id");
  await of("api_keys (key_hash, user_id) SELECT hash, id");
  await of("sessions (session_token, token_hash, user_id) SELECT hash, hash, id");
  await of("user_credits (user_id, balance_fula) SELECT id, 100");
  await of("credit_history (user_id, tx_type, amount_fula, balance_after) SELECT id, 'deposit', 100, 100");
}

async function addNodes(url: string): Promise<void> {
  for (const name of ["berlin", "paris"]) {
    const identity = makeIdentity();
    const body = JSON.stringify(signAnnouncement(identity, announcementOf(identity, { name, pool: POOL })));
    const headers = { "content-type": "application/json" };
    const { status } = await fetch(`${url}/api/v1/nodes`, { method: "POST", headers, body });
    if (status !== 201) throw new Error(`the node ${name} was answered with ${status}`);
  }
}
