import { describe, expect, test } from "vitest";
import {
  expectedBy,
  forgetNodes,
  keepNode,
  type KnownNodes,
  type Masters,
  parseKnownNodes,
  recordProgress,
  serialiseKnownNodes,
  syncOf,
  updateNodes,
} from "../../../src/pinset/sweep/known-nodes.ts";
import { visible } from "../../../src/units.ts";

const at = new Date("2026-01-01T00:00:00Z");
const hours = (count: number): Date => new Date(at.getTime() + count * 3_600_000);
const EMPTY = parseKnownNodes(null, "f");
const MASTERS: Masters = ["m", "m2"];
const view = (members: readonly string[], registered: readonly string[] | null = ["a"], now = at) => ({
  masters: MASTERS,
  registered: registered?.map((id) => ({ id, name: `name-${id}` })) ?? null,
  members: members.map((id) => ({ id, peername: `peer-${id}` })),
  at: now,
});
const ids = (known: KnownNodes) => known.nodes.map(({ id }) => id);
const find = (known: KnownNodes, id: string) => {
  const node = known.nodes.find((one) => one.id === id);
  if (node === undefined) throw new Error(`${id} is not there`);
  return node;
};
/** The list that 0.1.0 wrote. */
const OLD = parseKnownNodes(
  JSON.stringify({
    nodes: ["a", "m", "z"].map((id) => ({
      id,
      name: `old-${id}`,
      first_seen: "2025-01-01T00:00:00.000Z",
      last_seen: "2025-12-31T00:00:00.000Z",
    })),
  }),
  "f",
);

describe("expected are", () => {
  test("the masters and the registered names; every other member is a stranger", () => {
    const known = updateNodes(EMPTY, view(["m", "a", "x"]));
    expect(known.nodes.map((node) => [node.id, node.name, expectedBy(node, MASTERS)])).toEqual([
      ["a", "name-a", "registered"],
      ["m", "peer-m", "master"],
      ["m2", "", "master"],
    ]);
    expect(known.strangers.map(({ id }) => id)).toEqual(["x"]);
    expect(find(known, "m2").last_seen).toBeNull();
  });

  test("the nodes of a list that 0.1.0 wrote, until they are forgotten; they are not new", () => {
    const known = updateNodes(OLD, view(["m", "z", "x"], ["a"], hours(1)));
    expect(known.nodes.map((node) => [node.id, expectedBy(node, MASTERS)])).toEqual([
      ["a", "registered"],
      ["m", "master"],
      ["m2", "master"],
      ["z", "earlier-version"],
    ]);
    expect(syncOf(find(known, "z"), hours(1))).toBe("synced");
    const forgotten = forgetNodes(known, ["z"], { masters: MASTERS, members: [{ id: "z" }] });
    const later = updateNodes(forgotten, view(["m", "z"], ["a"], hours(2)));
    expect([ids(later), later.strangers.map(({ id }) => id)]).toEqual([["a", "m", "m2"], ["x"]]);
  });

  test("what the operator keeps, with the operator's name, and without a name in the database", () => {
    const kept = keepNode(updateNodes(EMPTY, view(["x"])), { id: "x", name: "mine", at });
    expect(kept.strangers).toEqual([]);
    const known = updateNodes(kept, view(["m"], [], hours(1)));
    expect(find(known, "x")).toMatchObject({ name: "mine", kept: "operator", last_seen: at.toISOString() });
  });

  test("the last known names, if the database does not answer", () => {
    const known = updateNodes(updateNodes(EMPTY, view(["a"])), view(["m"], null, hours(1)));
    expect(find(known, "a")).toMatchObject({ name: "name-a", registered: true });
  });

  test("not a node whose name was given back: it is a stranger from then on", () => {
    const known = updateNodes(updateNodes(EMPTY, view(["a"])), view(["m"], [], hours(1)));
    expect(ids(known)).toEqual(["m", "m2"]);
    expect(known.strangers.map(({ id }) => id)).toEqual(["a"]);
  });
});

test("the list is the same after it is written and read, and a broken file is an error", () => {
  const known = updateNodes(OLD, view(["m", "x"]));
  expect(parseKnownNodes(serialiseKnownNodes(known), "f")).toEqual(known);
  expect(parseKnownNodes(serialiseKnownNodes(EMPTY), "f")).toEqual(EMPTY);
  for (const broken of ["", "{", "null", "{}", '{"nodes":{},"strangers":[],"forgotten":[]}'])
    expect(() => parseKnownNodes(broken, "f")).toThrow(/cannot be read/);
});

test("names are stored without invisible characters and not longer than 64, and strangers at most 200 and 30 days", () => {
  const crowd = Array.from({ length: 300 }, (_, index) => `x${index}`);
  const known = updateNodes(EMPTY, {
    ...view([]),
    members: crowd.map((id) => ({ id, peername: `\u001b[31m\u202e${"n".repeat(100)}` })),
  });
  expect(known.strangers).toHaveLength(200);
  expect(known.strangers[0]?.name).toHaveLength(64);
  expect(visible(serialiseKnownNodes(known))).toBe(serialiseKnownNodes(known));
  expect(updateNodes(known, view([], [], hours(24 * 31))).strangers).toEqual([]);
});

describe("forgetting", () => {
  const known = updateNodes(EMPTY, view(["m", "a", "b", "x"], ["a", "b"]));
  const members = [{ id: "m" }, { id: "b" }, { id: "x" }];
  const forget = (given: string) => forgetNodes(known, [given], { masters: MASTERS, members });

  test("accepts a node or stranger by id or name, and a registered node that is gone stays forgotten", () => {
    expect(ids(forget("name-a"))).toEqual(["b", "m", "m2"]);
    const later = updateNodes(forget("a"), view(["m"], ["a", "b"], hours(1)));
    expect(ids(later)).toEqual(["b", "m", "m2"]);
    expect(ids(updateNodes(later, view(["m", "a"], ["a", "b"], hours(2))))).toContain("a");
    expect(forget("x").strangers).toEqual([]);
  });

  test.each([["nobody"], ["m"], ["m2"], ["b"]])("refuses %s", (given) => {
    expect(() => forget(given)).toThrow(expect.objectContaining({ exit: "usage" }));
  });

  test("says how a master is removed for good", () => {
    expect(() => forget("m2")).toThrow(
      expect.objectContaining({ remedy: expect.stringMatching(/fula-node trust remove m2\./) }),
    );
  });

  test("refuses a name that two nodes have: a stranger can call itself anything", () => {
    const two = updateNodes(EMPTY, {
      ...view([]),
      members: [
        { id: "a", peername: "x" },
        { id: "y", peername: "name-a" },
      ],
    });
    expect(() => forgetNodes(two, ["name-a"], { masters: MASTERS, members: [] })).toThrow(/Several nodes/);
    expect(ids(forgetNodes(two, ["a"], { masters: MASTERS, members: [] }))).not.toContain("a");
  });
});

describe("a new node", () => {
  const progress = (done: number) => new Map([["a", { due: 1000, done }]]);
  const first = updateNodes(EMPTY, view(["m", "a"]));

  test("is syncing while it has more pins each time, stalls without, and is synced for good with 99 of 100", () => {
    let known = recordProgress(first, progress(10), at);
    expect(syncOf(find(known, "a"), hours(5))).toBe("syncing");
    known = recordProgress(updateNodes(known, view(["m", "a"], ["a"], hours(5))), progress(10), hours(5));
    expect(syncOf(find(known, "a"), hours(7))).toBe("stalled");
    known = recordProgress(updateNodes(known, view(["m", "a"], ["a"], hours(7))), progress(11), hours(7));
    expect(syncOf(find(known, "a"), hours(12))).toBe("syncing");
    known = recordProgress(updateNodes(known, view(["m", "a"], ["a"], hours(12))), progress(990), hours(12));
    expect(syncOf(find(known, "a"), hours(99))).toBe("synced");
    known = recordProgress(updateNodes(known, view(["m", "a"], ["a"], hours(13))), progress(5), hours(13));
    expect(syncOf(find(known, "a"), hours(13))).toBe("synced");
  });

  test("that had fewer pins in between makes no progress by getting them back", () => {
    let known = recordProgress(first, progress(500), at);
    for (const [hour, done] of [
      [3, 100],
      [6, 300],
      [9, 499],
    ] as const)
      known = recordProgress(
        updateNodes(known, view(["m", "a"], ["a"], hours(hour))),
        progress(done),
        hours(hour),
      );
    expect(syncOf(find(known, "a"), hours(9))).toBe("stalled");
  });

  test("that was never a member is not synced, also without pins, and a clock set back makes nobody new", () => {
    const away = recordProgress(updateNodes(EMPTY, view(["m"])), new Map(), at);
    expect(find(away, "a").synced_at).toBeNull();
    expect(syncOf(find(away, "a"), hours(-1))).toBe("stalled");
  });
});
