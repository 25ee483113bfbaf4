import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseHeartbeat } from "../../../src/pinset/heartbeat.ts";
import { bodyRecordOf, chooseBodies } from "../../../src/pinset/snapshot/bodies.ts";
import type { ChainLink } from "../../../src/pinset/snapshot/links.ts";
import { parseMemory } from "../../../src/pinset/snapshot/memory.ts";
import { judgeSnapshots } from "../../../src/pinset/snapshot/standing.ts";
import { listSnapshotFiles } from "../../../src/pinset/snapshot/store.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { sha256, takeFrom } from "../../support/taken-snapshot.ts";

let double: ClusterDouble;
let deps: OperationDeps;

beforeEach(async () => {
  deps = operationDeps();
  double = await startClusterDouble({
    pins: Array.from({ length: 30 }, (_, index) => ({ cid: cidOf(`body ${index}`) })),
  });
});
afterEach(async () => {
  await double.stop();
  deps.clear();
});

const take = () => takeFrom(double.url, deps);

async function standing() {
  const heartbeat = parseHeartbeat(await deps.files.readText(deps.heartbeat("take").path));
  return judgeSnapshots(await listSnapshotFiles(deps.store.directory), deps.key, {
    memory: parseMemory(await deps.files.readText(deps.memory.path)),
    damaged: bodyRecordOf(heartbeat?.facts).damaged,
    sha256,
    now: deps.clock.now(),
    maxAgeMs: 3_600_000,
  });
}

test("a flipped bit in an older body raises one alarm, and every run and status say so until it is moved away", async () => {
  const { name, file } = await take();
  await take();
  await take();
  expect(await standing()).toMatchObject({ state: "ok" });
  const bytes = readFileSync(file);
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  const sentence = expect.stringContaining(`${name} is not valid`);
  const found = await take();
  expect(found).toMatchObject({ exit: "pending", verdict: "damaged", alarms: [sentence] });
  expect(found.alarm).not.toBeNull();
  const again = await take();
  expect(again).toMatchObject({ exit: "pending", verdict: "damaged", alarms: [sentence], alarm: null });
  expect(await standing()).toMatchObject({ state: "attention", todo: "fula-node snapshot list" });
  const away = join(deps.base, "away", "body");
  mkdirSync(dirname(away));
  for (const end of [".ndjson.gz", ".manifest.json", ".manifest.sig"])
    renameSync(join(dirname(file), name + end), away + end);
  // It is missing then, until the operator says that this is right.
  expect(await standing()).toMatchObject({
    state: "attention",
    sentence: expect.stringContaining("1 missing") as string,
  });
  expect(await takeFrom(double.url, deps, { accept: true })).toMatchObject({ exit: "ok", alarms: [] });
  expect(await standing()).toMatchObject({ state: "ok" });
});

test("a body that came back from a backup is good again", async () => {
  const { file } = await take();
  await take();
  const good = readFileSync(file);
  writeFileSync(file, Buffer.alloc(good.length));
  expect((await take()).exit).toBe("pending");
  writeFileSync(file, good);
  expect((await take()).exit).toBe("ok");
});

test("of bodies that are large, some are read each time, and all within eight runs", () => {
  const links = Array.from({ length: 50 }, (_, index) => ({
    name: `s${index}`,
    file: { bodyBytes: 1024 ** 3 },
  })) as unknown as readonly ChainLink[];
  const read: Record<string, string> = {};
  for (let run = 0; run < 8; run += 1) {
    const chosen = chooseBodies(links, { read, damaged: [] });
    expect(chosen.length).toBe(7);
    for (const { name } of chosen) read[name] = `2026-01-0${run + 1}T00:00:00.000Z`;
  }
  expect(Object.keys(read)).toHaveLength(50);
  expect(chooseBodies(links, { read, damaged: ["s49"] })[0]?.name).toBe("s49");
});

test.each([null, undefined, {}, { bodies: 1 }])("facts without a record: %j", (facts) => {
  expect(bodyRecordOf(facts as never)).toEqual({ read: {}, damaged: [] });
});
