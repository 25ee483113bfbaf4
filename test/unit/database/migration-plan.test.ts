import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Migration } from "../../../src/database/migration-file.ts";
import {
  decide,
  type LedgerRow,
  type LedgerState,
  type Observation,
  parseLedger,
} from "../../../src/database/migration-plan.ts";
import { OperatorError } from "../../../src/errors.ts";

const SOMETIMES = { halfDone: "SELECT false", clear: "SELECT 1" };

const migration = (version: number, recovery: Migration["recovery"] = null): Migration => ({
  version,
  name: `m${version}`,
  file: `00${version}_m${version}.sql`,
  sql: "SELECT 1;",
  sha256: `hash ${version}`,
  parts: "SELECT 'a', true",
  recovery,
  down: null,
});

const row = (version: number, state: LedgerState, more: Partial<LedgerRow> = {}): LedgerRow => ({
  version,
  name: `m${version}`,
  sha256: `hash ${version}`,
  origin: "applied",
  state,
  error: null,
  toolVersion: "1.0.0",
  ...more,
});

const unapplied = (files: readonly Migration[], ledger: readonly LedgerRow[]): readonly Migration[] =>
  files.filter(({ version }) => !ledger.some((one) => one.version === version && one.state === "applied"));

const seen = (version: number, there: readonly boolean[], halfDone = false): Observation => ({
  version,
  parts: there.map((is, index) => ({ part: `part ${index}`, there: is })),
  halfDone,
  taken: [],
});

function actionOf(ledgerRow: LedgerRow | null, observation: Observation): string {
  const plan = decide([migration(1, SOMETIMES)], ledgerRow === null ? [] : [ledgerRow], [observation]);
  return plan.items[0]?.action ?? "";
}

function refusalOf(files: readonly Migration[], ledger: readonly LedgerRow[]): OperatorError {
  try {
    decide(
      files,
      ledger,
      unapplied(files, ledger).map(({ version }) => seen(version, [false])),
    );
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown;
    throw thrown;
  }
  throw new Error("it was not refused");
}

describe("decide", () => {
  test.each<[string, LedgerRow | null, Observation, string]>([
    ["nothing there", null, seen(1, [false, false]), "apply"],
    ["all there, no row", null, seen(1, [true, true]), "adopt"],
    ["left half done by somebody else", null, seen(1, [false], true), "clear-and-retry"],
    ["cut short, nothing there", row(1, "applying"), seen(1, [false]), "retry"],
    ["cut short, half done", row(1, "applying"), seen(1, [false], true), "clear-and-retry"],
    ["cut short after its end", row(1, "applying"), seen(1, [true]), "adopt"],
    ["failed", row(1, "failed", { error: "e" }), seen(1, [false]), "retry"],
    ["failed, half done", row(1, "failed"), seen(1, [false], true), "clear-and-retry"],
    ["failed, then repaired manually", row(1, "failed"), seen(1, [true]), "adopt"],
    ["reverted", row(1, "reverted"), seen(1, [false]), "apply"],
    ["a file without parts", null, seen(1, []), "apply"],
  ])("%s", (_, ledgerRow, observation, action) => {
    expect(actionOf(ledgerRow, observation)).toBe(action);
  });

  test("an applied one is left alone, and counts as nothing pending", () => {
    const plan = decide(
      [migration(1), migration(2)],
      [row(1, "applied", { origin: "adopted" })],
      [seen(2, [false])],
    );

    expect(plan.pending).toBe(1);
    expect(plan.items[0]).toMatchObject({ state: "applied", origin: "adopted", action: "none" });
    expect(plan.items[1]).toMatchObject({ state: "absent", origin: null, action: "apply" });
  });

  test("an effect that is there in part is drift, with the missing parts named", () => {
    const error = (() => {
      try {
        return decide([migration(1)], [], [seen(1, [true, false, true, false])]);
      } catch (thrown) {
        return thrown;
      }
    })();

    expect(error).toMatchObject({
      exit: "drift",
      what: "The database has only part of what 001_m1.sql creates: 2 of 4 parts are missing.",
      problems: [
        { subject: "001_m1.sql", what: "missing: part 1" },
        { subject: "001_m1.sql", what: "missing: part 3" },
      ],
    });
  });

  test("a long list of missing parts is cut in the sentence, not among the problems", () => {
    const parts = seen(1, [true, ...Array.from({ length: 30 }, () => false)]);
    expect(() => decide([migration(1)], [], [parts])).toThrow(
      expect.objectContaining({
        why: expect.stringContaining("part 10, and 20 more"),
        problems: expect.any(Array),
      }),
    );
  });

  test.each<[string, readonly Migration[], readonly LedgerRow[], string, readonly string[]]>([
    ["newer", [migration(1)], [row(1, "applied"), row(3, "applied")], "newer", ["003_m3.sql"]],
    ["newer, cut short", [migration(1)], [row(1, "applied"), row(3, "applying")], "newer", ["003_m3.sql"]],
    ["missing", [migration(2)], [row(1, "applied"), row(2, "applied")], "integrity", ["001_m1.sql"]],
    ["changed", [migration(1)], [row(1, "applied", { sha256: "other" })], "integrity", ["001_m1.sql"]],
    ["out of order", [migration(1), migration(2)], [row(2, "applied")], "integrity", ["001_m1.sql"]],
  ])("refuses what is %s", (_, files, ledger, exit, subjects) => {
    const refusal = refusalOf(files, ledger);

    expect(refusal.exit).toBe(exit);
    expect(refusal.problems.map(({ subject }) => subject)).toEqual(subjects);
    expect(refusal.remedy).toEqual(expect.any(String));
  });

  test.each<[string, readonly Migration[], readonly LedgerRow[]]>([
    ["a newer one that was taken back", [migration(1)], [row(1, "applied"), row(3, "reverted")]],
    [
      "one taken back below an applied one",
      [migration(1), migration(2)],
      [row(1, "reverted"), row(2, "applied")],
    ],
    ["a file corrected after it failed", [migration(1)], [row(1, "failed", { sha256: "other" })]],
  ])("takes %s", (_, files, ledger) => {
    const observed = unapplied(files, ledger).map(({ version }) => seen(version, [false]));
    expect(decide(files, ledger, observed).items).toHaveLength(files.length);
  });

  test("never touches an applied migration, never adopts what is not whole, and keeps the order", () => {
    const states = fc.constantFrom<LedgerState | null>(null, "applying", "applied", "failed", "reverted");
    const one = fc.record({ state: states, there: fc.boolean(), halfDone: fc.boolean() });
    fc.assert(
      fc.property(fc.array(one, { minLength: 1, maxLength: 8 }), (database) => {
        fc.pre(database.every(({ state, there }) => state !== "applied" || there));
        const files = database.map((_, index) => migration(index + 1, SOMETIMES));
        const ledger = database.flatMap(({ state }, index) =>
          state === null ? [] : [row(index + 1, state)],
        );
        const observed = database.map(({ there, halfDone }, index) => seen(index + 1, [there], halfDone));
        const highest = database.findLastIndex(({ state }) => state === "applied");
        fc.pre(database.every(({ state }, index) => state !== null || index > highest));

        const { items, pending } = decide(files, ledger, observed);

        expect(items.map(({ version }) => version)).toEqual(files.map(({ version }) => version));
        expect(pending).toBe(database.filter(({ state }) => state !== "applied").length);
        for (const [index, { action }] of items.entries()) {
          const { state, there } = database[index] ?? { state: null, there: false };
          expect(action === "none").toBe(state === "applied");
          expect(action === "adopt").toBe(state !== "applied" && there);
        }
      }),
    );
  });

  test.each([
    [
      "table users",
      ["table users", "column users.id int4", "constraint users_pkey on users"],
      ["table users"],
    ],
    ["a column", ["column users.id int4"], ["column users.id int4"]],
    [
      "a table and another's column",
      ["table pins", "column users.id int4"],
      ["table pins", "column users.id int4"],
    ],
  ])("an applied migration without %s is a matter of integrity", (_, parts, named) => {
    const observed = { ...seen(1, []), parts: parts.map((part) => ({ part, there: false })) };
    const refused = (): unknown => decide([migration(1)], [row(1, "applied")], [observed]);
    expect(refused).toThrow(`lacks what its ledger says was created: ${named.join(", ")}.`);
    expect(refused).toThrow(expect.objectContaining({ exit: "integrity" }));
  });

  test.each([
    ["version", "x"],
    ["version", 1.5],
    ["name", ""],
    ["sha256", "not a hash"],
    ["state", "done"],
    ["origin", null],
  ])("a ledger row with another %s (%j) is named", (column, value) => {
    const good = { ...row(1, "applied"), sha256: "0a".repeat(32) };
    expect(parseLedger([good])).toEqual([good]);
    expect(() => parseLedger([{ ...good, [column]: value }])).toThrow(
      expect.objectContaining({ exit: "integrity" }),
    );
  });
});
