import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { MadeBackup } from "../../src/backup/create-backup.ts";
import {
  isOnOwnDisk,
  keepGood,
  parseBackupRecord,
  type RecordedBackup,
  renderBackupRecord,
  requireMounted,
} from "../../src/backup/keep-good.ts";
import { makeRegular } from "../../src/backup/regular-backup.ts";

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

it("counts one that can't be read as damaged, and the others still get older", async () => {
  const record = [1, 2, 3].map(put);
  const unreadable = join(directory, record[1]?.name ?? "");
  rmSync(unreadable);
  mkdirSync(unreadable);
  const kept = await keepGood(directory, record, put(4), 2);
  expect(days(kept.damaged)).toEqual(["02"]);
  expect(days(kept.removed)).toEqual(["01"]);
});

it("keeps the newest that brings pins back, however many without pins come after it", async () => {
  let record: readonly RecordedBackup[] = [put(1), { ...put(2), has_pins: true }];
  for (const day of [3, 4, 5])
    record = (await keepGood(directory, record, { ...put(day), has_pins: false }, 2)).backups;
  expect(days(readdirSync(directory))).toEqual(["02", "04", "05"]);
  record = (await keepGood(directory, record, { ...put(6), has_pins: true }, 2)).backups;
  expect(days(readdirSync(directory))).toEqual(["05", "06"]);
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

// Only root can mount.
describe.runIf(process.geteuid?.() === 0)("a disk that is not mounted", () => {
  let base: string;
  let mounted: string;
  const mount = (on: string): unknown =>
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", on]);
  const unmount = (on: string): unknown => execFileSync("umount", [on]);
  const isOwnDisk = () => isOnOwnDisk(join(mounted, "not", "there"), base);
  const judge = async (...record: readonly RecordedBackup[]): Promise<void> =>
    requireMounted(record, await isOwnDisk(), { directory: mounted, recordPath: "/state/backups.json" });
  const refusal = {
    exit: "preflight",
    why: expect.stringContaining("not mounted") as string,
    remedy: expect.stringContaining("rm /state/backups.json") as string,
  };

  beforeEach(() => {
    // Not below the temporary directory: that may be a file system of its own.
    base = mkdtempSync("/var/lib/fula-keep-base-");
    mounted = mkdtempSync("/var/lib/fula-keep-");
  });
  afterEach(() => {
    for (const one of [base, mounted]) rmSync(one, { recursive: true, force: true });
  });

  it.each(["the disk of the system", "a disk of its own"])("with the base directory on %s", async (where) => {
    if (where === "a disk of its own") mount(base);
    try {
      mount(mounted);
      const off = { ...put(2), directory: mounted, is_own_disk: await isOwnDisk() };
      try {
        expect(off.is_own_disk).toBe(false);
        await judge(off);
      } finally {
        unmount(mounted);
      }
      expect(await isOwnDisk()).toBe(true);
      await expect(judge({ ...put(1), directory: mounted, is_own_disk: true }, off)).rejects.toMatchObject(
        refusal,
      );
      // Nothing was there before; it was on this disk; it was in another directory.
      await judge();
      await judge(off, { ...put(3), directory: mounted, is_own_disk: true });
      await judge({ ...off, directory: "/mnt/former" });
    } finally {
      if (where === "a disk of its own") unmount(base);
    }
  });

  it("of a record that does not say where: if a file of it is there, it is mounted", async () => {
    const old = put(4);
    await expect(judge(old)).rejects.toMatchObject({
      ...refusal,
      what: expect.stringContaining("no backup that is on record is in it") as string,
    });
    writeFileSync(join(mounted, old.name), "backup");
    await judge(put(3), old);
  });
});

it("a backup in BACKUP_DIR is on record before an older one is removed", async () => {
  const older = [1, 2].map(put);
  const texts = new Map([
    ["/record", renderBackupRecord(older.map((one) => ({ ...one, is_own_disk: true })))],
  ]);
  const events: string[] = [];
  const warnings: string[] = [];
  appendFileSync(join(directory, older[1]?.name ?? ""), "x");
  const made = await makeRegular(
    {
      files: {
        readText: (path) => Promise.resolve(texts.get(path) ?? null),
        writeAtomic: (path, text) => {
          texts.set(path, text);
          events.push(`record ${days(parseBackupRecord(text).map(({ name }) => name)).join(" ")}`);
          return Promise.resolve(void events.push(`there ${days(readdirSync(directory)).join(" ")}`));
        },
      },
      warn: (text) => void warnings.push(text),
      onMade: (path) => void events.push(path),
    },
    { baseDir: directory, backupRecord: "/record" },
    {
      directory,
      keep: 1,
      make: (lastBytes) => {
        const one = { ...put(3), path: `made after one of ${lastBytes} bytes` };
        const manifest = { created_at: one.at, snapshots: [{}] };
        return Promise.resolve({ ...one, manifest } as unknown as MadeBackup);
      },
    },
  );
  expect(events).toEqual([
    "made after one of 15 bytes",
    "record 01 02 03",
    "there 01 02 03",
    "record 02 03",
    "there 02 03",
  ]);
  expect(warnings).toEqual([`${older[1]?.name} is not what was written. It stays, and does not count.`]);
  expect(made).toMatchObject({ exit: "pending", facts: { by_hand: false }, made: { isOwnDisk: true } });
  expect(made.summary).toBe(`15 bytes, 1 good in ${directory}, 1 damaged, on this machine's own disk`);
});
