import { expect, it } from "vitest";
import { CRON_FILES, masterLayout } from "../../../src/settings/layout.ts";
import { lookAtBackup } from "../../../src/status/pinset-parts.ts";
import type { StatusDeps } from "../../../src/status/look-at-node.ts";
import { renderBackupRecord } from "../../../src/backup/keep-good.ts";
import { writeHeartbeat } from "../../../src/pinset/heartbeat.ts";

const ARCHIVE = "backup-pool-20261127T090000Z-0123456789ab.age";
const NOW = new Date("2026-11-27T12:00:00Z");
const layout = masterLayout("/opt/fula-master");
const hoursAgo = (hours: number): Date => new Date(NOW.getTime() - hours * 3_600_000);

/** A master that was made, and whose last backup was made, so many hours ago. */
function look({
  born = 1000,
  backup,
  outcome = "ok",
  byHand = true,
  record,
  archives = [{ name: ARCHIVE, bytes: 15 }],
  there = archives,
  settings = {},
}: {
  /** What is on record in BACKUP_DIR, and what is there. */
  readonly archives?: readonly { readonly name: string; readonly bytes: number }[];
  readonly there?: readonly { readonly name: string; readonly bytes: number }[];
  readonly born?: number;
  readonly backup?: number;
  readonly outcome?: "ok" | "unavailable";
  readonly byHand?: boolean;
  readonly record?: string;
  readonly settings?: Readonly<Record<string, string>>;
}) {
  const run = (hours: number) => ({
    operation: "backup create",
    startedAt: hoursAgo(hours),
    endedAt: hoursAgo(hours),
    outcome,
    summary: "1.2 GB, 3 good in /mnt/backup",
    facts: { by_hand: byHand },
  });
  const files = {
    readText: (path: string) =>
      Promise.resolve(
        path === layout.backupHeartbeat && backup !== undefined
          ? (record ?? JSON.stringify(writeHeartbeat(null, run(backup))))
          : path === layout.backupRecord
            ? renderBackupRecord(
                archives.map((one, index) => ({
                  ...one,
                  sha256: "0".repeat(64),
                  at: hoursAgo(10 - index).toISOString(),
                  directory: "/mnt/backup",
                })),
              )
            : null,
      ),
    stat: (path: string) => {
      const found = there.find(({ name }) => path === `/mnt/backup/${name}`);
      if (found !== undefined) return Promise.resolve({ sizeBytes: found.bytes });
      return Promise.resolve(
        path === layout.signingKey || path === CRON_FILES.backup ? { modifiedAt: hoursAgo(born) } : null,
      );
    },
  };
  const deps = { host: { files, clock: { now: () => NOW } } } as unknown as StatusDeps;
  return lookAtBackup({ deps, layout, values: (key) => settings[key] });
}

const NIGHTLY = { BACKUP_DIR: "/mnt/backup", BACKUP_RECIPIENT: "age1x" };

it("calls a master without any copy to attention, from its second day on", async () => {
  expect(await look({ born: 23 })).toBeNull();
  expect(await look({ born: -1 })).toMatchObject({ state: "attention" });
  expect(await look({ born: 25 })).toMatchObject({
    state: "attention",
    summary: "no copy off this box",
    todo: expect.stringContaining("fula-node backup create --to DIR") as string,
  });
  // What can't be read is not the same as nothing.
  expect(await look({ backup: 1, record: "{" })).toMatchObject({ state: "unknown" });
  // A run that failed is no copy.
  expect(await look({ backup: 1, outcome: "unavailable" })).toMatchObject({ state: "attention" });
});

it("a copy by hand is good for a week", async () => {
  expect(await look({ backup: 167 })).toMatchObject({
    state: "ok",
    summary: "the last copy was made 6 days ago, by hand: 1.2 GB, 3 good in /mnt/backup",
    todo: null,
  });
  expect(await look({ backup: 169 })).toMatchObject({ state: "attention" });
  expect(await look({ backup: -1 })).toMatchObject({
    state: "attention",
    todo: "check the clock of this machine",
  });
  // The last one of cron, after BACKUP_DIR was taken out.
  expect((await look({ backup: 3, byHand: false }))?.summary).toMatch(/^the last copy was made 3 h ago: /);
});

it("a nightly copy is judged by its last run", async () => {
  expect(await look({ backup: 3, byHand: false, settings: NIGHTLY })).toMatchObject({
    state: "ok",
    summary: "3 h ago: 1.2 GB, 3 good in /mnt/backup",
  });
  expect(await look({ backup: 49, settings: NIGHTLY })).toMatchObject({ state: "attention" });
  expect(await look({ born: 49, settings: NIGHTLY })).toMatchObject({ state: "attention" });
  expect(await look({ born: 1, settings: NIGHTLY })).toMatchObject({ state: "ok" });
});

it("a nightly copy that is not there any more is none", async () => {
  const nightly = { backup: 3, byHand: false, settings: NIGHTLY };
  const newest = { name: ARCHIVE, bytes: 15 };
  const older = { name: ARCHIVE.replace("1127", "1126"), bytes: 9 };
  for (const [given, summary] of [
    [{ there: [] }, `3 h ago, but ${ARCHIVE} is not in /mnt/backup`],
    [{ archives: [older, newest], there: [older] }, `3 h ago, but ${ARCHIVE} is not in /mnt/backup`],
    [
      { there: [{ ...newest, bytes: 14 }] },
      `3 h ago, but ${ARCHIVE} has another size than it was written with`,
    ],
    [{ archives: [] }, "3 h ago, but no backup in /mnt/backup is on record"],
  ] as const)
    expect(await look({ ...nightly, ...given })).toMatchObject({ state: "attention", summary });
  expect(await look({ ...nightly, archives: [older, newest], there: [newest] })).toMatchObject({
    state: "ok",
  });
  // A master that came back from one has the record, and no run of its own yet.
  expect(await look({ born: 1, there: [], settings: NIGHTLY })).toMatchObject({
    state: "attention",
    summary: expect.stringContaining(`but ${ARCHIVE} is not in /mnt/backup`) as string,
    todo: "mount the disk of /mnt/backup, then: fula-node backup create",
  });
  expect(await look({ born: 1, archives: [], settings: NIGHTLY })).toMatchObject({ state: "ok" });
  // One by hand, before BACKUP_DIR was set, went somewhere else.
  expect(await look({ ...nightly, byHand: true, archives: [] })).toMatchObject({ state: "ok" });
});
