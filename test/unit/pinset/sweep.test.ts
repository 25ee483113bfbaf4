import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cluster, openCluster } from "../../../src/cluster/client.ts";
import { OperatorError } from "../../../src/errors.ts";
import { drillMark, isPinOfDrill as realIsPinOfDrill } from "../../../src/pinset/drill-mark.ts";
import { parseHeartbeat, withHeartbeat } from "../../../src/pinset/heartbeat.ts";
import { historyPath, parseSweepHistory } from "../../../src/pinset/history.ts";
import { sweep, type SweepOptions, type SweepResult } from "../../../src/pinset/sweep/sweep.ts";
import { visible } from "../../../src/units.ts";
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

const E = cidOf("sweep e");

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
  await deps.files.writeAtomic(nodesPath(), oldList(double.peers), { mode: 0o644 });
});

afterEach(async () => {
  cluster.close();
  await double.stop();
  deps.clear();
});

function run(over: Partial<SweepOptions> = {}): Promise<SweepResult> {
  const { clock, files, report } = deps;
  const channels = over.channels ?? deps.channels;
  const readRegistered = () =>
    Promise.resolve(double.peers.slice(1).map(({ id, name }) => ({ id, name: `registered-${name}` })));
  return sweep({
    cluster,
    clock,
    files,
    channels,
    report,
    heartbeat: { ...deps.heartbeat("sweep"), channels },
    nodes: { path: nodesPath(), otherMasters: [], readRegistered },
    readSearched: searching(),
    forget: [],
    floor: 2,
    strict: true,
    workspace: openWorkspace(deps.base),
    ...over,
  });
}

/** The queue of the pinning API. */
const searching =
  (...cids: readonly string[]) =>
  () =>
    Promise.resolve({ cids: new Set(cids), isCut: false });
const nodesPath = (): string => `${deps.base}/known-nodes.json`;

/** The list of known nodes as 0.1.0 wrote it. */
function oldList(peers: readonly DoublePeer[]): string {
  const at = "2026-11-01T00:00:00.000Z";
  return `${JSON.stringify({ nodes: peers.map(({ id, name }) => ({ id, name, first_seen: at, last_seen: at })) })}\n`;
}

/** The names in the database: those of these followers. */
const registered =
  (...indexes: readonly number[]) =>
  () =>
    Promise.resolve(indexes.map((index) => ({ id: `12D3KooWPeer${index}`, name: `node-${index}` })));
const follower = (index: number): DoublePeer => double.peers[index] as DoublePeer;
const asked = (path: string): number => double.requests.filter((request) => request === path).length;

test("everything is healthy: no alert, exit ok, and a histogram", async () => {
  const result = await run();
  expect(result).toMatchObject({ exit: "ok", pins: 4, alerts: 0, rechecked: 0, worst: [] });
  expect(result.counts).toMatchObject({ healthy: 4 });
  expect(result.histogram).toEqual({ "2": 3, "3": 1 });
  expect(await deps.alertLines()).toEqual([]);
  expect(await heartbeat()).toMatchObject({ outcome: "ok" });
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

test("what the pinning API still searches for is no alarm, whatever the nodes report, and is not recovered", async () => {
  for (const index of [1, 2]) follower(index).statuses.set(A, "pin_error");
  for (const peer of double.peers) peer.diverged.add(B);
  const result = await run({ readSearched: searching(A, B) });
  expect(result).toMatchObject({ exit: "ok", alerts: 0, alarm: null, rechecked: 0, recovered: 0, worst: [] });
  expect(result.counts).toMatchObject({ healthy: 2, "searched-for": 2, failed: 0, "under-replicated": 0 });
  expect(result.pins).toBe(4);
  expect(result.summary).toContain("2 still searched for by the pinning API");
  expect(await deps.alertLines()).toEqual([]);
  expect(asked(`POST /pins/${A}/recover`)).toBe(0);
  for (const { pinsDue, pinsDone } of result.nodes) expect(pinsDone).toBe(pinsDue);
  // Once the request is pinned, the ordinary rule holds.
  expect(await run()).toMatchObject({ exit: "pending", alerts: 2 });
});

test("a pin that has a copy is not searched for any more", async () => {
  follower(1).statuses.set(A, "pin_error");
  const result = await run({ readSearched: searching(A) });
  expect(result).toMatchObject({ exit: "pending", alerts: 1, counts: { failed: 1, "searched-for": 0 } });
});

test("a request that comes during the sweep is no alarm either", async () => {
  for (const index of [1, 2]) follower(index).statuses.set(A, "pin_error");
  const answers = [searching(), searching(A)];
  const result = await run({ readSearched: () => (answers.shift() ?? expect.unreachable())() });
  expect(result).toMatchObject({ exit: "ok", alerts: 0, rechecked: 1, recovered: 0 });
  expect(result.counts).toMatchObject({ healthy: 3, "searched-for": 1 });
});

test("a queue that can't be read hides nothing, and the result says so", async () => {
  for (const index of [1, 2]) follower(index).statuses.set(A, "pin_error");
  const readSearched = () => Promise.reject(new OperatorError({ exit: "unavailable", what: "No answer." }));
  const result = await run({ readSearched });
  expect(result).toMatchObject({ exit: "pending", alerts: 1, queueFault: "No answer." });
  expect(result.summary).toContain("its queue is not fully known");
  const cut = () => Promise.resolve({ cids: new Set([A]), isCut: true });
  const inPart = await run({ readSearched: cut });
  expect(inPart).toMatchObject({ alerts: 0, queueFault: "it has too many requests to read them all" });
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
  expect(result.counts).toMatchObject({ healthy: 0, unknown: 4 });
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
  const nodes = { path: nodesPath(), otherMasters: [], readRegistered: registered(1, 2) };
  follower(2).present = false;
  double.pins.delete(A);
  double.pins.delete(D);
  double.pins.delete(B);
  expect(await run({ nodes })).toMatchObject({ exit: "pending" });
  expect(await run({ nodes, forget: ["12D3KooWPeer2"] })).toMatchObject({ exit: "ok", pins: 1 });
  expect(await run({ nodes })).toMatchObject({ exit: "ok" });
  follower(2).present = true;
  expect((await run({ nodes })).nodes.map(({ id }) => id)).toContain("12D3KooWPeer2");
});

test("a node that does not trust the master is silent, and its pins unknown", async () => {
  follower(2).silent = true;
  const result = await run();
  expect(result.nodes.map((node) => node.state)).toEqual(["up", "up", "silent"]);
  expect(result.counts).toMatchObject({ healthy: 0, unknown: 4 });
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
  expect(await heartbeat()).toMatchObject({ outcome: "unavailable", last_good_at: null });
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

describe("the alarm", () => {
  /** A command that remembers what it was given, and ends as it is told. */
  const commandThat = (why: string | null) => {
    const given: string[] = [];
    const command = {
      path: "/usr/local/sbin/alert",
      run: (input: string) => Promise.resolve((given.push(input), why)),
    };
    return { given, channels: { ...deps.channels, command } };
  };

  test("is one call with the counts and the worst pins, however many pins are wrong", async () => {
    for (let index = 0; index < 40; index++) {
      const cid = cidOf(`many ${index}`);
      double.pins.set(cid, { cid });
      follower(1).statuses.set(cid, "pin_error");
    }
    const { given, channels } = commandThat(null);
    const result = await run({ channels });
    expect(result.alarm).toEqual({ kind: "under-replicated", command: "done", why: null });
    expect(given).toHaveLength(1);
    const alarm = JSON.parse(given[0] ?? "") as { counts: unknown; worst: unknown[] };
    expect(alarm).toMatchObject({
      kind: "under-replicated",
      host: "box",
      pool: "lab",
      counts: { pins: 44, below: 40, failed: 40, "nodes-expected": 3 },
    });
    expect(alarm.worst).toHaveLength(20);
    expect(await run({ channels })).toMatchObject({ exit: "ok", alarm: null });
    expect(given).toHaveLength(1);
  });

  test("that the command does not take is in the log, the result, the heartbeat and the exit", async () => {
    follower(1).statuses.set(A, "pin_error");
    const { channels } = commandThat("it ended with exit code 1");
    const result = await run({ channels, strict: false });
    expect(result).toMatchObject({
      exit: "unavailable",
      alerts: 1,
      alarm: { command: "failed" },
      recovered: 1,
    });
    expect(result.failure?.what).toContain("exit code 1");
    expect(await deps.alertLines()).toHaveLength(1);
    expect(await heartbeat()).toMatchObject({ outcome: "unavailable", alarm: { command: "failed" } });
  });

  test("is raised before a failed check ends the sweep; its pin stays unconfirmed", async () => {
    follower(1).statuses.set(A, "pin_error");
    follower(1).statuses.set(B, "pin_error");
    double.brokenStatus.add(A);
    const result = await run({ strict: false });
    expect(result).toMatchObject({ exit: "unavailable", rechecked: 1, unconfirmed: 1, alerts: 2 });
    expect(result.worst.map(({ cid, confirmed }) => [cid, confirmed])).toEqual(
      expect.arrayContaining([
        [A, false],
        [B, true],
      ]),
    );
    expect((await deps.alertLines()).join()).toContain(`cid=${A}`);
    follower(1).statuses.set(A, "pin_error");
    expect(await run()).toMatchObject({ exit: "pending", failure: { exit: "unavailable" } });
  });

  test("is raised for failures in a row from the third on, once a day, and a good run ends them", async () => {
    const { given, channels } = commandThat(null);
    const fail = () => expect(run({ channels })).rejects.toMatchObject({ exit: "unavailable" });
    double.faults.status = { kind: "nothing" };
    for (let times = 0; times < 4; times++) await fail();
    expect(given).toHaveLength(1);
    expect(JSON.parse(given[0] ?? "")).toMatchObject({ kind: "run-failed", counts: { failures: 3 } });
    deps.clock.move(24 * 3_600_000);
    await fail();
    expect(given).toHaveLength(2);
    delete double.faults.status;
    await run({ channels });
    expect(await heartbeat()).toMatchObject({ failures: 0, alarmed_at: null, outcome: "ok" });
  });
});

test("a sweep raises the alarm if snapshots do not run any more, once a day", async () => {
  const path = deps.heartbeat("snapshot").path;
  const heartbeatOf = {
    ...deps.heartbeat("sweep"),
    channels: deps.channels,
    watched: { path, everyMs: 3_600_000 },
  };
  const alerts = async (hours: number) => {
    deps.clock.move(hours * 3_600_000);
    await run({ heartbeat: heartbeatOf });
    return (await deps.alertLines()).length;
  };
  expect(await alerts(0)).toBe(0);
  await withHeartbeat(deps.heartbeat("snapshot"), "snapshot take", () =>
    Promise.resolve({ exit: "ok", summary: "" } as const),
  );
  expect([await alerts(2), await alerts(1), await alerts(1), await alerts(24)]).toEqual([0, 1, 1, 2]);
  expect(await deps.alertLines()).toContain(
    "2026-11-21T23:00:00Z run-missing operation=snapshot-take last=2026-11-21T20:00:00.000Z",
  );
});

test("with one node and REPL_MIN 2, nothing is healthy, and one line says why", async () => {
  double.peers.splice(1);
  for (const cid of [A, B, D]) double.pins.delete(cid);
  await deps.files.writeAtomic(nodesPath(), oldList(double.peers), { mode: 0o644 });
  const result = await run();
  expect(result).toMatchObject({ exit: "pending", lackingNodes: 1, alerts: 1, worst: [] });
  expect(result.counts).toMatchObject({ healthy: 0, "under-replicated": 1 });
  expect(await deps.alertLines()).toEqual(["2026-11-21T20:00:00Z too-few-nodes nodes=1 pins=1"]);
  expect(await run({ floor: 1 })).toMatchObject({ exit: "ok" });
});

test("if no expected node reports, what strangers report does not count: unavailable", async () => {
  for (const index of [0, 1]) follower(index).silent = true;
  const nodes = { path: nodesPath(), otherMasters: [], readRegistered: registered(1) };
  await deps.files.writeAtomic(nodesPath(), oldList(double.peers.slice(0, 2)), { mode: 0o644 });
  await expect(run({ nodes })).rejects.toMatchObject({ exit: "unavailable" });
});

test("wrong usage records no failed run", async () => {
  await run();
  const before = await deps.files.readText(deps.heartbeat("sweep").path);
  await expect(run({ forget: ["no-such-node"] })).rejects.toMatchObject({ exit: "usage" });
  expect(await deps.files.readText(deps.heartbeat("sweep").path)).toBe(before);
});

describe("a stranger who knows the cluster's secret", () => {
  const EVIL = "evil\u001b[2J\u202enode\n2026-11-21T20:00:00Z all-is-well";
  const strangers = () => ({ path: nodesPath(), otherMasters: [], readRegistered: registered(1) });
  beforeEach(async () => {
    Object.assign(follower(2), { name: EVIL });
    double.pins.delete(A);
    double.pins.delete(D);
    await deps.files.writeAtomic(nodesPath(), oldList(double.peers.slice(0, 2)), { mode: 0o644 });
  });

  test("is listed apart and printed once; its copies do not count, and what it lacks is no alarm", async () => {
    double.pins.delete(B);
    follower(2).statuses.set(C, "pin_error");
    const result = await run({ nodes: strangers() });
    expect(result).toMatchObject({ exit: "ok", alerts: 0, histogram: { "2": 1 } });
    expect(result.nodes.map(({ id, expectedBy }) => [id, expectedBy])).toEqual([
      ["12D3KooWPeer0", "master"],
      ["12D3KooWPeer1", "registered"],
    ]);
    expect(result.strangers.map(({ id }) => id)).toEqual(["12D3KooWPeer2"]);
    expect(deps.lines).toHaveLength(1);
    expect(visible(deps.lines.join(), { oneLine: true })).toBe(deps.lines.join());
    expect(result.strangers[0]?.name).toContain("\\u202enode\\u000a");
    await run({ nodes: strangers() });
    expect(deps.lines).toHaveLength(1);
  });

  test("makes a pin that is allocated to it one with too few copies", async () => {
    const result = await run({ nodes: strangers() });
    expect(result.worst).toEqual([expect.objectContaining({ cid: B, pinned: 1, min: 2, unknownPeers: [] })]);
  });

  test("can be forgotten, and is then not listed", async () => {
    await run({ nodes: strangers() });
    expect((await run({ nodes: strangers(), forget: ["12D3KooWPeer2"] })).strangers).toEqual([]);
    expect((await run({ nodes: strangers() })).strangers).toEqual([]);
  });
});

test("if the database does not answer, the last known names stay expected; without any, the sweep is not possible", async () => {
  await run();
  const readRegistered = () =>
    Promise.reject(new OperatorError({ exit: "unavailable", what: "Postgres does not answer." }));
  const nodes = { path: nodesPath(), otherMasters: [], readRegistered };
  follower(2).present = false;
  const result = await run({ nodes });
  expect(result).toMatchObject({ exit: "pending", namesFault: "Postgres does not answer." });
  expect(result.nodes.map(({ expectedBy }) => expectedBy)).toEqual(["master", "registered", "registered"]);
  expect(result.summary).toContain("the last known names are used");
  const other = { ...nodes, path: `${deps.base}/other.json` };
  await expect(run({ nodes: other })).rejects.toMatchObject({ exit: "unavailable" });
});

test("a node that comes while the database can't be reached is not known, and what is allocated to it is no alarm", async () => {
  const path = nodesPath();
  const alone = { path, otherMasters: [], readRegistered: registered(1) };
  const away = {
    ...alone,
    readRegistered: () =>
      Promise.reject(new OperatorError({ exit: "unavailable", what: "Postgres does not answer." })),
  };
  double.pins.delete(A);
  double.pins.delete(D);
  await deps.files.writeAtomic(path, oldList(double.peers.slice(0, 2)), { mode: 0o644 });
  const came = follower(2);
  came.present = false;
  await run({ nodes: alone });
  came.present = true;
  const result = await run({ nodes: away });
  expect(result).toMatchObject({ alerts: 0, alarm: null, counts: { syncing: 1, "under-replicated": 0 } });
  expect(result.summary).toContain("1 new node not known, because the database can't be reached");
  expect(result.summary).not.toContain("not expected");
  expect(deps.lines.at(-1)).toMatch(/Whether it is a node of the pool is not known, because the database/);
  // It stays so for as long as a new node may need; then it is a stranger, and so it is once the names are known.
  const known = await deps.files.readText(path);
  const hoursAgo = new Date(deps.clock.now().getTime() - 7 * 3_600_000).toISOString();
  const aged = (known ?? "").replace(
    /"first_seen":"[^"]*"([^\n]*"undecided":true)/,
    `"first_seen":"${hoursAgo}"$1`,
  );
  expect(aged).not.toBe(known);
  await deps.files.writeAtomic(path, aged, { mode: 0o644 });
  expect(await run({ nodes: away })).toMatchObject({ alerts: 1, counts: { "under-replicated": 1 } });
  await deps.files.writeAtomic(path, known ?? "", { mode: 0o644 });
  expect(await run({ nodes: alone })).toMatchObject({ alerts: 1, counts: { "under-replicated": 1 } });
  // One that was a stranger before stays one while the database is away.
  expect(await run({ nodes: away })).toMatchObject({ alerts: 1 });
});

test("a new node is syncing with its progress, without an alarm, until it stalls", async () => {
  for (let index = 0; index < 40; index++)
    double.pins.set(cidOf(`sync ${index}`), { cid: cidOf(`sync ${index}`) });
  for (const cid of [A, B, D]) double.pins.delete(cid);
  await deps.files.writeAtomic(nodesPath(), oldList(double.peers.slice(0, 2)), { mode: 0o644 });
  const cids = [...double.pins.keys()];
  const fetched = (count: number) => {
    follower(2).diverged.clear();
    for (const cid of cids.slice(count)) follower(2).diverged.add(cid);
  };
  const node = (result: SweepResult) => result.nodes.at(-1);
  fetched(0);
  const first = await run();
  expect(first).toMatchObject({ exit: "pending", alerts: 0, counts: { syncing: 41, healthy: 0 } });
  for (const done of [5, 12]) {
    deps.clock.move(5 * 3_600_000);
    fetched(done);
    const result = await run();
    expect(result).toMatchObject({ alerts: 0, counts: { syncing: 41 - done, healthy: done } });
    expect(node(result)).toMatchObject({ sync: "syncing", pinsDone: done, pinsDue: 41 });
  }
  deps.clock.move(7 * 3_600_000);
  const stalled = await run();
  expect(node(stalled)).toMatchObject({ sync: "stalled" });
  expect(stalled.alerts).toBe(30);
  expect((await deps.alertLines()).at(-1)).toBe(
    `2026-11-22T13:00:00Z node-stalled node=registered-follower-2 id=12D3KooWPeer2 pins=12/41`,
  );
  fetched(41);
  expect(node(await run())).toMatchObject({ sync: "synced" });
  fetched(20);
  expect(await run()).toMatchObject({
    alerts: 21,
    counts: { syncing: 0, unknown: 0, "under-replicated": 21 },
  });
});

test("a new node that lost a pin to an older removal raises no alarm, until it had the time to pin it again", async () => {
  for (const cid of [A, B, D]) double.pins.delete(cid);
  await deps.files.writeAtomic(nodesPath(), oldList(double.peers.slice(0, 2)), { mode: 0o644 });
  const [lost] = double.pins.keys();
  if (lost === undefined) throw new Error("no pin");
  const lose = () => follower(2).statuses.set(lost, "unexpectedly_unpinned");
  const look = async () => {
    lose();
    const { alerts, counts, nodes } = await run();
    return { alerts, syncing: counts.syncing, failed: counts.failed, sync: nodes.at(-1)?.sync };
  };
  const quiet = { alerts: 0, syncing: 1, failed: 0 };
  expect(await look()).toEqual({ ...quiet, sync: "syncing" });
  follower(2).statuses.clear();
  expect((await run()).nodes.at(-1)?.sync).toBe("synced");
  deps.clock.move(14 * 60_000);
  expect(await look()).toEqual({ ...quiet, sync: "synced" });
  deps.clock.move(2 * 60_000);
  expect(await look()).toEqual({ alerts: 1, syncing: 0, failed: 1, sync: "synced" });
});

test("each sweep records its counts and the free space for the plots, and its histogram for the page", async () => {
  await run();
  deps.clock.move(30 * 60_000);
  const { pins, counts, histogram } = await run();
  const text = await deps.files.readText(historyPath(deps.heartbeat("sweep").path));
  const points = parseSweepHistory(text);
  expect(points).toHaveLength(2);
  expect(points?.[1]).toMatchObject({ pins, complete: counts.healthy });
  expect((await heartbeat())?.facts).toMatchObject({ histogram });
});

async function heartbeat() {
  return parseHeartbeat(await deps.files.readText(deps.heartbeat("sweep").path));
}

describe("the pin of a drill", () => {
  const NAME = "fula-drill-sweep-0123456789abcdef";
  const inMs = (ms: number) => `${new Date(deps.clock.now().getTime() + ms).toISOString().slice(0, 19)}Z`;
  const isPinOfDrill: SweepOptions["nodes"]["isPinOfDrill"] = (pin, at) =>
    realIsPinOfDrill(pin, at, () => Promise.resolve(["ours", "theirs"]));
  const sweepWith = (over: Readonly<Record<string, unknown>>): Promise<SweepResult> => {
    double.pins.set(E, {
      cid: E,
      name: NAME,
      metadata: { "fula-node-drill": drillMark("ours", E) },
      expire_at: inMs(600_000),
      replication_factor_min: 1,
      replication_factor_max: 1,
      allocations: [double.peers[1]?.id],
      ...over,
    });
    const readRegistered = () => Promise.resolve(double.peers.slice(1).map(({ id, name }) => ({ id, name })));
    return run({ floor: 2, nodes: { path: nodesPath(), otherMasters: [], readRegistered, isPinOfDrill } });
  };

  test.each(["ours", "theirs"])("with few copies is set apart, without an alarm (%s)", async (id) => {
    const result = await sweepWith({ metadata: { "fula-node-drill": drillMark(id, E) } });
    expect(result).toMatchObject({ exit: "ok", pins: 4, drills: 1, alarm: null, alerts: 0, worst: [] });
    expect(result.summary).toContain("1 pin of a drill set apart");
  });

  test("is set apart while ipfs-cluster has not unpinned it yet, and so it is not recovered", async () => {
    double.peers[1]?.statuses.set(E, "pin_error");
    expect(await sweepWith({ expire_at: inMs(-600_000) })).toMatchObject({ drills: 1, recovered: 0 });
  });

  test("with enough copies counts as any other", async () => {
    const ids = double.peers.map((peer) => peer.id);
    expect(await sweepWith({ replication_factor_max: 2, allocations: ids })).toMatchObject({
      pins: 5,
      drills: 0,
    });
  });

  test.each([
    ["the name alone", () => ({ metadata: null })],
    ["the mark of another content", () => ({ metadata: { "fula-node-drill": drillMark("ours", A) } })],
    ["the mark of no master of the pool", () => ({ metadata: { "fula-node-drill": drillMark("else", E) } })],
    ["the mark, but not the name", () => ({ name: "fula-drill-sweep-mine" })],
    ["no end", () => ({ expire_at: "0001-01-01T00:00:00Z" })],
    ["an end that is far away", () => ({ expire_at: inMs(2 * 3_600_000) })],
    ["an end of long ago", () => ({ expire_at: inMs(-2 * 3_600_000) })],
  ])("is not what only looks like one: %s", async (_, over) => {
    const result = await sweepWith(over());
    expect(result).toMatchObject({ pins: 5, drills: 0, alarm: { kind: "under-replicated" } });
    expect(result.worst.map(({ cid }) => cid)).toEqual([E]);
  });
});
