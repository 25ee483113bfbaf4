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
  type PeerClaim,
  type PinStatus,
  readPinStatus,
  ruleOf,
} from "../../../src/pinset/sweep/replication.ts";

const NODES = new Set(["m", "a", "b"]);

function claims(map: Readonly<Record<string, string | PeerClaim>>): PinStatus {
  const claimsByPeer = Object.fromEntries(
    Object.entries(map).map(([peer, claim]) => [
      peer,
      typeof claim === "string" ? { status: claim, attempts: 0 } : claim,
    ]),
  );
  return { cid: "c", claims: claimsByPeer };
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
    expect(judgePin(TWO, claims(map as Record<string, string>), NODES)).toMatchObject({
      state,
      pinned,
      min: 2,
    });
  });

  test("fewer allocations than the minimum can't be healthy", () => {
    const one = { ...TWO, allocations: ["a"] };
    expect(judgePin(one, claims({ a: "pinned" }), NODES).state).toBe("under-replicated");
  });

  test("-1 wants every known node, and a stranger's copy counts for none of them", () => {
    const all = { m: "pinned", a: "pinned", b: "pinned" };
    expect(judgePin(EVERYWHERE, claims(all), NODES)).toMatchObject({ state: "healthy", pinned: 3, min: 3 });
    const stranger = { m: "pinned", a: "pinned", x: "pinned" };
    expect(judgePin(EVERYWHERE, claims(stranger), NODES)).toMatchObject({
      state: "unknown",
      pinned: 2,
      unknownPeers: ["b"],
    });
  });

  test("recover is for failed peers only", () => {
    const verdict = judgePin(TWO, claims({ a: "pin_error", b: "cluster_error" }), NODES);
    expect(verdict).toMatchObject({ failedPeers: ["a"], unknownPeers: ["b"] });
  });
});

test("the rule is the pin's own minimum, and REPL_MIN where it has none", () => {
  const rule = (min: unknown): unknown =>
    ruleOf(readPinLine(JSON.stringify({ cid: "c", replication_factor_min: min })), 2);
  expect(rule(3)).toMatchObject({ min: 3, everywhere: false });
  expect(rule(1)).toMatchObject({ min: 1, everywhere: false });
  expect(rule(0)).toMatchObject({ min: 2, everywhere: false });
  expect(rule(undefined)).toMatchObject({ min: 2, everywhere: false });
  expect(rule(-1)).toMatchObject({ min: 0, everywhere: true });
});

test("what is no status is not taken for one", () => {
  for (const value of [null, "x", {}, { cid: "c" }, { cid: 1, peer_map: {} }])
    expect(readPinStatus(value)).toBeNull();
  expect(readPinStatus({ cid: "c", peer_map: { a: null }, allocations: null })).toEqual({
    cid: "c",
    claims: { a: { status: "", attempts: 0 } },
  });
});

test("an alert line is upstream's", () => {
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

  test("survive being gone, and keep when they were first seen", () => {
    const second = mergeNodes(first, [{ id: "a", peername: "renamed" }], later, []);
    expect(second).toEqual([
      { id: "a", name: "renamed", first_seen: at.toISOString(), last_seen: later.toISOString() },
      { id: "b", name: "bee", first_seen: at.toISOString(), last_seen: at.toISOString() },
    ]);
  });

  test("are forgotten when told, unless they are there", () => {
    expect(mergeNodes(first, [], later, ["b"]).map((node) => node.id)).toEqual(["a"]);
    expect(mergeNodes(first, [{ id: "b", peername: "bee" }], later, ["b"]).map((node) => node.id)).toEqual([
      "a",
      "b",
    ]);
  });

  test("survive their file, and a broken file is no empty one", () => {
    expect(parseKnownNodes(serialiseKnownNodes(first), "f")).toEqual(first);
    expect(parseKnownNodes(serialiseKnownNodes([]), "f")).toEqual([]);
    expect(() => parseKnownNodes("{", "f")).toThrow(/can't be read/);
  });
});

describe("forgetting", () => {
  const known = [
    { id: "12D3a", name: "one" },
    { id: "12D3b", name: "two" },
    { id: "12D3c", name: "two" },
  ].map((node) => ({ ...node, first_seen: "2026-01-01T00:00:00Z", last_seen: "2026-01-01T00:00:00Z" }));
  test("takes a node by id or name", () => {
    expect(findForgotten(known, [], ["one", "12D3c"])).toEqual(["12D3a", "12D3c"]);
  });
  test.each([["nobody"], ["two"]])("refuses %s", (given) => {
    expect(() => findForgotten(known, [], [given])).toThrow(expect.objectContaining({ exit: "usage" }));
  });
  test("refuses one that is a member still", () => {
    expect(() => findForgotten(known, [{ id: "12D3a" }], ["one"])).toThrow(/can't be forgotten/);
  });
});

test("each pair of a rule and what is said of it is judged once, and as judgePin does", () => {
  const books = new VerdictCache(NODES);
  const rules = [
    { min: 0, everywhere: true, allocations: [] },
    { min: 2, everywhere: false, allocations: ["a", "b"] },
    { min: 1, everywhere: false, allocations: ["a", "b"] },
  ];
  const said = [
    claims({ m: "pinned", a: "pinned", b: "pinned" }),
    claims({ a: "pinned" }),
    claims({ b: "pin_error" }),
  ];
  const ruleNumbers = rules.map((rule) => books.rule(rule));
  const saidNumbers = said.map(({ claims: each }) => books.claims(each));
  expect(new Set(ruleNumbers).size).toBe(3);
  expect(rules.map((rule) => books.rule({ ...rule }))).toEqual(ruleNumbers);
  for (const [index, rule] of rules.entries()) {
    const number = ruleNumbers[index] as number;
    expect(books.verdict(number, -1)).toEqual(judgePin(rule, { cid: "", claims: {} }, NODES));
    for (const [at, status] of said.entries()) {
      expect(books.verdict(number, saidNumbers[at] as number)).toEqual(judgePin(rule, status, NODES));
      expect(books.verdict(number, saidNumbers[at] as number)).toBe(
        books.verdict(number, saidNumbers[at] as number),
      );
    }
  }
  expect(books.heard()).toEqual(NODES);
});
