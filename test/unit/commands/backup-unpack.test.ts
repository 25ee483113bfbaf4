import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { backupUnpack, describeArchive } from "../../../src/commands/backup-archive.ts";
import { manifestOf } from "../../support/backup-manifest.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "fula-unpack-"));
  for (const name of ["full", "empty"]) mkdirSync(join(base, name));
  for (const name of ["file", "full/file"]) writeFileSync(join(base, name), "theirs");
  symlinkSync("empty", join(base, "link"));
  symlinkSync("nowhere", join(base, "dangling"));
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

/** Of a file that is not there: what is wrong with the directory comes before it is read. */
const unpack = (to: string) =>
  backupUnpack("/nonexistent.age", { to, setFile: [] }, worldOf(new FakeStorage()));

it.each([
  ["file", "usage", /file is not a directory/, /does not exist yet/],
  ["file/x", "usage", /file is not a directory/, /elsewhere/],
  ["none/x", "usage", /There is no directory .*none/, /mkdir -p /],
  ["file/below/x", "usage", /There is no directory .*below/, /mkdir -p /],
  ["link", "usage", /link is a symbolic link/, /does not exist yet/],
  ["link/", "usage", /link is a symbolic link/, /does not exist yet/],
  ["dangling", "usage", /dangling is a symbolic link/, /does not exist yet/],
  ["full", "foreign", /full is not empty/, /does not exist yet/],
])("is refused with a way out before the archive is read: --to %s", async (name, exit, what, remedy) => {
  const before = readdirSync(base, { recursive: true });
  await expect(unpack(`${base}/${name}`)).rejects.toMatchObject({
    exit,
    what: expect.stringMatching(what) as string,
    remedy: expect.stringMatching(remedy) as string,
  });
  expect(readdirSync(base, { recursive: true })).toEqual(before);
});

it.each(["new", "empty", "empty/"])("reads the archive for --to %s", async (name) => {
  await expect(unpack(`${base}/${name}`)).rejects.toMatchObject({
    what: "No key was given to open the backup.",
  });
});

it.skipIf(process.getuid?.() !== 0)("is refused on a disk that is read-only", async () => {
  const disk = join(base, "empty");
  execFileSync("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", disk]);
  try {
    await expect(unpack(`${disk}/x`)).rejects.toMatchObject({
      exit: "preflight",
      what: `Cannot write ${disk}.`,
      why: "the file system is read-only",
      remedy: expect.stringContaining("another disk") as string,
    });
  } finally {
    execFileSync("umount", [disk]);
  }
});

it.each([
  ["no snapshot", [], ["  snapshots: none"]],
  ["one", ["a"], ["  snapshots: a"]],
  ["three", ["a", "b", "c"], ["  snapshots: a", "             b", "             c"]],
])("names each snapshot on a line of its own: %s", (_, snapshots, lines) => {
  const described = describeArchive(manifestOf({ snapshots }), new Date("2026-11-28T00:00:00Z"));
  expect(described.slice(4)).toEqual(lines);
});
