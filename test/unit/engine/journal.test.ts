import { describe, expect, it } from "vitest";
import type { JournalLine } from "../../../src/engine/journal.ts";
import { OperatorError } from "../../../src/errors.ts";
import { FakeHost, Killed } from "../../support/fake-host.ts";
import { JOURNAL, journalOn, writeOf } from "../../support/sample-steps.ts";

const CHANGE = writeOf("a");

function linesOn(host: FakeHost): readonly JournalLine[] {
  if (!host.files.tree.has(JOURNAL)) return [];
  const lines = host.files
    .textOf(JOURNAL)
    .split("\n")
    .filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as JournalLine);
}

describe("the journal", () => {
  it("has the intent on disk before the effect begins, and the result after it", async () => {
    const host = new FakeHost();
    const seen: string[] = [];
    await journalOn(host).around("a", CHANGE, async () => {
      seen.push(...linesOn(host).map(({ phase }) => phase));
    });
    expect(seen).toEqual(["intent"]);
    const common = { at: "2026-01-01T00:00:00.000Z", attempt: "a1", version: "0.1.0", step: "a" };
    expect(linesOn(host)).toEqual([
      { ...common, change: CHANGE, phase: "intent" },
      { ...common, change: CHANGE, phase: "done" },
    ]);
    expect(host.writes).toEqual([`files.append ${JOURNAL}`, `files.append ${JOURNAL}`]);
  });

  it("is readable by root only", async () => {
    const host = new FakeHost();
    await journalOn(host).around("a", CHANGE, async () => {});
    expect((await host.files.stat(JOURNAL))?.mode).toBe(0o600);
  });

  it("records a failure, and hands on the very error", async () => {
    const host = new FakeHost();
    const error = new OperatorError({ exit: "unavailable", what: "The registry is down." });
    const fail = () => Promise.reject(error);
    await expect(journalOn(host).around("a", CHANGE, fail)).rejects.toBe(error);
    expect(linesOn(host).map(({ phase }) => phase)).toEqual(["intent", "failed"]);
    expect(linesOn(host).at(-1)?.error).toBe("The registry is down.");
  });

  it("begins no effect whose intent can't be written", async () => {
    const host = new FakeHost();
    const error = new OperatorError({ exit: "unavailable", what: "The disk is full." });
    host.gate.failOnce(/journal/, error);
    let begun = false;
    const effect = async () => {
      begun = true;
    };
    await expect(journalOn(host).around("a", CHANGE, effect)).rejects.toBe(error);
    expect(begun).toBe(false);
  });

  it("keeps the effect's error even where the failure can't be written down", async () => {
    const host = new FakeHost();
    const error = new OperatorError({ exit: "unavailable", what: "The registry is down." });
    const fail = () => {
      host.gate.failOnce(/journal/, new OperatorError({ exit: "unavailable", what: "The disk is full." }));
      return Promise.reject(error);
    };
    await expect(journalOn(host).around("a", CHANGE, fail)).rejects.toBe(error);
  });

  it("keeps earlier attempts, and drops a line that a kill tore", async () => {
    const host = new FakeHost();
    await journalOn(host).around("a", CHANGE, async () => {});
    host.killAt(1, "during");
    await expect(journalOn(host, "a2").around("a", CHANGE, async () => {})).rejects.toBeInstanceOf(Killed);
    expect(host.killed).toBe(true);
    host.revive();
    await journalOn(host, "a3").around("a", CHANGE, async () => {});
    const lines = host.files.textOf(JOURNAL).trimEnd().split("\n");
    const whole = lines.map((line) => JSON.parse(line) as JournalLine);
    expect(whole.map(({ attempt, phase }) => `${attempt} ${phase}`)).toEqual([
      "a1 intent",
      "a1 done",
      "a3 intent",
      "a3 done",
    ]);
  });

  it("tells after a kill in the midst of an effect that it was begun", async () => {
    const host = new FakeHost();
    const effect = () => host.files.writeAtomic("/opt/samples/a", "x", { mode: 0o644 });
    host.killAt(2, "during");
    await expect(journalOn(host).around("a", CHANGE, effect)).rejects.toBeInstanceOf(Killed);
    expect(linesOn(host).map(({ phase }) => phase)).toEqual(["intent"]);
  });
});
