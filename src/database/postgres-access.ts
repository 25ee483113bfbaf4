import type { Host, HostReader } from "../host.ts";
import { type MasterContext, readValues } from "../settings/context.ts";
import { isOurs, NAMES } from "../settings/layout.ts";
import { isDatabaseElsewhere, postgresBindOf, postgresTarget } from "../settings/postgres-target.ts";

/** Who may log in from where, as initdb writes it (PostgreSQL manual, 21.1 The pg_hba.conf File). */
const OF_INITDB = /^(?:local|host) (?:all|replication) all (?:127\.0\.0\.1\/32 |::1\/128 )?[a-z0-9-]+$/;
/** What the official image adds when it first starts, and does not sync. */
const ADDED = "host all all all scram-sha-256";
/** What is wrong, and what is done about it. */
export const SHUT = "pg_hba.conf lacks the line that lets the services in";
export const LET_IN = {
  kind: "let-in",
  summary: "add to pg_hba.conf what the first start of Postgres wrote, and a power cut took",
} as const;
const DEADLINE_MS = 60_000;

/**
 * True if a power cut took what the image adds to pg_hba.conf: the file is as initdb made it, and the running server refuses the
 * connection by it. Also true if a killed run added it, and the server has not read it yet. A file that anybody else has changed stays as it is.
 */
export async function hasLostAccess(host: HostReader, context: MasterContext): Promise<boolean> {
  const values = await readValues(host, context);
  const target = postgresTarget(values);
  if (target === null || isDatabaseElsewhere(values) || postgresBindOf(values) !== null) return false;
  const answer = await host.postgres.ask(target);
  if (!("says" in answer) || !answer.says.includes("pg_hba.conf")) return false;
  const [volume, container] = await Promise.all([
    host.docker.volume(context.postgresVolume),
    host.docker.container(NAMES.postgres),
  ]);
  if (volume === null || !isOurs(volume) || container === null || !isOurs(container)) return false;
  const text = await host.files.readText(`${volume.mountpoint}/pg_hba.conf`);
  // Of what was written and never synced, the length may be there, and zeros instead of the text.
  const rules = (text ?? "")
    .replaceAll("\0", "")
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim().replaceAll(/\s+/g, " "))
    .filter((line) => line !== "");
  return rules.length > 0 && rules.every((rule) => rule === ADDED || OF_INITDB.test(rule));
}

/** Adds the line again, and lets the server read it. Inside of the container, initdb lets everybody in. */
export async function giveAccess({ docker }: Pick<Host, "docker">, user: string): Promise<void> {
  const script = `grep -qxF '${ADDED}' "$PGDATA/pg_hba.conf" || printf '\\n%s\\n' '${ADDED}' >>"$PGDATA/pg_hba.conf" && sync`;
  const psql = ["psql", "--quiet", "--no-psqlrc", "--no-password", `--username=${user}`, "--dbname=postgres"];
  for (const argv of [
    ["sh", "-c", script],
    [...psql, "--set=ON_ERROR_STOP=1", "--command=SELECT pg_reload_conf()"],
  ])
    await docker.runIn(NAMES.postgres, argv, { text: "" }, { timeoutMs: DEADLINE_MS });
}
