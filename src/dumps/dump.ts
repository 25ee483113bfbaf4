import type { Readable } from "node:stream";
import type { Client } from "pg";
import { sslOf } from "../database/session.ts";
import { OperatorError } from "../errors.ts";
import { CONTAINER_USER } from "../settings/layout.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { settingsSql } from "./database-facts.ts";
import type { Throwaway } from "./throwaway.ts";

/** A dump that is being made. */
export interface Dump {
  /** In pg_dump's custom format, not compressed. Whoever reads slowly lets pg_dump wait. */
  readonly stream: Readable;
  /** Resolves when the dump is complete. Throws (`unavailable`) if it is not: then what came is no dump. */
  readonly ended: Promise<void>;
}

/** What a dump is made with. */
interface DumpGiven {
  /** The name of the container in which pg_dump runs, and its mark. */
  readonly name: string;
  readonly mark: string;
  /** An image with a pg_dump that is not older than the server. */
  readonly image: string;
  /** From pg_export_snapshot(), of a transaction that stays open until the dump is complete. */
  readonly snapshot: string;
}

/** A snapshot that others can read, until this transaction ends. */
export async function openExportedSnapshot(client: Client, timeoutMs: number): Promise<string> {
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  // While pg_dump works, this session is idle; and if this process dies, the server ends what it had asked.
  await client.query(
    `SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '1s' ELSE '${timeoutMs}ms' END, true)
     FROM pg_settings
     WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'client_connection_check_interval')`,
  );
  await client.query(settingsSql(true));
  const { rows } = await client.query<{ id: string }>("SELECT pg_export_snapshot() AS id");
  return rows[0]?.id ?? "";
}

/** Ends the certificates, and then the password, on standard input. */
const END = "=== end ===";

/**
 * What is secret comes by standard input: `docker inspect` shows a container's environment and arguments to everybody who may use
 * Docker. `read` of a shell takes no byte more than its line. What comes after the password is the life of whoever asked: once that
 * ends, in whatever way, pg_dump does not stay behind with its locks.
 */
const SCRIPT = `umask 077
while IFS= read -r line && [ "$line" != "${END}" ]; do printf '%s\n' "$line"; done >/run/dump/ca.pem
PGPASSWORD=
while IFS= read -r line && [ "$line" != "${END}" ]; do PGPASSWORD="$PGPASSWORD$line
"; done
PGPASSWORD=\${PGPASSWORD%?}
export PGPASSWORD
exec 3<&0
pg_dump "$@" 3<&- &
dump=$!
(cat <&3 >/dev/null; kill -9 $dump) &
wait $dump`;

const MEMORY_BYTES = 512 * 1024 ** 2;
const LOCK_WAIT_MS = 10_000;

/** Starts pg_dump in a container of its own. It reads with one connection and takes no lock but ACCESS SHARE. */
export async function openDump(engine: Throwaway, target: PostgresTarget, given: DumpGiven): Promise<Dump> {
  const { name, mark, image, snapshot } = given;
  const { mode, ca } = await libpqTls(target);
  const running = engine.attach({
    name,
    mark,
    image,
    network: "host",
    memoryBytes: MEMORY_BYTES,
    environment: {
      PGHOST: target.host,
      PGPORT: String(target.port),
      PGUSER: target.user,
      PGDATABASE: target.database,
      PGSSLMODE: mode,
      ...(ca === "" ? {} : { PGSSLROOTCERT: "/run/dump/ca.pem" }),
      PGCONNECT_TIMEOUT: "10",
      PGAPPNAME: "fula-node dump",
    },
    temporary: [`/run/dump:uid=${CONTAINER_USER.uid},gid=${CONTAINER_USER.gid},mode=0700,size=4m`],
    data: null,
    user: `${CONTAINER_USER.uid}:${CONTAINER_USER.gid}`,
    capabilities: [],
    entrypoint: "sh",
    command: [
      "-c",
      SCRIPT,
      "sh",
      "--format=custom",
      "--compress=0",
      "--no-password",
      `--snapshot=${snapshot}`,
      `--lock-wait-timeout=${LOCK_WAIT_MS}`,
    ],
  });
  running.stdin.write(`${ca}${END}\n${target.password}\n${END}\n`);
  running.stdout.once("close", () => running.stdin.end());
  // Whoever reads it gets its error.
  running.stdout.on("error", () => {});
  const ended = (async () => {
    const { exitCode, stopped, lastLines } = await running.ended;
    if (exitCode === 0) return;
    // pg_dump waits for its locks with a statement timeout, and says only that.
    if (
      lastLines.some((line) => /statement timeout/.test(line)) &&
      lastLines.some((line) => /LOCK TABLE/.test(line))
    )
      throw new OperatorError({
        exit: "unavailable",
        what: "pg_dump did not complete the dump: another session holds a lock on a table.",
        why: `It waited ${LOCK_WAIT_MS / 1_000} s for it. A migration holds one, or a session that somebody forgot.`,
        remedy:
          "Wait until that ends, then run again. `SELECT pid, query FROM pg_stat_activity` in the database shows the sessions.",
      });
    throw new OperatorError({
      exit: "unavailable",
      what: "pg_dump did not complete the dump.",
      why: stopped ?? saidBy(lastLines) ?? `it ended with exit code ${exitCode}`,
      remedy: "Check the database (fula-node status), then run again.",
    });
  })();
  // Whoever reads the stream asks for its end later.
  ended.catch(() => {});
  return { stream: running.stdout, ended };
}

/**
 * The first error in the lines of a PostgreSQL program, and the command that it was at; null if there are no lines. Lines with DETAIL
 * and CONTEXT are left out: they quote rows.
 */
export function saidBy(lines: readonly string[]): string | null {
  const at = lines.findIndex((line) => /\berror: /i.test(line));
  const error = lines[at];
  if (error === undefined) return lines.at(-1) ?? null;
  const command = lines.slice(at).find((line) => line.startsWith("Command was: "));
  const shown =
    command === undefined
      ? ""
      : ` (${withoutTexts(command.slice("Command was: ".length)).slice(0, MAX_QUOTED)})`;
  const text = error.replace(/^\w+: error: /, "").replaceAll(/\s+/g, " ");
  return `${text.slice(0, MAX_QUOTED)}${shown}`;
}

/** A text in a command may be a password: of a user mapping, or of a subscription's connection. */
function withoutTexts(command: string): string {
  return command.replaceAll(/'(?:[^']|'')*(?:'|$)/g, "'...'").replace(/\$\w*\$.*$/, "$...");
}

/** Characters of what a program says. */
const MAX_QUOTED = 300;

/** libpq's words for how we encrypt; see sslOf. */
async function libpqTls(target: PostgresTarget): Promise<{ readonly mode: string; readonly ca: string }> {
  const options = await sslOf(target);
  if (options === false) return { mode: "disable", ca: "" };
  const ca = [options.ca ?? []].flat().map((one) => `${one.toString().trimEnd()}\n`);
  if (ca.length === 0) return { mode: "require", ca: "" };
  return { mode: target.ssl === "verify-full" ? "verify-full" : "verify-ca", ca: ca.join("") };
}
