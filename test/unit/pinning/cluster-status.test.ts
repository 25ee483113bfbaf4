import { describe, expect, it } from "vitest";
import { judgeStatus } from "../../../src/pinning/cluster-status.ts";

function statusOf(statuses: readonly string[], more: Readonly<Record<string, unknown>> = {}): unknown {
  const peers = statuses.map((status, index) => [
    `peer-${index}`,
    { status, error: status === "pin_error" ? `error of peer ${index}` : "" },
  ]);
  return { cid: "bafy", allocations: [], peer_map: Object.fromEntries(peers), ...more };
}

const PIN_ERROR = { kind: "failing", error: "error of peer 0" };

describe("judgeStatus", () => {
  it.each([
    ["undefined", { kind: "unknown", answered: false }],
    ["cluster_error", { kind: "unknown", answered: false }],
    ["pin_error", PIN_ERROR],
    ["unpin_error", { kind: "unknown", answered: true }],
    ["pinned", { kind: "pinned" }],
    ["pinning", { kind: "pinning", isQueued: false }],
    ["unpinning", { kind: "unknown", answered: true }],
    ["unpinned", { kind: "absent" }],
    ["remote", { kind: "unknown", answered: true }],
    ["pin_queued", { kind: "pinning", isQueued: true }],
    ["unpin_queued", { kind: "unknown", answered: true }],
    ["sharded", { kind: "unknown", answered: true }],
    ["unexpectedly_unpinned", { kind: "lost" }],
  ])("knows the status %s", (status, verdict) => {
    expect(judgeStatus(statusOf([status]))).toEqual({ verdict, invented: [] });
    expect(judgeStatus(statusOf([status, "remote"])).verdict).toEqual({
      ...verdict,
      ...(verdict.kind === "unknown" ? { answered: true } : {}),
    });
    expect(judgeStatus(statusOf([status, "pinned"])).verdict).toEqual({ kind: "pinned" });
  });

  it.each([
    ["one error, one pinned", ["pin_error", "pinned"], { kind: "pinned" }],
    ["one error, one still pinning", ["pin_error", "pinning"], { kind: "pinning", isQueued: false }],
    ["one queued, one pinning", ["pin_queued", "pinning"], { kind: "pinning", isQueued: false }],
    ["an error and a peer that lost it", ["pin_error", "unexpectedly_unpinned"], PIN_ERROR],
    [
      "an error, and a peer that is not reached",
      ["pin_error", "cluster_error"],
      { kind: "unknown", answered: true },
    ],
    [
      "lost, and a peer that is not reached",
      ["unexpectedly_unpinned", "cluster_error"],
      { kind: "unknown", answered: true },
    ],
    ["one peer with another pinset", ["pin_error", "unpinned"], PIN_ERROR],
  ])("%s", (_name, statuses, verdict) => {
    expect(judgeStatus(statusOf(statuses)).verdict).toEqual(verdict);
  });

  it("an allocated peer that is not in the answer may have it", () => {
    const given = statusOf(["pin_error"], { allocations: ["peer-0", "peer-gone"] });
    expect(judgeStatus(given).verdict).toEqual({ kind: "unknown", answered: true });
  });

  it("a status that nobody knows counts as pinning, and is named", () => {
    expect(judgeStatus(statusOf(["teleporting", "pin_error"]))).toEqual({
      verdict: { kind: "pinning", isQueued: false },
      invented: ["teleporting"],
    });
    expect(judgeStatus(statusOf(["__proto__"])).invented).toEqual(["__proto__"]);
    expect(judgeStatus(statusOf(["toString"])).invented).toEqual(["toString"]);
  });

  it.each([
    null,
    "text",
    [],
    {},
    { peer_map: null },
    { peer_map: {} },
    { peer_map: { a: null } },
    { peer_map: { a: { status: 1 } } },
  ])("nothing is known from %j", (value) => {
    expect(judgeStatus(value)).toEqual({ verdict: { kind: "unknown", answered: false }, invented: [] });
  });

  it("a peer's error is made fit for the database", () => {
    const given = { peer_map: { a: { status: "pin_error", error: `\0a\ud800b${"x".repeat(500)}` } } };
    expect(judgeStatus(given).verdict).toEqual({
      kind: "failing",
      error: `ab${"x".repeat(298)}`.slice(0, 300),
    });
  });
});
