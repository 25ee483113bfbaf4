import fc from "fast-check";
import { createRequire } from "node:module";
import { describe, expect, test } from "vitest";
import { openBlake3 } from "../../src/ingest/blake3.ts";

const NATIVE = process.platform === "linux" && process.arch === "x64";
const PACKAGE = "@napi-rs/blake-hash-linux-x64-gnu";
const webAssembly = await openBlake3("./no-such-module.node");
const native = NATIVE ? await openBlake3(createRequire(import.meta.url).resolve(PACKAGE)) : webAssembly;

/** BLAKE3-team/BLAKE3, test_vectors.json: the byte at i is i modulo 251. */
const VECTORS: readonly (readonly [number, string])[] = [
  [0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
  [1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"],
  [1_024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"],
];

test("each says what hashes, and why no native code does", () => {
  expect(native.by).toBe(NATIVE ? "native code" : webAssembly.by);
  expect(webAssembly.by).toMatch(/^WebAssembly, without native code: Cannot find module/);
});

describe.each([
  ["native code", native],
  ["WebAssembly", webAssembly],
] as const)("BLAKE3 by %s", (_, { hash, start }) => {
  test.each(VECTORS)("%i bytes of the official vectors", (length, digest) => {
    const bytes = Uint8Array.from({ length }, (_unused, at) => at % 251);
    expect(hash(bytes)).toBe(digest);
  });

  test("is the same however the bytes arrive, and whoever else hashes meanwhile", () => {
    const given = fc.tuple(fc.nat(300_000), fc.array(fc.nat(300_000), { maxLength: 6 }));
    fc.assert(
      fc.property(given, ([length, ends]) => {
        const bytes = Buffer.alloc(length, "some bytes ");
        const other = start();
        const growing = start();
        for (const end of ends.toSorted((a, b) => a - b)) {
          growing.add(bytes.subarray(0, end));
          other.add(Buffer.alloc(end));
        }
        expect(growing.digest(bytes)).toBe(webAssembly.hash(bytes));
      }),
      { numRuns: 50 },
    );
  });

  test("is the same for any bytes, in the middle of a larger buffer too", () => {
    const given = fc.tuple(fc.uint8Array({ maxLength: 9_000 }), fc.nat(63));
    fc.assert(
      fc.property(given, ([bytes, before]) => {
        const larger = new Uint8Array(before + bytes.length + 1).fill(7);
        larger.set(bytes, before);
        expect(hash(larger.subarray(before, before + bytes.length))).toBe(webAssembly.hash(bytes));
      }),
    );
  });
});
