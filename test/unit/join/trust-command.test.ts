import { beforeAll, describe, expect, it } from "vitest";
import { trustAdd, type TrustFlags, trustList, trustRemove } from "../../../src/commands/pool/trust.ts";
import type { PostgresPool } from "../../../src/database/postgres.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import type { World } from "../../../src/world.ts";
import { join, savedValues } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const OTHER = "12D3KooWSHj3RRbBjD15g6wekV8y3mm57Pobmps2g2WJm6F67Lay";
const THIRD = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/** The rows of the pool's database, and what was written to it. */
interface Rows {
  masters: Record<string, unknown>[];
  removed: Record<string, unknown>[];
  nodes: Record<string, unknown>[];
  readonly written: string[];
}

let whole: FakeStorage;
let ownPeer: string;

beforeAll(async () => {
  whole = new FakeStorage();
  await join(whole);
  ownPeer = whole.askCluster().self.id;
  whole.revive();
});

function rowsOf(host: FakeStorage): Rows {
  const row = (name: string, id: string, peerId: string) => ({
    id,
    name,
    heartbeatAt: "2026-01-01T00:00:00Z",
    isHeard: false,
    peerId,
    addresses: [],
    trusts: [],
  });
  const own = savedValues(host)["MASTER_ID"] ?? "";
  return {
    masters: [row("box", own, ownPeer), row("paris", "0b".repeat(16), OTHER)],
    removed: [],
    nodes: [],
    written: [],
  };
}

function poolOf(rows: Rows): PostgresPool {
  const query = async (sql: string) => {
    if (/FROM masters m LEFT/.test(sql) && !/INSERT/.test(sql)) return rows.masters;
    if (/FROM removed_masters WHERE pool/.test(sql) && !/DELETE/.test(sql)) return rows.removed;
    if (/FROM node_names/.test(sql)) return rows.nodes;
    if (/^(?:DELETE|INSERT)/.test(sql.trim()))
      rows.written.push(sql.trim().split(/\s+/).slice(0, 3).join(" "));
    return [];
  };
  return {
    query,
    transaction: (work: (on: unknown) => unknown) => work({ query }),
    close: async () => {},
  } as never;
}

interface Scene {
  readonly host: FakeStorage;
  readonly rows: Rows;
  readonly world: World;
  readonly results: Result[];
}

function scene(
  change: (parts: { readonly host: FakeStorage; readonly rows: Rows }) => void = () => {},
): Scene {
  const host = whole.copy();
  const rows = rowsOf(host);
  change({ host, rows });
  const results: Result[] = [];
  const base = worldOf(host);
  const world = worldOf(host, {
    openPool: () => poolOf(rows),
    takeLock: async () => ({ release: async () => {} }),
    reporter: { ...base.reporter, result: (result) => void results.push(result) },
  });
  return { host, rows, world, results };
}

const FLAGS: TrustFlags = { dryRun: false, yes: true };
const trusted = (host: FakeStorage) => host.docker.boxes.get(NAMES.cluster)?.env["CLUSTER_CRDT_TRUSTEDPEERS"];
const saved = (host: FakeStorage) => savedValues(host)["MASTER_CLUSTER_PEERIDS"];

/** A writer that something else created, with its own list. */
function adopt(host: FakeStorage, trusts: string): void {
  const box = host.docker.boxes.get(NAMES.cluster);
  if (box === undefined) throw new Error("no cluster");
  host.docker.boxes.set(NAMES.cluster, {
    ...box,
    labels: {},
    env: { ...box.env, CLUSTER_CRDT_TRUSTEDPEERS: trusts },
  });
}

describe("trust add", () => {
  it("adds a master by name or by peer id, once, and restarts ipfs-cluster", async () => {
    const { host, world, results } = scene();
    expect(await trustAdd("paris", FLAGS, world)).toBe("ok");
    expect([saved(host), trusted(host)]).toEqual([OTHER, OTHER]);
    expect(await trustAdd(OTHER, FLAGS, world)).toBe("ok");
    expect(results.at(-1)?.lines).toEqual(["Nothing to do: it is so already."]);
    expect(await trustAdd(THIRD, FLAGS, world)).toBe("ok");
    expect([saved(host), trusted(host)]).toEqual([`${OTHER},${THIRD}`, `${OTHER},${THIRD}`]);
  });

  it("changes nothing in a dry run, or without a confirmation", async () => {
    const { host, world } = scene();
    const before = host.snapshot();
    expect(await trustAdd("paris", { ...FLAGS, dryRun: true }, world)).toBe("pending");
    await expect(trustAdd("paris", { ...FLAGS, yes: false }, world)).rejects.toMatchObject({
      exit: "preflight",
      what: expect.stringContaining("This restarts ipfs-cluster of this master"),
    });
    expect(host.snapshot()).toEqual(before);
  });

  it.each([
    ["box", /is this master itself/],
    ["berlin", /neither a peer id nor the name of a master/],
  ])("refuses %s", async (given, what) => {
    const { world } = scene();
    await expect(trustAdd(given, FLAGS, world)).rejects.toMatchObject({
      exit: "usage",
      what: expect.stringMatching(what),
    });
  });

  const gone = {
    pool: "pool",
    id: "0c".repeat(16),
    name: "berlin",
    peerId: THIRD,
    removedAt: "2026-01-01T00:00:00Z",
    removedBy: "box",
  };

  it("takes a removed master back, and says so", async () => {
    const { host, rows, world, results } = scene(({ rows: { removed } }) => void removed.push(gone));
    await expect(trustAdd("berlin", { ...FLAGS, yes: false }, world)).rejects.toMatchObject({
      what: expect.stringContaining("berlin was removed by box, 2026-01-01T00:00:00Z. Let it come back?"),
    });
    expect(rows.written).toEqual([]);
    expect(await trustAdd("berlin", FLAGS, world)).toBe("ok");
    expect(rows.written).toEqual(["DELETE FROM removed_masters"]);
    expect(results.at(-1)?.lines).toContain("berlin may come back: run join-as-master there.");
    expect(trusted(host)).toBe(THIRD);
  });

  it("refuses a removed master whose place another one has", async () => {
    const { rows, world } = scene(({ rows: { removed } }) => void removed.push({ ...gone, peerId: OTHER }));
    await expect(trustAdd(gone.id, FLAGS, world)).rejects.toMatchObject({
      exit: "foreign",
      what: `Another master has taken the place of berlin: paris (${OTHER}).`,
    });
    expect(rows.written).toEqual([]);
  });
});

describe("trust remove", () => {
  const both = async () => {
    const made = scene();
    await trustAdd("paris", FLAGS, made.world);
    return made;
  };

  it("forgets a silent master and its peer", async () => {
    const { host, rows, world, results } = await both();
    expect(await trustRemove(OTHER, FLAGS, world)).toBe("ok");
    expect(rows.written).toEqual([
      "INSERT INTO public.removed_masters",
      "DELETE FROM public.masters",
      "DELETE FROM public.master_peers",
    ]);
    expect([saved(host), trusted(host)]).toEqual([undefined, ""]);
    expect(results.at(-1)?.lines[0]).toContain("The pool has forgotten paris");
  });

  it("needs an explicit consent for one that may still run: --yes is not enough", async () => {
    const { rows, world, results } = await both();
    for (const row of rows.masters) row["isHeard"] = true;
    await expect(trustRemove("paris", FLAGS, world)).rejects.toMatchObject({
      exit: "preflight",
      remedy: expect.stringContaining("--still-runs"),
    });
    expect(rows.written).toEqual([]);
    expect(await trustRemove("paris", { ...FLAGS, dryRun: true }, world)).toBe("pending");
    const { data, lines } = results.at(-1) as Result;
    expect(data["registry"]).toMatch(
      /^This would remove the master paris from the pool: .*the real run needs --still-runs\.$/,
    );
    expect(lines.join(" ")).not.toContain("?");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(rows.written).toEqual([]);
    expect(await trustRemove("paris", { ...FLAGS, stillRuns: true }, world)).toBe("ok");
  });

  it("never removes this master, and nobody on a master that is not recorded", async () => {
    const { rows, world } = await both();
    for (const given of ["box", ownPeer])
      await expect(trustRemove(given, FLAGS, world)).rejects.toMatchObject({ exit: "usage" });
    rows.masters.shift();
    await expect(trustRemove("paris", FLAGS, world)).rejects.toMatchObject({
      exit: "preflight",
      why: "The last master of a pool is never removed.",
    });
    expect(rows.written).toEqual([]);
  });

  it("drops the address of the peer that is gone", async () => {
    const { host, world } = await both();
    const address = `/ip4/192.0.2.9/tcp/9096/p2p/${OTHER}`;
    await join(host, { set: { MASTER_CLUSTER_BOOTSTRAP: address, MASTER_CLUSTER_PEERIDS: OTHER } });
    expect(await trustRemove("paris", FLAGS, world)).toBe("ok");
    expect(savedValues(host)["MASTER_CLUSTER_BOOTSTRAP"]).toBeUndefined();
  });
});

describe("a writer that fula-node did not create", () => {
  it("is not changed: the command says what to do by hand, and ends with 20", async () => {
    const { host, world, results } = scene(({ host: box }) => adopt(box, THIRD));
    const before = host.snapshot();
    expect(await trustAdd("paris", FLAGS, world)).toBe("pending");
    expect(results.at(-1)?.lines.join("\n")).toContain(`set CLUSTER_CRDT_TRUSTEDPEERS=${THIRD},${OTHER}`);
    expect(host.snapshot()).toEqual(before);
  });

  it("that trusts everybody needs nothing to add a peer, and a list to remove one", async () => {
    const { rows, world, results } = scene(({ host: box }) => adopt(box, "*"));
    expect(await trustAdd("paris", FLAGS, world)).toBe("ok");
    rows.masters.push({ ...rows.masters[1], id: "0d".repeat(16), name: "rome", peerId: THIRD });
    expect(await trustRemove("paris", FLAGS, world)).toBe("pending");
    expect(results.at(-1)?.data["byHand"]).toContain(
      `In the compose file (or the docker run command) of the container ipfs_cluster, set CLUSTER_CRDT_TRUSTEDPEERS=${THIRD}`,
    );
  });
});

describe("a writer with a service.json of its own", () => {
  it("is read, and the file, the key and the command are named", async () => {
    const { host, world, results } = scene(({ host: { docker, files } }) => {
      const box = docker.boxes.get(NAMES.cluster);
      if (box === undefined) throw new Error("no cluster");
      const { CLUSTER_CRDT_TRUSTEDPEERS: _, ...env } = box.env;
      docker.boxes.set(NAMES.cluster, { ...box, labels: {}, env });
      const mount = box.mounts.find(({ destination }) => destination === "/data/ipfs-cluster");
      const file = {
        cluster: { secret: "not-to-be-shown" },
        consensus: { crdt: { trusted_peers: [THIRD] } },
      };
      files.put(`${mount?.source ?? ""}/service.json`, JSON.stringify(file));
    });
    const before = host.snapshot();
    expect(await trustAdd("paris", FLAGS, world)).toBe("pending");
    const text = results.at(-1)?.lines.join("\n") ?? "";
    expect(text).toContain(`/service.json, set consensus.crdt.trusted_peers to ["${THIRD}","${OTHER}"].`);
    expect(text).toContain("docker restart ipfs_cluster");
    expect(JSON.stringify(results)).not.toContain("not-to-be-shown");
    expect(host.snapshot()).toEqual(before);
  });
});

describe("trust list", () => {
  it("shows each peer with its master, and whether it is trusted and connected", async () => {
    const { world, results } = scene();
    expect(await trustList({}, world)).toBe("ok");
    expect(results[0]?.data).toMatchObject({
      verb: "trust list",
      peerId: ownPeer,
      peers: [{ peerId: OTHER, master: "paris", trusted: false, trustsThis: false, connected: false }],
    });
  });

  it("says that this writer still trusts a removed master", async () => {
    const { world, results } = scene(({ rows }) => {
      const removedAt = "2026-01-01T00:00:00Z";
      rows.removed.push({ pool: "pool", id: "0c".repeat(16), name: "berlin", peerId: THIRD, removedAt });
    });
    await trustAdd(THIRD, FLAGS, world);
    await join(world.host as FakeStorage, { set: { MASTER_CLUSTER_PEERIDS: THIRD } });
    await trustList({}, world);
    expect(results.at(-1)?.data["peers"]).toContainEqual(
      expect.objectContaining({ master: "berlin", removed: true, trusted: true }),
    );
    expect(results.at(-1)?.lines.join("\n").replaceAll(/\s+/g, " ")).toContain(
      "berlin removed, still trusted not connected",
    );
  });
});
