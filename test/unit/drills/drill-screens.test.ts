import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { CATALOGUE, chooseDrills, slugOf } from "../../../src/drills/catalogue.ts";
import {
  concludeDrills,
  linesOfDrill,
  linesOfList,
  tapEnd,
  tapOfDrill,
} from "../../../src/drills/run/drill-lines.ts";
import { openLogScreen, openTapScreen, openTextScreen } from "../../../src/drills/run/drill-screen.ts";
import type { DrillResult } from "../../../src/drills/run/run-drills.ts";
import { judgeStack, lookUntilAnswered, partsOfStack } from "../../../src/drills/stack-health-drill.ts";
import type { Part, PartState } from "../../../src/status/part.ts";
import { table } from "../../../src/ui/text.ts";

const RESULT: DrillResult = {
  id: "D3",
  title: "one leader",
  proves: "Two crons, one leader.",
  state: "passed",
  summary: "2 crons, 1 leader, 24 deductions",
  todo: null,
  evidence: { leader: "cron 1" },
  at: "2026-01-01T00:00:00.000Z",
  durationMs: 1_234,
  leftovers: [],
  cleaned: ["the database fula_drill_12"],
};
const FAILED: DrillResult = {
  ...RESULT,
  state: "failed",
  summary: "two leaders\nat once # 'x'",
  todo: "docker logs fula-pinning-webui",
};
const SKIPPED: DrillResult = { ...RESULT, state: "skipped", summary: "nobody is billed # here" };

describe("the catalogue", () => {
  it("knows each drill by the id and title that the drill itself has, each once, in order", async () => {
    for (const entry of CATALOGUE) {
      const { id, title, proves, deadlineMs } = await entry.load();
      expect({ id, title }).toEqual({ id: entry.id, title: entry.title });
      expect(proves).toMatch(/^[A-Z].*\.$/);
      expect(deadlineMs).toBeLessThanOrEqual(15 * 60_000);
    }
    const ids = CATALOGUE.map(({ id }) => Number(id.slice(1)));
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
    expect(new Set(CATALOGUE.map(slugOf)).size).toBe(ids.length);
  });

  it("finds drills by id and by name, in the order of the catalogue, each once", () => {
    expect(chooseDrills([])).toBe(CATALOGUE);
    expect(chooseDrills(["migrations", "d1", "D2"]).map(({ id }) => id)).toEqual(["D1", "D2"]);
  });

  it.each([
    ["D22", "Did you mean D2? "],
    ["migration", "Did you mean migrations? "],
    ["stack health", "Did you mean stack-health? "],
    ["", ""],
    ["__proto__", ""],
    ["\u001b[2J", ""],
  ])("does not know %j", (name, hint) => {
    const refusal = { exit: "usage", remedy: `${hint}fula-node drill --list shows all drills.` };
    expect(() => chooseDrills([name])).toThrow(expect.objectContaining(refusal) as Error);
  });
});

describe("what people read", () => {
  it("has a line for a drill, wrapped at 80 columns, and what to do below it", () => {
    const long = { ...FAILED, summary: "word ".repeat(60).trim() };
    const lines = linesOfDrill(long, table, true);
    expect(lines[0]).toMatch(/^ {2}failed {3}D3 {3}one leader: word/);
    expect(lines.join("\n")).toContain("Do: docker logs fula-pinning-webui");
    expect(lines.join("\n")).toContain("It proves: Two crons, one leader.");
    expect(lines.join("\n")).toContain("leader: cron 1");
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    expect(linesOfDrill(RESULT, table, false)).toHaveLength(1);
    expect(linesOfDrill({ ...RESULT, leftovers: ["a database"] }, table, false)[1]).toContain(
      "An earlier run had left: a database",
    );
  });

  it.each([
    [[RESULT], "The drill passed in 1.0 s (exit 0)."],
    [[RESULT, RESULT], "All 2 drills passed in 1.0 s (exit 0)."],
    [[SKIPPED], "1 skipped (it proves nothing here) in 1.0 s (exit 0)."],
    [[RESULT, SKIPPED, FAILED], "1 failed, 1 passed, 1 skipped (it proves nothing here) in 1.0 s (exit 0)."],
    [[], "No drill ended (1.0 s, exit 0)."],
  ])("ends with the counts", (results, words) => {
    expect(concludeDrills({ results, stopped: null }, 1_000, 0)).toEqual([words]);
  });

  it("breaks no line between a number and its unit", () => {
    for (let length = 1; length < 80; length += 1) {
      const text = linesOfDrill(
        { ...RESULT, summary: `${"w".repeat(length)} 12 MB in 3 s` },
        table,
        false,
      ).join("\n");
      expect(text).not.toMatch(/\d\n\s+(?:MB|s)\b/);
      expect(text).not.toContain("\u00a0");
    }
  });

  it("says once why several drills did not begin, and then names them; a reason of its own stays", () => {
    const said: string[] = [];
    const reporter = { note: (line: string) => void said.push(line), progress: () => {}, table };
    const screen = openTextScreen(reporter, { nowMs: () => 0, after: () => () => {} }, false);
    const results = ["D3", "D4", "D5"].map((id) => ({ ...FAILED, id, summary: "not run: no space" }));
    const other = { ...FAILED, id: "D9", summary: "not run: no Docker" };
    for (const one of [...results, other]) screen.ended(one);
    expect(said.filter((line) => line.includes("not run"))).toHaveLength(2);
    expect(screen.end({ results, stopped: null }, 0, 27)[0]).toBe("  Not run for the same reason: D4, D5");
  });

  it("says in which drill it was stopped, and whether that left anything", () => {
    const at = (fault: string | null) =>
      concludeDrills(
        { results: [RESULT], stopped: { drill: { id: "D4", title: "takeover", fault } } },
        1_000,
        26,
      );
    expect(at(null)).toEqual([
      "1 passed in 1.0 s (exit 26).",
      "Stopped in D4 takeover. It has cleaned up: nothing of it is left.",
    ]);
    expect(at("it could not clean up: in use")[1]).toBe(
      "Stopped in D4 takeover, and it could not clean up: in use. Run it again: it cleans up first.",
    );
  });

  it("shows what goes on only in a drill that takes longer than two seconds", () => {
    const said: string[] = [];
    let due = (): void => {};
    const clock = {
      nowMs: () => 0,
      after: (_ms: number, act: () => void) => ((due = act), () => (due = () => {})),
    };
    const reporter = {
      note: (line: string) => void said.push(line),
      progress: (line: string) => void said.push(`> ${line}`),
      table,
    };
    const screen = openTextScreen(reporter, clock, false);
    screen.started(RESULT);
    screen.said(RESULT, "makes a database");
    expect(said).toEqual([]);
    due();
    screen.said(RESULT, "stops the leader");
    screen.ended(RESULT);
    expect(said.slice(0, 2)).toEqual([">   D3 one leader ...", ">   D3 stops the leader"]);
    screen.started(RESULT);
    screen.said(RESULT, "makes a database");
    expect(said).toHaveLength(3);
  });

  it("is one line for each drill in cron's log", () => {
    const said: string[] = [];
    const reporter = { note: (line: string) => void said.push(line), progress: () => {}, table };
    const screen = openLogScreen(reporter, () => new Date(0));
    screen.ended({ ...FAILED, leftovers: ["a database"] });
    expect(said).toEqual([
      "1970-01-01T00:00:00Z failed D3 one leader: two leaders\nat once # 'x'; do: docker logs fula-pinning-webui; an earlier run had left: a database",
    ]);
  });
});

describe("TAP version 14", () => {
  it("has a plan, and for each drill a point and YAML that a parser reads back", () => {
    const said: string[] = [];
    const reporter = { note: (line: string) => void said.push(line), progress: () => {}, table };
    const clock = { nowMs: () => 0, after: () => () => {} };
    const screen = openTapScreen(reporter, clock, 3);
    for (const result of [RESULT, FAILED, SKIPPED]) screen.ended(result);
    expect(said.slice(0, 2)).toEqual(["TAP version 14", "1..3"]);
    expect(said.filter((line) => /^(?:not )?ok/.test(line))).toEqual([
      "ok 1 - D3 one leader",
      "not ok 2 - D3 one leader",
      "ok 3 - D3 one leader # SKIP nobody is billed \\# here",
    ]);
    const yaml = (result: DrillResult): unknown => parse(tapOfDrill(result, 1).slice(2, -1).join("\n"));
    expect(yaml(FAILED)).toEqual({
      message: FAILED.summary,
      severity: "fail",
      todo: FAILED.todo,
      proves: FAILED.proves,
      duration_ms: 1_234,
      cleaned: FAILED.cleaned,
      evidence: FAILED.evidence,
    });
    expect(yaml({ ...RESULT, evidence: { 'a"\\b: c': "\u0007\u2028 - x" } })).toMatchObject({
      evidence: { 'a"\\b: c': "\u0007\u2028 - x" },
    });
  });

  it("lists what each drill touches and how long it takes", async () => {
    const [entry] = chooseDrills(["D9"]);
    if (entry === undefined) throw new Error("no D9");
    const text = linesOfList([{ ...(await entry.load()), ...entry }], table).join("\n");
    expect(text).toMatch(
      /Touches two containers and a volume of its own;\s+it reads the\s+database\. Usually 5 to 20 s/,
    );
  });

  it("bails out when it was stopped", () => {
    expect(tapEnd({ results: [], stopped: { drill: null } })[0]).toMatch(
      /^Bail out! Stopped before the first drill/,
    );
    expect(tapEnd({ results: [RESULT], stopped: { drill: null } })[0]).toMatch(
      /^Bail out! Stopped between two drills/,
    );
    expect(tapEnd({ results: [RESULT], stopped: null })).toEqual(["# 1 drill"]);
  });
});

describe("D1: stack health", () => {
  const part = (name: string, state: PartState): Part => ({
    name,
    state,
    summary: `${name} is ${state}`,
    todo: state === "ok" ? null : `repair ${name}`,
    evidence: {},
  });

  it("passes while every part works, and names what needs attention", () => {
    expect(judgeStack([part("Docker", "ok"), part("writer", "ok")])).toMatchObject({
      state: "passed",
      summary: "all 2 parts work",
    });
    expect(judgeStack([part("Docker", "ok"), part("edge", "attention")])).toMatchObject({
      state: "passed",
      summary: "all 2 parts work, but see fula-node status: edge: edge is attention",
      todo: null,
    });
  });

  it.each(["down", "unknown"] as const)("fails for a part that is %s, with what to do", (state) => {
    expect(
      judgeStack([part("Docker", "ok"), part("writer", state), part("edge", "attention")]),
    ).toMatchObject({
      state: "failed",
      summary: `1 of 3 parts does not work or could not be asked: writer: writer is ${state}`,
      todo: "repair writer",
    });
  });

  it("says first what to do about what is down", () => {
    expect(judgeStack([part("a", "unknown"), part("b", "down")]).todo).toBe("repair b");
  });

  it("does not judge what earlier drills found", () => {
    expect(partsOfStack([part("Docker", "ok"), part("drills", "unknown")])).toEqual([part("Docker", "ok")]);
  });

  it("asks again what did not answer in time, and says so; what is down is not asked again", async () => {
    const late = [part("Docker", "ok"), part("writer", "unknown")];
    const well = [part("Docker", "ok"), part("writer", "ok")];
    const down = [part("Docker", "down"), part("writer", "unknown")];
    for (const [looks, last] of [
      [[well], well],
      [[late, well], well],
      [[late, late, late, well], late],
      [[down, well], down],
      [[late, down, well], down],
    ] as const) {
      const left = [...looks];
      const lines: string[] = [];
      const found = await lookUntilAnswered(
        async () => left.shift() ?? [],
        (line) => lines.push(line),
      );
      expect(found).toEqual(last);
      const asked = looks.length - left.length;
      expect(lines).toEqual(
        Array.from({ length: asked - 1 }, () => "1 part did not answer in time; asking again"),
      );
    }
  });
});
