import { describe, expect, test } from "vitest";
import {
  downsRefused,
  type FailedStatement,
  guardRefusal,
  migrationFailed,
  revertFailed,
  type SqlError,
  summariseFailure,
} from "../../../src/database/migration-failure.ts";
import type { Problem } from "../../../src/errors.ts";

const FAILED: FailedStatement = {
  file: "002_b.sql",
  sql: "SELECT 1;\nSELECT nowhere;\n",
  statement: { text: "SELECT nowhere", offset: 10 },
};
const ERROR: SqlError = {
  code: "42703",
  message: 'column "nowhere" does not exist',
  detail: "Failing row contains (hunter2).",
  hint: null,
  position: 8,
};
const TOLD = { effect: "its changes were rolled back", cause: new Error("the cause") };

const errorOf = (change: Partial<SqlError>): ReturnType<typeof migrationFailed> =>
  migrationFailed(FAILED, { ...ERROR, ...change }, TOLD);

describe("a migration that failed", () => {
  test("is shown with file, line, column and a caret, its cause kept", () => {
    expect(errorOf({})).toMatchObject({
      exit: "interrupted",
      what: '002_b.sql failed: column "nowhere" does not exist (SQLSTATE 42703).',
      why: "002_b.sql:2:8: its changes were rolled back\n2 | SELECT nowhere;\n  |        ^",
      cause: TOLD.cause,
    });
  });

  test("never shows PostgreSQL's own detail, which quotes rows", () => {
    const { what, why, remedy } = errorOf({ code: "23514" });
    expect(JSON.stringify([what, why, remedy])).not.toContain("hunter2");
    expect(summariseFailure(FAILED, ERROR)).toBe(
      '002_b.sql:2:8: column "nowhere" does not exist (SQLSTATE 42703)',
    );
  });

  test("shows the detail and hint that our own files raise", () => {
    expect(
      errorOf({ code: "P0001", message: "it is so", detail: "these ones", hint: "do that" }),
    ).toMatchObject({
      exit: "drift",
      what: "002_b.sql failed: it is so.",
      why: "002_b.sql:2:8: its changes were rolled back\nthese ones",
      remedy: "do that",
    });
  });

  test.each([
    ["55P03", "unavailable"],
    ["40P01", "unavailable"],
    ["57P01", "unavailable"],
    ["53100", "unavailable"],
    ["08006", "unavailable"],
    [null, "unavailable"],
    ["42501", "interrupted"],
    ["42601", "interrupted"],
  ])("SQLSTATE %s exits as %s", (code, exit) => {
    expect(errorOf({ code })).toMatchObject({
      exit,
      remedy: expect.stringMatching(/\.( PostgreSQL's hint: .*)?$/),
    });
  });

  test("of a lost connection has no SQLSTATE", () => {
    expect(errorOf({ code: null, message: "Connection terminated unexpectedly" }).what).toBe(
      "002_b.sql failed: Connection terminated unexpectedly.",
    );
  });

  test("without a statement (the commit) it names the file alone", () => {
    expect(summariseFailure({ ...FAILED, statement: null }, ERROR)).toMatch(/^002_b\.sql: column/);
  });
});

test("a guard's refusal is reported as a refusal, any other failure of a down file as a failure", () => {
  const guard = { ...ERROR, code: "P0001", message: "the flag is in use", detail: null, hint: "turn it off" };

  expect(revertFailed(FAILED, guard, { effect: "it was rolled back", cause: null })).toMatchObject({
    exit: "drift",
    what: "002_b.sql refuses: the flag is in use.",
    remedy: "turn it off",
  });
  expect(revertFailed(FAILED, ERROR, { effect: "it was rolled back", cause: null })).toMatchObject({
    exit: "interrupted",
    what: '002_b.sql failed: column "nowhere" does not exist.',
    why: expect.stringMatching(/: it was rolled back\n.*2 \| SELECT nowhere;/s),
  });

  expect(guardRefusal(FAILED, ERROR)).toBeNull();
  const refusal = guardRefusal(FAILED, guard) as Problem;
  expect(downsRefused([refusal])).toMatchObject({
    exit: "drift",
    what: "002_b.sql refuses: the flag is in use.",
    remedy: "turn it off",
    problems: [],
  });
  expect(downsRefused([refusal, { ...refusal, subject: "001_a.sql" }])).toMatchObject({
    exit: "drift",
    what: "Migrations can't be reverted: 2 things in the database prevent that.",
    problems: [
      { subject: "002_b.sql", what: "the flag is in use.", remedy: "turn it off" },
      { subject: "001_a.sql" },
    ],
  });
});
