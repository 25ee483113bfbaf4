import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { listSnapshots } from "../../../src/pinset/snapshot/list.ts";
import { parseMemory } from "../../../src/pinset/snapshot/memory.ts";
import { judgeSnapshots, type SnapshotStanding } from "../../../src/pinset/snapshot/standing.ts";
import { listSnapshotFiles } from "../../../src/pinset/snapshot/store.ts";
import type { TakeOptions, TakeResult } from "../../../src/pinset/snapshot/take.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { sha256, takeFrom } from "../../support/taken-snapshot.ts";

const HOUR = 3_600_000;
let double: ClusterDouble;
let deps: OperationDeps;

beforeEach(async () => {
  deps = operationDeps();
  double = await startClusterDouble({
    pins: Array.from({ length: 1200 }, (_, index) => ({ cid: cidOf(`standing ${index}`) })),
  });
});
afterEach(async () => {
  await double.stop();
  deps.clear();
});

const take = (over: Partial<TakeOptions> = {}): Promise<TakeResult> => takeFrom(double.url, deps, over);
const standing = async (laterMs = 2 * HOUR): Promise<SnapshotStanding> =>
  judgeSnapshots(await listSnapshotFiles(deps.store.directory), deps.key, {
    memory: parseMemory(await deps.files.readText(deps.memory.path)),
    sha256,
    now: new Date(deps.clock.now().getTime() + laterMs),
    maxAgeMs: 12 * HOUR,
  });
const pathOf = ({ name }: TakeResult, end: string): string => join(deps.store.directory, `${name}${end}`);

test("complete, old, from the future, and none yet", async () => {
  expect(await standing()).toEqual({
    state: "attention",
    sentence: "no snapshot",
    todo: "fula-node snapshot take",
    isLost: false,
  });
  await take();
  await take();
  expect(await standing()).toEqual({
    state: "ok",
    sentence: "2 h ago, 1,200 pins, chain complete",
    todo: null,
    isLost: false,
  });
  expect(await standing(13 * HOUR)).toMatchObject({
    state: "attention",
    sentence: expect.stringMatching(/too old$/),
  });
  expect(await standing(-HOUR)).toMatchObject({
    state: "attention",
    sentence: expect.stringMatching(/^in the future/),
  });
});

test("each damaged snapshot is named, here and in the list", async () => {
  const [first, second] = [await take(), await take()];
  writeFileSync(pathOf(first, ".manifest.json"), "{}");
  expect(await standing()).toMatchObject({
    state: "attention",
    sentence: expect.stringContaining(`${first.name} damaged`),
    todo: "fula-node snapshot list",
  });
  const listed = await listSnapshots(await listSnapshotFiles(deps.store.directory), [deps.key], {
    sha256,
    now: deps.clock.now(),
  });
  expect(listed.find(({ name }) => name === first.name)).toMatchObject({ verdict: "integrity" });
  truncateSync(pathOf(second, ".ndjson.gz"), 10);
  expect((await standing()).sentence).toContain(`${first.name} and 1 more damaged`);
  writeFileSync(pathOf(second, ".manifest.json"), "{}");
  expect(await standing()).toMatchObject({ state: "down", sentence: "none of 2 snapshots is valid" });
});

test("a manifest that is huge, a pipe or a directory stops neither the judgement nor the next snapshot", async () => {
  const [first, second, third] = [await take(), await take(), await take()];
  truncateSync(pathOf(first, ".manifest.json"), 2 * 1024 * 1024);
  rmSync(pathOf(second, ".manifest.sig"));
  execFileSync("mkfifo", [pathOf(second, ".manifest.sig")]);
  rmSync(pathOf(third, ".manifest.json"));
  mkdirSync(pathOf(third, ".manifest.json"));
  expect((await standing()).sentence).toBe("none of 3 snapshots is valid");
  expect((await take()).alarms).toHaveLength(4);
  expect((await standing()).sentence).toContain("and 2 more damaged");
});

test("a chain that is broken, restarted, emptied or cut off at its end", async () => {
  const [, second] = [await take(), await take(), await take()];
  const manifest = pathOf(second, ".manifest.json");
  const forged = readFileSync(manifest, "utf8").replace('"count": 1200', '"count":  1200');
  writeFileSync(manifest, forged);
  writeFileSync(pathOf(second, ".manifest.sig"), deps.key.sign(Buffer.from(forged)));
  expect((await standing()).sentence).toContain("chain broken at 2");

  rmSync(deps.store.directory, { recursive: true });
  expect(await standing()).toMatchObject({
    state: "down",
    sentence: "no snapshot; the last one was number 3",
  });
  await take();
  await take();
  expect(await standing()).toMatchObject({
    state: "attention",
    sentence: expect.stringMatching(/the chain restarted at 4$/),
  });
  const accepted = await take({ accept: true });
  expect((await standing()).state).toBe("ok");
  for (const end of [".manifest.json", ".manifest.sig", ".ndjson.gz"]) rmSync(pathOf(accepted, end));
  expect((await standing()).sentence).toContain("chain broken: number 6 is missing");
});

const drop = (some: readonly TakeResult[]): void => {
  for (const one of some)
    for (const end of [".manifest.json", ".manifest.sig", ".ndjson.gz"]) rmSync(pathOf(one, end));
};
const listed = async () =>
  listSnapshots(await listSnapshotFiles(deps.store.directory), [deps.key], {
    sha256,
    now: deps.clock.now(),
    removed: await removedNumbers(),
  });
const removedNumbers = async () => {
  const memory = parseMemory(await deps.files.readText(deps.memory.path));
  return memory === null || memory === "damaged" ? null : memory.removed;
};

test("snapshots that retention removed are not missed, and others are, until the operator accepts it", async () => {
  const taken: TakeResult[] = [];
  for (let number = 1; number <= 8; number += 1) taken.push(await take({ keep: 6 }));
  expect(taken.flatMap(({ removed }) => removed)).toHaveLength(2);
  expect(await removedNumbers()).toEqual([[1, 2]]);
  expect(await standing()).toMatchObject({ state: "ok", sentence: expect.stringMatching(/chain complete$/) });
  drop(taken.slice(3, 5));
  drop(taken.slice(6, 7));
  expect(await standing()).toMatchObject({
    state: "attention",
    sentence: "2 h ago, 1,200 pins, 3 missing (numbers 4 to 5 and more)",
    todo: expect.stringContaining("--accept"),
  });
  expect((await listed()).map(({ sequence, missing }) => [sequence, missing])).toEqual([
    [3, 0],
    [6, 2],
    [8, 1],
  ]);
  await take({ keep: 6 });
  expect((await standing()).sentence).toContain("3 missing");
  await take({ keep: 6, accept: true });
  expect((await standing()).state).toBe("ok");
  expect((await listed()).every(({ missing }) => missing === 0)).toBe(true);
});

test("what is removed is recorded before it is removed", async () => {
  for (let number = 1; number <= 3; number += 1) await take({ keep: 3 });
  const remove = deps.store.remove.bind(deps.store);
  const store = {
    ...deps.store,
    remove: async (name: string) => {
      await remove(name);
      throw new Error("killed");
    },
  };
  await expect(take({ keep: 3, store })).rejects.toThrow("killed");
  expect((await standing()).state).toBe("ok");
});

test("what an earlier version removed without a record is not missed, and not called complete", async () => {
  const [, second] = [await take(), await take(), await take()];
  const text = (await deps.files.readText(deps.memory.path)) ?? "";
  const { removed: _, ...old } = JSON.parse(text) as Record<string, unknown>;
  await deps.files.writeAtomic(deps.memory.path, JSON.stringify(old), { mode: 0o644 });
  drop([second]);
  expect(await standing()).toMatchObject({
    state: "ok",
    sentence: "2 h ago, 1,200 pins, 1 of the earlier ones not here",
  });
  const [third] = [await take(), await take()];
  expect((await standing()).state).toBe("ok");
  drop([third]);
  expect((await standing()).sentence).toContain("1 missing (number 4)");
});

test("pins that are gone", async () => {
  await take();
  for (const cid of [...double.pins.keys()].slice(0, 600)) double.pins.delete(cid);
  await take();
  expect(await standing()).toMatchObject({
    state: "attention",
    sentence: expect.stringContaining("600 pins, 600 of 1200 are gone"),
    todo: expect.stringContaining("--accept"),
  });
});
