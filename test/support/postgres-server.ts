import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { execa } from "execa";
import { Client, DatabaseError } from "pg";
import { freePort } from "./free-port.ts";
import type { PostgresPrograms } from "./postgres-programs.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** A real PostgreSQL for the tests of one file. */
export interface TestPostgres {
  /** Its superuser in the database `postgres`. */
  readonly target: PostgresTarget;
  /** Creates a database: empty, or a copy of the file's template. */
  createDatabase(): Promise<PostgresTarget>;
  /** Stops it and removes its data. */
  stop(): Promise<void>;
}

/** Options of a server. */
export interface PostgresOptions {
  /** Prepares the template, from which all databases are copied. Runs once. */
  readonly template?: (target: PostgresTarget) => Promise<void>;
  /** True: PostgreSQL waits for the disk as in production, for measurements. */
  readonly durable?: boolean;
  /** Settings as in postgresql.conf: `ssl=on`. */
  readonly settings?: readonly string[];
  /** Writes files into the data directory before the server first starts. */
  readonly prepare?: (dataDirectory: string) => Promise<void>;
}

/** Runs one statement in its own session. */
export async function sql<Row extends Record<string, unknown>>(
  target: PostgresTarget,
  text: string,
  values: readonly unknown[] = [],
): Promise<readonly Row[]> {
  return inSession(target, async (client) => (await client.query<Row>(text, [...values])).rows);
}

/** Runs several things in one session. */
export async function inSession<Result>(
  target: PostgresTarget,
  work: (client: Client) => Promise<Result>,
): Promise<Result> {
  const { host, port, database, user, password, ssl } = target;
  const login = { host, port, database, user, password, ssl: ssl !== false && { rejectUnauthorized: false } };
  const client = new Client({ ...login, application_name: "a test" });
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}

/**
 * Starts a server on a free port of 127.0.0.1 in its own directory, without fsync if it is not `durable`. It ends and
 * removes that directory when `stop` is called, or when this process ends in any way: a shell waits for the end of a pipe
 * which this process keeps open.
 */
export async function startPostgres(
  found: PostgresPrograms,
  { template, durable = false, settings: own = [], prepare }: PostgresOptions = {},
): Promise<TestPostgres> {
  const base = await mkdtemp(join(tmpdir(), "fula-node-postgres-"));
  const password = "only-for-tests";
  const runAs = await unprivileged();
  await writeFile(join(base, "password"), password);
  const bin = found.tree === null || runAs === null ? found.bin : await readableCopy(found.tree, base);
  if (runAs !== null) await execa("chown", ["-R", `${runAs.uid}:${runAs.gid}`, base]);
  const options = { cwd: base, ...runAs, env: { LC_ALL: "C" } };
  const initdb = ["-D", "data", "-U", "postgres", "--auth=scram-sha-256", "--pwfile=password", "--no-sync"];
  await execa(join(bin, "initdb"), [...initdb, "--encoding=UTF8", "--locale=C"], options);
  await prepare?.(join(base, "data"));
  if (prepare !== undefined && runAs !== null)
    await execa("chown", ["-R", `${runAs.uid}:${runAs.gid}`, base]);

  const port = await freePort();
  const settings = ["listen_addresses=127.0.0.1", ...(durable ? [] : WITHOUT_DISK), ...own];
  const server = [join(bin, "postgres"), "-D", "data", "-p", String(port), "-k", base];
  const child = spawn(
    "/bin/sh",
    ["-c", SERVE, "sh", base, ...server, ...settings.flatMap((setting) => ["-c", setting])],
    { ...options, detached: true, stdio: ["pipe", "ignore", "ignore"] },
  );
  const target: PostgresTarget = {
    host: "127.0.0.1",
    port,
    database: "postgres",
    user: "postgres",
    password,
    ssl: false,
  };
  const stop = async (): Promise<void> => {
    const gone = once(child, "exit");
    child.stdin.end();
    await gone;
  };
  await untilOpen(target, join(base, "log")).catch(async (thrown: unknown) => {
    await stop();
    throw thrown;
  });
  const createDatabase = await databaseMaker(target, template);
  return { target, createDatabase, stop };
}

const WITHOUT_DISK = ["fsync=off", "full_page_writes=off", "synchronous_commit=off"];

const SERVE = `
  base=$1; shift
  "$@" >log 2>&1 & server=$!
  cat
  kill -QUIT $server
  wait $server
  cd / && rm -rf "$base"`;

/** The user to run as, since initdb refuses root. Null for other users. */
async function unprivileged(): Promise<{ readonly uid: number; readonly gid: number } | null> {
  if (process.getuid?.() !== 0) return null;
  const passwd = await readFile("/etc/passwd", "utf8");
  const [, , uid, gid] =
    passwd
      .split("\n")
      .find((line) => line.startsWith("nobody:"))
      ?.split(":") ?? [];
  if (uid === undefined || gid === undefined)
    throw new Error("this machine has no user `nobody` to run PostgreSQL as");
  return { uid: Number(uid), gid: Number(gid) };
}

/** `nobody` can't read a checkout below /root, so the programs are copied to the directory of the data. */
async function readableCopy(tree: string, base: string): Promise<string> {
  const copy = join(base, "native");
  await cp(tree, copy, { recursive: true, verbatimSymlinks: true });
  for (const program of ["initdb", "postgres"]) await chmod(join(copy, "bin", program), 0o755);
  return join(copy, "bin");
}

async function untilOpen(target: PostgresTarget, log: string): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      await sql(target, "SELECT 1");
      return;
    } catch (thrown) {
      const said = await readFile(log, "utf8").catch(() => "");
      const dead = /FATAL: .*(?:could not|lock file)/.test(said);
      if (dead || Date.now() > deadline)
        throw new Error(`PostgreSQL did not start:\n${said}`, { cause: thrown });
      await wait(20);
    }
  }
}

async function databaseMaker(
  target: PostgresTarget,
  template: PostgresOptions["template"],
): Promise<() => Promise<PostgresTarget>> {
  const source = template === undefined ? "template0" : "fula_template";
  if (template !== undefined) {
    await sql(target, `CREATE DATABASE ${source}`);
    await template({ ...target, database: source });
  }
  let made = 0;
  return async () => {
    made += 1;
    const database = `test_${made}`;
    await copyDatabase(target, source, database);
    return { ...target, database };
  };
}

/** PostgreSQL may count a closed session as a user of the template for another moment. */
async function copyDatabase(target: PostgresTarget, source: string, database: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      await sql(target, `CREATE DATABASE ${database} TEMPLATE ${source}`);
      return;
    } catch (thrown) {
      const inUse = thrown instanceof DatabaseError && thrown.code === "55006";
      if (!inUse || Date.now() > deadline) throw thrown;
      await wait(20);
    }
  }
}
