import type { SchemaEffects } from "../../src/database/effects.ts";
import type { MigrationItem, MigrationRun, MigrationStatus } from "../../src/database/migration-plan.ts";
import type { WriteGate } from "./write-gate.ts";
import { downsRefused } from "../../src/database/migration-failure.ts";
import type { MasterRecord, MasterRow, RemovedMaster } from "../../src/database/masters.ts";
import type { DownPreview, Migrator } from "../../src/database/migrator.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** One migration file of a fake box. */
export interface FakeMigration {
  readonly version: number;
  readonly name: string;
}

/** A database's schema as a set of applied versions. By default it is empty, and there are two files to apply. */
export class FakeMigrator implements Migrator {
  files: readonly FakeMigration[] = [
    { version: 1, name: "initial_schema" },
    { version: 18, name: "deduction_idempotency" },
  ];
  readonly applied = new Set<number>();
  toolVersion = "0.1.0";
  /** When the first of them was applied. */
  ledgerSince = new Date("2020-01-01T00:00:00Z");
  /** By identity. */
  readonly masters = new Map<string, MasterRow>();
  readonly removed: RemovedMaster[] = [];
  /** What the guard of a down file says, by the version. */
  readonly guards = new Map<number, string>();
  leftBehind: SchemaEffects = {
    applied: [1, 18],
    adopted: [],
    parts: 2,
    objects: 2,
    missing: [],
    invalidIndexes: [],
    unvalidated: [],
    disabledTriggers: [],
  };
  readonly #gate: WriteGate;

  constructor(gate: WriteGate) {
    this.#gate = gate;
  }

  async status(): Promise<MigrationStatus> {
    this.#gate.look();
    const items = this.files.map((file) => this.#item(file));
    const pending = items.filter(({ action }) => action !== "none").length;
    const hasLedger = this.applied.size > 0;
    return { items, pending, hasLedger, ledgerSince: hasLedger ? this.ledgerSince : null, running: null };
  }

  async effects(): Promise<SchemaEffects> {
    this.#gate.look();
    return this.leftBehind;
  }

  async up(
    _target: PostgresTarget,
    { report }: { readonly report: (line: string) => void },
  ): Promise<MigrationRun> {
    const waiting = () => this.files.filter(({ version }) => !this.applied.has(version));
    const apply = (file: FakeMigration) => {
      report(`${fileName(file)}: applied`);
      this.applied.add(file.version);
      return { ...file, file: fileName(file), action: "apply" as const, durationMs: 1 };
    };
    return this.#gate.write(
      "migrations.up",
      () => ({ done: waiting().map(apply) }),
      () => waiting().slice(0, 1).forEach(apply),
    );
  }

  async down(
    _target: PostgresTarget,
    versions: readonly number[],
    { report }: { readonly report: (line: string) => void },
  ): Promise<MigrationRun> {
    this.#refuseGuarded(versions);
    return this.#gate.write(`migrations.down ${versions.join(", ")}`, () => {
      const gone = this.files.filter(
        (file) => versions.includes(file.version) && this.applied.delete(file.version),
      );
      for (const file of gone) report(`${fileName(file)}: reverted`);
      const done = gone.map((file) => ({
        ...file,
        file: fileName(file),
        action: "revert" as const,
        durationMs: 1,
      }));
      return { done };
    });
  }

  async previewDown(_target: PostgresTarget, versions: readonly number[]): Promise<readonly DownPreview[]> {
    this.#gate.look();
    this.#refuseGuarded(versions);
    return this.#applied(versions).map((file) => ({
      file: downName(file),
      removes: [`table ${file.name} (2 rows)`],
    }));
  }

  async readMasters(): Promise<readonly MasterRow[] | null> {
    this.#gate.look();
    return this.applied.size > 0 ? [...this.masters.values()] : null;
  }

  async readRemovedMasters(): Promise<readonly RemovedMaster[]> {
    this.#gate.look();
    return this.removed;
  }

  async recordMaster(_target: PostgresTarget, master: MasterRecord): Promise<void> {
    await this.#gate.write(`migrations.recordMaster ${master.name}`, () => {
      const heartbeatAt = "2026-01-01T00:00:00Z";
      this.masters.set(master.id, { ...master, version: this.toolVersion, heartbeatAt, heartbeatAgeMs: 0 });
    });
  }

  async forgetMaster(
    _target: PostgresTarget,
    { id, name }: { id: string | null; name: string },
  ): Promise<void> {
    await this.#gate.write(`migrations.forgetMaster ${name}`, () => {
      for (const one of this.masters.values())
        if (id === null ? one.machine === null && one.name === name : one.id === id)
          this.masters.delete(one.id);
    });
  }

  #applied(versions: readonly number[]): readonly FakeMigration[] {
    const found = versions.map((version) => this.files.find((file) => file.version === version));
    return found.filter((file) => file !== undefined && this.applied.has(file.version)) as FakeMigration[];
  }

  #refuseGuarded(versions: readonly number[]): void {
    const refusals = this.#applied(versions).flatMap((file) => {
      const says = this.guards.get(file.version);
      return says === undefined
        ? []
        : [{ subject: downName(file), what: `${says}.`, remedy: `End "${says}" first.` }];
    });
    if (refusals.length > 0) throw downsRefused(refusals);
  }

  #item(migration: FakeMigration): MigrationItem {
    const done = this.applied.has(migration.version);
    return {
      ...migration,
      file: fileName(migration),
      state: done ? "applied" : "absent",
      origin: done ? "applied" : null,
      action: done ? "none" : "apply",
      reason: done ? "applied" : "not there yet",
    };
  }
}

function fileName({ version, name }: FakeMigration): string {
  return `${String(version).padStart(3, "0")}_${name}.sql`;
}

function downName(file: FakeMigration): string {
  return fileName(file).replace(/\.sql$/, ".down.sql");
}
