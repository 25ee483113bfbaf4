import { describe, expect, it } from "vitest";
import { CATALOGUE } from "../../../src/drills/catalogue.ts";
import { CRON_PERIODS_MS } from "../../../src/settings/layout.ts";
import {
  DRILL_COUNT,
  type DrillRecord,
  assessDrills,
  parseDrillRecord,
  renderDrillRecord,
} from "../../../src/pinset/drill-record.ts";

const NOW = new Date("2026-03-01T00:00:00Z");
const ago = (ms: number) => new Date(NOW.getTime() - ms);
const DAY = 24 * 3_600_000;
const drill = (state: "passed" | "failed" | "skipped", daysAgo: number): DrillRecord[string] => ({
  title: "stack health",
  state,
  at: ago(daysAgo * DAY).toISOString(),
  summary: "words",
});
const judge = (record: DrillRecord | null, scheduledAt: Date | null = null) =>
  assessDrills(record, { scheduledAt, now: NOW, log: "/opt/fula-master/drill.log" });

describe("the part of the drills", () => {
  it("is not shown where none ran and none is scheduled", () => {
    expect(judge({})).toBeNull();
  });

  it.each([
    [
      "passed",
      { D1: drill("passed", 3), D2: drill("skipped", 2) },
      null,
      "ok",
      "1 of 10 passed, 1 skipped, 8 never ran; last ran 48 h ago",
    ],
    ["scheduled just now", {}, ago(DAY), "ok", "none ran yet; cron starts them every week"],
    [
      "one failed",
      { D1: drill("passed", 1), D2: drill("failed", 4) },
      null,
      "attention",
      "D2 stack health failed 4 days ago: words",
    ],
    [
      "two failed",
      { D1: drill("failed", 4), D2: drill("failed", 4) },
      null,
      "attention",
      "D1, D2 failed 4 days ago: words",
    ],
    [
      "two failed for two reasons",
      { D1: drill("failed", 4), D9: { ...drill("failed", 4), summary: "others" } },
      null,
      "attention",
      "D1 stack health failed 4 days ago: words; D9 failed too, for other reasons",
    ],
    [
      "old, by hand",
      { D1: drill("passed", 100) },
      null,
      "ok",
      "1 of 10 passed, 9 never ran; last ran 100 days ago, and cron does not start them",
    ],
    [
      "cron does not start them",
      { D1: drill("passed", 15) },
      ago(30 * DAY),
      "attention",
      "last ran 15 days ago, although cron should start them",
    ],
    ["cron never started them", {}, ago(15 * DAY), "attention", "none ran, although cron should start them"],
    [
      "old, but scheduled only now",
      { D1: drill("passed", 100) },
      ago(DAY),
      "ok",
      "1 of 10 passed, 9 never ran; last ran 100 days ago, weekly by cron",
    ],
  ] as const)("%s", (_, record, scheduledAt, state, sentence) => {
    expect(judge(record, scheduledAt)).toMatchObject({ state, sentence });
  });

  it("names the command that runs what failed again", () => {
    const other = { ...drill("failed", 4), summary: "others" };
    expect(judge({ D1: drill("failed", 4), D2: other })?.todo).toBe("fula-node drill D1 D2");
    // One cause: what D1 finds comes first.
    expect(judge({ D1: drill("failed", 4), D2: drill("failed", 4) })?.todo).toBe("fula-node drill");
    expect(judge({ D2: drill("failed", 4) })?.todo).toBe("fula-node drill D2");
  });

  it("keeps the failure of an ALERT_COMMAND that ran, until it runs again or is another one", () => {
    const broken = {
      D7: { ...drill("failed", 3), summary: "the alarm was written, but ALERT_COMMAND failed: 1" },
    };
    const render = (
      text: string,
      command: string,
      ranCommand: boolean,
      state: "passed" | "failed" = "passed",
    ) => renderDrillRecord(parseDrillRecord(text) ?? {}, { D7: drill(state, 1) }, { command, ranCommand });
    const stateOf = (text: string) => parseDrillRecord(text)?.["D7"]?.state;
    const failed = renderDrillRecord({}, broken, { command: "/on-alarm", ranCommand: true });
    expect(stateOf(render(failed, "/on-alarm", false))).toBe("failed");
    expect(stateOf(render(render(failed, "/on-alarm", false), "/on-alarm", false))).toBe("failed");
    expect(stateOf(render(failed, "/other", false))).toBe("passed");
    expect(stateOf(render(failed, "/on-alarm", true))).toBe("passed");
    const poolFailed = render("", "/on-alarm", true, "failed");
    expect(stateOf(render(poolFailed, "/on-alarm", false))).toBe("passed");
  });

  it("knows how many drills there are", () => {
    expect(DRILL_COUNT).toBe(CATALOGUE.length);
  });

  it("a record that can't be read is unknown, never good", () => {
    for (const text of [
      "",
      "{",
      "null",
      "[]",
      '{"drills":1}',
      '{"drills":{"D1":{}}}',
      '{"drills":{"D1":{"title":"x","state":"good","at":"2026-01-01","summary":""}}}',
    ])
      expect(judge(parseDrillRecord(text))?.state, text).toBe("unknown");
    expect(parseDrillRecord(null)).toEqual({});
  });

  it("keeps the results of drills that did not run this time", () => {
    const first = { D1: drill("passed", 3), D2: drill("failed", 3) };
    const text = renderDrillRecord(
      first,
      { D2: drill("passed", 1) },
      { command: undefined, ranCommand: false },
    );
    expect(parseDrillRecord(text)).toEqual({ D1: drill("passed", 3), D2: drill("passed", 1) });
    expect(CRON_PERIODS_MS.drill).toBe(7 * DAY);
  });
});
