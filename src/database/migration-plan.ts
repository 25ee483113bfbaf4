import { OperatorError, type OperatorErrorFields, type Problem } from "../errors.ts";
import { type Migration, paddedVersion } from "./migration-file.ts";

/**
 * How far a migration got. `applying` is written and committed before the SQL: found by a later run, it tells of
 * one that was cut short. `reverted` is the trace of a down file.
 */
export type LedgerState = "applying" | "applied" | "failed" | "reverted";

/** One row of the ledger `fula_node.migrations`. */
export interface LedgerRow {
  readonly version: number;
  readonly name: string;
  readonly sha256: string;
  /** `adopted`: its effect was there before the first run of ours. */
  readonly origin: "applied" | "adopted";
  readonly state: LedgerState;
  readonly error: string | null;
  readonly toolVersion: string;
}

/** What the database says about one migration that its ledger does not hold for applied. */
export interface Observation {
  readonly version: number;
  readonly parts: readonly { readonly part: string; readonly there: boolean }[];
  readonly halfDone: boolean;
}

/** What is to be done about one migration; `none` when it is applied. */
export type MigrationAction = "none" | "apply" | "adopt" | "retry" | "clear-and-retry";

/** One migration, how the database has it, and what `up` would do about it. */
export interface MigrationItem {
  readonly version: number;
  readonly name: string;
  readonly file: string;
  readonly state: LedgerState | "absent";
  readonly origin: "applied" | "adopted" | null;
  readonly action: MigrationAction;
  /** Why the action is what it is, for a person. */
  readonly reason: string;
}

/** All migrations, lowest number first. */
export interface MigrationPlan {
  readonly items: readonly MigrationItem[];
  /** How many of them `up` would do something about. */
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

/** What `status` tells. */
export interface MigrationStatus extends MigrationPlan {
  /** False for an empty database, and for one that only the bash installer has seen. */
  readonly hasLedger: boolean;
  /** Who is migrating at this moment; null when nobody is. */
  readonly running: RunningMigrator | null;
}

/** One migration that a run did something about. */
export interface MigrationDone {
  readonly version: number;
  readonly name: string;
  readonly file: string;
  readonly action: Exclude<MigrationAction, "none"> | "revert";
  readonly durationMs: number;
}

/** What a run did, in order; nothing when there was nothing to do. */
export interface MigrationRun {
  readonly done: readonly MigrationDone[];
}

/**
 * Compares the files with the ledger alone. Throws an OperatorError for a database that a newer version made
 * (`newer`), and (`integrity`) for an applied file that is missing, for one whose checksum changed, and for one
 * that would run out of order.
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

/** The migrations that `decide` needs an observation of: those that the ledger does not hold for applied. */
export function unapplied(
  migrations: readonly Migration[],
  ledger: readonly LedgerRow[],
): readonly Migration[] {
  const applied = new Set(ledger.filter(({ state }) => state === "applied").map(({ version }) => version));
  return migrations.filter(({ version }) => !applied.has(version));
}

/**
 * Decides what is to be done about each migration. Throws what `checkLedger` throws, and `drift` with every missing
 * part named when a migration's effect is there in part and nothing tells how to clear that.
 */
export function decide(
  migrations: readonly Migration[],
  ledger: readonly LedgerRow[],
  observed: readonly Observation[],
): MigrationPlan {
  checkLedger(migrations, ledger);
  const rows = new Map(ledger.map((row) => [row.version, row]));
  const seen = new Map(observed.map((observation) => [observation.version, observation]));
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

interface Verdict {
  readonly action: MigrationAction;
  readonly reason: string;
}

function decideOne(migration: Migration, row: LedgerRow | null, seen: Observation | null): Verdict {
  if (row?.state === "applied") return { action: "none", reason: `by fula-node ${row.toolVersion}` };
  if (seen === null) throw new Error(`no observation of migration ${migration.file}`);
  const missing = seen.parts.filter(({ there }) => !there);
  if (seen.parts.length > 0 && missing.length === 0) {
    return { action: "adopt", reason: "its effect is there already" };
  }
  if (seen.halfDone) {
    return { action: "clear-and-retry", reason: "an earlier run was cut short and left something behind" };
  }
  if (missing.length < seen.parts.length) {
    throw partlyThere(
      migration,
      missing.map(({ part }) => part),
      seen.parts.length,
    );
  }
  if (row === null) return { action: "apply", reason: "not there" };
  if (row.state === "reverted") return { action: "apply", reason: "taken back by its down file" };
  const cutShort = `a run of fula-node ${row.toolVersion} was cut short; nothing of it is there`;
  return {
    action: "retry",
    reason: row.state === "failed" ? `failed before: ${row.error ?? "no reason kept"}` : cutShort,
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
      why: `This version knows migrations up to ${paddedVersion(highestFile)} and can't tell what the newer ones changed.`,
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
      why: "A migration that was applied is never removed, so this installation is incomplete or of another make.",
      remedy: "Install fula-node again; do not touch fula_node.migrations.",
    },
    rows,
    () => "is applied in the database, but its file is missing",
  );
}

function changedFiles(rows: readonly LedgerRow[], files: ReadonlyMap<number, Migration>): OperatorError {
  return refusal(
    {
      exit: "integrity",
      what: `Migrations were edited after they had been applied: ${rows.map(fileName).join(", ")}.`,
      why: "Their checksums are not those in the ledger, so nobody can tell what this database really went through.",
      remedy:
        "Install fula-node again to get the released files back; a correction needs a file with a new number.",
    },
    rows,
    ({ version }) => {
      const was = rows.find((row) => row.version === version)?.sha256 ?? "";
      return `sha256 ${files.get(version)?.sha256 ?? ""} is not the applied one, ${was}`;
    },
  );
}

function outOfOrder(late: readonly Migration[], highestApplied: number): OperatorError {
  return refusal(
    {
      exit: "integrity",
      what: `Migrations are out of order: ${late.map(fileName).join(", ")} not applied, ${paddedVersion(highestApplied)} is.`,
      why: "A file with a lower number than one that is applied was never tried on such a database.",
      remedy: "Install fula-node again; if you added the file, give it a number above all others.",
    },
    late,
    () => `was added below ${paddedVersion(highestApplied)}, which is applied`,
  );
}

function partlyThere(migration: Migration, missing: readonly string[], parts: number): OperatorError {
  const problems: Problem[] = missing.map((part) => ({ subject: migration.file, what: `missing: ${part}` }));
  const shown = missing.slice(0, 10).join(", ");
  const rest = missing.length > 10 ? `, and ${missing.length - 10} more` : "";
  return new OperatorError({
    exit: "drift",
    what: `The database has part of what ${migration.file} makes: ${missing.length} of ${parts} parts are missing.`,
    why: `Missing: ${shown}${rest}. An installer that stopped half-way, an older one, or a hand made it so.`,
    remedy:
      "Bring the database to where all parts are there (for a bash-made one: run upstream's own files from the lowest " +
      "number named up to 017 with psql), or point POSTGRES_DB at an empty one; then run again.",
    problems,
  });
}
