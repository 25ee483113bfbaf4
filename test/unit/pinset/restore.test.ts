import * as fc from "fast-check";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cluster, openCluster } from "../../../src/cluster/client.ts";
import { optionsKey, readWholePin, type WholePin } from "../../../src/cluster/pin.ts";
import { createHost } from "../../../src/world.ts";
import {
  type RestoreOptions,
  type RestoreResult,
  restoreSnapshot,
} from "../../../src/pinset/restore/restore.ts";
import { diffPinsets } from "../../../src/pinset/snapshot/diff.ts";
import { liveSource, snapshotSource } from "../../../src/pinset/snapshot/verify.ts";
import { openWorkspace } from "../../../src/pinset/workspace.ts";
import { cidOf } from "../../support/cids.ts";
import {
  apiPin,
  type ClusterDouble,
  type DoublePin,
  startClusterDouble,
} from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { anyPin } from "../../support/pin-arbitraries.ts";
import { takeFrom, verifyPath } from "../../support/taken-snapshot.ts";

const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
const { files } = createHost({ env: {}, migrationsDir: "/nowhere", toolVersion: "0" });

let double: ClusterDouble;
let cluster: Cluster;
let deps: OperationDeps;
let workDir: string;

beforeEach(async () => {
  deps = operationDeps();
  workDir = mkdtempSync(join(tmpdir(), "fula-restore-"));
  double = await startClusterDouble({
    pins: [
      ...Array.from({ length: 200 }, (_, index) => ({
        cid: cidOf(`restore ${index}`),
        name: `ünïcode & ampersand? #${index}`,
        metadata: index % 3 === 0 ? { owner: `u${index}`, "key with = and &": "+ %41" } : null,
        mode: index % 5 === 0 ? "direct" : "recursive",
        max_depth: index % 5 === 0 ? 0 : -1,
        replication_factor_min: index % 2 === 0 ? 2 : -1,
        replication_factor_max: index % 2 === 0 ? 3 : -1,
        expire_at: index % 7 === 0 ? "2031-01-01T00:00:00Z" : "0001-01-01T00:00:00Z",
      })),
      { cid: V0, name: "a CIDv0" },
    ],
  });
  cluster = openCluster({ endpoint: double.url });
});
afterEach(async () => {
  cluster.close();
  await double.stop();
  deps.clear();
  rmSync(workDir, { recursive: true });
});

async function restore(path: string, over: Partial<RestoreOptions> = {}): Promise<RestoreResult> {
  return restoreSnapshot({
    snapshot: over.snapshot ?? (await verifyPath(path, deps.key)),
    cluster,
    workspace: openWorkspace(workDir),
    clock: deps.clock,
    clusterId: null,
    clusterName: "lab",
    fromOtherCluster: false,
    repairOptions: false,
    dryRun: false,
    concurrency: 16,
    notes: { files, directory: join(deps.base, "restore") },
    report: deps.report,
    progress: deps.report,
    ...over,
  });
}

const keyOf = (pin: DoublePin): string => optionsKey((readWholePin(apiPin(pin)) as WholePin).options);
const state = (): ReadonlyMap<string, string> =>
  new Map([...double.pins.values()].map((pin) => [pin.cid, keyOf(pin)]));
const posts = (): number => double.requests.filter((request) => request.startsWith("POST")).length;

test("after everything was unpinned, all pins are restored with all their fields", async () => {
  const { file } = await takeFrom(double.url, deps);
  const before = state();
  double.pins.clear();
  const result = await restore(file);
  expect(result).toMatchObject({
    exit: "ok",
    run: { pinned: 201, failed: 0 },
    after: { missing: 0, restorable: 0 },
  });
  expect(state()).toEqual(before);
  expect(double.requests).toContain(`POST /pins/ipfs/${cidOf("restore 5")}`);
  expect(readdirSync(workDir)).toEqual([]);
  expect(double.requests.filter((request) => request.startsWith("DELETE"))).toEqual([]);
});

test("any pinset is restored as it was", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(anyPin, { selector: (pin) => pin.cid, maxLength: 30 }),
      fc.array(fc.boolean()),
      async (pins, kept) => {
        double.pins.clear();
        for (const pin of pins) double.pins.set(pin.cid, pin);
        const { file } = await takeFrom(double.url, deps, { dropShare: 1 });
        const before = state();
        pins.forEach((pin, index) => kept[index] !== true && double.pins.delete(pin.cid));
        expect((await restore(file)).exit).toBe("ok");
        expect(state()).toEqual(before);
      },
    ),
    { numRuns: 25 },
  );
});

test("a dry run sends nothing; a real run sends nothing if there is nothing to do", async () => {
  const { file } = await takeFrom(double.url, deps);
  double.pins.delete(V0);
  expect(await restore(file, { dryRun: true })).toMatchObject({
    exit: "pending",
    run: null,
    before: { missing: 1 },
  });
  expect(posts()).toBe(0);
  expect((await restore(file)).exit).toBe("ok");
  expect(posts()).toBe(1);
  expect(await restore(file)).toMatchObject({ exit: "ok", run: null });
  expect(posts()).toBe(1);
});

test("existing pins are not changed; --options restores their options, and pins that are only in the cluster stay", async () => {
  const { file } = await takeFrom(double.url, deps);
  const before = state();
  const changed = cidOf("restore 1");
  double.pins.set(changed, { cid: changed, name: "another" });
  const nowRecursive = cidOf("restore 5");
  double.pins.set(nowRecursive, { cid: nowRecursive, name: "was direct" });
  const extra = cidOf("later");
  double.pins.set(extra, { cid: extra });
  expect(await restore(file)).toMatchObject({
    exit: "ok",
    run: null,
    before: { differing: 2, extra: 1, missing: 0 },
  });
  expect(posts()).toBe(0);

  const repaired = await restore(file, { repairOptions: true });
  expect(repaired).toMatchObject({ exit: "ok", run: { pinned: 1 } });
  expect(repaired.before.lostExamples).toEqual([
    expect.objectContaining({ cid: nowRecursive, why: expect.stringContaining("unpinned first") }),
  ]);
  expect(state().get(changed)).toBe(before.get(changed));
  expect(double.pins.get(nowRecursive)?.["name"]).toBe("was direct");
  expect(double.pins.has(extra)).toBe(true);
});

test("pins that cannot be restored are listed before and counted after, and do not count as failures", async () => {
  double.pins.set("a", { cid: cidOf("a"), type: "meta-pin" });
  double.pins.set("b", { cid: cidOf("b"), type: "of-the-future" });
  double.pins.set("c", { cid: cidOf("c"), expire_at: "2026-01-01T00:00:00Z" });
  double.pins.set("d", { cid: cidOf("d"), from_the_future: 1 });
  const { file, name } = await takeFrom(double.url, deps);
  double.pins.clear();
  const result = await restore(file);
  expect(result).toMatchObject({ exit: "ok", run: { pinned: 202 }, after: { missing: 3, restorable: 0 } });
  expect(result.summary).toContain("3 cannot be restored as they were");
  expect(result.before.unknownFields).toEqual(["from_the_future"]);
  expect(result.lostFile).toBe(join(deps.base, "restore", `${name}.not-restorable.ndjson`));
  const lost = readFileSync(result.lostFile as string, "utf8")
    .trim()
    .split("\n");
  expect(lost.map((line) => (JSON.parse(line) as { cid: string }).cid).sort()).toEqual(
    [cidOf("a"), cidOf("b"), cidOf("c")].sort(),
  );
  const output = deps.lines.join("\n");
  expect(output.indexOf("its expiry has passed")).toBeLessThan(output.indexOf("restoring:"));
});

describe("metadata of 100 KB", () => {
  const big = (): void => {
    double.pins.set("big", { cid: cidOf("big"), metadata: { note: "x".repeat(100_000) } });
    double.pins.set("medium", { cid: cidOf("medium"), metadata: { note: "x".repeat(7400) } });
  };
  test("is restored if the server accepts it", async () => {
    double.pathLimit = 1_000_000;
    big();
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    expect(await restore(file)).toMatchObject({
      exit: "ok",
      run: { pinned: 203, failed: 0 },
      after: { missing: 0 },
    });
  });
  test("is listed as not restorable if the server has the usual limit, and everything else is restored", async () => {
    big();
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    const result = await restore(file);
    expect(result).toMatchObject({
      exit: "ok",
      run: { pinned: 202, failed: 0 },
      after: { missing: 1, restorable: 0 },
    });
    expect(result.before.lostExamples).toEqual([
      { cid: cidOf("big"), name: "", why: "its name and metadata are too large for this server" },
    ]);
  });
});

describe("a server that refuses", () => {
  test("one pin: the others continue, the pin is listed in a file, and the exit code is 26", async () => {
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    double.refusals.set(V0, { status: 500, message: "not enough peers to allocate", times: Infinity });
    const result = await restore(file);
    expect(result).toMatchObject({
      exit: "interrupted",
      run: { pinned: 200, failed: 1 },
      after: { missing: 1, restorable: 1 },
    });
    expect(JSON.parse(readFileSync(result.failedFile as string, "utf8"))).toEqual({
      cid: V0,
      why: "500: not enough peers to allocate",
    });
    double.refusals.clear();
    const again = await restore(file);
    expect(again).toMatchObject({ exit: "ok", run: { pinned: 1 }, failedFile: null });
  });

  test("for some time, because its queue is full: the request is sent again", async () => {
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    for (const index of [1, 2, 3])
      double.refusals.set(cidOf(`restore ${index}`), {
        status: 500,
        message: "batching queue is full",
        times: 2,
      });
    expect(await restore(file)).toMatchObject({ exit: "ok", run: { pinned: 201, failed: 0 } });
  });

  test("everything, twice for 40 seconds: every pin is sent again, none is lost, and the progress says so", async () => {
    const { file } = await takeFrom(double.url, deps);
    const before = state();
    double.pins.clear();
    double.pinsUntilGone = 80;
    let outages = 0;
    let goneAt: number | null = null;
    const clock = {
      now: () => deps.clock.now(),
      monotonicMs: () => deps.clock.monotonicMs(),
      wait: (ms: number) => {
        const now = deps.clock.now().getTime();
        goneAt ??= now;
        if (now - goneAt > 40_000) {
          goneAt = null;
          outages += 1;
          double.pinsUntilGone = outages === 1 ? 40 : Infinity;
        }
        // Parallel waits are one wait: the clock must not add them up.
        return deps.clock.wait(ms / 16);
      },
    };
    expect(await restore(file, { clock })).toMatchObject({ exit: "ok", run: { pinned: 201, failed: 0 } });
    expect(outages).toBe(2);
    expect(state()).toEqual(before);
    expect(deps.lines.join("\n")).toMatch(/80 of 201 .*no answer for \d+ s, trying again/);
  });

  test("one pin for ever, as if its queue were full: the others continue, and it is listed", async () => {
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    const full = { status: 500, message: "batching queue is full", times: Infinity };
    double.refusals.set(V0, full);
    const result = await restore(file);
    expect(result).toMatchObject({ exit: "interrupted", run: { pinned: 200, failed: 1 } });
    expect(readFileSync(result.failedFile as string, "utf8")).toContain("queue is full");
  });

  test("every pin, because it is busy: the restore ends after two minutes", async () => {
    const { file } = await takeFrom(double.url, deps);
    for (const cid of double.pins.keys())
      double.refusals.set(cid, { status: 503, message: "busy", times: Infinity });
    double.pins.clear();
    await expect(restore(file)).rejects.toMatchObject({
      exit: "interrupted",
      what: expect.stringMatching(/no pin was accepted.*503: busy/),
    });
  });

  test("everything from some point on: the restore stops, reports it, and a second run continues", async () => {
    const { file } = await takeFrom(double.url, deps);
    const before = state();
    double.pins.clear();
    double.pinsUntilGone = 80;
    await expect(restore(file)).rejects.toMatchObject({
      exit: "interrupted",
      remedy: expect.stringContaining("same command"),
    });
    expect(double.pins.size).toBe(80);
    double.pinsUntilGone = Infinity;
    expect(await restore(file)).toMatchObject({ exit: "ok", before: { missing: 121 }, run: { pinned: 121 } });
    expect(state()).toEqual(before);
  });

  test("the password in the middle, or the list at the end: the error says what was added before", async () => {
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    const spoil = (how: () => void): Partial<RestoreOptions> => ({
      report: (line) => void (line.startsWith("Allocations") && how()),
    });
    const changed = expect.stringContaining("Pins were added");
    await expect(
      restore(
        file,
        spoil(() => (double.auth = "a:b")),
      ),
    ).rejects.toMatchObject({ exit: "settings", changed });
    double.auth = null;
    const cut = { kind: "cut", afterLines: 3, how: "fin" } as const;
    await expect(
      restore(
        file,
        spoil(() => (double.faults.allocations = cut)),
      ),
    ).rejects.toMatchObject({
      exit: "interrupted",
      changed,
    });
    expect(double.pins.size).toBe(201);
  });

  test("once to complete the list at the end: it compares again, and a list that breaks off is no failure", async () => {
    const { file } = await takeFrom(double.url, deps);
    double.pins.clear();
    const cut = { kind: "cut", afterLines: 3, how: "fin" } as const;
    const result = await restore(file, {
      report: (line) => {
        if (line.startsWith("Comparing again ...")) double.faults.allocations = cut;
        if (line.startsWith("Comparing again in")) delete double.faults.allocations;
      },
    });
    expect(result).toMatchObject({ exit: "ok", run: { pinned: 201 }, after: { missing: 0 } });
  });

  test("to complete the list: nothing is sent", async () => {
    const { file } = await takeFrom(double.url, deps);
    double.faults.allocations = { kind: "cut", afterLines: 3, how: "fin" };
    await expect(restore(file)).rejects.toMatchObject({ exit: "unavailable" });
    expect(posts()).toBe(0);
    expect(readdirSync(workDir)).toEqual([]);
  });
});

describe("a snapshot of another cluster", () => {
  test.each([
    { clusterName: "other", clusterId: null, allowed: false },
    { clusterName: "other", clusterId: "id-1", allowed: true },
    { clusterName: "lab", clusterId: "id-2", allowed: false },
  ])("$clusterName $clusterId", async ({ allowed, ...ours }) => {
    const { file } = await takeFrom(double.url, deps, { clusterId: "id-1" });
    double.pins.clear();
    const tried = restore(file, ours);
    if (allowed) await expect(tried).resolves.toMatchObject({ exit: "ok" });
    else {
      await expect(tried).rejects.toMatchObject({
        exit: "foreign",
        remedy: expect.stringContaining("--from-other-cluster"),
      });
      expect(posts()).toBe(0);
      expect(await restore(file, { ...ours, fromOtherCluster: true })).toMatchObject({ exit: "ok" });
    }
  });
});

test("a body that changes between verifying and sending is not used", async () => {
  const { file } = await takeFrom(double.url, deps);
  const snapshot = await verifyPath(file, deps.key);
  double.pins.clear();
  writeFileSync(file, readFileSync((await takeFrom(double.url, deps)).file));
  await expect(restore(file, { snapshot })).rejects.toMatchObject({ exit: "integrity" });
  expect(posts()).toBe(0);
});

describe("a file that is changed while pins are sent from it", () => {
  const overwrite = (path: string, bytes: Buffer) => writeFileSync(path, bytes);
  const replace = (path: string, bytes: Buffer) => {
    writeFileSync(`${path}.new`, bytes);
    renameSync(`${path}.new`, path);
  };
  test.each([
    ["overwritten", overwrite],
    ["replaced", replace],
  ] as const)("%s: what was verified is what is sent", async (_, change) => {
    const { file } = await takeFrom(double.url, deps);
    const before = state();
    double.pins.clear();
    for (let index = 0; index < 200; index++)
      double.pins.set(`x${index}`, { cid: cidOf(`not signed ${index}`) });
    const other = readFileSync((await takeFrom(double.url, deps)).file);
    double.pins.clear();
    let changes = 0;
    const result = await restore(file, {
      report: (line) => {
        // The comparison is done, and no pin was sent yet.
        if (!line.startsWith("Allocations")) return;
        expect(posts()).toBe(0);
        change(file, other);
        changes += 1;
      },
    });
    expect(changes).toBe(1);
    expect(result).toMatchObject({ exit: "ok", run: { pinned: 201 } });
    expect(state()).toEqual(before);
    expect(readdirSync(workDir)).toEqual([]);
  });
});

test("two pinsets are compared pin by pin, with examples of each kind up to the limit", async () => {
  const first = await verifyPath((await takeFrom(double.url, deps)).file, deps.key);
  for (const index of [1, 2, 3]) double.pins.delete(cidOf(`restore ${index}`));
  double.pins.set(V0, { cid: V0, name: "renamed", metadata: { new: "x" } });
  double.pins.set("later", { cid: cidOf("later"), name: "later" });
  const workspace = openWorkspace(workDir);
  const live = await liveSource(cluster, workspace);
  const before = await snapshotSource(first, workspace);
  const diff = await diffPinsets(before, live, { workspace, limit: 2 });
  await live.close();
  expect(diff).toMatchObject({
    exit: "pending",
    onlyLeft: 3,
    onlyRight: 1,
    differing: 1,
    same: 197,
    right: "live",
  });
  expect(diff.examples).toEqual([
    expect.objectContaining({ kind: "only-left", cid: cidOf("restore 1") }),
    expect.objectContaining({ kind: "only-left", cid: cidOf("restore 2") }),
    { kind: "differs", cid: V0, name: "renamed", changes: ['name: "a CIDv0" -> "renamed"', "metadata: new"] },
    { kind: "only-right", cid: cidOf("later"), name: "later", changes: [] },
  ]);
  expect(await diffPinsets(before, before, { workspace, limit: 2 })).toMatchObject({ exit: "ok", same: 201 });
  await before.close();
  expect(readdirSync(workDir)).toEqual([]);
});
