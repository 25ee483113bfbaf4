import { describe, expect, test } from "vitest";
import { readPinLine } from "../../../src/cluster/pin.ts";
import { VerdictCache } from "../../../src/pinset/sweep/verdict-cache.ts";
import {
  findForgotten,
  mergeNodes,
  parseKnownNodes,
  serialiseKnownNodes,
} from "../../../src/pinset/sweep/nodes.ts";
import {
  alertLine,
  judgePin,
  type PeerPinInfo,
  type PinStatus,
  readPinStatus,
  ruleOf,
} from "../../../src/pinset/sweep/replication.ts";

const NODES = new Set(["m", "a", "b"]);

function statusOf(map: Readonly<Record<string, string | PeerPinInfo>>): PinStatus {
  const peerMap = Object.fromEntries(
    Object.entries(map).map(([peer, info]) => [
      peer,
      typeof info === "string" ? { status: info, attempts: 0 } : info,
    ]),
  );
  return { cid: "c", peerMap };
}

const TWO = { min: 2, everywhere: false, allocations: ["a", "b"] };
const EVERYWHERE = { min: 0, everywhere: true, allocations: [] };

describe("a pin's verdict", () => {
  test.each([
    { map: { a: "pinned", b: "pinned", m: "remote" }, state: "healthy", pinned: 2 },
    { map: { a: "pinned", b: "pinning" }, state: "in-progress", pinned: 1 },
    { map: { a: "pinned", b: "pin_queued" }, state: "in-progress", pinned: 1 },
    { map: { a: "pinned", b: { status: "pinning", attempts: 1 } }, state: "in-progress", pinned: 1 },
    { map: { a: "pinned", b: { status: "pinning", attempts: 2 } }, state: "failed", pinned: 1 },
    { map: { a: "pinned", b: "pin_error" }, state: "failed", pinned: 1 },
    { map: { a: "pin_error", b: "pinning" }, state: "failed", pinned: 0 },
    { map: { a: "unexpectedly_unpinned", b: "pinned" }, state: "failed", pinned: 1 },
    { map: { a: "pinned" }, state: "unknown", pinned: 1 },
    { map: { a: "pinned", b: "cluster_error" }, state: "unknown", pinned: 1 },
    { map: { a: "pinned", b: "unpinned" }, state: "under-replicated", pinned: 1 },
    { map: { a: "pinned", b: "remote", m: "pinned" }, state: "under-replicated", pinned: 1 },
    { map: { a: "pinned", b: "unpinning" }, state: "under-replicated", pinned: 1 },
    { map: { a: "pinned", b: "a-status-of-the-future" }, state: "under-replicated", pinned: 1 },
    { map: { a: "sharded", b: "sharded" }, state: "healthy", pinned: 2 },
  ])("min 2, $map: $state", ({ map, state, pinned }) => {
    expect(judgePin(TWO, statusOf(map as Record<string, string>), NODES)).toMatchObject({
      state,
      pinned,
      min: 2,
    });
  });

  test("a pin with fewer allocations than the minimum is not healthy", () => {
    const one = { ...TWO, allocations: ["a"] };
    expect(judgePin(one, statusOf({ a: "pinned" }), NODES).state).toBe("under-replicated");
  });

  test("-1 needs a copy on every known node, and a copy on an unknown peer does not count", () => {
    const all = { m: "pinned", a: "pinned", b: "pinned" };
    expect(judgePin(EVERYWHERE, statusOf(all), NODES)).toMatchObject({ state: "healthy", pinned: 3, min: 3 });
    const stranger = { m: "pinned", a: "pinned", x: "pinned" };
    expect(judgePin(EVERYWHERE, statusOf(stranger), NODES)).toMatchObject({
      state: "unknown",
      pinned: 2,
      unknownPeers: ["b"],
    });
  });

  test("recover is for failed peers only", () => {
    const verdict = judgePin(TWO, statusOf({ a: "pin_error", b: "cluster_error" }), NODES);
    expect(verdict).toMatchObject({ failedPeers: ["a"], unknownPeers: ["b"] });
  });
});

test("the rule is the pin's own minimum, or REPL_MIN if it has none", () => {
  const rule = (min: unknown): unknown =>
    ruleOf(readPinLine(JSON.stringify({ cid: "c", replication_factor_min: min })), 2);
  expect(rule(3)).toMatchObject({ min: 3, everywhere: false });
  expect(rule(1)).toMatchObject({ min: 1, everywhere: false });
  expect(rule(0)).toMatchObject({ min: 2, everywhere: false });
  expect(rule(undefined)).toMatchObject({ min: 2, everywhere: false });
  expect(rule(-1)).toMatchObject({ min: 0, everywhere: true });
});

test("a value that is not a status gives null", () => {
  for (const value of [null, "x", {}, { cid: "c" }, { cid: 1, peer_map: {} }])
    expect(readPinStatus(value)).toBeNull();
  expect(readPinStatus({ cid: "c", peer_map: { a: null }, allocations: null })).toEqual({
    cid: "c",
    peerMap: { a: { status: "", attempts: 0 } },
  });
});

test("an alert line has upstream's format", () => {
  const line = alertLine(new Date("2026-11-21T20:05:06.789Z"), "bafy", { pinned: 1, min: 2 });
  expect(line).toBe("2026-11-21T20:05:06Z under-replicated cid=bafy pinned=1 min=2");
});

describe("known nodes", () => {
  const at = new Date("2026-01-01T00:00:00Z");
  const later = new Date("2026-01-02T00:00:00Z");
  const first = mergeNodes(
    [],
    [
      { id: "b", peername: "bee" },
      { id: "a", peername: "ay" },
    ],
    at,
    [],
  );

  test("stay in the list when they are gone, and keep the time when they were first seen", () => {
    const second = mergeNodes(first, [{ id: "a", peername: "renamed" }], later, []);
    expect(second).toEqual([
      { id: "a", name: "renamed", first_seen: at.toISOString(), last_seen: later.toISOString() },
      { id: "b", name: "bee", first_seen: at.toISOString(), last_seen: at.toISOString() },
    ]);
  });

  test("are forgotten on request, unless they are members", () => {
    expect(mergeNodes(first, [], later, ["b"]).map((node) => node.id)).toEqual(["a"]);
    expect(mergeNodes(first, [{ id: "b", peername: "bee" }], later, ["b"]).map((node) => node.id)).toEqual([
      "a",
      "b",
    ]);
  });

  test("are the same after they are written and read, and a broken file is an error", () => {
    expect(parseKnownNodes(serialiseKnownNodes(first), "f")).toEqual(first);
    expect(parseKnownNodes(serialiseKnownNodes([]), "f")).toEqual([]);
    expect(() => parseKnownNodes("{", "f")).toThrow(/cannot be read/);
  });
});

describe("forgetting", () => {
  const known = [
    { id: "12D3a", name: "one" },
    { id: "12D3b", name: "two" },
    { id: "12D3c", name: "two" },
  ].map((node) => ({ ...node, first_seen: "2026-01-01T00:00:00Z", last_seen: "2026-01-01T00:00:00Z" }));
  test("accepts a node by id or name", () => {
    expect(findForgotten(known, [], ["one", "12D3c"])).toEqual(["12D3a", "12D3c"]);
  });
  test.each([["nobody"], ["two"]])("refuses %s", (given) => {
    expect(() => findForgotten(known, [], [given])).toThrow(expect.objectContaining({ exit: "usage" }));
  });
  test("refuses a node that is still a member", () => {
    expect(() => findForgotten(known, [{ id: "12D3a" }], ["one"])).toThrow(/cannot be forgotten/);
  });
});

test("each pair of a rule and a peer map is evaluated once, with the result of judgePin", () => {
  const cache = new VerdictCache(NODES);
  const rules = [
    { min: 0, everywhere: true, allocations: [] },
    { min: 2, everywhere: false, allocations: ["a", "b"] },
    { min: 1, everywhere: false, allocations: ["a", "b"] },
  ];
  const reported = [
    statusOf({ m: "pinned", a: "pinned", b: "pinned" }),
    statusOf({ a: "pinned" }),
    statusOf({ b: "pin_error" }),
  ];
  const ruleNumbers = rules.map((rule) => cache.internRule(rule));
  const reportedNumbers = reported.map(({ peerMap }) => cache.internPeerMap(peerMap));
  expect(new Set(ruleNumbers).size).toBe(3);
  expect(rules.map((rule) => cache.internRule({ ...rule }))).toEqual(ruleNumbers);
  for (const [index, rule] of rules.entries()) {
    const number = ruleNumbers[index] as number;
    expect(cache.verdict(number, -1)).toEqual(judgePin(rule, { cid: "", peerMap: {} }, NODES));
    for (const [at, status] of reported.entries()) {
      expect(cache.verdict(number, reportedNumbers[at] as number)).toEqual(judgePin(rule, status, NODES));
      expect(cache.verdict(number, reportedNumbers[at] as number)).toBe(
        cache.verdict(number, reportedNumbers[at] as number),
      );
    }
  }
  expect(cache.respondingPeers()).toEqual(NODES);
});
