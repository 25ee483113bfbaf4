import { expect, test } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import {
  type Manifest,
  parseManifest,
  serialiseManifest,
  snapshotName,
} from "../../../src/pinset/snapshot/manifest.ts";

const MANIFEST: Manifest = {
  format: "fula-node/pinset-snapshot",
  version: 1,
  name: "pinset-20261121T200001Z",
  sequence: 2,
  created_at: "2026-11-21T20:00:01.000Z",
  cluster: { id: null, name: "lab" },
  peer: { id: "12D3KooW", name: "master", version: "1.1.6" },
  pins: { count: 2, by_type: { pin: 2 } },
  digest: { algorithm: "sum-sha256-lines", value: "0".repeat(64) },
  body: { file: "b", encoding: "gzip", size_bytes: 1, plain_bytes: 2, sha256: "1".repeat(64) },
  previous: { name: "pinset-20261121T200000Z", manifest_sha256: "2".repeat(64) },
  drop: null,
  clock_went_back: false,
  tool: { name: "fula-node", version: "0.1.0" },
  key_id: "0123456789abcdef",
};

const exitOf = (text: string): string => {
  try {
    parseManifest(text, "the-file");
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(OperatorError);
    expect((thrown as OperatorError).what).toContain("the-file");
    return (thrown as OperatorError).exit;
  }
  return "ok";
};

test("a manifest is the same after it is written and read", () => {
  expect(parseManifest(serialiseManifest(MANIFEST), "f")).toEqual(MANIFEST);
});

test("a newer format gives another error than a broken one", () => {
  expect(exitOf(JSON.stringify({ ...MANIFEST, version: 2, body: "quite different" }))).toBe("newer");
  expect(exitOf(JSON.stringify({ ...MANIFEST, version: 0 }))).toBe("integrity");
  expect(exitOf(JSON.stringify({ ...MANIFEST, format: "other" }))).toBe("integrity");
  expect(exitOf("{")).toBe("integrity");
  expect(exitOf("[]")).toBe("integrity");
});

test.each(Object.keys(MANIFEST))("a manifest without %s is refused", (field) => {
  expect(exitOf(JSON.stringify({ ...MANIFEST, [field]: undefined }))).toBe("integrity");
});

test("the name of a snapshot is its time, to the second", () => {
  expect(snapshotName(new Date("2026-11-21T20:05:01.999Z"))).toBe("pinset-20261121T200501Z");
});
