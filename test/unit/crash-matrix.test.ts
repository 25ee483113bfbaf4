import { expect, it } from "vitest";
import { mustStay, withoutAllowed } from "../support/crash-matrix.ts";
import { type EndState, lostSince } from "../support/end-state.ts";

const state = (kept: Readonly<Record<string, string>>): EndState => ({ things: {}, kept });

it("what a killed run wrote must stay; what was so before it and a clean run changes, too, need not", () => {
  const initial = state({ rotated: "old", released: "default", identity: "one" });
  const clean = state({ rotated: "new", identity: "one" });
  const lost = (written: EndState, after: EndState): readonly string[] =>
    lostSince(mustStay(written, { initial, clean }), after);
  // Killed before it changed anything.
  const after = state({ rotated: "another", identity: "one" });
  expect(lost(initial, after)).toEqual([]);
  // Killed when it had written a new secret: the next run goes on with that one.
  const written = state({ rotated: "half", released: "default", identity: "one" });
  expect(lost(written, after)).toEqual(["changed: rotated"]);
  expect(lost(written, state({ rotated: "half", identity: "one" }))).toEqual([]);
  // What a clean run keeps is kept.
  expect(lost(initial, state({ rotated: "new", identity: "two" }))).toEqual(["changed: identity"]);
  expect(lost(initial, state({ rotated: "new" }))).toEqual(["lost: identity"]);
});

it("differences are allowed only all together, each once, and others beside them stay", () => {
  const allowed = [/^more: a$/, /^more: b$/];
  expect(withoutAllowed(["more: a", "more: b"], allowed)).toEqual([]);
  expect(withoutAllowed(["more: a", "less: c", "more: b"], allowed)).toEqual(["less: c"]);
  for (const some of [["more: a"], ["more: a", "more: a", "more: b"], ["less: c"], []])
    expect(withoutAllowed(some, allowed)).toEqual(some);
  expect(withoutAllowed(["more: a"], [])).toEqual(["more: a"]);
});
