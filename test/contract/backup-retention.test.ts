import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  keepGood,
  parseBackupRecord,
  type RecordedBackup,
  renderBackupRecord,
  requireMounted,
  sharesDisk,
} from "../../src/backup/keep-good.ts";

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), "fula-keep-"))));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function put(day: number): RecordedBackup {
  const at = `2026-11-${String(day).padStart(2, "0")}T00:00:00.000Z`;
  const name = `backup-pool-202611${String(day).padStart(2, "0")}T000000Z-0123456789ab.age`;
  writeFileSync(join(directory, name), `backup of day ${day}`);
  const sha256 = createHash("sha256").update(`backup of day ${day}`).digest("hex");
  return { name, bytes: 15, sha256, at };
}

const days = (names: readonly string[]): readonly string[] =>
  names.map((name) => name.slice(18, 20)).toSorted();

it("keeps the newest good ones, and removes only older good ones that are in the record", async () => {
  const record = [1, 2, 3, 4].map(put);
  put(9);
  writeFileSync(join(directory, "notes.txt"), "mine");
  const newest = put(5);
  const kept = await keepGood(directory, record, newest, 3);
  expect(days(kept.removed)).toEqual(["01", "02"]);
  expect(days(kept.backups.map(({ name }) => name))).toEqual(["03", "04", "05"]);
  expect(readdirSync(directory)).toHaveLength(5);
});

it("counts no backup that is damaged or gone, so the last good ones stay", async () => {
  const record = [1, 2, 3, 4].map(put);
  appendFileSync(join(directory, record[2]?.name ?? ""), "x");
  rmSync(join(directory, record[3]?.name ?? ""));
  const kept = await keepGood(directory, record, put(5), 3);
  expect(kept.removed).toEqual([]);
  expect(days(kept.damaged)).toEqual(["03"]);
  expect(days(readdirSync(directory))).toEqual(["01", "02", "03", "05"]);
  const again = await keepGood(directory, kept.backups, put(6), 2);
  expect(days(again.removed)).toEqual(["01", "02"]);
  expect(days(readdirSync(directory))).toEqual(["03", "05", "06"]);
});

it("never removes the one that was just made, also after the clock was set back", async () => {
  const record = [10, 11].map(put);
  const kept = await keepGood(directory, record, put(1), 1);
  expect(days(readdirSync(directory))).toContain("01");
  expect(days(kept.removed)).toEqual(["10"]);
});

it("a record that can't be read vouches for nothing", () => {
  const record = [put(1)];
  expect(parseBackupRecord(renderBackupRecord(record))).toEqual(record);
  for (const text of [
    null,
    "",
    "{",
    '{"version":2,"backups":[]}',
    '{"version":1,"backups":[{"name":"../x"}]}',
  ])
    expect(parseBackupRecord(text)).toEqual([]);
});

it("refuses a directory whose disk is not mounted", async () => {
  const mounted = join(directory, "mounted");
  mkdirSync(mounted);
  const isOwnDisk = () => sharesDisk(join(mounted, "not", "there"), directory);
  const judge = async (record: readonly RecordedBackup[]): Promise<void> =>
    requireMounted(record, await isOwnDisk(), { directory: mounted, recordPath: "/state/backups.json" });
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", mounted]);
  const off = { ...put(2), is_own_disk: await isOwnDisk() };
  try {
    expect(off.is_own_disk).toBe(false);
    await judge([off]);
  } finally {
    execFileSync("umount", [mounted]);
  }
  const own = { ...put(1), is_own_disk: true };
  await expect(judge([off, own])).rejects.toMatchObject({
    exit: "preflight",
    remedy: expect.stringContaining("rm /state/backups.json") as string,
  });
  // The newest says where backups are. One of 0.5.0 does not say it.
  for (const record of [[], [put(3)], [own, put(3)], [off, { ...put(3), is_own_disk: true }]])
    await judge(record);
});
