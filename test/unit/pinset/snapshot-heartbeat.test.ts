import { expect, test } from "vitest";
import {
  writeHeartbeat,
  type Heartbeat,
  judgeHeartbeat,
  parseHeartbeat,
} from "../../../src/pinset/heartbeat.ts";

const at = (time: string): Date => new Date(`2026-11-21T${time}:00Z`);
const run = (
  time: string,
  outcome: "ok" | "pending" | "unavailable",
  before: Heartbeat | null = null,
): Heartbeat =>
  writeHeartbeat(before, {
    operation: "snapshot take",
    startedAt: at(time),
    endedAt: at(time),
    outcome,
    summary: "the summary",
  });

test.each([
  { heartbeat: null, state: "never", sentence: "no snapshot yet" },
  { heartbeat: run("09:00", "ok"), state: "fresh", sentence: "last good snapshot 3 h ago" },
  { heartbeat: run("11:15", "pending"), state: "fresh", sentence: "last good snapshot 45 min ago" },
  { heartbeat: run("01:00", "ok"), state: "stale", sentence: "last good snapshot 11 h ago" },
  {
    heartbeat: run("09:00", "unavailable"),
    state: "failing",
    sentence: "no good snapshot yet; the last run failed: the summary",
  },
  {
    heartbeat: run("11:00", "unavailable", run("09:00", "ok")),
    state: "failing",
    sentence: "last good snapshot 3 h ago; the last run failed: the summary",
  },
  {
    heartbeat: run("13:00", "ok"),
    state: "fresh",
    sentence: "last good snapshot in the future (the clock was set back)",
  },
])("$sentence", ({ heartbeat, state, sentence }) => {
  expect(judgeHeartbeat(heartbeat, "snapshot", at("12:00"), 7 * 3_600_000)).toEqual({ state, sentence });
});

test("a heartbeat is the same after it is written and read; anything else gives null", () => {
  const heartbeat = run("09:00", "ok");
  expect(parseHeartbeat(JSON.stringify(heartbeat))).toEqual(heartbeat);
  for (const text of [null, "", "{", "{}", '{"operation":"x"}']) expect(parseHeartbeat(text)).toBeNull();
});
