import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { findFault } from "../../../src/docker/images/judge-archive.ts";
import { archiveReader } from "../../../src/docker/images/read-archive.ts";
import {
  legacyArchive,
  type MadeImage,
  ociArchive,
  type Spoil,
  tarOf,
} from "../../support/image-archives.ts";

const directory = mkdtempSync(join(tmpdir(), "fula-node-archive-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

let made = 0;
function put(content: Buffer | string): string {
  made += 1;
  const path = join(directory, `${made}.tar`);
  writeFileSync(path, content);
  return path;
}
const read = (content: Buffer | string) => archiveReader()(put(content));

const IMAGES: readonly MadeImage[] = [
  { reference: "postgres:16-alpine", layers: ["base", "postgres"] },
  { reference: "ipfs/kubo:v0.42.0", layers: ["base", "kubo"] },
];
const NAMES = IMAGES.map(({ reference }) => reference);
const onlyIndex = (images: readonly MadeImage[], spoil?: Spoil) => ociArchive(images, spoil, ["index.json"]);
const onlyList = (images: readonly MadeImage[], spoil?: Spoil) =>
  ociArchive(images, spoil, ["manifest.json"]);

describe.each([
  ["of an older engine", legacyArchive],
  ["with both lists", ociArchive],
  ["with Docker's list only", onlyList],
])("an archive %s", (_name, make) => {
  it("is read: each image, its architecture, and that nothing lacks", async () => {
    const images = await read(await make(IMAGES));
    expect(new Set(images.map(({ reference }) => reference))).toEqual(new Set(NAMES));
    expect(new Set(images.map(({ architecture }) => architecture))).toEqual(new Set(["amd64"]));
    expect(findFault(images, { references: NAMES, architecture: "amd64" })).toBeNull();
  });

  it("may be compressed with gzip", async () => {
    const packed = gzipSync(await make(IMAGES));
    expect((await read(packed)).map(({ reference }) => reference)).toContain(NAMES[0]);
    await expect(read(packed.subarray(0, packed.length / 2))).rejects.toMatchObject({ exit: "integrity" });
  });

  it("that was cut off anywhere says so, and is never taken for a whole one", async () => {
    const whole = await make(IMAGES);
    // Also at each end of a file in it, and without the two blocks of zeros at its own end.
    const cuts = Array.from({ length: whole.length / 512 - 1 }, (_, block) => [
      block * 512,
      block * 512 + 311,
    ]);
    for (const length of cuts.flat().filter((one) => one <= whole.length - 1024)) {
      const found = await read(whole.subarray(0, length)).then(
        () => "accepted",
        (thrown: { exit: string; what: string }) => `${thrown.exit} ${thrown.what}`,
      );
      expect(found, `cut at ${length}`).toMatch(
        length < 512 ? /^usage .* is not an archive of images/ : /^integrity .* was cut off/,
      );
    }
  });

  it("of which a byte of an image was altered says so", async () => {
    const alter: Spoil = (name, content) =>
      /manifest|index|oci-layout/.test(name) || content.toString() !== "kubo" ? content : Buffer.from("kubO");
    await expect(read(await make(IMAGES, alter))).rejects.toMatchObject({
      exit: "integrity",
      what: expect.stringContaining("was altered, or is damaged") as string,
    });
  });

  it("that lacks a layer says of which image", async () => {
    const drop: Spoil = (_, content) => (content.toString() === "kubo" ? null : content);
    const fault = findFault(await read(await make(IMAGES, drop)), {
      references: NAMES,
      architecture: "amd64",
    });
    expect(fault).toMatchObject({ kind: "parts", references: ["ipfs/kubo:v0.42.0"] });
  });

  it("that lacks an image, or has it for another architecture, is judged before anything is loaded", async () => {
    const images = await read(await make([{ reference: "postgres:16-alpine", architecture: "arm64" }]));
    expect(findFault(images, { references: NAMES, architecture: "amd64" })).toEqual({
      kind: "architecture",
      references: ["postgres:16-alpine"],
      found: "arm64",
    });
    expect(findFault(images, { references: NAMES, architecture: "arm64" })).toEqual({
      kind: "missing",
      references: ["ipfs/kubo:v0.42.0"],
    });
    expect(findFault(images, { references: ["postgres:16-alpine"], architecture: null })).toBeNull();
  });
});

it("an OCI layout alone names its images as Docker shows them, and only the platforms that it has", async () => {
  const images = await read(await onlyIndex([{ reference: "postgres:16-alpine" }]));
  expect(images).toEqual([{ reference: "postgres:16-alpine", architecture: "amd64", lacks: [] }]);
});

it("two architectures of one image are no fault if one of them fits", async () => {
  const both = ["arm64", "amd64"].map((architecture) => ({ reference: "postgres:16-alpine", architecture }));
  const images = await read(await ociArchive(both));
  for (const architecture of ["arm64", "amd64"])
    expect(findFault(images, { references: ["postgres:16-alpine"], architecture })).toBeNull();
});

describe("a file that is no archive of images", () => {
  it.each([
    ["an empty file", ""],
    ["a text", "hello, this is not a tar file\n".repeat(100)],
    ["zeros", Buffer.alloc(100_000)],
    ["a compressed text", gzipSync("hello")],
  ])("%s", async (_name, content) => {
    await expect(read(content)).rejects.toMatchObject({
      exit: "usage",
      what: expect.stringContaining("is not an archive of images") as string,
    });
  });

  it("another tar file", async () => {
    await expect(read(await tarOf([["package/package.json", "{}"]]))).rejects.toMatchObject({
      exit: "usage",
      why: "It has neither manifest.json nor index.json.",
    });
  });

  it("one that is compressed in a way that can't be read here says how to make it plain", async () => {
    const zstd = Buffer.from("28b52ffd00000000", "hex");
    await expect(read(zstd)).rejects.toMatchObject({
      exit: "usage",
      remedy: expect.stringContaining("unzstd") as string,
    });
  });

  it("no file at all, or a directory", async () => {
    await expect(archiveReader()(join(directory, "none"))).rejects.toMatchObject({ exit: "unavailable" });
    await expect(archiveReader()(directory)).rejects.toMatchObject({ exit: "unavailable" });
  });
});

it("a list that is not a list, and a link that leads nowhere or to itself, are no crash", async () => {
  const lists = [
    "[]",
    "{}",
    "[",
    '[{"Config":"a","RepoTags":["x:1"],"Layers":["loop"]}]',
    '{"manifests":[{"digest":"sha256:00"}]}',
  ];
  for (const list of lists) {
    const images = await read(
      await tarOf([
        ["loop", "->loop"],
        ["manifest.json", list],
        ["index.json", list],
      ]),
    );
    expect(images.every(({ lacks }) => lacks.length > 0)).toBe(true);
  }
});

it("a large archive is read in constant memory", async () => {
  const layers = [Buffer.alloc(150_000_000, "layer ").toString()];
  const path = put(await ociArchive([{ reference: "large:1", layers }]));
  globalThis.gc?.();
  const before = process.memoryUsage().rss;
  let most = 0;
  const watch = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 5);
  expect((await archiveReader()(path))[0]?.lacks).toEqual([]);
  clearInterval(watch);
  expect(most - before).toBeLessThan(100_000_000);
});

it("an archive is read once as long as it stays the same", async () => {
  const path = put(await ociArchive(IMAGES));
  const reader = archiveReader();
  const first = await reader(path);
  expect(await reader(path)).toBe(first);
  writeFileSync(path, await ociArchive([{ reference: "other:1" }]));
  expect((await reader(path))[0]?.reference).toBe("other:1");
});
