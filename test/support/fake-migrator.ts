import type { MigrationItem, MigrationRun, MigrationStatus } from "../../src/database/migration-plan.ts";
import type { WriteGate } from "./write-gate.ts";
import type { Migrator } from "../../src/database/migrator.ts";
import type { PostgresTarget } from "../../src/settings/master.ts";

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
  readonly flags = new Map<string, readonly string[]>();
  readonly #gate: WriteGate;

  constructor(gate: WriteGate) {
    this.#gate = gate;
  }

  async status(): Promise<MigrationStatus> {
    this.#gate.look();
    const items = this.files.map((file) => this.#item(file));
    const pending = items.filter(({ action }) => action !== "none").length;
    return { items, pending, hasLedger: this.applied.size > 0, running: null };
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
    version: number,
    { report }: { readonly report: (line: string) => void },
  ): Promise<MigrationRun> {
    return this.#gate.write(`migrations.down ${version}`, () => {
      const gone = this.files.filter((file) => file.version >= version && this.applied.delete(file.version));
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

  async readFlags(_target: PostgresTarget, master: string): Promise<readonly string[] | null> {
    this.#gate.look();
    return this.applied.size > 0 ? [...(this.flags.get(master) ?? [])].sort() : null;
  }

  async recordFlags(_target: PostgresTarget, master: string, flags: readonly string[]): Promise<void> {
    await this.#gate.write(`migrations.recordFlags ${master}`, () => {
      this.flags.set(master, flags);
    });
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
