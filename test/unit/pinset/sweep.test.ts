import { afterEach, beforeEach, expect, test } from "vitest";
import { type Cluster, openCluster } from "../../../src/cluster/client.ts";
import { parseHeartbeat } from "../../../src/pinset/heartbeat.ts";
import { sweep, type SweepOptions, type SweepResult } from "../../../src/pinset/sweep/sweep.ts";
import { openWorkspace } from "../../../src/pinset/workspace.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, type DoublePeer, startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";

const [A, B, C, D] = ["a", "b", "c", "d"].map((text) => cidOf(`sweep ${text}`)) as [
  string,
  string,
  string,
  string,
];

let double: ClusterDouble;
let cluster: Cluster;
let deps: OperationDeps;

beforeEach(async () => {
  deps = operationDeps();
  double = await startClusterDouble({ peers: 3 });
  const [, one, two] = double.peers.map((peer) => peer.id) as [string, string, string];
  double.pins.set(A, {
    cid: A,
    replication_factor_min: 2,
    replication_factor_max: 2,
    allocations: [one, two],
  });
  double.pins.set(B, {
    cid: B,
    replication_factor_min: 1,
    replication_factor_max: 2,
    allocations: [one, two],
  });
  double.pins.set(C, { cid: C });
  double.pins.set(D, {
    cid: D,
    replication_factor_min: 0,
    replication_factor_max: 0,
    allocations: [one, two],
  });
  cluster = openCluster({ endpoint: double.url });
});

afterEach(async () => {
  cluster.close();
  await double.stop();
  deps.clear();
});

function run(over: Partial<SweepOptions> = {}): Promise<SweepResult> {
  const { clock, files, alerts, report, base } = deps;
  const fixed = {
    nodesPath: `${base}/known-nodes.json`,
    forget: [],
    fallbackMin: 2,
    strict: true,
    workspace: openWorkspace(deps.base),
  };
  return sweep({
    cluster,
    clock,
    files,
    alerts,
    report,
    heartbeat: deps.heartbeat("sweep"),
    ...fixed,
    ...over,
  });
}

const follower = (index: number): DoublePeer => double.peers[index] as DoublePeer;
const asked = (path: string): number => double.requests.filter((request) => request === path).length;

test("everything is healthy: no alert, exit ok, and a histogram", async () => {
  const result = await run();
  expect(result).toMatchObject({ exit: "ok", pins: 4, alerts: 0, rechecked: 0, worst: [] });
  expect(result.counts).toMatchObject({ healthy: 4 });
  expect(result.histogram).toEqual({ "2": 3, "3": 1 });
  expect(await deps.alertLines()).toEqual([]);
  expect(parseHeartbeat(await deps.files.readText(deps.heartbeat("sweep").path))).toMatchObject({
    outcome: "ok",
  });
});

test("a failed pin is checked alone, gets an alert in upstream's format, and is recovered", async () => {
  follower(1).statuses.set(A, "pin_error");
  const result = await run();
  expect(result).toMatchObject({ exit: "pending", rechecked: 1, unconfirmed: 0, recovered: 1, alerts: 1 });
  expect(result.counts).toMatchObject({ healthy: 3, failed: 1 });
  expect(result.worst).toEqual([expect.objectContaining({ cid: A, pinned: 1, min: 2, confirmed: true })]);
  expect(await deps.alertLines()).toEqual([`2026-11-21T20:00:00Z under-replicated cid=${A} pinned=1 min=2`]);
  expect(asked(`POST /pins/${A}/recover`)).toBe(1);
  expect(await run()).toMatchObject({ exit: "ok" });
});

test("without strict it reports the same and exits ok", async () => {
  follower(1).statuses.set(A, "pin_error");
  expect(await run({ strict: false })).toMatchObject({ exit: "ok", alerts: 1 });
});

test("a list that is wrong about a direct pin causes no alert", async () => {
  double.misreported.add(A);
  const result = await run();
  expect(result).toMatchObject({ exit: "ok", rechecked: 1, alerts: 0, recovered: 0 });
  expect(result.counts).toMatchObject({ healthy: 4, failed: 0 });
  expect(result.histogram).toEqual({ "2": 3, "3": 1 });
});

test("a node that is gone stays known: -1 still needs a copy on it, and pins that only it can report are unknown", async () => {
  await run();
  follower(2).present = false;
  const result = await run();
  expect(result.exit).toBe("pending");
  expect(result.nodes.map((node) => node.state)).toEqual(["up", "up", "absent"]);
  expect(result.counts).toMatchObject({ healthy: 1, unknown: 3 });
  expect(result.worst.map(({ cid, pinned, min }) => ({ cid, pinned, min }))).toContainEqual({
    cid: C,
    pinned: 2,
    min: 3,
  });
  follower(2).present = true;
  expect(await run()).toMatchObject({ exit: "ok" });
});

test("a node taken out of service for good can be forgotten", async () => {
  await run();
  double.peers.pop();
  double.pins.delete(A);
  double.pins.delete(D);
  expect(await run()).toMatchObject({ exit: "pending" });
  expect(await run({ forget: ["12D3KooWPeer2"] })).toMatchObject({ exit: "ok", pins: 2 });
});

test("a node that does not trust the master is silent, and its pins unknown", async () => {
  follower(2).silent = true;
  const result = await run();
  expect(result.nodes.map((node) => node.state)).toEqual(["up", "up", "silent"]);
  expect(result.counts).toMatchObject({ healthy: 1, unknown: 3 });
});

test("a node whose own pinset lacks a pin makes the allocations of the single status wrong, but not the verdict", async () => {
  follower(2).diverged.add(A);
  const result = await run();
  expect(result.worst).toEqual([
    expect.objectContaining({ cid: A, state: "under-replicated", pinned: 1, min: 2, confirmed: true }),
  ]);
});

test("a pin that no peer reports is not healthy", async () => {
  for (const peer of double.peers) peer.diverged.add(A);
  const result = await run();
  expect(result.pins).toBe(4);
  expect(result.worst).toEqual([expect.objectContaining({ cid: A, pinned: 0, min: 2, confirmed: true })]);
});

test("a pin that is added or removed between the two lists causes no alert", async () => {
  double.beforeStatus = () => {
    double.pins.delete(A);
    double.pins.set(cidOf("new"), { cid: cidOf("new") });
  };
  expect(await run()).toMatchObject({ exit: "ok", pins: 3, alerts: 0 });
});

test("a candidate that is unpinned before its CID is known is not counted", async () => {
  follower(1).statuses.set(A, "pin_error");
  double.afterStatus = () => void double.pins.delete(A);
  expect(await run()).toMatchObject({ exit: "ok", pins: 3, alerts: 0, counts: { failed: 0, healthy: 3 } });
});

test("first attempts are in progress, repeated ones failed; neither is healthy", async () => {
  follower(1).statuses.set(A, "pinning");
  const result = await run();
  expect(result.counts).toMatchObject({ healthy: 3, "in-progress": 1 });
  expect(result).toMatchObject({ exit: "pending", alerts: 0 });
});

test.each([
  { fault: "status", kind: "nothing" },
  { fault: "status", kind: "no-trailer" },
  { fault: "allocations", kind: "no-trailer" },
] as const)("$fault list with $kind is unavailable, never well", async ({ fault, kind }) => {
  double.faults[fault] = { kind };
  await expect(run({ strict: false })).rejects.toMatchObject({ exit: "unavailable" });
  const heartbeat = parseHeartbeat(await deps.files.readText(deps.heartbeat("sweep").path));
  expect(heartbeat).toMatchObject({ outcome: "unavailable", last_good_at: null });
});

test("an empty pinset is not a failure", async () => {
  double.pins.clear();
  expect(await run()).toMatchObject({ exit: "ok", pins: 0 });
});

test("pins are checked, recovered and named up to the limits; the others are only counted", async () => {
  for (let index = 0; index < 40; index++) {
    const cid = cidOf(`many ${index}`);
    double.pins.set(cid, { cid });
    follower(1).statuses.set(cid, "pin_error");
  }
  const result = await run({ limits: { candidates: 10, recovers: 4 } });
  expect(result).toMatchObject({ rechecked: 10, unconfirmed: 30, recovered: 4, alerts: 11 });
  expect(result.counts.failed).toBe(40);
  expect((await deps.alertLines()).at(-1)).toBe("2026-11-21T20:00:00Z under-replicated-more pins=30");
});
