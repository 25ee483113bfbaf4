import { expect, test } from "vitest";
import type { Answers } from "../../../src/services/page/questions.ts";
import { sectionsOf } from "../../../src/services/page/sections.ts";

const LATE = { kind: "late" } as const;
const ANSWERS: Answers = {
  at: new Date("2026-01-01T12:00:00Z"),
  own: LATE,
  database: LATE,
  pins: LATE,
  trust: LATE,
  owners: LATE,
  standing: LATE,
  deposits: LATE,
  hours: LATE,
  identity: LATE,
  peers: LATE,
  pings: LATE,
  freeSpace: LATE,
  kubo: LATE,
  space: LATE,
  pinningHealth: LATE,
  pinningRoute: LATE,
  edge: null,
  records: { snapshot: LATE, "snapshot-history": LATE, sweep: LATE, "sweep-history": LATE },
};

test("how long ago a master was seen is told by the clock of the database", () => {
  const master = {
    id: "a",
    name: "berlin",
    version: "1.2.3",
    // By the clock of this machine, that is two days ago.
    heartbeatAt: "2025-12-30T12:00:00Z",
    heartbeatAgeMs: 30_000,
    peer: null,
    isHeard: true,
  };
  const trust = { kind: "answer", value: { masters: [master], removed: [], nodes: [] } } as const;
  const [masters] = sectionsOf({ ...ANSWERS, trust });
  expect(masters?.text).toMatch(/berlin[^]*>30 s ago</);
});
