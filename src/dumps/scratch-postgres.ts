import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { escapeIdentifier } from "pg";
import { OperatorError } from "../errors.ts";
import { saidBy } from "./dump.ts";
import type { Throwaway } from "./throwaway.ts";

/** A Postgres without network, with one empty database. */
export interface ScratchPostgres {
  /** Makes those that it lacks of these roles, without login. */
  createRoles(roles: readonly string[]): Promise<void>;
  /** Restores a dump in one transaction; the first error ends it. Throws (`integrity`) with what it was at. */
  restore(dump: Readable): Promise<void>;
  /** Runs statements of settings and then one query; each row is an object with texts. */
  query<Row>(settings: string, sql: string): Promise<readonly Row[]>;
}

/** What it is started with. */
interface ScratchGiven {
  readonly name: string;
  readonly mark: string;
  readonly image: string;
  /** Where the image's server keeps its data. */
  readonly dataPath: string;
  /** `server_encoding` of the database that will be restored. */
  readonly encoding: string;
  readonly timeoutMs: number;
}

const MEMORY_BYTES = 1024 ** 3;
const DATABASE = "restored";
/** Its data is thrown away, so nothing waits for the disk. It writes as little beside its tables as it can. */
const SETTINGS = [
  "fsync=off",
  "synchronous_commit=off",
  "full_page_writes=off",
  "wal_level=minimal",
  "max_wal_senders=0",
  "max_wal_size=256MB",
  "autovacuum=off",
  "listen_addresses=127.0.0.1",
  "shared_buffers=128MB",
  "maintenance_work_mem=128MB",
  // All tables are created in one transaction.
  "max_locks_per_transaction=1024",
  "max_connections=10",
  "max_parallel_maintenance_workers=0",
  "max_parallel_workers_per_gather=0",
  "jit=off",
];
/** On its own loopback, which is all the network that it has. */
const LOGIN = ["-h", "127.0.0.1", "-U", "postgres"];

/** Starts the server and waits until it answers. Its container and volume are there until they are removed by their mark. */
export async function startScratch(engine: Throwaway, given: ScratchGiven): Promise<ScratchPostgres> {
  const { name, mark, image, dataPath, encoding, timeoutMs } = given;
  await engine.start({
    name,
    mark,
    image,
    network: "none",
    memoryBytes: MEMORY_BYTES,
    environment: { POSTGRES_HOST_AUTH_METHOD: "trust", PGDATA: dataPath },
    temporary: ["/tmp", "/var/run/postgresql"],
    data: dataPath,
    user: "",
    // As in compose/postgres.yml: the image starts as root and becomes the user postgres.
    capabilities: ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
    entrypoint: null,
    command: ["postgres", ...SETTINGS.flatMap((setting) => ["-c", setting])],
  });
  const run = async (what: string, argv: readonly string[], input?: string): Promise<string> => {
    const options = { timeoutMs, ...(input === undefined ? {} : { input }) };
    const { exitCode, stdout, lastLines, stopped } = await engine.run(name, argv, options);
    if (exitCode === 0) return stdout;
    throw new OperatorError({
      exit: "unavailable",
      what: `The Postgres without network ${what}.`,
      why: stopped ?? saidBy(lastLines) ?? `exit code ${exitCode}`,
      remedy: "Run again. If it stays so, look at `journalctl -u docker -n 50`.",
    });
  };
  // Over TCP: while the image still sets the database up, it answers on the socket only.
  const wait = "until pg_isready -q -h 127.0.0.1; do sleep 0.1; done";
  await run("did not start", ["sh", "-c", wait]);
  // Other encodings than UTF8 fit into the locale C alone.
  const locale = encoding === "UTF8" ? "" : " LC_COLLATE 'C' LC_CTYPE 'C'";
  const create = `CREATE DATABASE ${DATABASE} TEMPLATE template0 ENCODING '${encoding}'${locale}`;
  await run("has no database of this encoding", ["psql", ...LOGIN, "-X", "-q", "-c", create]);

  return {
    async createRoles(roles) {
      const lacking = roles.filter((role) => role !== "postgres");
      const statements = lacking.map((role) => `CREATE ROLE ${escapeIdentifier(role)};`);
      const argv = ["psql", ...LOGIN, "-d", DATABASE, "-X", "-q", "-v", "ON_ERROR_STOP=1"];
      await run("could not make the roles of the database", argv, `${statements.join("\n")}\n`);
    },

    async restore(dump) {
      const running = engine.open(name, [
        "pg_restore",
        ...LOGIN,
        `--dbname=${DATABASE}`,
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--single-transaction",
      ]);
      running.stdout.resume();
      // How it ended says more than the broken pipe.
      await pipeline(dump, running.stdin).catch(() => {});
      const { exitCode, stopped, lastLines } = await running.ended;
      if (exitCode === 0) return;
      throw new OperatorError({
        exit: "integrity",
        what: "The dump could not be restored.",
        why: stopped ?? saidBy(lastLines) ?? `pg_restore ended with exit code ${exitCode}`,
        remedy: "A backup of this database would not help you: repair what is named.",
      });
    },

    async query<Row>(settings: string, sql: string) {
      const argv = ["psql", ...LOGIN, "-d", DATABASE, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"];
      // The answers of the settings must not be read as rows.
      const input = `\\o /dev/null\n${settings};\n\\o\nSELECT row_to_json(answer) FROM (${sql}) AS answer;\n`;
      const text = await run("did not answer a question", argv, input);
      return text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Row);
    },
  };
}
