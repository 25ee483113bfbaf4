import { execFileSync } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseHeartbeat } from "../../../src/pinset/heartbeat.ts";
import { parseManifest } from "../../../src/pinset/snapshot/manifest.ts";
import type { TakeOptions, TakeResult } from "../../../src/pinset/snapshot/take.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../../support/cluster-double.ts";
import { takeFrom } from "../../support/taken-snapshot.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";

let double: ClusterDouble;
let deps: OperationDeps;

beforeEach(async () => {
  deps = operationDeps();
  double = await startClusterDouble({
    pins: Array.from({ length: 100 }, (_, index) => ({
      cid: cidOf(`take ${index}`),
      name: `naïve ${index}`,
    })),
  });
});

afterEach(async () => {
  await double.stop();
  deps.clear();
});

const take = (over: Partial<TakeOptions> = {}): Promise<TakeResult> => takeFrom(double.url, deps, over);

const stored = (): readonly string[] => readdirSync(deps.store.directory).sort();

async function manifestOf(result: TakeResult): Promise<ReturnType<typeof parseManifest>> {
  const file = join(deps.store.directory, `${result.name}.manifest.json`);
  return parseManifest(await readFile(file, "utf8"), file);
}

test("a snapshot has every line as the peer sent it, and openssl alone can verify it", async () => {
  const result = await take();
  expect(result).toMatchObject({ exit: "ok", verdict: "first", count: 100, before: null, removed: [] });
  expect(result.name).toBe("pinset-20261121T200001Z");
  const body = gunzipSync(await readFile(result.file)).toString("utf8");
  const served = await (await fetch(`${double.url}/allocations`)).text();
  expect(body).toBe(served);

  const publicPem = join(deps.base, "public.pem");
  writeFileSync(publicPem, deps.key.publicPem);
  const manifest = join(deps.store.directory, `${result.name}.manifest.json`);
  const check = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", publicPem, "-in", manifest, "-sigfile"];
  const signature = manifest.replace(/\.json$/, ".sig");
  expect(execFileSync("openssl", [...check, signature]).toString()).toMatch(/Verified Successfully/);
  expect(execFileSync("sha256sum", [result.file]).toString()).toContain(
    (await manifestOf(result)).body.sha256,
  );
});

test("snapshots are chained, and two of the same pinset in another order have the same digest", async () => {
  const first = await manifestOf(await take());
  const reversed = [...double.pins].toReversed();
  double.pins.clear();
  for (const [cid, pin] of reversed) double.pins.set(cid, pin);
  const second = await manifestOf(await take());
  expect(second.sequence).toBe(2);
  expect(second.previous?.name).toBe(first.name);
  expect(second.digest).toEqual(first.digest);
  expect(second.body.sha256).not.toBe(first.body.sha256);
  double.pins.set(reversed[0]?.[0] as string, { cid: reversed[0]?.[0] as string, name: "renamed" });
  expect((await manifestOf(await take())).digest).not.toEqual(first.digest);
});

test.each([
  { left: 91, verdict: "steady", exit: "ok" },
  { left: 90, verdict: "steady", exit: "ok" },
  { left: 89, verdict: "dropped", exit: "pending" },
  { left: 0, verdict: "dropped", exit: "pending" },
])("$left pins after 100: $verdict", async ({ left, verdict, exit }) => {
  const first = await take();
  for (const cid of [...double.pins.keys()].slice(left)) double.pins.delete(cid);
  const result = await take();
  expect(result).toMatchObject({ verdict, exit, count: left, before: 100 });
  const manifest = await manifestOf(result);
  const removed = 100 - left;
  expect(manifest.drop).toEqual(
    verdict === "dropped" ? { from: 100, to: left, removed, reference: first.name } : null,
  );
  expect(await deps.alertLines()).toEqual(
    verdict === "dropped"
      ? [
          `2026-11-21T20:00:02Z pinset-dropped snapshot=${result.name} pins=${left} before=100 removed=${removed} reference=${first.name}`,
        ]
      : [],
  );
});

test("unknown fields and types are kept and counted", async () => {
  double.pins.set("x", {
    cid: "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
    type: "bad-type",
    from_the_future: [1],
  });
  const result = await take();
  expect((await manifestOf(result)).pins).toEqual({ count: 101, by_type: { "bad-type": 1, pin: 100 } });
  expect(gunzipSync(await readFile(result.file)).toString()).toContain('"from_the_future":[1]');
});

test("metadata of 100 KB is stored completely", async () => {
  double.pins.set("big", { cid: cidOf("big"), metadata: { note: "ü".repeat(100_000) } });
  const result = await take();
  expect(gunzipSync(await readFile(result.file)).toString()).toContain("ü".repeat(100_000));
});

test.each([
  { fault: { kind: "cut", afterLines: 60, how: "reset" } },
  { fault: { kind: "late-error", message: "closed" } },
  { fault: { kind: "no-trailer" } },
  { fault: { kind: "stops-listening" } },
  { fault: { kind: "garbage", line: '{"cid":"bafy' } },
  { fault: { kind: "garbage", line: "{}" } },
] as const)("an incomplete list leaves no snapshot: $fault", async ({ fault }) => {
  await take();
  const before = stored();
  double.faults.allocations = fault;
  await expect(take()).rejects.toMatchObject({ exit: "unavailable" });
  expect(stored()).toEqual(before);
  const heartbeat = parseHeartbeat(await deps.files.readText(deps.heartbeat("take").path));
  expect(heartbeat).toMatchObject({ outcome: "unavailable", last_good_at: "2026-11-21T20:00:01.000Z" });
});

test("retention keeps the newest, the last one before a drop, and what it cannot verify", async () => {
  const names: string[] = [];
  for (let turn = 0; turn < 3; turn++) names.push((await take({ keep: 2 })).name);
  expect((await deps.store.list()).map((snapshot) => snapshot.name)).toEqual(names.slice(1));
  const beforeDrop = names[2] as string;
  const all = [...double.pins];
  double.pins.clear();
  const dropped = (await take({ keep: 2 })).name;
  for (const [cid, pin] of all) double.pins.set(cid, pin);
  writeFileSync(join(deps.store.directory, `${dropped}.ndjson.gz`), "tampered");
  for (let turn = 0; turn < 3; turn++) names.push((await take({ keep: 2 })).name);
  const kept = (await deps.store.list()).map((snapshot) => snapshot.name);
  expect(kept).toEqual([beforeDrop, dropped, ...names.slice(-2)]);
  expect((await deps.alertLines()).join("\n")).toContain(
    `snapshot-damaged snapshot="${dropped}" why="its body is not the one that was signed."`,
  );
});

test("a clock that was set back breaks neither the chain nor the names", async () => {
  const first = await take();
  deps.clock.move(-1000);
  const sameSecond = await take();
  deps.clock.move(-3_600_000);
  const earlier = await take();
  expect([first.name, sameSecond.name, earlier.name]).toEqual([
    "pinset-20261121T200001Z",
    "pinset-20261121T200001Z-2",
    "pinset-20261121T190002Z",
  ]);
  expect(await manifestOf(earlier)).toMatchObject({
    sequence: 3,
    clock_went_back: true,
    previous: { name: sameSecond.name },
  });
});

test("a name that a snapshot here calls the one before it is not given again, although that one was removed", async () => {
  const names: string[] = [];
  for (let turn = 0; turn < 4; turn++) {
    names.push((await take({ keep: 2 })).name);
    deps.clock.move(-1000);
  }
  expect(new Set(names).size).toBe(4);
});

test("a new snapshot does not follow one that was changed or signed with another key", async () => {
  const first = await take();
  const manifest = join(deps.store.directory, `${first.name}.manifest.json`);
  writeFileSync(manifest, (await readFile(manifest, "utf8")).replace('"count": 100', '"count": 101'));
  const second = await take();
  expect(second).toMatchObject({ exit: "pending", verdict: "restarted" });
  expect(await manifestOf(second)).toMatchObject({
    sequence: 2,
    previous: { name: first.name },
    restart: { expected: 1 },
  });
  expect(second.alarms.join("\n")).toContain(`${first.name} is not valid`);
  expect((await deps.alertLines()).join("\n")).toMatch(
    /snapshot-chain-restarted .*\n.*snapshot-damaged .*The signature does not match/,
  );
  expect(stored()).toContain(`${first.name}.manifest.json`);
});

test("what an interrupted run left is removed", async () => {
  await take();
  writeFileSync(join(deps.store.directory, ".pinset-20200101T000000Z.ndjson.gz.partial"), "half");
  await take();
  expect(stored().filter((file) => file.startsWith("."))).toEqual([]);
});
