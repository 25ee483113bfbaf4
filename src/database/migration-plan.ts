import { OperatorError, type OperatorErrorFields, type Problem } from "../errors.ts";
import { type Migration, paddedVersion } from "./migration-file.ts";

/**
 * The state of a migration. `applying` is committed before the SQL runs: if a later run finds it, the earlier run was
 * interrupted. `reverted` means that its down file ran.
 */
export type LedgerState = "applying" | "applied" | "failed" | "reverted";

/** One row of the ledger `fula_node.migrations`. */
export interface LedgerRow {
  readonly version: number;
  readonly name: string;
  readonly sha256: string;
  /** `adopted`: its effect existed before fula-node first ran. */
  readonly origin: "applied" | "adopted";
  readonly state: LedgerState;
  readonly error: string | null;
  readonly toolVersion: string;
}

/** The state in the database of one migration, whatever the ledger says about it. */
export interface Observation {
  readonly version: number;
  readonly parts: readonly { readonly part: string; readonly there: boolean }[];
  readonly halfDone: boolean;
  /** Things with names that the file would create, each with its definition. */
  readonly taken: readonly string[];
}

/** What to do with one migration. `none` if it is applied. */
export type MigrationAction = "none" | "apply" | "adopt" | "retry" | "clear-and-retry";

/** One migration, its state in the database, and what `up` would do. */
export interface MigrationItem {
  readonly version: number;
  readonly name: string;
  readonly file: string;
  readonly state: LedgerState | "absent";
  readonly origin: "applied" | "adopted" | null;
  readonly action: MigrationAction;
  /** The reason for the action, for the operator. */
  readonly reason: string;
}

/** All migrations, lowest number first. */
export interface MigrationPlan {
  readonly items: readonly MigrationItem[];
  /** How many of them `up` would change. */
  readonly pending: number;
}

/** A session that holds the migration lock. */
export interface RunningMigrator {
  /** Process id of the PostgreSQL backend. */
  readonly pid: number;
  readonly application: string;
  readonly address: string;
  /** UTC, ISO 8601. */
  readonly since: string;
}

/** The result of `status`. */
export interface MigrationStatus extends MigrationPlan {
  /** False for an empty database, and for one that only the bash installer has migrated. */
  readonly hasLedger: boolean;
  /** When the first of the migrations on record began, by the clock of the database; null if none is on record. */
  readonly ledgerSince: Date | null;
  /** The session that is migrating now, or null. */
  readonly running: RunningMigrator | null;
}

/** One migration that a run changed. */
export interface MigrationDone {
  readonly version: number;
  readonly name: string;
  readonly file: string;
  readonly action: Exclude<MigrationAction, "none"> | "revert";
  readonly durationMs: number;
}

/** The changes of a run, in order. Empty if there was nothing to do. */
export interface MigrationRun {
  readonly done: readonly MigrationDone[];
}

/**
 * Compares the files with the ledger alone. Throws an OperatorError for a database that a newer version migrated
 * (`newer`), and (`integrity`) if an applied file is missing, if its checksum changed, or if a file would run out of
 * order.
 */
export function checkLedger(migrations: readonly Migration[], ledger: readonly LedgerRow[]): void {
  const files = new Map(migrations.map((migration) => [migration.version, migration]));
  const highestFile = Math.max(...files.keys());
  const known = ledger.filter(({ state }) => state !== "reverted");
  const newer = known.filter(({ version }) => version > highestFile);
  if (newer.length > 0) throw newerDatabase(newer, highestFile);

  const applied = known.filter(({ state }) => state === "applied");
  const missing = applied.filter(({ version }) => !files.has(version));
  if (missing.length > 0) throw missingFiles(missing);

  const changed = applied.filter(({ version, sha256 }) => files.get(version)?.sha256 !== sha256);
  if (changed.length > 0) throw changedFiles(changed, files);

  const inLedger = new Set(ledger.map(({ version }) => version));
  const highestApplied = Math.max(0, ...applied.map(({ version }) => version));
  const late = migrations.filter(({ version }) => version < highestApplied && !inLedger.has(version));
  if (late.length > 0) throw outOfOrder(late, highestApplied);
}

/**
 * Decides what to do with each migration. Throws what `checkLedger` throws. Also throws `drift` if a migration's effect
 * exists only in part and the file does not say how to clear that, or if something else has a name that it needs; and
 * `integrity` if a part of an applied one is gone. Each names what is missing or in the way.
 */
export function decide(
  migrations: readonly Migration[],
  ledger: readonly LedgerRow[],
  observed: readonly Observation[],
): MigrationPlan {
  checkLedger(migrations, ledger);
  const rows = new Map(ledger.map((row) => [row.version, row]));
  const seen = new Map(observed.map((observation) => [observation.version, observation]));
  checkEffects(migrations, rows, seen);
  const items = migrations.map((migration): MigrationItem => {
    const row = rows.get(migration.version) ?? null;
    const { action, reason } = decideOne(migration, row, seen.get(migration.version) ?? null);
    return {
      version: migration.version,
      name: migration.name,
      file: migration.file,
      state: row?.state ?? "absent",
      origin: row?.origin ?? null,
      action,
      reason,
    };
  });
  return { items, pending: items.filter(({ action }) => action !== "none").length };
}

/** Throws (`integrity`) if the database lacks what applied migrations created. */
function checkEffects(
  migrations: readonly Migration[],
  rows: ReadonlyMap<number, LedgerRow>,
  seen: ReadonlyMap<number, Observation>,
): void {
  const problems = migrations.flatMap(({ version, file }): readonly Problem[] => {
    if (rows.get(version)?.state !== "applied") return [];
    const missing = seen.get(version)?.parts.filter(({ there }) => !there) ?? [];
    // Without its table, each of its columns and constraints is missing too.
    const tables = missing.filter(({ part }) => part.startsWith("table "));
    return [
      ...tables,
      ...missing.filter(
        (one) => !tables.includes(one) && !tables.some((table) => isOf(table.part, one.part)),
      ),
    ].map(({ part }) => ({ subject: file, what: `missing: ${part}` }));
  });
  if (problems.length === 0) return;
  const named = problems.slice(0, 10).map(({ what }) => what.replace("missing: ", ""));
  const rest = problems.length > 10 ? `, and ${problems.length - 10} more` : "";
  throw new OperatorError({
    exit: "integrity",
    what: `The database lacks what its ledger says was created: ${named.join(", ")}${rest}.`,
    why: "Somebody or something removed it after the migration was applied; fula-node never does. Its data may be lost.",
    remedy:
      "Find out who did it. Restore what is missing from a backup of the database, or, if its data is not needed, create it again with psql from the file in migrations/ that is named. Then run again.",
    problems,
  });
}

/** True if a part belongs to that table, by its name: `column users.id int4` to `table users`. */
function isOf(table: string, part: string): boolean {
  const name = table.split(" ")[1] ?? "";
  return part.split(/[ .(),]/).includes(name);
}

interface Verdict {
  readonly action: MigrationAction;
  readonly reason: string;
}

function decideOne(migration: Migration, row: LedgerRow | null, seen: Observation | null): Verdict {
  if (row?.state === "applied") return { action: "none", reason: `by fula-node ${row.toolVersion}` };
  if (seen === null) throw new Error(`no observation of migration ${migration.file}`);
  const missing = seen.parts.filter(({ there }) => !there);
  if (seen.parts.length > 0 && missing.length === 0) {
    return { action: "adopt", reason: "its effect already exists" };
  }
  if (seen.halfDone) {
    return { action: "clear-and-retry", reason: "an earlier run was interrupted and left something behind" };
  }
  if (missing.length < seen.parts.length) {
    throw partlyThere(
      migration,
      missing.map(({ part }) => part),
      seen.parts.length,
    );
  }
  if (seen.taken.length > 0) throw nameTaken(migration, seen.taken);
  if (row === null) return { action: "apply", reason: "not applied" };
  if (row.state === "reverted") return { action: "apply", reason: "reverted by its down file" };
  const interrupted = `a run of fula-node ${row.toolVersion} was interrupted; it left nothing behind`;
  return {
    action: "retry",
    reason: row.state === "failed" ? `failed before: ${row.error ?? "no reason recorded"}` : interrupted,
  };
}

type Named = Pick<LedgerRow, "version" | "name">;

const fileName = ({ version, name }: Named): string => `${paddedVersion(version)}_${name}.sql`;

function refusal(
  fields: Pick<OperatorErrorFields, "exit" | "what" | "why" | "remedy">,
  named: readonly Named[],
  what: (one: Named) => string,
): OperatorError {
  return new OperatorError({
    ...fields,
    problems: named.map((one) => ({ subject: fileName(one), what: what(one) })),
  });
}

function newerDatabase(rows: readonly LedgerRow[], highestFile: number): OperatorError {
  const tools = [...new Set(rows.map(({ toolVersion }) => toolVersion))].join(", ");
  return refusal(
    {
      exit: "newer",
      what: `The database was migrated by a newer fula-node (${tools}): it has ${rows.map(fileName).join(", ")}.`,
      why: `This version knows migrations up to ${paddedVersion(highestFile)} and does not know what the newer ones changed.`,
      remedy: `Use fula-node ${tools} or newer.`,
    },
    rows,
    () => "is applied in the database and unknown to this version",
  );
}

function missingFiles(rows: readonly LedgerRow[]): OperatorError {
  return refusal(
    {
      exit: "integrity",
      what: `The database has migrations whose files are missing: ${rows.map(fileName).join(", ")}.`,
      why: "fula-node never removes a released migration, so this installation is incomplete or modified.",
      remedy: "Install fula-node again. Do not edit fula_node.migrations.",
    },
    rows,
    () => "is applied in the database, but its file is missing",
  );
}

function changedFiles(rows: readonly LedgerRow[], files: ReadonlyMap<number, Migration>): OperatorError {
  return refusal(
    {
      exit: "integrity",
      what: `Migrations were edited after they were applied: ${rows.map(fileName).join(", ")}.`,
      why: "Their checksums differ from those in the ledger, so it is unknown what was really applied to this database.",
      remedy:
        "Install fula-node again to restore the released files. A correction needs a file with a new number.",
    },
    rows,
    ({ version }) => {
      const was = rows.find((row) => row.version === version)?.sha256 ?? "";
      return `sha256 ${files.get(version)?.sha256 ?? ""} differs from the applied one, ${was}`;
    },
  );
}

function outOfOrder(late: readonly Migration[], highestApplied: number): OperatorError {
  return refusal(
    {
      exit: "integrity",
      what: `Migrations are out of order: ${late.map(fileName).join(", ")} not applied, but ${paddedVersion(highestApplied)} is.`,
      why: "Migrations are only tested in the order of their numbers.",
      remedy: "Install fula-node again. If you added the file, give it a number higher than all others.",
    },
    late,
    () => `was added below ${paddedVersion(highestApplied)}, which is applied`,
  );
}

function nameTaken(migration: Migration, taken: readonly string[]): OperatorError {
  return new OperatorError({
    exit: "drift",
    what: `The database has something else with a name that ${migration.file} needs.`,
    why: `Found: ${taken.join("; ")}.`,
    remedy:
      "If nothing needs it, remove or rename it (ALTER INDEX NAME RENAME TO ..., ALTER TABLE NAME RENAME TO ...), then run again. If it is upstream's own, run upstream's files up to that number first.",
    problems: taken.map((what) => ({ subject: migration.file, what: `in the way: ${what}` })),
  });
}

function partlyThere(migration: Migration, missing: readonly string[], parts: number): OperatorError {
  const problems: Problem[] = missing.map((part) => ({ subject: migration.file, what: `missing: ${part}` }));
  const listed = missing.slice(0, 10).join(", ");
  const rest = missing.length > 10 ? `, and ${missing.length - 10} more` : "";
  return new OperatorError({
    exit: "drift",
    what: `The database has only part of what ${migration.file} creates: ${missing.length} of ${parts} parts are missing.`,
    why: `Missing: ${listed}${rest}. Possible causes: an interrupted installer, an older installer, or a manual change.`,
    remedy:
      "Create the missing parts (if the bash installer made the database, run upstream's own files with psql, from the lowest " +
      "number named up to 017), or set POSTGRES_DB to an empty database. Then run again.",
    problems,
  });
}

const STATES: readonly unknown[] = ["applying", "applied", "failed", "reverted"] satisfies LedgerState[];

/** Checks the rows as the database has them. Throws (`integrity`) if one can't be one of ours, and names each. */
export function parseLedger(rows: readonly Readonly<Record<string, unknown>>[]): readonly LedgerRow[] {
  const problems = rows.flatMap((row): readonly Problem[] => {
    const wrong = [
      ...(Number.isInteger(row["version"]) && Number(row["version"]) > 0 ? [] : ["version"]),
      ...(typeof row["name"] === "string" && row["name"] !== "" ? [] : ["name"]),
      ...(/^[0-9a-f]{64}$/.test(String(row["sha256"])) ? [] : ["sha256"]),
      ...(STATES.includes(row["state"]) ? [] : ["state"]),
      ...(row["origin"] === "applied" || row["origin"] === "adopted" ? [] : ["origin"]),
    ];
    const subject = `row ${JSON.stringify(row["version"] ?? null)}`;
    return wrong.map((column) => ({
      subject,
      what: `${column} is ${JSON.stringify(row[column] ?? null).slice(0, 80)}`,
    }));
  });
  if (problems.length === 0) return rows as unknown as readonly LedgerRow[];
  throw brokenLedger(problems.map(({ subject, what }) => `${subject}: ${what}`).join("; "), problems);
}

/** The error (`integrity`) for a ledger that fula-node can't have written. */
export function brokenLedger(
  found: string,
  problems: readonly Problem[] = [],
  cause?: unknown,
): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: "The migration ledger fula_node.migrations was changed by something else.",
    why: `Found: ${found}.`,
    remedy:
      "Restore the schema fula_node from a backup of the database. Without one, drop that schema: the next run looks at the tables themselves and writes a new ledger.",
    problems,
    cause,
  });
}
