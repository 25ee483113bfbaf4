import { describe, expect, it } from "vitest";
import { CRON_PERIODS_MS } from "../../../src/settings/layout.ts";
import {
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
    ["passed", { D1: drill("passed", 3), D2: drill("skipped", 2) }, null, "ok", "passed, last ran 48 h ago"],
    ["scheduled just now", {}, ago(DAY), "ok", "none ran yet; cron starts them"],
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
      "D1 stack health failed 4 days ago (and D2): words",
    ],
    ["old, by hand", { D1: drill("passed", 100) }, null, "ok", "passed, last ran 100 days ago"],
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
      "passed, last ran 100 days ago",
    ],
  ] as const)("%s", (_, record, scheduledAt, state, sentence) => {
    expect(judge(record, scheduledAt)).toMatchObject({ state, sentence });
  });

  it("names the command that runs what failed again", () => {
    expect(judge({ D1: drill("failed", 4), D2: drill("failed", 4) })?.todo).toBe("fula-node drill D1 D2");
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
    const text = renderDrillRecord(first, { D2: drill("passed", 1) });
    expect(parseDrillRecord(text)).toEqual({ D1: drill("passed", 3), D2: drill("passed", 1) });
    expect(CRON_PERIODS_MS.drill).toBe(7 * DAY);
  });
});
