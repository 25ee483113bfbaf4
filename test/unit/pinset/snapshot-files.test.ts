import { expect, test } from "vitest";
import { checkOrder } from "../../../src/pinset/snapshot/chain.ts";
import { findSnapshots, partsOf } from "../../../src/pinset/snapshot/manifest.ts";

test.each(["pinset-1", "pinset-1.ndjson.gz", "pinset-1.manifest.json", "pinset-1.manifest.sig"])(
  "%s is one of ours",
  (file) => {
    expect(partsOf(file)).toMatchObject({ layout: "ours", name: "pinset-1", body: "pinset-1.ndjson.gz" });
  },
);

test.each(["pinset-1.json", "pinset-1.json.sig", "pinset-1.sig"])("%s is one of upstream's", (file) => {
  expect(partsOf(file)).toMatchObject({ layout: "upstream", name: "pinset-1", body: "pinset-1.json" });
});

test("each snapshot of a directory is found once, and nothing else", () => {
  const files = [
    "pinset-2.json",
    "pinset-2.json.sig",
    "pinset-1.manifest.sig",
    "pinset-1.ndjson.gz",
    "notes.json",
    ".pinset-3.ndjson.gz.partial",
  ];
  expect(findSnapshots(files).map(({ layout, name }) => `${layout} ${name}`)).toEqual([
    "ours pinset-1",
    "upstream pinset-2",
  ]);
});

test("the order is checked by what each snapshot says about the previous one", () => {
  const entry = (name: string, sequence: number, previous: string | null, sha = `sha-${previous}`) => ({
    name,
    sequence,
    manifestSha256: `sha-${name}`,
    keyId: "key",
    replacedKeyId: null,
    previous: previous === null ? null : { name: previous, manifest_sha256: sha },
  });
  const judged = checkOrder([
    entry("a", 1, null),
    entry("b", 2, "a"),
    entry("d", 4, "c"),
    entry("e", 6, "d"),
    entry("f", 7, "e", "sha-other"),
    entry("g", 3, null),
  ]);
  expect([...judged].map(([name, { state }]) => `${name} ${state}`)).toEqual([
    "a first",
    "b linked",
    "d gap",
    "e broken",
    "f broken",
    "g broken",
  ]);
  expect(judged.get("e")?.why).toContain("the next snapshot, f, refers");
});
