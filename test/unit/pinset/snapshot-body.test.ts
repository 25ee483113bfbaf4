import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { constants, gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openCluster } from "../../../src/cluster/client.ts";
import { OperatorError } from "../../../src/errors.ts";
import { readBody } from "../../../src/pinset/body-reader.ts";
import { type Manifest, parseManifest, serialiseManifest } from "../../../src/pinset/snapshot/manifest.ts";
import { cidOf } from "../../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { sha256, takeFrom, verifyPath } from "../../support/taken-snapshot.ts";

const MIB = 1024 * 1024;
let double: ClusterDouble;
let deps: OperationDeps;
let body: string;
let whole: Buffer;
let manifest: Manifest;

beforeAll(async () => {
  deps = operationDeps();
  double = await startClusterDouble({
    pins: Array.from({ length: 60 }, (_, index) => ({ cid: cidOf(`body ${index}`) })),
  });
  body = (await takeFrom(double.url, deps)).file;
  whole = readFileSync(body);
  const path = body.replace(/\.ndjson\.gz$/, ".manifest.json");
  manifest = parseManifest(readFileSync(path, "utf8"), path);
});
afterAll(async () => {
  await double.stop();
  deps.clear();
});

/** Verifies this body, signed with these facts about it, or as it was signed before. */
async function refusal(bytes: Buffer, signed: Partial<Manifest["body"]> | null = null): Promise<string> {
  const facts = { ...manifest.body, ...signed };
  const text = Buffer.from(serialiseManifest({ ...manifest, body: facts }));
  writeFileSync(body, bytes);
  writeFileSync(body.replace(/\.ndjson\.gz$/, ".manifest.json"), text);
  writeFileSync(body.replace(/\.ndjson\.gz$/, ".manifest.sig"), deps.key.sign(text));
  try {
    await verifyPath(body, deps.key);
    return "verified";
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(OperatorError);
    expect((thrown as OperatorError).exit).toBe("integrity");
    return (thrown as OperatorError).what;
  }
}
const factsOf = (bytes: Buffer): Partial<Manifest["body"]> => ({
  size_bytes: bytes.length,
  sha256: sha256(bytes),
});

/** What a swapped body unpacks to must not matter. */
const bomb = gzipSync(Buffer.alloc(300 * MIB), { level: constants.Z_BEST_COMPRESSION });

test("a body of another size or hash is refused before one byte of it is unpacked", async () => {
  expect(await refusal(whole)).toBe("verified");
  const large = bomb;
  expect(large.length).toBeLessThan(MIB);
  expect(await refusal(large)).toContain(`${whole.length} bytes were signed`);
  const sameSize = large.subarray(0, whole.length);
  expect(await refusal(sameSize)).toContain("its sha256 differs");

  let taken = 0;
  const signed = { sizeBytes: whole.length, sha256: manifest.body.sha256, plainBytes: Infinity };
  const takeLines = (lines: Buffer): void => void (taken += lines.length);
  for (const bytes of [large, sameSize]) {
    writeFileSync(body, bytes);
    await expect(readBody(body, "gzip", { signed, takeLines })).rejects.toMatchObject({ exit: "integrity" });
  }
  expect(taken).toBe(0);
});

test("a body with a valid signature is never unpacked further than its manifest says", async () => {
  const large = bomb;
  expect(await refusal(large, { ...factsOf(large), plain_bytes: 5 * MIB })).toContain(
    `unpacks to more than the ${5 * MIB} bytes`,
  );
  expect(await refusal(large, { ...factsOf(large), plain_bytes: 300 * MIB })).toContain(
    "a line is longer than 16 MiB",
  );
});

test("the signed size of the lines, and their number, must be right", async () => {
  expect(await refusal(whole, { plain_bytes: manifest.body.plain_bytes + 1 })).toContain(
    `unpacks to ${manifest.body.plain_bytes} bytes`,
  );
  const lines = gunzipSync(whole);
  const fewer = gzipSync(lines.subarray(0, lines.lastIndexOf("\n", -2) + 1));
  const plain = gunzipSync(fewer).length;
  expect(await refusal(fewer, { ...factsOf(fewer), plain_bytes: plain })).toContain("contains 59 pins");
});

test("a pipe in the place of a body is refused at once", async () => {
  rmSync(body);
  execFileSync("mkfifo", [body]);
  await expect(verifyPath(body, deps.key)).rejects.toMatchObject({
    exit: "integrity",
    what: expect.stringContaining("it is not a file"),
  });
  rmSync(body);
  writeFileSync(body, whole);
  const upstream = join(deps.base, "pinset-20260102T000000Z.json");
  execFileSync("mkfifo", [upstream]);
  writeFileSync(`${upstream}.sig`, deps.key.sign(whole));
  await expect(verifyPath(upstream, deps.key)).rejects.toMatchObject({
    what: expect.stringContaining("it is not a file"),
  });
});

test("a list of the cluster with an endless line is refused, and does not fill the memory", async () => {
  double.pins.set("long", { cid: cidOf("long"), metadata: { note: "x".repeat(40 * MIB) } });
  const cluster = openCluster({ endpoint: double.url });
  await expect(cluster.list("allocations", () => undefined)).rejects.toMatchObject({
    exit: "unavailable",
    what: expect.stringContaining("a line is longer than 16 MiB"),
  });
  await expect(takeFrom(double.url, deps)).rejects.toMatchObject({ exit: "unavailable" });
  cluster.close();
});

test("an upstream snapshot without a signature is refused without reading it", async () => {
  const path = join(deps.base, "pinset-20260101T000000Z.json");
  writeFileSync(path, "{}");
  execFileSync("truncate", ["--size=3G", path]);
  await expect(verifyPath(path, deps.key)).rejects.toMatchObject({
    exit: "integrity",
    what: expect.stringContaining("nothing proves"),
  });
});
