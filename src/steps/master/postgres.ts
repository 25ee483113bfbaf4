import { canPass, describeRefusal, type Refusal } from "../../database/connection-fault.ts";
import { checkReach, whyItReadsOldFiles } from "../../database/reach.ts";
import { PROJECT_LABEL } from "../../docker/compose-document.ts";
import type { Project } from "../../docker/compose-project.ts";
import { compareCompose } from "../../docker/compose-render.ts";
import type { ServiceState } from "../../docker/container-state.ts";
import { type ContainerChange, NOTHING, type Obstacle, type Seen } from "../../docker/container-finding.ts";
import type { Judge } from "../../docker/container-finding.ts";
import { containers, imagesToPull } from "../../docker/containers.ts";
import { findImageConflict } from "../../docker/postgres-image.ts";
import {
  DATA_PATH,
  findUnfinished,
  imageOf,
  readData,
  readImage,
  refuseImage,
  type Volume,
} from "../../docker/postgres-volume.ts";
import type { AnyStep, Change, Evidence, Finding, Foreign, Plannable, StepSpec } from "../../engine/step.ts";
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
import {
  isDatabaseElsewhere,
  postgresBindOf,
  postgresTarget,
  type PostgresTarget,
} from "../../settings/postgres-target.ts";
import { giveAccess, hasLostAccess, LET_IN, SHUT } from "../../database/postgres-access.ts";

const ANSWER_DEADLINE_MS = 180_000;

/** What only this step sees and changes, beside its container. */
interface PostgresSeen extends Seen {
  /** A volume to make anew, and its container. */
  readonly unfinished?: { readonly volume: string; readonly container: string | null };
  /** Why the running server does not answer yet. */
  readonly waitFor?: string;
  /** True if a power cut took what lets anybody in. */
  readonly isShut?: boolean;
}

type PostgresChange =
  | ContainerChange
  | (Change & { readonly kind: "remove-container"; readonly container: string; readonly volume: string })
  | (Change & { readonly kind: "remove-volume"; readonly volume: string })
  | (Change & { readonly kind: "wait" })
  | typeof LET_IN;

/** Postgres: a container on this box, or an external database that POSTGRES_HOST names. */
export function postgres(context: MasterContext, project: Project): AnyStep {
  const step = postgresContainer(context, project);
  const own: StepSpec<PostgresSeen, PostgresChange> = {
    ...step,

    async probe(host) {
      const unfinished = await findUnfinished(host, context);
      const finding = await step.probe(host);
      if (unfinished !== null && finding.state !== "foreign") return remakeFinding(finding, unfinished);
      if (finding.state !== "ours") return finding;
      if (await hasLostAccess(host, context)) {
        const { seen, evidence } = finding;
        return { state: "drifted", seen: { ...seen, isShut: true }, drift: [SHUT], evidence };
      }
      const waitFor = await whyItWaits(host, context);
      if (waitFor === null) return finding;
      const drift = [`it runs, but does not answer yet: ${waitFor}`];
      return { state: "drifted", seen: { ...finding.seen, waitFor }, drift, evidence: finding.evidence };
    },

    plan(finding) {
      const { unfinished, waitFor, isShut } = finding.seen;
      if (isShut === true) return [LET_IN];
      const changes = step.plan(finding);
      if (waitFor !== undefined)
        return [{ kind: "wait", summary: `wait until Postgres answers (${waitFor})` }];
      if (unfinished === undefined) return changes;
      const { volume, container } = unfinished;
      return [
        ...(container === null
          ? []
          : [{ kind: "remove-container", summary: `remove ${container}`, container, volume } as const]),
        {
          kind: "remove-volume",
          summary: `remove the volume ${volume}, whose first start was cut short; nothing is in it`,
          volume,
        },
        ...changes,
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "wait" || change.kind === "let-in") {
        const target = requireTarget(await readValues(host, context), context);
        if (change.kind === "let-in") await giveAccess(host, target.user);
        await waitUntilOpen(host, target, report);
        return;
      }
      if (change.kind === "up" || change.kind === "restart") await refuseImage(host, context);
      // Of an unfinished first start, both changes name its volume.
      const removes = "volume" in change;
      // Between the plan and now the first start may have ended well.
      if (removes && (await findUnfinished(host, context)) === null) {
        throw new OperatorError({
          exit: "interrupted",
          what: `The volume ${context.postgresVolume} is in use by now.`,
          remedy: "Run again.",
        });
      }
      if (change.kind === "remove-volume") return await host.docker.removeVolume(change.volume);
      await step.apply(change, host, report);
    },
  };
  return own;
}

function remakeFinding(
  finding: Plannable<Seen>,
  unfinished: NonNullable<PostgresSeen["unfinished"]>,
): Finding<PostgresSeen> {
  const { volume } = unfinished;
  const seen = {
    ...finding.seen,
    up: [{ service: "postgres", container: NAMES.postgres }],
    restart: [],
    remove: [],
    unfinished,
  };
  const drift = [
    `the volume ${volume} is of a first start that was cut short: it has no database, and no file that anybody else made`,
  ];
  return { state: "drifted", seen, drift, evidence: finding.evidence };
}

/** Why the server on this machine does not answer yet; null if it does, or refuses for good. */
async function whyItWaits(host: HostReader, context: MasterContext): Promise<string | null> {
  const values = await readValues(host, context);
  const target = postgresTarget(values);
  if (target === null || isDatabaseElsewhere(values)) return null;
  const answer = await host.postgres.ask(target);
  return answer.kind !== "open" && canPass(answer) ? answer.why : null;
}

function postgresContainer(context: MasterContext, project: Project): StepSpec<Seen, ContainerChange> {
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
    whyRestart: async (host) =>
      postgresBindOf(await readValues(host, context)) === null
        ? null
        : await whyItReadsOldFiles(host, context.layout),
    inPlace: {
      isUsed: async (host) => isDatabaseElsewhere(await readValues(host, context)),
      probe: async (host) => await probeExternal(host, await readValues(host, context)),
    },

    async verify(host) {
      const values = await readValues(host, context);
      const target = requireTarget(values, context);
      const refusal = await waitUntilOpen(host, target);
      const address = postgresBindOf(values);
      if (refusal === null)
        return address === null ? undefined : await checkReach(host, context.layout, target, address);
      const { what, why, remedy } = describeRefusal(target, refusal);
      throw new OperatorError({
        exit: "unhealthy",
        what,
        ...(why === undefined ? {} : { why }),
        remedy: `${remedy} See \`docker logs ${NAMES.postgres}\`. If the volume was created with another password, put that password into ${context.layout.envFile}.`,
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
  const elsewhere = "POSTGRES_HOST names an external database, so fula-node does not create one here.";
  if (target === null || answer === null) {
    throw new OperatorError({
      exit: "settings",
      what: `Cannot log in to the database at ${place}: POSTGRES_PASSWORD is missing.`,
      why: elsewhere,
      remedy: "Set POSTGRES_PASSWORD in the environment, or in .env.",
    });
  }
  const refusal = describeRefusal(target, answer);
  throw new OperatorError({ ...refusal, why: [refusal.why, elsewhere].filter(Boolean).join(" ") });
}

/** Asks until the database opens (null), or refuses for good; after the deadline, gives the last refusal. */
async function waitUntilOpen(
  host: HostReader,
  target: PostgresTarget,
  report: (line: string) => void = () => {},
): Promise<Refusal | null> {
  const last: { answer: Refusal | null } = { answer: null };
  await poll(host, ANSWER_DEADLINE_MS, async () => {
    const answer = await host.postgres.ask(target);
    last.answer = answer.kind === "open" ? null : answer;
    if (last.answer === null || !canPass(last.answer)) return true;
    report(`waiting for Postgres at ${target.host}:${target.port}: ${last.answer.why}`);
    return null;
  });
  return last.answer;
}

/** Reads who created the volume, which Postgres runs on it, and what the image is. */
async function surveyVolume(host: HostReader, context: MasterContext, project: Project): Promise<Judge> {
  const volume = await host.docker.volume(context.postgresVolume);
  const [isForeign, data, image] = await Promise.all([
    volume === null ? false : isForeignVolume(host, context, project, volume),
    readData(host, context, volume),
    readImage(host, imageOf(context)),
  ]);
  const evidence = {
    volume:
      volume === null
        ? "absent"
        : `${volume.name}, ${isOurs(volume) ? "ours" : "no fula-node label"}, Postgres ${data.major ?? "not initialised"}${data.libc === null ? "" : `, ${data.libc}`}`,
    image: `${imageOf(context)}, Postgres ${image.major ?? "unknown"}, ${image.libc ?? "unknown C library"}`,
  };
  const conflict = findImageConflict(imageOf(context), image, data, DATA_PATH);
  const found = { name: context.postgresVolume, isHere: volume !== null, isForeign };
  return ([state]) => ({
    evidence,
    obstacle: conflict === null ? findForeign(state, found) : { ...conflict, claim: null },
  });
}

async function isForeignVolume(
  host: HostReader,
  context: MasterContext,
  project: Project,
  volume: Volume,
): Promise<boolean> {
  return !isOurs(volume) && !isOursByMarker(await host.files.readText(project.file), project, context);
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
const DEPENDENTS: Readonly<Record<string, string | null>> = {
  // ipfs-cluster itself gets it from .env: no data depends on it.
  CLUSTER_BASIC_AUTH: null,
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
  // A stranger's container of that name has no data of a master. The step postgres halts at it.
  const isOfMaster =
    container !== null && (isOurs(container) || container.labels[PROJECT_LABEL] === NAMES.masterProject);
  return isOfMaster ? `container ${container.name}` : null;
}

/** How many rows depend on a secret; null if that is unknown. */
async function countDependents(
  host: HostReader,
  context: MasterContext,
  key: string,
): Promise<number | null> {
  const sql = DEPENDENTS[key];
  if (sql === null) return 0;
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
    remedy: `Restore the values that the database was created with: pass --set-file POSTGRES_PASSWORD=PATH (or --set POSTGRES_USER=VALUE, POSTGRES_DB), or edit ${context.layout.envFile}. To set a new password inside the database, see docs/troubleshooting.md#password.`,
  });
  const container = isDatabaseElsewhere(values) ? null : await host.docker.container(NAMES.postgres);
  if (!isDatabaseElsewhere(values) && container === null) return null;
  const answer = await host.postgres.ask(target);
  // The step postgres makes it anew: nothing is lost by that.
  if ((await findUnfinished(host, context)) !== null) return null;
  if (answer.kind === "wrong-password")
    return foreign(`The database at ${place} refused the password for ${target.user}.`);
  if (answer.kind === "no-database")
    return foreign(`The server at ${place} has no database ${target.database}.`);
  // Anything else about a database on another machine is said by the step postgres.
  if (answer.kind === "no-role" && !isDatabaseElsewhere(values))
    return foreign(`The database at ${place} has no user ${target.user}.`);
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
