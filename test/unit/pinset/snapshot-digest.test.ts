import * as fc from "fast-check";
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { PinsetDigest } from "../../../src/pinset/snapshot/manifest.ts";

const sha256 = (line: string): Buffer => createHash("sha256").update(line).digest();

function digestOf(lines: readonly string[]): string {
  const digest = new PinsetDigest();
  for (const line of lines) digest.add(sha256(line).toString("latin1"));
  return digest.hex();
}

test("the digest is the sum of the lines' sha256 modulo 2^256", () => {
  fc.assert(
    fc.property(fc.array(fc.string(), { maxLength: 50 }), (lines) => {
      const sum = lines.reduce((total, line) => total + BigInt(`0x${sha256(line).toString("hex")}`), 0n);
      expect(digestOf(lines)).toBe((sum % 2n ** 256n).toString(16).padStart(64, "0"));
    }),
  );
});

test("the order does not matter; an additional, missing or repeated line does", () => {
  const lines = ["a", "b", "c"];
  expect(digestOf(["c", "a", "b"])).toBe(digestOf(lines));
  for (const other of [["a", "b"], ["a", "b", "c", "c"], ["a", "b", "d"], []]) {
    expect(digestOf(other)).not.toBe(digestOf(lines));
  }
});
