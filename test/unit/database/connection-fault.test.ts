import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { connectionFaultOf, isTransient } from "../../../src/database/connection-fault.ts";

const sent = (code: string): Error => Object.assign(new Error("sent"), { severity: "FATAL", code });

describe("connectionFaultOf", () => {
  it.each([
    [sent("08006"), "unreachable"],
    [sent("28P01"), "access-denied"],
    [sent("28000"), "access-denied"],
    [sent("3D000"), "no-database"],
    [sent("53300"), "exhausted"],
    [sent("57P01"), "stopped"],
    [sent("42P01"), null],
    [sent("23505"), null],
    [Object.assign(new Error("refused"), { code: "ECONNREFUSED", syscall: "connect" }), "unreachable"],
    [new AggregateError([new Error("refused ::1")], ""), "unreachable"],
    [new Error("Connection terminated unexpectedly"), "unreachable"],
    [new Error("Client has encountered a connection error and is not queryable"), "unreachable"],
    [new Error("Client was closed and is not queryable"), "unreachable"],
    [new Error("timeout exceeded when trying to connect"), "unreachable"],
    [new Error("Query read timeout"), "unreachable"],
    [new TypeError("a bug"), null],
    [Object.assign(new Error("a file"), { code: "08006" }), null],
    [new OperatorError({ exit: "bug", what: "Connection terminated, as we explain." }), null],
    ["Connection terminated", null],
    [null, null],
  ])("%o is %s", (thrown, fault) => {
    expect(connectionFaultOf(thrown)).toBe(fault);
  });

  it("passes by itself unless a setting is wrong", () => {
    const faults = ["08006", "53300", "57P01", "28P01", "3D000", "42P01"];
    const passing = faults.filter((code) => isTransient(connectionFaultOf(sent(code))));
    expect(passing).toEqual(["08006", "53300", "57P01"]);
  });
});
