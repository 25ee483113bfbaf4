import gt from "semver/functions/gt.js";
import valid from "semver/functions/valid.js";
import type { MigrationItem } from "../../database/migration-plan.ts";
import type { Change, Finding, Report, StepSpec } from "../../engine/step.ts";
import { messageOf, OperatorError } from "../../errors.ts";
import type { Host, HostReader } from "../../host.ts";
import { baseDirFlag } from "../../settings/layout.ts";
import type { PostgresTarget } from "../../settings/postgres-target.ts";
import { countOf } from "../../units.ts";
import { type Rollback, stayOrRestore } from "./rollback.ts";

/** PostgreSQL ends a session whose client is gone after 25 s. */
const SETTLE_MS = 30_000;
const LOOK_AGAIN_MS = 500;

type SchemaChange = Change & {
  readonly kind: "revert";
  readonly versions: readonly number[];
  /** Containers that run now. They are stopped first, and started again if nothing was reverted. */
  readonly stops: readonly string[];
};

/** Reverts the migrations that the former version does not know, all of them or none. Our services are stopped for it. */
export function formerSchema(rollback: Rollback): StepSpec<readonly SchemaChange[], SchemaChange> {
  const { layout, former, database, services } = rollback;
  return {
    id: "migrations",
    title: `the schema of ${former}`,
    touches: "Reverts the migrations that the former version does not know, in one transaction.",

    async probe(host): Promise<Finding<readonly SchemaChange[]>> {
      if (database === null) return { state: "ours", seen: [], evidence: { database: "none" } };
      const unknown = await findUnknown(host, rollback, database.target);
      const versions = unknown.map(({ version }) => version);
      const evidence = { [`unknown to ${former}`]: versions.join(", ") || "none" };
      if (versions.length === 0) return { state: "ours", seen: [], evidence };
      await refuseOtherMasters(host, rollback, database);
      const { running, stopped } = await lookAtServices(host, services);
      const previews = await host.migrations
        .previewDown(database.target, versions)
        .catch((thrown: unknown) => offerToStay(thrown, rollback, stopped));
      const drift = previews.map(
        ({ file, removes }) => `${file}${removes.length === 0 ? "" : ` removes ${removes.join(", ")}`}`,
      );
      const stop = running.length === 0 ? "" : `stop ${running.join(" and ")}, then `;
      const summary = `${stop}revert ${countOf(versions.length, "migration")} that ${former} does not know`;
      return {
        state: "drifted",
        seen: [{ kind: "revert", summary, versions, stops: running }],
        drift,
        evidence,
      };
    },

    plan: ({ seen }) => seen,

    async apply(change, host, report) {
      if (database === null) return;
      try {
        for (const name of change.stops) {
          await host.docker.stop(name);
          report(`${name}: stopped`);
        }
        await host.migrations.down(database.target, change.versions, { report });
      } catch (thrown) {
        throw await startAgain(thrown, host, { rollback, target: database.target, change, report });
      }
    },

    async verify(host) {
      if (database === null || (await findUnknown(host, rollback, database.target)).length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `The database still has migrations that ${former} does not know.`,
        remedy: `Run again. Or stay with this version: run ${rollback.verb} without --rollback in ${layout.baseDir}.`,
      });
    },
  };
}

/** The migrations in the database that the former version does not have, newest first. */
async function findUnknown(
  host: HostReader,
  { layout, former }: Rollback,
  target: PostgresTarget,
): Promise<readonly MigrationItem[]> {
  const directory = `${layout.cliDir}/${former}`;
  const files = await host.files.list(`${directory}/migrations`);
  if (files === null)
    throw new OperatorError({
      exit: "preflight",
      what: `${directory}/migrations is missing, so nobody can say which schema version ${former} needs.`,
      remedy: stayOrRestore(directory, former),
    });
  const known = new Set(files.map((name) => Number.parseInt(name, 10)));
  const { items } = await host.migrations.status(target);
  return items
    .filter((item) => isInDatabase(item) && !known.has(item.version))
    .sort((a, b) => b.version - a.version);
}

function isInDatabase({ state }: MigrationItem): boolean {
  return state !== "absent" && state !== "reverted";
}

/** Throws if another master uses the database with a version that needs the migrations. */
async function refuseOtherMasters(
  host: HostReader,
  { former }: Rollback,
  { target, masterId }: NonNullable<Rollback["database"]>,
): Promise<void> {
  const masters = (await host.migrations.readMasters(target)) ?? [];
  const others = masters.filter(
    ({ id, version }) => id !== masterId && (valid(version) === null || gt(version, former)),
  );
  if (others.length === 0) return;
  throw new OperatorError({
    exit: "foreign",
    what: `Other masters use this database with a newer version than ${former}: ${others.map(({ name, version }) => `${name} (${version})`).join(", ")}.`,
    why: "The migrations would be reverted for them, too, and their services would fail.",
    remedy: "Stay with this version. A master that is gone: fula-node trust remove.",
  });
}

/** Those of our containers that run, and those that are stopped. */
async function lookAtServices(
  { docker }: HostReader,
  services: readonly string[],
): Promise<{ readonly running: readonly string[]; readonly stopped: readonly string[] }> {
  const containers = await Promise.all(services.map((name) => docker.container(name)));
  return {
    running: services.filter((_, index) => containers[index]?.status === "running"),
    stopped: services.filter((_, index) =>
      ["created", "exited", "dead"].includes(containers[index]?.status ?? "none"),
    ),
  };
}

/** Null if Docker does not say. */
async function findStopped(host: HostReader, services: readonly string[]): Promise<readonly string[] | null> {
  try {
    // An engine that does not answer has no containers.
    if ((await host.docker.unreachable()) !== null) return null;
    return (await lookAtServices(host, services)).stopped;
  } catch {
    return null;
  }
}

/** Throws the same error with the way back to this version. A run that was killed before may have stopped the services. */
function offerToStay(thrown: unknown, rollback: Rollback, stopped: readonly string[]): never {
  if (!(thrown instanceof OperatorError)) throw thrown;
  throw thrown.withRemedy(joinSentences(thrown.remedy, stay(rollback, stopped)));
}

function stay({ verb, layout, usualDir }: Rollback, stopped: readonly string[]): string {
  const command = `fula-node ${verb}${baseDirFlag(layout.baseDir, usualDir)}`;
  const starts = stopped.length === 0 ? "" : ` It starts ${stopped.join(" and ")} again.`;
  return `Or stay with this version: \`${command}\`.${starts}`;
}

/**
 * The same error, after a revert that failed: it says what became of the services. Those that this run stopped are started again if the
 * database still has the schema that they need.
 */
async function startAgain(
  thrown: unknown,
  host: Host,
  run: {
    readonly rollback: Rollback;
    readonly target: PostgresTarget;
    readonly change: SchemaChange;
    readonly report: Report;
  },
): Promise<unknown> {
  const { rollback, change, report } = run;
  const schema = await settledSchema(thrown, host, run);
  let fault: string | null = null;
  if (schema === "newer") {
    for (const name of (await findStopped(host, change.stops)) ?? change.stops)
      try {
        await host.docker.restart(name);
        report(`${name}: started again`);
      } catch (failed) {
        fault = `${name} could not be started again: ${messageOf(failed)}`;
      }
  }
  if (!(thrown instanceof OperatorError)) return thrown;
  const seen = await findStopped(host, rollback.services);
  const stopped = seen ?? change.stops;
  if (stopped.length === 0)
    return schema === "newer" && change.stops.length > 0
      ? withEnd(thrown, "Nothing was reverted, and our services were started again.")
      : thrown;
  const verb = seen === null ? "may be" : stopped.length === 1 ? "is" : "are";
  const state = `${stopped.join(" and ")} ${verb} stopped`;
  if (schema === "newer")
    return withEnd(
      thrown,
      joinSentences(`Nothing was reverted, but ${state}.`, fault),
      `Start what is stopped: \`docker start ${stopped.join(" ")}\`.`,
    );
  const reason =
    schema === "former"
      ? `The migrations are reverted all the same. Until a rollback ends, ${state}.`
      : `The database can't be asked now whether the migrations are reverted, so ${state}.`;
  return withEnd(thrown, reason, stay(rollback, stopped));
}

/**
 * Which schema the database has once no session of this run migrates any more: after a lost connection, PostgreSQL may go on for a while
 * with what it was sent.
 */
async function settledSchema(
  thrown: unknown,
  { migrations, clock }: Host,
  { target, change }: { readonly target: PostgresTarget; readonly change: SchemaChange },
): Promise<"newer" | "former" | "unknown"> {
  // Another run has the lock: this one has sent nothing.
  const isOthers = thrown instanceof OperatorError && thrown.exit === "locked";
  const deadline = clock.monotonicMs() + SETTLE_MS;
  try {
    for (;;) {
      const { items, running } = await migrations.status(target);
      if (running === null || isOthers) {
        const left = items.filter((item) => isInDatabase(item) && change.versions.includes(item.version));
        return left.length === 0 ? "former" : "newer";
      }
      if (clock.monotonicMs() >= deadline) return "unknown";
      await clock.wait(LOOK_AGAIN_MS);
    }
  } catch {
    return "unknown";
  }
}

function joinSentences(...sentences: readonly (string | null | undefined)[]): string {
  return sentences.filter((one) => one !== null && one !== undefined).join(" ");
}

/** The same error, with more at the end of its reason and of what to do. */
function withEnd(
  { exit, what, why, remedy, problems, cause }: OperatorError,
  reason: string,
  act?: string,
): OperatorError {
  const todo = joinSentences(remedy, act);
  return new OperatorError({
    exit,
    what,
    why: why === undefined ? reason : `${why}\n${reason}`,
    ...(todo === "" ? {} : { remedy: todo }),
    problems,
    cause,
  });
}
