import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Client } from "pg";
import { messageOf, OperatorError, type Problem } from "../errors.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { readEffects, type SchemaEffects } from "./effects.ts";
import {
  createLedger,
  findRunningMigrator,
  hasLedger,
  readLedgerSince,
  observe,
  readLedger,
  takeMigrationLock,
} from "./ledger.ts";
import { countOf } from "../units.ts";
import {
  dropsOf,
  type Migration,
  type MigrationFile,
  paddedVersion,
  parseMigrations,
} from "./migration-file.ts";
import {
  checkLedger,
  decide,
  type MigrationAction,
  type MigrationDone,
  type MigrationPlan,
  type MigrationRun,
  type MigrationStatus,
} from "./migration-plan.ts";
import {
  forgetMaster,
  type MasterRecord,
  type MasterRow,
  readMasters,
  readRemovedMasters,
  recordMaster,
  type RemovedMaster,
} from "./masters.ts";
import { downsRefused } from "./migration-failure.ts";
import { askGuards, type Revert, revertAll, runAction } from "./migrator-run.ts";
import { databaseErrorOf, type SessionOptions, withSession } from "./session.ts";

/** Reads a database's schema and its ledger. */
export interface MigratorReader {
  /** What is applied and what `up` would do; works on an empty database, and changes nothing. */
  status(target: PostgresTarget): Promise<MigrationStatus>;
  /**
   * What the applied migrations have left in the database, also where `status` throws because a part is gone. Throws what
   * checkLedger throws.
   */
  effects(target: PostgresTarget): Promise<SchemaEffects>;
  /**
   * What `down` would remove: each file, and its tables with their rows; nothing for a migration that is not applied. Throws
   * (`drift`) if guards of the down files would refuse now, and lists all that they say.
   */
  previewDown(target: PostgresTarget, versions: readonly number[]): Promise<readonly DownPreview[]>;
  /** Every master that recorded itself in this database. Null before migration 022. */
  readMasters(target: PostgresTarget): Promise<readonly MasterRow[] | null>;
  /** The masters that were removed from their pools. None before migration 038. */
  readRemovedMasters(target: PostgresTarget): Promise<readonly RemovedMaster[]>;
}

/** What reverting a migration would remove. */
export interface DownPreview {
  readonly file: string;
  /** `table node_names (3 rows)`, `index idx_credit_history_hourly_dedup`. Empty if it only changes columns. */
  readonly removes: readonly string[];
}

/** Migrates a database's schema, holding one lock for the whole run. */
export interface Migrator extends MigratorReader {
  up(target: PostgresTarget, options: { readonly report: (line: string) => void }): Promise<MigrationRun>;
  /** Reverts migrations in this order, all of them or none. */
  down(
    target: PostgresTarget,
    versions: readonly number[],
    options: { readonly report: (line: string) => void },
  ): Promise<MigrationRun>;
  /**
   * Records a master with the flags that it uses. A down file refuses to run while a flag that needs its migration is in
   * use. Throws (`foreign`) if the master was removed.
   */
  recordMaster(target: PostgresTarget, master: MasterRecord): Promise<void>;
  /** Removes a master that leaves; without an identity, what 0.1.0 recorded under its name. */
  forgetMaster(
    target: PostgresTarget,
    master: { readonly id: string | null; readonly name: string },
  ): Promise<void>;
}

/** The options of a migrator. */
export interface MigratorOptions {
  /** The directory of the SQL files, as shipped. */
  readonly directory: string;
  /** Shown in the ledger and in pg_stat_activity. */
  readonly toolVersion: string;
  /** How long to wait for another run on the same database. Default: 5 minutes. */
  readonly lockWaitMs?: number;
  /** How often a second session looks whether the migrating one still works in the server. Default: 10 s. */
  readonly watchMs?: number;
}

const LOCK_WAIT_MS = 5 * 60_000;
const WATCH_MS = 10_000;

/**
 * The settings of every session. The tables belong in `public`, even if a role's name or settings select another
 * schema. Without client_connection_check_interval, a backend whose client was killed would finish its statement and
 * hold the lock until then; with it, the backend notices within a second.
 */
const SESSION_SETTINGS = `
  SELECT set_config('search_path', 'public', false),
    set_config('idle_in_transaction_session_timeout', '60s', false);
  SELECT set_config(name, '1s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'`;

/** The real Migrator. Each call opens its own sessions. `status` needs no ledger and creates none. */
export function createMigrator(options: MigratorOptions): Migrator {
  const applicationName = `fula-node ${options.toolVersion} migrations`;
  // An index of a large table takes hours, and waits for every older transaction: the session is watched instead.
  const migrating: SessionOptions = {
    applicationName,
    readOnly: false,
    statementTimeoutMs: 0,
    lockTimeoutMs: 0,
    watchMs: options.watchMs ?? WATCH_MS,
  };
  const brief = { applicationName, statementTimeoutMs: 60_000, lockTimeoutMs: 10_000 };
  const recording: SessionOptions = { ...brief, readOnly: false };
  const reading: SessionOptions = { ...brief, readOnly: true };

  async function locked<Result>(
    target: PostgresTarget,
    report: (line: string) => void,
    work: (client: Client, migrations: readonly Migration[]) => Promise<Result>,
  ): Promise<Result> {
    const migrations = await readMigrations(options.directory);
    return withSession(target, migrating, async (client) => {
      await Promise.all([
        client.query(SESSION_SETTINGS),
        takeMigrationLock(client, options.lockWaitMs ?? LOCK_WAIT_MS, report),
      ]);
      return work(client, migrations).catch(explainMissingPrivilege);
    });
  }

  return {
    async status(target) {
      const migrations = await readMigrations(options.directory);
      return withSession(target, reading, async (client): Promise<MigrationStatus> => {
        await client.query(SESSION_SETTINGS);
        const plan = await readPlan(client, migrations).catch(explainMissingPrivilege);
        const ledger = { hasLedger: await hasLedger(client), ledgerSince: await readLedgerSince(client) };
        return { ...plan, ...ledger, running: await findRunningMigrator(client) };
      });
    },

    async effects(target) {
      const migrations = await readMigrations(options.directory);
      return withSession(target, reading, async (client): Promise<SchemaEffects> => {
        await client.query(SESSION_SETTINGS);
        const ledger = await readLedger(client);
        const observed = await observe(client, migrations);
        checkLedger(migrations, ledger);
        const rows = ledger.filter(({ state }) => state === "applied");
        const applied = new Set(rows.map(({ version }) => version));
        const seen = observed.flatMap((one) => (applied.has(one.version) ? one.parts : []));
        const parts = seen.filter(({ there }) => there).length;
        const adopted = rows.flatMap(({ version, origin }) => (origin === "adopted" ? [version] : []));
        const files = migrations.filter(({ version }) => applied.has(version));
        return readEffects(client, files, { parts, adopted });
      });
    },

    async previewDown(target, versions) {
      const migrations = await readMigrations(options.directory);
      return withSession(target, reading, async (client): Promise<readonly DownPreview[]> => {
        await client.query(SESSION_SETTINGS);
        const previews: DownPreview[] = [];
        const refusals: Problem[] = [];
        for (const version of versions) {
          const { down } = await findRevertible(client, migrations, version);
          if (down === null) continue;
          refusals.push(...(await askGuards(client, down)));
          previews.push({ file: down.file, removes: await describeDrops(client, down.sql) });
        }
        if (refusals.length > 0) throw downsRefused(refusals);
        return previews;
      });
    },

    readMasters: (target) => withSession(target, reading, readMasters),

    readRemovedMasters: (target) => withSession(target, reading, readRemovedMasters),

    up(target, { report }) {
      return locked(target, report, async (client, migrations) => {
        const { items } = await readPlan(client, migrations);
        if (!(await hasLedger(client))) await createLedger(client);
        const done: MigrationDone[] = [];
        for (const [index, { action }] of items.entries()) {
          const migration = migrations[index];
          if (action === "none" || migration === undefined) continue;
          const startedAt = performance.now();
          await runAction(client, migration, action, options.toolVersion).catch((thrown: unknown) => {
            throw thrown instanceof OperatorError ? thrown.withChanged(summarise(done)) : thrown;
          });
          const durationMs = Math.round(performance.now() - startedAt);
          done.push({
            version: migration.version,
            name: migration.name,
            file: migration.file,
            action,
            durationMs,
          });
          report(`${migration.file}: ${PAST[action]} in ${durationMs} ms`);
        }
        return { done };
      });
    },

    down(target, versions, { report }) {
      return locked(target, report, async (client, migrations): Promise<MigrationRun> => {
        const reverts: Revert[] = [];
        for (const version of versions) {
          const { migration, down } = await findRevertible(client, migrations, version);
          if (down !== null) reverts.push({ migration, down });
          else report(`${migration.file}: not applied according to the ledger, nothing to revert`);
        }
        if (reverts.length === 0) return { done: [] };
        const startedAt = performance.now();
        await revertAll(client, reverts);
        const durationMs = Math.round(performance.now() - startedAt);
        report(`${reverts.map(({ down }) => down.file).join(", ")}: reverted in ${durationMs} ms`);
        return {
          done: reverts.map(({ migration: { version, name }, down: { file } }) => ({
            version,
            name,
            file,
            action: "revert",
            durationMs,
          })),
        };
      });
    },

    recordMaster: (target, master) =>
      withSession(target, recording, async (client) => {
        if (!(await recordMaster(client, master, options.toolVersion))) throw notMigrated(target);
      }),

    forgetMaster: (target, master) =>
      withSession(target, recording, (client) => forgetMaster(client, master)),
  };
}

const PAST: Record<Exclude<MigrationAction, "none">, string> = {
  apply: "applied",
  adopt: "already existed, adopted",
  retry: "applied after a retry",
  "clear-and-retry": "cleaned up after an interrupted run and applied",
};

async function readPlan(client: Client, migrations: readonly Migration[]): Promise<MigrationPlan> {
  const ledger = await readLedger(client);
  checkLedger(migrations, ledger);
  return decide(migrations, ledger, await observe(client, migrations));
}

/**
 * A migration, and its down file; null if there is nothing to revert. Of one that failed or was cut off in its transaction only the
 * ledger's row is left, so its down file is empty. Throws for a version that does not exist or can't be reverted.
 */
async function findRevertible(
  client: Client,
  migrations: readonly Migration[],
  version: number,
): Promise<{ readonly migration: Migration; readonly down: Migration["down"] }> {
  const ledger = await readLedger(client);
  checkLedger(migrations, ledger);
  const migration = migrations.find((one) => one.version === version);
  if (migration === undefined) throw unknownVersion(version, migrations);
  const state = ledger.find((row) => row.version === version)?.state ?? "reverted";
  if (state === "reverted") return { migration, down: null };
  if (state !== "applied" && migration.recovery === null)
    return { migration, down: { file: migration.file, sql: "" } };
  if (migration.down === null) throw irreversible(migration);
  return { migration, down: migration.down };
}

function describeDrops(client: Client, sql: string): Promise<readonly string[]> {
  return Promise.all(
    dropsOf(sql).map(async ({ kind, name }) =>
      kind === "table" ? `table ${name} (${await countRows(client, name)})` : `${kind} ${name}`,
    ),
  );
}

/** `name` is from one of our files, where it is a plain word. */
async function countRows(client: Client, name: string): Promise<string> {
  const found = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [
    `public.${name}`,
  ]);
  if (found.rows[0]?.there !== true) return "already gone";
  const { rows } = await client.query<{ n: string }>(`SELECT count(*) AS n FROM public."${name}"`);
  return countOf(Number(rows[0]?.n), "row");
}

async function readMigrations(directory: string): Promise<readonly Migration[]> {
  const files: MigrationFile[] = [];
  try {
    for (const name of (await readdir(directory)).sort()) {
      if (!name.endsWith(".sql")) continue;
      const text = await readFile(join(directory, name), "utf8");
      files.push({ name, text, sha256: createHash("sha256").update(text).digest("hex") });
    }
  } catch (thrown) {
    throw new OperatorError({
      exit: "integrity",
      what: `The migration files can't be read: ${messageOf(thrown)}.`,
      why: "They are part of the installation.",
      remedy: "Install fula-node again.",
      cause: thrown,
    });
  }
  return parseMigrations(files);
}

function summarise(done: readonly MigrationDone[]): string {
  if (done.length === 0) return "nothing except the ledger's own row";
  return `${done.map(({ version }) => paddedVersion(version)).join(", ")} applied; they stay applied`;
}

function explainMissingPrivilege(thrown: unknown): never {
  if (databaseErrorOf(thrown)?.code !== "42501") throw thrown;
  throw new OperatorError({
    exit: "preflight",
    what: `POSTGRES_USER lacks a privilege in this database: ${messageOf(thrown)}.`,
    why: "The migration ledger is in the schema fula_node, the tables are in public.",
    remedy:
      "Make that role the database's owner, or GRANT CREATE ON DATABASE and ALL ON SCHEMA public to it.",
    cause: thrown,
  });
}

function notMigrated(target: PostgresTarget): OperatorError {
  return new OperatorError({
    exit: "pending",
    what: `Database "${target.database}" has no table of masters: migration 022 is not applied.`,
    remedy: "Run `fula-node migrate up` first.",
  });
}

function unknownVersion(version: number, migrations: readonly Migration[]): OperatorError {
  return new OperatorError({
    exit: "usage",
    what: `There is no migration ${paddedVersion(version)}.`,
    remedy: `Name one of ${migrations.map((one) => paddedVersion(one.version)).join(", ")}.`,
  });
}

function irreversible(migration: Migration): OperatorError {
  return new OperatorError({
    exit: "drift",
    what: `${migration.file} can't be reverted.`,
    why: "It has no down file: reverting it would delete data that the service stored.",
    remedy: "To go back to an earlier state, restore a backup of the database.",
  });
}
