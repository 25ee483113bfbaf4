import type { Evidence, Foreign } from "../../engine/step.ts";
import type { HostReader } from "../../host.ts";
import { isDatabaseElsewhere, type MasterContext, postgresTarget } from "../../settings/master-context.ts";
import { NAMES } from "../../settings/master-layout.ts";
import { type DataGuard, readValues, type Values } from "../../settings/node-context.ts";

/** Guards the database of a master, here or elsewhere. */
export function guardDatabase(context: MasterContext): DataGuard {
  return {
    doesDataLive: (host) => doesDataLive(host, context),
    countDependents: (host, key) => countDependents(host, context, key),
    check: (host, evidence) => checkPassword(host, context, evidence),
  };
}

/** Rows that a secret was used for; none at all means that a new one hurts nobody. */
const DEPENDENTS: Readonly<Record<string, string>> = {
  JWT_SECRET: "SELECT (SELECT count(*) FROM api_keys) + (SELECT count(*) FROM sessions) AS n",
  SESSION_SECRET: "SELECT count(*) AS n FROM sessions",
  ENCRYPTION_KEY:
    "SELECT (SELECT count(*) FROM api_keys WHERE encrypted_key IS NOT NULL)" +
    " + (SELECT count(*) FROM webui_users WHERE encrypted_email IS NOT NULL)" +
    " + (SELECT count(*) FROM user_wallets WHERE encrypted_wallet_address IS NOT NULL) AS n",
};

/** Where data lives that secrets were used for; null where there is none. */
async function doesDataLive(host: HostReader, context: MasterContext): Promise<string | null> {
  const values = await readValues(host, context);
  if (isDatabaseElsewhere(values)) return await describeTables(host, values);
  const [volume, container] = await Promise.all([
    host.docker.volume(context.postgresVolume),
    host.docker.container(NAMES.postgres),
  ]);
  if (volume !== null) return `Postgres volume ${volume.name}`;
  return container === null ? null : `container ${container.name}`;
}

/** How many rows depend on a secret; null where that can't be told. */
async function countDependents(
  host: HostReader,
  context: MasterContext,
  key: string,
): Promise<number | null> {
  const sql = DEPENDENTS[key];
  const target = postgresTarget(await readValues(host, context));
  if (sql === undefined || target === null) return null;
  if ((await host.postgres.ask(target)).kind !== "open") return null;
  const tables = await host.postgres.query<{ t: string | null }>(
    target,
    "SELECT to_regclass('api_keys')::text AS t",
  );
  if (tables[0]?.t == null) return 0;
  const rows = await host.postgres.query<{ n: string }>(target, sql);
  return Number(rows[0]?.n ?? Number.NaN);
}

/**
 * Halts on a password, or a name, that does not open the database that is there. It is asked over the
 * network: inside its container the official image trusts everyone.
 */
async function checkPassword(
  host: HostReader,
  context: MasterContext,
  evidence: Evidence,
): Promise<Foreign<never> | null> {
  const values = await readValues(host, context);
  const target = postgresTarget(values);
  if (target === null) return null;
  const place = `${target.host}:${target.port}`;
  const foreign = (why: string): Foreign<never> => ({
    state: "foreign",
    evidence: { ...evidence, database: place },
    why,
    remedy: `Put back what the database was made with, by --set POSTGRES_PASSWORD=VALUE, POSTGRES_USER or POSTGRES_DB, or in ${context.layout.envFile}. The README tells how to set a new password inside the database.`,
  });
  const container = isDatabaseElsewhere(values) ? null : await host.docker.container(NAMES.postgres);
  if (!isDatabaseElsewhere(values) && container === null) return null;
  const answer = await host.postgres.ask(target);
  if (answer.kind === "wrong-password")
    return foreign(`The password for ${target.user} does not open the database at ${place}.`);
  if (answer.kind === "no-database")
    return foreign(`The server at ${place} has no database ${target.database}.`);
  const made = container?.env["POSTGRES_PASSWORD"];
  if (answer.kind === "unreachable" && made !== undefined && made !== target.password) {
    return foreign(
      `The password for ${target.user} differs from the one that ${NAMES.postgres} was made with, and the database does not run, so neither can be tried.`,
    );
  }
  return null;
}

async function describeTables(host: HostReader, values: Values): Promise<string | null> {
  const target = postgresTarget(values);
  if (target === null || (await host.postgres.ask(target)).kind !== "open")
    return `the database at ${values("POSTGRES_HOST") ?? "?"}`;
  const rows = await host.postgres.query<{ n: string }>(
    target,
    "SELECT count(*) AS n FROM information_schema.tables WHERE table_schema = 'public'",
  );
  const tables = Number(rows[0]?.n ?? 0);
  return tables === 0 ? null : `${tables} tables in the database at ${target.host}:${target.port}`;
}
