import { compareWithScratch, readDefinitions, type SchemaComparison } from "../database/definitions.ts";
import type { SchemaEffects } from "../database/effects.ts";
import type { MigrationStatus } from "../database/migration-plan.ts";
import { OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { databaseOf } from "../join/installed-node.ts";
import { countOf } from "../units.ts";
import { DrillFinding, findingOf } from "./drill-finding.ts";
import type { Drill, DrillContext, DrillOutcome } from "./drill.ts";
import { orStop } from "./or-stop.ts";
import { tellFaults } from "./schema-faults.ts";
import { dropScratches, type ScratchDeps, withScratch } from "./scratch/scratch-database.ts";

/** What the drill needs. */
export interface MigrationsDrillDeps extends ScratchDeps {
  readonly host: ScratchDeps["host"] & {
    readonly migrations: Pick<Host["migrations"], "status" | "effects" | "up">;
  };
}

/**
 * Compares the database with what the shipped migrations make of an empty one. Of the real database it reads the catalogue alone.
 */
export const migrationsDrill: Drill<MigrationsDrillDeps> = {
  id: "D2",
  title: "migrations",
  proves: "Each migration is applied with the released file, and what it made is there and valid.",
  isScheduled: true,
  deadlineMs: 90_000,

  run: (deps, context) => findingOf(context.stop, () => look(deps, context)),

  cleanUp: dropScratches,
};

async function look(deps: MigrationsDrillDeps, context: DrillContext): Promise<DrillOutcome> {
  const { stop, master } = context;
  const { migrations } = deps.host;
  const folder = `${master.layout.cliCurrent}/migrations`;
  const target = databaseOf(master);
  const lack = await orStop(stop, migrations.status(target)).then(
    judgeLedger,
    (thrown: unknown): DrillOutcome | OperatorError => {
      if (thrown instanceof OperatorError && thrown.exit === "integrity") return thrown;
      throw thrown;
    },
  );
  if (lack !== null && !(lack instanceof OperatorError)) return lack;
  try {
    const effects = await orStop(stop, migrations.effects(target));
    return judge(effects, await compare(deps, context, effects), { folder, lack });
  } catch (thrown) {
    // The ledger itself is not as it should be: nothing is known of the rest.
    if (thrown instanceof OperatorError && thrown.exit === "integrity") return tellLack(thrown, folder);
    throw thrown;
  }
}

/** `what` names the problems already. */
function tellLack({ what, why, remedy = "", problems }: OperatorError, folder: string): DrillOutcome {
  const evidence = Object.fromEntries(problems.map((problem) => [problem.subject, problem.what]));
  return fail(
    what.replace(/\.$/, ""),
    remedy.replace("the file in migrations/ that is named", `its file in ${folder}`),
    why === undefined ? evidence : { why, ...evidence },
  );
}

function fail(summary: string, todo: string, evidence: DrillOutcome["evidence"]): DrillOutcome {
  return { state: "failed", summary, todo, evidence };
}

/** What the ledger says, if that is enough to fail; else null. */
function judgeLedger({ items, pending, hasLedger, running }: MigrationStatus): DrillOutcome | null {
  const evidence = Object.fromEntries(items.map(({ file, state, reason }) => [file, `${state} (${reason})`]));
  if (running !== null)
    return fail(`the database is being migrated since ${running.since}`, "run it again after that", evidence);
  const waiting = items
    .filter(({ action }) => action !== "none")
    .map(({ file, reason }) => `${file} (${reason})`);
  if (pending > 0 || !hasLedger)
    return fail(
      waiting.length === 0
        ? "the database has no whole ledger of migrations"
        : `${countOf(pending, "migration")} not on record as applied: ${waiting.join(", ")}`,
      "fula-node migrate status, then fula-node migrate up",
      evidence,
    );
  return null;
}

/** Why the definitions were not compared, or what the comparison found. */
type Compared = { readonly why: string } | SchemaComparison;

async function compare(
  deps: MigrationsDrillDeps,
  context: DrillContext,
  { adopted }: SchemaEffects,
): Promise<Compared> {
  // What another installer made is accepted by its parts (migration 001); its definitions need not be those of the files.
  if (adopted.length > 0) return { why: "another installer made the first tables" };
  const { postgres } = deps.host;
  const { stop, master } = context;
  const real = await orStop(
    stop,
    postgres.session(databaseOf(master), ({ query }) => readDefinitions(query)),
  );
  try {
    return await withScratch(deps, context, ({ target }) =>
      orStop(
        stop,
        postgres.session(target, ({ query }) => compareWithScratch(real, query)),
      ),
    );
  } catch (thrown) {
    if (thrown instanceof DrillFinding && thrown.state === "skipped")
      return { why: `${thrown.message}; ${thrown.todo ?? ""}` };
    // The server lets this role in to one database only.
    if (thrown instanceof OperatorError && thrown.exit === "settings") return { why: thrown.message };
    throw thrown;
  }
}

const MOST_ADDITIONAL = 40;

function judge(
  effects: SchemaEffects,
  compared: Compared,
  { folder, lack }: { readonly folder: string; readonly lack: OperatorError | null },
): DrillOutcome {
  const { applied, parts, objects } = effects;
  const comparison = "why" in compared ? null : compared;
  const additional = comparison?.additional ?? [];
  const evidence = {
    applied: applied.join(" "),
    parts: String(parts),
    "tables, indexes and views by name": String(objects),
    definitions: "why" in compared ? `not compared: ${compared.why}` : `${compared.compared} compared`,
    ...(additional.length === 0
      ? {}
      : { "not made by migrations": additional.slice(0, MOST_ADDITIONAL).join(", ") }),
  };
  const told = tellFaults(effects, comparison, folder);
  const lacking = lack === null ? null : tellLack(lack, folder);
  // The comparison names each part that is gone. Without one, they may be others than those that were found by name.
  if (lacking !== null && (told === null || comparison === null))
    return fail(
      [lacking.summary, told?.summary ?? []].flat().join("; "),
      [lacking.todo ?? [], told?.todo ?? []].flat().join(" "),
      { ...evidence, ...lacking.evidence, ...told?.evidence },
    );
  if (told !== null) return fail(told.summary, told.todo, { ...evidence, ...told.evidence });
  const there = `${countOf(applied.length, "migration")} applied; all ${parts} parts and ${objects} named objects are there and valid`;
  const how =
    "why" in compared
      ? `; their definitions were not compared (${compared.why})`
      : `; ${compared.compared} definitions are as the migrations make them`;
  return { state: "passed", summary: `${there}${how}`, todo: null, evidence };
}
