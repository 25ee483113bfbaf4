import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readPinLine } from "../../../src/cluster/pin.ts";
import { VerdictCache } from "../../../src/pinset/sweep/verdict-cache.ts";
import {
  alertLine,
  type ExpectedNodes,
  judgePin,
  type PeerPinInfo,
  type PinStatus,
  readPinStatus,
  ruleOf,
} from "../../../src/pinset/sweep/replication.ts";

/** Three expected nodes, and REPL_MIN. */
function expecting(floor: number, syncing: readonly string[] = [], ids = ["m", "a", "b"]): ExpectedNodes {
  return { ids: new Set(ids), syncing: new Set(syncing), settling: new Set(), floor };
}
const NODES = expecting(2);

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

test("the rule is the pin's own minimum, 0 if it has none", () => {
  const rule = (min: unknown): unknown =>
    ruleOf(readPinLine(JSON.stringify({ cid: "c", replication_factor_min: min })));
  expect(rule(3)).toMatchObject({ min: 3, everywhere: false });
  expect(rule(1)).toMatchObject({ min: 1, everywhere: false });
  expect(rule(0)).toMatchObject({ min: 0, everywhere: false });
  expect(rule(undefined)).toMatchObject({ min: 0, everywhere: false });
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

describe("a node that has fetched the pinset only just now", () => {
  const settling = { ...NODES, settling: new Set(["b"]) };

  test("has not failed where it lacks a pin: the pin is syncing, and not healthy", () => {
    const status = statusOf({ a: "pinned", b: "unexpectedly_unpinned" });
    expect(judgePin(TWO, status, NODES)).toMatchObject({ state: "failed", failedPeers: ["b"] });
    expect(judgePin(TWO, status, settling)).toMatchObject({ state: "syncing", pinned: 1, failedPeers: [] });
  });

  test.each(["pin_error", "unpinned", "cluster_error"])("is judged as any other for %s", (b) => {
    const status = statusOf({ a: "pinned", b });
    expect(judgePin(TWO, status, settling)).toEqual(judgePin(TWO, status, NODES));
  });

  test("an other node that lacks a pin has failed", () => {
    const status = statusOf({ a: "unexpectedly_unpinned", b: "pinned" });
    expect(judgePin(TWO, status, settling).state).toBe("failed");
  });
});

describe("the floor", () => {
  test("REPL_MIN holds for a pin with a lower minimum, and for a pin on every node", () => {
    const lone = { min: 1, everywhere: false, allocations: ["a"] };
    expect(judgePin(lone, statusOf({ a: "pinned" }), expecting(2))).toMatchObject({
      state: "under-replicated",
      pinned: 1,
      min: 2,
    });
    expect(judgePin(lone, statusOf({ a: "pinned" }), expecting(1)).state).toBe("healthy");
    const alone = expecting(2, [], ["m"]);
    expect(judgePin(EVERYWHERE, statusOf({ m: "pinned" }), alone)).toMatchObject({
      state: "under-replicated",
      min: 2,
      lacksNodes: true,
    });
  });

  test("without a known node nothing is healthy", () => {
    const nobody = expecting(1, [], []);
    for (const rule of [EVERYWHERE, TWO, { min: 0, everywhere: false, allocations: [] }])
      expect(judgePin(rule, statusOf({ a: "pinned", b: "pinned" }), nobody).state).not.toBe("healthy");
    expect(judgePin(EVERYWHERE, statusOf({}), expecting(0, [], [])).state).not.toBe("healthy");
  });

  test("a pin that only lacks nodes needs no alert of its own; one with a copy that only a stranger reports does", () => {
    const alone = expecting(2, [], ["m"]);
    const onStranger = { min: 2, everywhere: false, allocations: ["m", "x"] };
    expect(judgePin(onStranger, statusOf({ m: "pinned", x: "pinned" }), alone).lacksNodes).toBe(false);
    expect(judgePin(EVERYWHERE, statusOf({ m: "pin_error" }), alone).lacksNodes).toBe(false);
  });

  const PEERS = ["m", "a", "b", "x", "y"];
  const STATUSES =
    "pinned sharded pinning pin_queued pin_error unexpectedly_unpinned remote unpinned unpinning cluster_error undefined later"
      .split(" ")
      .concat("");
  const rules = fc.oneof(
    fc.constant(EVERYWHERE),
    fc.record({
      min: fc.integer({ min: 0, max: 5 }),
      everywhere: fc.constant(false),
      allocations: fc.subarray(PEERS),
    }),
  );
  const maps = fc.dictionary(
    fc.constantFrom(...PEERS),
    fc.record({ status: fc.constantFrom(...STATUSES), attempts: fc.integer({ min: 0, max: 3 }) }),
  );
  const nodes = fc.record({
    ids: fc.subarray(PEERS).map((ids) => new Set(ids)),
    syncing: fc.subarray(PEERS).map((ids) => new Set(ids)),
    settling: fc.subarray(PEERS).map((ids) => new Set(ids)),
    floor: fc.integer({ min: 1, max: 5 }),
  });

  test("for every rule, fewer copies on expected nodes than the floor are never healthy", () => {
    fc.assert(
      fc.property(rules, maps, nodes, (rule, map, expected) => {
        const copies = [...expected.ids].filter((id) => /^(pinned|sharded)$/.test(map[id]?.status ?? ""));
        const floor = Math.max(rule.everywhere ? expected.ids.size : rule.min, expected.floor);
        const { state, pinned, min } = judgePin(rule, statusOf(map), expected);
        expect(min).toBe(floor);
        expect(pinned).toBeLessThanOrEqual(copies.length);
        if (copies.length < floor) expect(state).not.toBe("healthy");
        if (state === "healthy") expect(pinned).toBeGreaterThanOrEqual(floor);
      }),
      { numRuns: 5000 },
    );
  });
});

describe("a new node that still fetches the pinset", () => {
  const NEW = expecting(2, ["b"]);
  test.each([
    { map: { m: "pinned", a: "pinned" }, state: "syncing" },
    { map: { m: "pinned", a: "pinned", b: "unpinned" }, state: "syncing" },
    { map: { m: "pinned", a: "pinned", b: "pin_error" }, state: "syncing" },
    { map: { m: "pinned", a: "pinned", b: "pin_queued" }, state: "in-progress" },
    { map: { m: "pinned", a: "pinned", b: "pinned" }, state: "healthy" },
    { map: { m: "pinned" }, state: "unknown" },
    { map: { m: "pinned", a: "pin_error" }, state: "failed" },
    { map: { m: "pinned", a: "unpinned" }, state: "under-replicated" },
  ])("$map: $state", ({ map, state }) => {
    expect(judgePin(EVERYWHERE, statusOf(map as Record<string, string>), NEW).state).toBe(state);
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
  expect(cache.respondingPeers()).toEqual(NODES.ids);
});

test("what strangers report makes no new peer map, and progress counts the pins of each expected node", () => {
  const cache = new VerdictCache(NODES);
  const everywhere = cache.internRule(EVERYWHERE);
  const onA = cache.internRule({ min: 1, everywhere: false, allocations: ["a", "x"] });
  const plain = cache.internPeerMap(statusOf({ m: "pinned", a: "pinned" }).peerMap);
  for (let index = 0; index < 50; index++)
    expect(cache.internPeerMap(statusOf({ m: "pinned", a: "pinned", [`x${index}`]: "pinned" }).peerMap)).toBe(
      plain,
    );
  for (let pin = 0; pin < 10; pin++) cache.count(everywhere, plain);
  cache.count(onA, -1);
  const unpinned = cache.internPeerMap(statusOf({ a: "unexpectedly_unpinned" }).peerMap);
  cache.count(onA, unpinned);
  // The list of all pins says that of every direct pin.
  cache.count(cache.internRule({ min: 1, everywhere: false, allocations: ["a"] }, true), unpinned);
  expect(Object.fromEntries(cache.progress())).toEqual({
    m: { due: 10, done: 10 },
    a: { due: 13, done: 11 },
    b: { due: 10, done: 0 },
  });
  expect([...cache.respondingPeers()].sort()).toEqual(["a", "m"]);
});

test("what nobody has is not due on any node, also while a new node syncs; with a copy, it is", () => {
  const cache = new VerdictCache(expecting(2, ["a", "b"]));
  const rules = [EVERYWHERE, { ...EVERYWHERE, searched: true }].map((rule) => cache.internRule(rule));
  const maps = [{ m: "pin_error" }, { m: "pinned" }].map((map) =>
    cache.internPeerMap(statusOf(map as Record<string, string>).peerMap),
  );
  const [ordinary = 0, searched = 0] = rules;
  const [nobody = 0, one = 0] = maps;
  expect(cache.count(searched, nobody)).toMatchObject({ state: "searched-for", pinned: 0 });
  expect(cache.count(cache.internRule({ ...TWO, searched: true }), nobody)).toMatchObject({
    state: "syncing",
  });
  expect(cache.progress().get("a")).toEqual({ due: 0, done: 0 });
  expect(cache.progress().get("m")).toEqual({ due: 0, done: 0 });
  cache.count(searched, one);
  cache.count(ordinary, nobody);
  expect(cache.progress().get("m")).toEqual({ due: 2, done: 1 });
  expect(cache.progress().get("a")).toEqual({ due: 2, done: 0 });
});
