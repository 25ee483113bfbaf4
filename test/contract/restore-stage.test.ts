import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { placeStage, type Stage } from "../../src/backup/restore-stage.ts";
import { files } from "../../src/machine/file-writer.ts";
import {
  type ChainMemory,
  findMissing,
  parseMemory,
  serialiseMemory,
} from "../../src/pinset/snapshot/memory.ts";
import { manifestOf } from "../support/backup-manifest.ts";
import { MANIFEST } from "../support/snapshot-manifest.ts";

let root: string;
beforeEach(() => (root = mkdtempSync(join(tmpdir(), "fula-stage-"))));
afterEach(() => rmSync(root, { recursive: true, force: true }));

const nameOf = (sequence: number): string => `pinset-20260101T0000${String(sequence).padStart(2, "0")}Z`;

/** A backup with these snapshots, unpacked, of a master that remembers this. */
async function unpacked(sequences: readonly number[], removed: ChainMemory["removed"]): Promise<Stage> {
  const directory = join(root, "stage");
  for (const sequence of sequences)
    await files.writeAtomic(
      `${directory}/base/snapshots/${nameOf(sequence)}.manifest.json`,
      JSON.stringify({ ...MANIFEST, sequence }),
      { mode: 0o600 },
    );
  const last = { name: nameOf(15), sequence: 15, manifestSha256: "a".repeat(64), keyId: "k" };
  const memory = serialiseMemory({ last, retiredKeys: [], removed });
  await files.writeAtomic(`${directory}/base/state/snapshot-chain.json`, memory, { mode: 0o600 });
  const manifest = manifestOf({ snapshots: sequences.map(nameOf) });
  return { directory, manifest, archive: "one.age", isPlaced: false, hasPins: false };
}

async function remembered(): Promise<ChainMemory> {
  const memory = parseMemory(await files.readText(join(root, "opt/state/snapshot-chain.json")));
  if (memory === null || memory === "damaged") throw new Error("no memory");
  return memory;
}

it("what is older than the snapshots of a backup is not missing after its restore", async () => {
  const stage = await unpacked([13, 14, 15], [[2, 3]]);
  for (const run of [1, 2]) {
    await placeStage(stage, join(root, "opt"), { files });
    const { removed, last } = await remembered();
    expect(removed, `run ${run}`).toEqual([[1, 12]]);
    expect(last?.sequence).toBe(15);
    expect(findMissing([13, 14, 15], removed ?? [])).toEqual([]);
  }
});

it("a gap among them still is", async () => {
  await placeStage(await unpacked([12, 15], []), join(root, "opt"), { files });
  expect(findMissing([12, 15], (await remembered()).removed ?? [])).toEqual([[13, 14]]);
});

it.each([
  ["of a master that never recorded what it removed", [13, 14, 15], null],
  ["without snapshots", [], [[2, 3]]],
  ["with all that were ever taken", [1, 2], []],
] as const)("the record %s stays as it is", async (_of, sequences, removed) => {
  await placeStage(await unpacked(sequences, removed), join(root, "opt"), { files });
  expect((await remembered()).removed).toEqual(removed);
});
