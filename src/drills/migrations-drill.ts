import type { SchemaEffects } from "../database/effects.ts";
import type { MigrationStatus } from "../database/migration-plan.ts";
import { databaseOf } from "../join/installed-node.ts";
import { countOf } from "../units.ts";
import type { Drill, DrillOutcome } from "./drill.ts";
import { orStop } from "./or-stop.ts";

/** Compares the database with what the shipped migrations make of one. Reads the catalogue; makes nothing. */
export const migrationsDrill: Drill = {
  id: "D2",
  title: "migrations",
  proves: "Each migration is applied with the released file, and what it made is there and valid.",
  isScheduled: true,
  deadlineMs: 60_000,

  async run({ host }, { master, stop }) {
    const target = databaseOf(master);
    const status = await orStop(stop, host.migrations.status(target));
    const open = judgeLedger(status);
    if (open !== null) return open;
    return judgeEffects(status, await orStop(stop, host.migrations.effects(target)));
  },

  cleanUp: () => Promise.resolve([]),
};

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

const REBUILD = "find out who changed it; then, with psql: REINDEX INDEX CONCURRENTLY NAME";
const VALIDATE =
  "correct the rows that break it; then, with psql: ALTER TABLE TABLE_NAME VALIDATE CONSTRAINT NAME";
const ENABLE = "find out who turned it off; then, with psql: ALTER TABLE TABLE_NAME ENABLE TRIGGER NAME";
const CREATE =
  "find out who removed it; create it again with psql, from the file that is named, or restore a backup";

/** What is missing comes first: without it, nothing that needs it works. */
function judgeEffects({ items }: MigrationStatus, effects: SchemaEffects): DrillOutcome {
  const { parts, objects, missing, invalidIndexes, unvalidated, disabledTriggers } = effects;
  const evidence = {
    applied: items.map(({ version }) => version).join(" "),
    parts: String(parts),
    "tables, indexes and views by name": String(objects),
    "invalid indexes": invalidIndexes.join(", ") || "none",
    "constraints not validated": unvalidated.join(", ") || "none",
    "disabled triggers": disabledTriggers.join(", ") || "none",
  };
  const kinds = [
    ["missing", missing, CREATE],
    ["not valid, so nothing uses it: index", invalidIndexes, REBUILD],
    ["turned off: trigger", disabledTriggers, ENABLE],
    ["not validated: constraint", unvalidated, VALIDATE],
  ] as const;
  const wrong = kinds.filter(([, names]) => names.length > 0);
  const [first] = wrong;
  if (first !== undefined) {
    const summary = wrong.map(([words, names]) => `${words} ${shorten(names)}`).join("; ");
    return fail(summary, first[2], evidence);
  }
  const summary = `${countOf(items.length, "migration")} applied; all ${parts} parts and ${objects} named objects are there and valid`;
  return { state: "passed", summary, todo: null, evidence };
}

const MOST = 10;

function shorten(names: readonly string[]): string {
  const rest = names.length > MOST ? `, and ${names.length - MOST} more` : "";
  return `${names.slice(0, MOST).join(", ")}${rest}`;
}
