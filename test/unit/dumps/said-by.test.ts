import { describe, expect, it } from "vitest";
import { saidBy } from "../../../src/dumps/dump.ts";

const ERROR = 'pg_restore: error: could not execute query: ERROR:  role "reader" does not exist';

describe("what a program of PostgreSQL says", () => {
  it("is its first error and the command that it was at, without DETAIL and CONTEXT", () => {
    const lines = [
      "pg_restore: warning: odd",
      ERROR,
      "DETAIL:  Failing row contains (a secret).",
      "Command was: DROP it;",
    ];
    expect(saidBy(lines)).toBe('could not execute query: ERROR: role "reader" does not exist (DROP it;)');
  });

  it("has no text of the command: it may be a password", () => {
    const saidAt = (command: string) => saidBy([ERROR, `Command was: ${command}`])?.replace(/^.* exist /, "");
    expect(
      saidAt("CREATE USER MAPPING FOR reader SERVER s OPTIONS (\"user\" 'bob', password 'se''cret');"),
    ).toBe("(CREATE USER MAPPING FOR reader SERVER s OPTIONS (\"user\" '...', password '...');)");
    expect(saidAt("CREATE SUBSCRIPTION s CONNECTION 'host=a password=secret")).toBe(
      "(CREATE SUBSCRIPTION s CONNECTION '...')",
    );
    expect(saidAt("CREATE FUNCTION f() AS $x$ secret")).toBe("(CREATE FUNCTION f() AS $...)");
  });

  it("is the last line if none is an error, and nothing if there are none", () => {
    expect(saidBy(["killed"])).toBe("killed");
    expect(saidBy([])).toBe(null);
  });
});
