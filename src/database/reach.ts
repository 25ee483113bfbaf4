import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { type MasterLayout, NAMES, POSTGRES_TLS_FILES } from "../settings/layout.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { describeRefusal, reasonOf } from "./connection-fault.ts";

/**
 * Why a Postgres that other machines reach must start again: it reads its certificate and the rules of access only then.
 * Null if it has read those that are there now.
 */
export async function whyItReadsOldFiles(
  host: Pick<HostReader, "docker" | "files">,
  { postgresTlsDir }: Pick<MasterLayout, "postgresTlsDir">,
): Promise<string | null> {
  const { directory, certificate, rules } = POSTGRES_TLS_FILES;
  const [container, ...stats] = await Promise.all([
    host.docker.container(NAMES.postgres),
    ...[certificate, rules].map((name) => host.files.stat(`${postgresTlsDir}/${directory}/${name}`)),
  ]);
  const started = Date.parse(container?.startedAt ?? "");
  const isOld = stats.some((stat) => stat !== null && stat.modifiedAt.getTime() > started);
  return isOld ? "it has not read its newest certificate and rules of access yet" : null;
}

/**
 * Connects as another master does. Throws (`unhealthy`) if that fails, or if a connection without TLS is let in: then the
 * password's exchange and every row would cross the network in plain text.
 */
export async function checkReach(
  host: Pick<HostReader, "postgres">,
  { postgresTlsDir }: Pick<MasterLayout, "postgresTlsDir">,
  target: PostgresTarget,
  address: string,
): Promise<void> {
  const { sslCa: _path, sslCaPem: _pem, ...rest } = target;
  const outside: PostgresTarget = {
    ...rest,
    host: address,
    ssl: "verify-full",
    sslCa: `${postgresTlsDir}/ca.pem`,
  };
  const answer = await host.postgres.ask(outside);
  if (answer.kind !== "open") {
    const { what, remedy } = describeRefusal(outside, answer);
    throw new OperatorError({
      exit: "unhealthy",
      what: `Other masters can't use the database: ${what}`,
      why: `It says: ${reasonOf(answer)}.`,
      remedy: `See \`docker logs ${NAMES.postgres}\`. ${remedy}`,
    });
  }
  const plain = await host.postgres.ask({ ...rest, host: address, ssl: false });
  if (plain.kind === "wants-tls") return;
  throw new OperatorError({
    exit: "unhealthy",
    what: `PostgreSQL at ${address}:${target.port} does not refuse a connection without TLS: ${plain.kind === "open" ? "it let it in" : reasonOf(plain)}.`,
    remedy: `Remove POSTGRES_BIND from .env and run join-as-master again: then no other machine reaches it. See \`docker logs ${NAMES.postgres}\`.`,
  });
}
