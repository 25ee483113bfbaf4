import type { Project } from "../../docker/compose-project.ts";
import { compareCompose } from "../../docker/compose-render.ts";
import { NOTHING, type Obstacle, type Seen, type ServiceState } from "../../docker/container-finding.ts";
import { containers, imagesToPull, type Judge } from "../../docker/containers.ts";
import type { AnyStep, Evidence, Finding, Foreign } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import {
  type DataGuard,
  type MasterContext,
  poll,
  readValues,
  requireTarget,
  type Values,
} from "../../settings/context.ts";
import { isOurs, NAMES } from "../../settings/layout.ts";
import { isDatabaseElsewhere, postgresTarget } from "../../settings/master.ts";

const ANSWER_DEADLINE_MS = 180_000;

/** Postgres: a container on this box, or an external database that POSTGRES_HOST names. */
export function postgres(context: MasterContext, project: Project): AnyStep {
  return containers(context, project, {
    id: "postgres",
    title: "Postgres",
    touches:
      "Starts the container `postgres-pinning`, data on a volume. Does nothing if POSTGRES_HOST names an external database.",
    desired: () => ({
      services: [{ service: "postgres", container: NAMES.postgres }],
      images: imagesToPull(context, ["POSTGRES_IMAGE"]),
    }),
    survey: (host) => surveyVolume(host, context, project),
    inPlace: {
      isUsed: async (host) => isDatabaseElsewhere(await readValues(host, context)),
      probe: async (host) => await probeExternal(host, await readValues(host, context)),
    },

    async verify(host) {
      const target = requireTarget(await readValues(host, context), context);
      const answer = await poll(host, ANSWER_DEADLINE_MS, async () => {
        const reply = await host.postgres.ask(target);
        return reply.kind === "unreachable" ? null : reply;
      });
      if (answer?.kind === "open") return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${target.user} cannot log in to the database at ${target.host}:${target.port}: ${answer?.kind ?? "it cannot be reached"}.`,
        remedy: `See \`docker logs ${NAMES.postgres}\`. If the volume was created with another password, put that password into ${context.layout.envFile}.`,
      });
    },
  });
}

async function probeExternal(host: HostReader, values: Values): Promise<Finding<Seen>> {
  const target = postgresTarget(values);
  const place = `${values("POSTGRES_HOST") ?? ""}:${values("POSTGRES_PORT") ?? ""}`;
  const answer = target === null ? null : await host.postgres.ask(target);
  const evidence = { database: `${place}, external`, answer: answer?.kind ?? "not asked: no password" };
  if (answer?.kind === "open") {
    return {
      state: "ours",
      seen: NOTHING,
      evidence: { ...evidence, system_identifier: answer.systemIdentifier },
    };
  }
  throw new OperatorError({
    exit: answer?.kind === "unreachable" ? "unavailable" : "settings",
    what: `Cannot log in to the database at ${place}: ${answer?.kind === "unreachable" ? answer.why : (answer?.kind ?? "POSTGRES_PASSWORD is missing")}.`,
    why: "POSTGRES_HOST names an external database, so fula-node does not create one here.",
    remedy: "Check POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and POSTGRES_PASSWORD.",
  });
}

/** Reads who created the volume, and which Postgres version initialised it. */
async function surveyVolume(host: HostReader, context: MasterContext, project: Project): Promise<Judge> {
  const [volume, file] = await Promise.all([
    host.docker.volume(context.postgresVolume),
    host.files.readText(project.file),
  ]);
  const dataMajor =
    volume === null ? null : ((await host.files.readText(`${volume.mountpoint}/PG_VERSION`))?.trim() ?? null);
  const evidence = {
    volume:
      volume === null
        ? "absent"
        : `${volume.name}, ${isOurs(volume) ? "ours" : "no fula-node label"}, Postgres ${dataMajor ?? "not initialised"}`,
  };
  const isForeign = volume !== null && !isOurs(volume) && !isOursByMarker(file, project, context);
  const found = { name: context.postgresVolume, isHere: volume !== null, isForeign };
  const image = context.settings.get("POSTGRES_IMAGE")?.value ?? "";
  return ([state]) => ({
    evidence,
    obstacle: findMajorConflict(found.name, dataMajor, image) ?? findForeign(state, found),
  });
}

function findMajorConflict(volume: string, dataMajor: string | null, image: string): Obstacle | null {
  const desired = majorOf(image);
  if (dataMajor === null || desired === undefined || dataMajor === desired) return null;
  return {
    why: `Postgres ${dataMajor} created the volume ${volume}, but the image is ${image}.`,
    remedy: `Set POSTGRES_IMAGE to an image of Postgres ${dataMajor}, or move the data with dump and restore.`,
    claim: null,
  };
}

/** A container that fula-node did not create, or such a volume without a container. `--adopt` keeps the volume. */
function findForeign(
  state: ServiceState | undefined,
  volume: { readonly name: string; readonly isHere: boolean; readonly isForeign: boolean },
): Obstacle | null {
  const isContainer = state?.state === "foreign";
  if (!isContainer && !(state?.state === "absent" && volume.isForeign)) return null;
  const adoptable = volume.isHere && (!isContainer || state.claimable);
  return {
    why: isContainer
      ? `fula-node did not create the container ${NAMES.postgres} (${state.detail}).`
      : `fula-node did not create the volume ${volume.name}, which contains a database.`,
    remedy: adoptable
      ? "If it is not needed, rename or remove it. If it contains the pool's database, keep its password in .env."
      : `If it is not needed, rename or remove it. If it has the pool's database in the volume ${volume.name}, keep its password in .env, remove the container but not the volume, and run again.`,
    claim: adoptable ? [`${NAMES.postgres} is not adopted yet; its volume ${volume.name} is kept`] : null,
  };
}

/** The major of an image's tag: "16" of `registry:5000/postgres:16-alpine`; undefined if the tag does not show it. */
function majorOf(image: string): string | undefined {
  return /:(\d+)[^/:]*$/.exec(image.replace(/@.*$/, ""))?.[1];
}

/** True if our compose file names the volume: then an earlier run created or adopted it. */
function isOursByMarker(file: string | null, { text }: Project, { hash }: MasterContext): boolean {
  const { kind } = compareCompose(file, text, hash);
  return kind === "same" || kind === "differs";
}

/** Guards the database of a master, on this box or external. */
export function guardDatabase(context: MasterContext): DataGuard {
  return {
    findLiveData: (host) => findLiveData(host, context),
    countDependents: (host, key) => countDependents(host, context, key),
    check: (host, evidence) => checkPassword(host, context, evidence),
  };
}

/** Counts the rows that depend on a secret. Without any, a new secret does no harm. */
const DEPENDENTS: Readonly<Record<string, string>> = {
  JWT_SECRET: "SELECT (SELECT count(*) FROM api_keys) + (SELECT count(*) FROM sessions) AS n",
  SESSION_SECRET: "SELECT count(*) AS n FROM sessions",
  ENCRYPTION_KEY:
    "SELECT (SELECT count(*) FROM api_keys WHERE encrypted_key IS NOT NULL)" +
    " + (SELECT count(*) FROM webui_users WHERE encrypted_email IS NOT NULL)" +
    " + (SELECT count(*) FROM user_wallets WHERE encrypted_wallet_address IS NOT NULL) AS n",
};

/** Where data exists that secrets were used for; null if there is none. */
async function findLiveData(host: HostReader, context: MasterContext): Promise<string | null> {
  const values = await readValues(host, context);
  if (isDatabaseElsewhere(values)) return await describeTables(host, values);
  const [volume, container] = await Promise.all([
    host.docker.volume(context.postgresVolume),
    host.docker.container(NAMES.postgres),
  ]);
  if (volume !== null) return `Postgres volume ${volume.name}`;
  return container === null ? null : `container ${container.name}`;
}

/** How many rows depend on a secret; null if that is unknown. */
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
 * Stops on a password or a name that the existing database does not accept. It connects over the network,
 * because inside its container the official image accepts every password.
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
    remedy: `Restore the values that the database was created with: pass --set POSTGRES_PASSWORD=VALUE (or POSTGRES_USER, POSTGRES_DB), or edit ${context.layout.envFile}. To set a new password inside the database, see docs/troubleshooting.md#password.`,
  });
  const container = isDatabaseElsewhere(values) ? null : await host.docker.container(NAMES.postgres);
  if (!isDatabaseElsewhere(values) && container === null) return null;
  const answer = await host.postgres.ask(target);
  if (answer.kind === "wrong-password")
    return foreign(`The database at ${place} refused the password for ${target.user}.`);
  if (answer.kind === "no-database")
    return foreign(`The server at ${place} has no database ${target.database}.`);
  const createdWith = container?.env["POSTGRES_PASSWORD"];
  if (answer.kind === "unreachable" && createdWith !== undefined && createdWith !== target.password) {
    return foreign(
      `The password for ${target.user} differs from the one that ${NAMES.postgres} was created with. The database is not running, so neither can be tested.`,
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
