import { expect, test } from "vitest";
import { assessFindings, sweepAlarm, sweepFacts } from "../../../src/pinset/sweep/findings.ts";
import type { NodeReport } from "../../../src/pinset/sweep/nodes.ts";
import { type ReplicationState, SweepTally } from "../../../src/pinset/sweep/replication.ts";

const at = new Date("2026-11-21T20:00:00Z");
const node = (name: string, over: Partial<NodeReport> = {}): NodeReport => ({
  id: `12D3${name}`,
  name,
  expectedBy: "registered",
  state: "up",
  sync: "synced",
  pinsDone: 10,
  pinsDue: 10,
  lastSeen: "2026-11-21T19:59:40Z",
  freeBytes: null,
  announcedAt: null,
  ...over,
});

function tallyOf(counts: Partial<Record<ReplicationState, number>>, lacksNodes = false): SweepTally {
  const tally = new SweepTally(5);
  for (const [state, pins] of Object.entries(counts) as [ReplicationState, number][])
    for (let pin = 0; pin < pins; pin++)
      tally.add(
        `${state}${pin}`,
        { state, pinned: 1, min: 2, lacksNodes, failedPeers: [], unknownPeers: [] },
        true,
      );
  return tally;
}

const assess = (
  tally: SweepTally,
  nodes: readonly NodeReport[],
  strangers = 0,
  namesFault: string | null = null,
  forgotten: ReadonlySet<string> = new Set(),
  later = at,
  queueFault: string | null = null,
) => {
  const own = nodes[0]?.id ?? "";
  const { facts } = sweepFacts({ at, tally, nodes, strangers, namesFault, queueFault, own });
  const read = JSON.parse(JSON.stringify(facts)) as Record<string, unknown>;
  return assessFindings({ facts: read, facts_at: at.toISOString() }, later, { forgotten });
};

test("the status screen shows pins and nodes as one line each", () => {
  const tally = tallyOf({ healthy: 4790, syncing: 15, "in-progress": 5, failed: 1, unknown: 1 });
  const { pins, nodes } = assess(tally, [
    node("berlin-1"),
    node("s1", { state: "absent" }),
    node("s2", { sync: "syncing", pinsDone: 1200, pinsDue: 4812 }),
    node("s3", { state: "absent", lastSeen: null }),
  ]);
  expect(pins).toEqual({
    state: "attention",
    sentence: "4,812: 4,790 complete, 20 syncing, 1 below their minimum, 1 unknown; found 0 s ago",
    todo: "see the pins and their nodes: fula-node sweep --json",
  });
  expect(nodes).toMatchObject({
    state: "attention",
    sentence:
      "berlin-1 (here), s1 (away, at the sweep 20 s ago), s2 (syncing, 1,200 of 4,812 pins), s3 (away, never seen); found 0 s ago",
    problem: "s1 (away, at the sweep 20 s ago), s3 (away, never seen); found 0 s ago",
    todo: "start them, or remove one for good: fula-node node forget NODE",
  });
});

test("a lost master is removed by another command than a node", () => {
  const todoFor = (...lost: readonly NodeReport[]) =>
    assess(tallyOf({ healthy: 1 }), [node("paris-2"), ...lost]).nodes.todo;
  const master = node("berlin-1", { state: "absent", expectedBy: "master" });
  expect(todoFor(master)).toBe("start berlin-1, or remove it for good: fula-node trust remove berlin-1");
  expect(todoFor(node("s1", { state: "absent", expectedBy: "registered" }), master)).toBe(
    "start them, or remove one for good: fula-node node forget NODE, fula-node trust remove MASTER",
  );
});

test.each([
  { name: "all complete", tally: { healthy: 3 }, nodes: [node("a")], pins: "ok", state: "ok" },
  {
    name: "a node that syncs",
    tally: { syncing: 3 },
    nodes: [node("a", { sync: "syncing" })],
    pins: "ok",
    state: "ok",
  },
  {
    name: "a node that stalls",
    tally: { unknown: 3 },
    nodes: [node("a", { sync: "stalled" })],
    pins: "attention",
    state: "attention",
  },
  {
    name: "a silent node",
    tally: { unknown: 3 },
    nodes: [node("a", { state: "silent" })],
    pins: "attention",
    state: "attention",
  },
] as const)("$name", ({ tally, nodes, pins, state }) => {
  const health = assess(tallyOf(tally), nodes);
  expect([health.pins.state, health.nodes.state]).toEqual([pins, state]);
});

test("too few nodes, nodes that are not expected, and a database that did not answer are in the sentences", () => {
  const { pins, nodes } = assess(tallyOf({ "under-replicated": 3 }, true), [node("a")], 2, "no answer");
  expect(pins.todo).toBe("add storage nodes, or lower REPL_MIN: the pool has 1 node");
  expect(nodes.state).toBe("attention");
  expect(nodes.sentence).toContain("2 not expected");
  expect(nodes.sentence).toContain("the database did not answer");
});

test("what was found is said to be as old as it is, without the nodes that were forgotten since then", () => {
  const [five, gone] = [new Date(at.getTime() + 300_000), new Set(["12D3-b"])];
  const nodes = [node("a", { id: "12D3-a" }), node("b", { id: "12D3-b", state: "absent" })];
  expect(assess(tallyOf({ healthy: 3 }), nodes, 0, null, gone, five)).toMatchObject({
    pins: { state: "ok", sentence: "3: 3 complete; found 5 min ago" },
    nodes: { state: "ok", sentence: "a (here); found 5 min ago" },
  });
  expect(assess(tallyOf({ healthy: 3 }), nodes, 0, null, new Set(), five).nodes.state).toBe("attention");
});

test("a database that did not answer then is looked at again by the next sweep", () => {
  const { nodes } = assess(tallyOf({ healthy: 3 }), [node("a")], 0, "refused");
  expect(nodes).toMatchObject({ state: "attention", todo: "look again: fula-node sweep" });
  expect(nodes.sentence).toContain("did not answer then");
});

test("pins that a sweep could not judge are unknown on both screens", () => {
  const tally = tallyOf({ unknown: 3 });
  const found = { at, tally, nodes: [node("a")], strangers: 0, namesFault: null, queueFault: null, own: "" };
  expect(sweepFacts(found).summary).toContain("3 unknown");
  expect(assess(tally, [node("a")]).pins).toMatchObject({
    state: "attention",
    sentence: "3: 0 complete, 3 unknown; found 0 s ago",
  });
});

test("what the pinning API still searches for has a count of its own and is no alarm", () => {
  const tally = tallyOf({ healthy: 3, "searched-for": 9 });
  const found = { at, tally, nodes: [node("a")], strangers: 0, namesFault: null, queueFault: null, own: "" };
  expect(sweepAlarm(found)).toBe(null);
  expect(sweepFacts(found).summary).toBe("12 pins; 3 healthy; 9 still searched for by the pinning API");
  expect(assess(tally, [node("a")]).pins).toEqual({
    state: "ok",
    sentence: "12: 3 complete, 9 still searched for by the pinning API; found 0 s ago",
    todo: null,
  });
});

test("a queue that is not known is said on both screens", () => {
  const tally = tallyOf({ failed: 1 });
  const found = {
    at,
    tally,
    nodes: [node("a")],
    strangers: 0,
    namesFault: null,
    queueFault: "refused",
    own: "",
  };
  expect(sweepFacts(found).summary).toContain("its queue is not fully known");
  expect(assess(tally, [node("a")], 0, null, new Set(), at, "refused").pins).toMatchObject({
    state: "attention",
    sentence:
      "1: 0 complete, 1 below their minimum, the queue of the pinning API was not fully known then; found 0 s ago",
  });
});

test("a record of a version without the queue is read", () => {
  const tally = tallyOf({ healthy: 3 });
  const found = { at, tally, nodes: [node("a")], strangers: 0, namesFault: null, queueFault: null, own: "" };
  const { queueFault: _fault, ...facts } = sweepFacts(found).facts;
  const { searchedFor: _searched, ...pins } = facts["pins"] as Record<string, unknown>;
  const old = { facts: { ...facts, pins }, facts_at: at.toISOString() };
  expect(assessFindings(old, at).pins).toMatchObject({
    state: "ok",
    sentence: "3: 3 complete; found 0 s ago",
  });
});

test("without a sweep, or with a record of 0.1.0, both are unknown and never ok", () => {
  const facts_at = at.toISOString();
  for (const heartbeat of [null, { facts: null, facts_at }, { facts: { pins: 3 }, facts_at }])
    expect(Object.values(assessFindings(heartbeat, at)).map(({ state }) => state)).toEqual([
      "unknown",
      "unknown",
    ]);
});

test("the record stays small with many nodes, and the alarm has at most 20 of the worst", () => {
  const tally = new SweepTally(10_000);
  for (let pin = 0; pin < 500; pin++)
    tally.add(
      `c${pin}`,
      { state: "failed", pinned: 0, min: 2, lacksNodes: false, failedPeers: [], unknownPeers: [] },
      true,
    );
  const many = Array.from({ length: 1000 }, (_, index) =>
    node("n".repeat(64), { id: `12D3${index}`, state: "absent" }),
  );
  const found = { at, tally, nodes: many, strangers: 0, namesFault: null, queueFault: null, own: "" };
  expect(JSON.stringify(sweepFacts(found)).length).toBeLessThan(40_000);
  expect(sweepAlarm(found)?.worst).toHaveLength(20);
  expect(assess(tally, many).nodes.sentence).toContain("988 more");
});

test("a node that came and went between two sweeps is not called never seen", () => {
  const tally = tallyOf({ healthy: 3 });
  const four = "2026-11-21T19:56:00Z";
  const sentenceOf = (over: Partial<NodeReport>) =>
    assess(tally, [node("a"), node("s1", { state: "absent", ...over })]).nodes.sentence;
  expect(sentenceOf({ lastSeen: null, announcedAt: four })).toContain(
    "s1 (away, announced itself 4 min ago)",
  );
  expect(sentenceOf({ lastSeen: "2026-11-21T19:30:00Z", announcedAt: four })).toContain(
    "s1 (away, announced itself 4 min ago)",
  );
  expect(sentenceOf({ announcedAt: four })).toContain("s1 (away, at the sweep 20 s ago)");
  expect(sentenceOf({ lastSeen: null })).toContain("s1 (away, never seen)");
});

test("the nodes as they are now replace those of the sweep; what only a sweep finds out stays", () => {
  const { facts } = sweepFacts({
    at,
    tally: tallyOf({ healthy: 3 }),
    nodes: [node("a"), node("s1", { state: "silent" }), node("s2")],
    strangers: 0,
    namesFault: null,
    queueFault: null,
    own: "12D3a",
  });
  const live = {
    masters: ["12D3a"] as const,
    nodes: [
      node("a", { state: "no-metric" }),
      node("s1"),
      node("s2", { state: "absent" }),
      node("s3", { sync: "syncing", pinsDone: 0, pinsDue: 0 }),
    ],
    strangers: [],
  };
  const shown = assessFindings({ facts, facts_at: at.toISOString() }, at, { live });
  expect(shown.nodes.sentence).toBe(
    "a (here), s1 (silent), s2 (away, at the sweep 20 s ago), s3 (new, not looked at yet)",
  );
  expect(shown.nodes.state).toBe("attention");
  expect(shown.pins.sentence).toContain("found 0 s ago");
  expect(assessFindings(null, at, { live: { ...live, nodes: [node("a")] } })).toMatchObject({
    pins: { state: "unknown" },
    nodes: { state: "ok", sentence: "a (here)" },
  });
});
