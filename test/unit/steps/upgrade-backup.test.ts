import { beforeEach, expect, it } from "vitest";
import { openJournal } from "../../../src/engine/journal.ts";
import { OperatorError } from "../../../src/errors.ts";
import { run } from "../../../src/engine/run.ts";
import { upgradeBackup, WITHOUT_BACKUP } from "../../../src/steps/master/upgrade-backup.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { LAYOUT } from "../../support/master-boxes.ts";

let host: FakeMaster;
let made: number;

beforeEach(() => {
  host = new FakeMaster();
  made = 0;
  host.files.put(`${LAYOUT.cliDir}/0.4.0/bin/fula-node.js`, "");
  host.files.putLink("0.4.0", LAYOUT.cliCurrent);
});

function upgrade(directory: string | null, { version = "0.5.0", consents = [] as readonly string[] } = {}) {
  const make = () => {
    made += 1;
    // What the step `cli` does next.
    host.files.putLink(version, LAYOUT.cliCurrent);
    return Promise.resolve("/mnt/backup/one.age");
  };
  return run({
    steps: [upgradeBackup({ layout: LAYOUT, version }, { directory, make })],
    host,
    listen: () => {},
    ask: null,
    dryRun: false,
    yes: true,
    adopted: new Set(),
    consents: new Set(consents),
    journal: openJournal({
      files: host.files,
      path: LAYOUT.journal,
      attempt: "1",
      version,
      now: () => host.clock.now(),
    }),
  });
}

it("an upgrade is backed up where a backup is configured, and by no flag asked for", async () => {
  const { changes } = await upgrade("/mnt/backup");
  expect(made).toBe(1);
  expect(changes[0]?.change.summary).toBe("back up to /mnt/backup, before the upgrade from 0.4.0");
});

it("without one, --yes is not enough: its flag must be given", async () => {
  await expect(upgrade(null)).rejects.toMatchObject({
    exit: "preflight",
    problems: [{ subject: WITHOUT_BACKUP, what: "Upgrade from 0.4.0 to 0.5.0 without a backup?" }],
  });
  expect(made).toBe(0);
});

it("a backup that fails stops the upgrade, and names the way without", async () => {
  const failing = upgradeBackup(
    { layout: LAYOUT, version: "0.5.0" },
    {
      directory: "/mnt/backup",
      make: () => Promise.reject(new OperatorError({ exit: "preflight", what: "Full.", remedy: "Free it." })),
    },
  );
  const change = { kind: "back-up" as const, summary: "" };
  await expect(failing.apply(change, host, () => {})).rejects.toMatchObject({
    exit: "preflight",
    what: "The backup before the upgrade was not made. Full.",
    remedy: `Free it. Or upgrade without one: ${WITHOUT_BACKUP}`,
  });
});

it.each([
  ["the same version", "0.4.0"],
  ["an older one", "0.3.0"],
])("%s needs none", async (_what, version) => {
  expect((await upgrade("/mnt/backup", { version })).changes).toEqual([]);
  expect(made).toBe(0);
});

it("a new machine needs none", async () => {
  host = new FakeMaster();
  expect((await upgrade("/mnt/backup")).changes).toEqual([]);
});
