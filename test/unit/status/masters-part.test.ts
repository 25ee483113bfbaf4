import { describe, expect, it } from "vitest";
import type { NodeTrust, PoolMaster } from "../../../src/federation/pool-trust.ts";
import { judgeMasters, type MastersSeen } from "../../../src/status/judge-master.ts";

const master = (
  name: string,
  trusts: readonly string[] | null,
  more: Partial<PoolMaster> = {},
): PoolMaster => ({
  id: `id of ${name}`,
  name,
  version: "0.5.0",
  heartbeatAt: "2026-01-01T11:59:30Z",
  heartbeatAgeMs: 30_000,
  isHeard: true,
  peer: { peerId: `peer-${name}`, addresses: [], trusts },
  ...more,
});
const node = (name: string, trusts: readonly string[] | null): NodeTrust => ({
  name,
  peerId: `peer-${name}`,
  trusts,
});
const removed = {
  pool: "p",
  id: "id of c",
  name: "c",
  peerId: "peer-c",
  removedAt: "2026-01-01T10:00:00Z",
  removedBy: "a",
};
const BOTH = ["peer-a", "peer-b"];

function judge(parts: Partial<MastersSeen["trust"]> = {}, more: Partial<MastersSeen> = {}) {
  return judgeMasters({
    trust: {
      masters: [master("a", ["peer-b"]), master("b", ["peer-a"])],
      removed: [],
      nodes: [node("n", BOTH)],
      ...parts,
    },
    writer: { trusts: ["peer-b"], place: { kind: "ours", container: "ipfs_cluster" } },
    ownId: "id of a",
    leader: "b",
    ...more,
  });
}

describe("the part masters", () => {
  it("lists all with the leader, and says nothing in a pool of one", () => {
    expect(judge()).toMatchObject({
      state: "ok",
      summary: "a (here), b (leader)",
      todo: null,
      evidence: {
        b: "peer-b, last seen 2026-01-01T11:59:30Z, leads the billing, trusts peer-a",
        "this writer trusts": "peer-b",
      },
    });
    expect(judge({ masters: [master("a", [])] })).toBeNull();
  });

  const silent = master("b", ["peer-a"], {
    isHeard: false,
    heartbeatAt: "2026-01-01T10:00:00Z",
    heartbeatAgeMs: 7_200_000,
  });
  it.each<[string, ReturnType<typeof judge>, RegExp, RegExp]>([
    [
      "a master that this writer does not trust",
      judge({}, { writer: { trusts: [], place: { kind: "elsewhere" } } }),
      /^this writer does not trust the master b$/,
      /^fula-node trust add b$/,
    ],
    [
      "a master that does not trust this one",
      judge({ masters: [master("a", ["peer-b"]), master("b", [])] }),
      /^the master b does not trust this one$/,
      /^on b: fula-node trust add a$/,
    ],
    [
      "a node that does not trust every master",
      judge({ nodes: [node("n", BOTH), node("m", ["peer-a"])] }),
      /^1 node does not trust every master: m \(not b\)$/,
      /--accept-pool-change/,
    ],
    [
      "a node that has not said whom it trusts",
      judge({ nodes: [node("old", null)] }),
      /^1 node has not said which masters it trusts: old$/,
      /join-as-storage-node/,
    ],
    [
      "a removed master that this writer still trusts",
      judge(
        { removed: [removed] },
        { writer: { trusts: ["peer-b", "peer-c"], place: { kind: "elsewhere" } } },
      ),
      /^still trusted, although removed: c \(by this writer\)$/,
      /^fula-node trust remove c$/,
    ],
    [
      "a removed master that a node still trusts",
      judge({ removed: [removed], nodes: [node("n", [...BOTH, "peer-c"])] }),
      /^still trusted, although removed: c \(by n\)$/,
      /--accept-pool-change/,
    ],
    [
      "a master without a recorded peer",
      judge({ masters: [master("a", ["peer-b"]), master("b", null, { peer: null })] }),
      /^the cluster peer of b is not recorded$/,
      /^on b: fula-node join-as-master$/,
    ],
    [
      "a silent master",
      judge({ masters: [master("a", ["peer-b"]), silent] }),
      /^the master b was last seen at 2026-01-01T10:00:00Z$/,
      /fula-node trust remove b/,
    ],
  ])("needs attention for %s", (_, part, summary, todo) => {
    expect(part).toMatchObject({
      state: "attention",
      summary: expect.stringMatching(summary),
      todo: expect.stringMatching(todo),
    });
  });

  it("says by the clock of the database how long this master's services are silent", () => {
    const own = master("a", ["peer-b"], { isHeard: false, heartbeatAgeMs: 7_200_000 });
    expect(judge({ masters: [own, master("b", ["peer-a"])] })).toMatchObject({
      state: "ok",
      summary: "a (here, silent for 2 h 0 min), b (leader)",
    });
  });

  it("is down on a master that was removed", () => {
    expect(
      judge({ masters: [master("b", [])], removed: [{ ...removed, id: "id of a", name: "a" }] }),
    ).toMatchObject({
      state: "down",
      summary: "this master was removed from the pool by a, 2026-01-01T10:00:00Z",
      todo: expect.stringContaining("fula-node trust add a"),
    });
  });

  it("trusts everybody with a star, and knows nothing of a writer elsewhere", () => {
    const everybody = { trusts: ["*"], place: { kind: "elsewhere" } } as const;
    expect(judge({}, { writer: everybody })).toMatchObject({ state: "ok" });
    expect(judge({}, { writer: { ...everybody, trusts: null } })).toMatchObject({ state: "ok" });
  });
});
