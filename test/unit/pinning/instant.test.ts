import fc from "fast-check";
import { expect, it } from "vitest";
import { readInstant } from "../../../src/pinning/pin-filter.ts";

it.each([
  ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"],
  ["2026-01-02t03:04:05.1z", "2026-01-02T03:04:05.100000Z"],
  ["2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456Z"],
  ["2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00.000000Z"],
  ["2024-02-29T23:59:59.999999-00:01", "2024-03-01T00:00:59.999999Z"],
  ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"],
])("reads %s in both directions as %s", (text, utc) => {
  expect(readInstant(text, "up")).toBe(utc);
  expect(readInstant(text, "down")).toBe(utc);
});

it("rounds digits after the sixth in the direction that is asked for", () => {
  expect(readInstant("2026-01-01T00:00:00.123456001Z", "down")).toBe("2026-01-01T00:00:00.123456Z");
  expect(readInstant("2026-01-01T00:00:00.123456001Z", "up")).toBe("2026-01-01T00:00:00.123457Z");
  expect(readInstant("2026-01-01T00:00:00.123456000Z", "up")).toBe("2026-01-01T00:00:00.123456Z");
  expect(readInstant("2026-12-31T23:59:59.9999999Z", "up")).toBe("2027-01-01T00:00:00.000000Z");
});

it.each([
  [""],
  ["2026-01-01"],
  ["2026-01-01T00:00:00"],
  ["2026-01-01 00:00:00Z"],
  ["2026-02-29T00:00:00Z"],
  ["2026-13-01T00:00:00Z"],
  ["2026-01-01T24:00:00Z"],
  ["2026-01-01T00:60:00Z"],
  ["2026-01-01T00:00:00.Z"],
  ["2026-01-01T00:00:00+24:00"],
  ["2026-01-01T00:00:00+01:60"],
  ["0000-01-01T00:00:00Z"],
  ["9999-12-31T23:59:59.9999999Z"],
  ["0001-01-01T00:00:00+01:00"],
  ["+12026-01-01T00:00:00Z"],
  [`2026-01-01T00:00:00.${"1".repeat(31)}Z`],
  ["2026-01-01T00:00:00Z\n"],
])("does not read %j", (text) => {
  expect(readInstant(text, "up")).toBeNull();
});

it("reads what it writes, and orders times as they are", () => {
  const micros = fc.bigInt({ min: 0n, max: 4_000_000_000_000_000n });
  const text = (at: bigint) =>
    `${new Date(Number(at / 1_000n)).toISOString().slice(0, 19)}.${String(at % 1_000_000n).padStart(6, "0")}Z`;
  fc.assert(
    fc.property(micros, micros, (a, b) => {
      expect(readInstant(text(a), "up")).toBe(text(a));
      expect((readInstant(text(a), "down") ?? "") < (readInstant(text(b), "down") ?? "")).toBe(a < b);
    }),
  );
});
