import { expect, test } from "vitest";
import {
  assessHeartbeat,
  writeHeartbeat,
  type Heartbeat,
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

test("a heartbeat is the same after it is written and read; anything else gives null", () => {
  const heartbeat = run("09:00", "ok");
  expect(parseHeartbeat(JSON.stringify(heartbeat))).toEqual(heartbeat);
  for (const text of [null, "", "{", "{}", '{"operation":"x"}']) expect(parseHeartbeat(text)).toBeNull();
});

test.each([
  { text: null, state: "attention", words: "no sweep on record" },
  { text: null, scheduledAt: at("11:30"), state: "ok", words: "no sweep on record; cron starts one" },
  { text: null, scheduledAt: at("10:30"), state: "attention", words: "no sweep on record" },
  { text: null, scheduledAt: at("13:00"), state: "attention", words: "no sweep on record" },
  { text: "{", state: "unknown", words: "can't be read" },
  { text: run("11:45", "ok"), state: "ok", words: "15 min ago" },
  { text: run("11:45", "pending"), state: "attention", words: "15 min ago: the summary" },
  { text: run("10:00", "ok"), state: "attention", words: "2 h ago, which is too long" },
  { text: run("12:05", "ok"), state: "attention", words: "in the future" },
  { text: run("11:45", "unavailable"), state: "attention", words: "the last run failed: the summary" },
  {
    text: run("11:45", "unavailable", run("11:30", "ok")),
    state: "attention",
    words: "30 min ago; the last run failed",
  },
  {
    text: { ...run("11:45", "ok"), alarm: { kind: "under-replicated", command: "done", why: null } },
    state: "attention",
    words: "15 min ago: the summary",
  },
  {
    text: {
      ...run("11:45", "ok"),
      alarm: { kind: "under-replicated", command: "failed", why: "no such file" },
    },
    state: "attention",
    words: "ALERT_COMMAND failed: no such file",
  },
  {
    text: { ...run("11:45", "ok"), at: "2026-11-16T12:00:00Z", last_good_at: "2026-11-16T12:00:00Z" },
    state: "attention",
    words: "5 days ago",
  },
])("for the status screen, $words is $state", ({ text, state, words, scheduledAt = null }) => {
  const operation = { noun: "sweep", command: "fula-node sweep", everyMs: 30 * 60_000, scheduledAt };
  const given = text === null || typeof text === "string" ? text : JSON.stringify(text);
  const health = assessHeartbeat(given, operation, at("12:00"));
  expect(health.state).toBe(state);
  expect(health.sentence).toContain(words);
  expect(health.todo === null).toBe(state === "ok");
});

test("the heartbeat of 0.1.0 is read, and failures are counted from it", () => {
  const {
    failures,
    alarmed_at,
    alarm,
    facts,
    facts_at,
    missing_alarmed_at: _,
    ...old
  } = run("09:00", "unavailable");
  expect([failures, alarmed_at, alarm, facts, facts_at]).toEqual([1, null, null, null, null]);
  const before = parseHeartbeat(JSON.stringify(old));
  expect(before).toMatchObject({ failures: 0, alarm: null, facts: null });
  expect(run("10:00", "unavailable", before).failures).toBe(1);
});

test("what the last complete run found stays when a later one fails", () => {
  const found = writeHeartbeat(null, {
    operation: "sweep",
    startedAt: at("09:00"),
    endedAt: at("09:00"),
    outcome: "ok",
    summary: "",
    facts: { pins: 4 },
  });
  expect(run("10:00", "unavailable", found)).toMatchObject({
    facts: { pins: 4 },
    facts_at: "2026-11-21T09:00:00.000Z",
  });
});
