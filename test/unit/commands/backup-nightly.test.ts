import { beforeEach, describe, expect, it } from "vitest";
import { backupCreate, type BackupCreateFlags } from "../../../src/commands/backup.ts";
import { OperatorError } from "../../../src/errors.ts";
import type { Lock } from "../../../src/machine/lock.ts";
import { type Heartbeat, parseHeartbeat } from "../../../src/pinset/heartbeat.ts";
import { CRON_FILES, CRON_PERIODS_MS } from "../../../src/settings/layout.ts";
import type { StatusDeps } from "../../../src/status/look-at-node.ts";
import { lookAtBackup } from "../../../src/status/pinset-parts.ts";
import type { World } from "../../../src/world.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const SETTINGS = {
  CLUSTERNAME: "pool",
  POSTGRES_PASSWORD: "a-long-password-of-postgres-1234",
  ALERT_COMMAND: "/root/alert",
  BACKUP_DIR: "/mnt/backup",
  BACKUP_RECIPIENT: RECIPIENT,
};
const CRON: BackupCreateFlags = {
  baseDir: LAYOUT.baseDir,
  scheduled: true,
  recipient: [],
  setFile: [],
};

let host: FakeStorage;
/** What ALERT_COMMAND got, and what the alert log has. */
let alarms: { readonly command: string[]; readonly log: string[] };
let order: string[];

beforeEach(() => {
  host = new FakeStorage();
  alarms = { command: [], log: [] };
  order = [];
  host.files.put(LAYOUT.composeFile, "name: fula-master\n");
  save(SETTINGS);
});

function save(settings: Readonly<Record<string, string>>): void {
  const lines = Object.entries(settings).map(([key, value]) => `${key}=${value}\n`);
  host.files.put(LAYOUT.envFile, lines.join(""), 0o600);
}

const openChannels: World["openChannels"] = ({ log, command, pool }) =>
  Promise.resolve({
    log: { path: log, append: (lines) => Promise.resolve(void alarms.log.push(...lines)) },
    command:
      command === undefined
        ? null
        : { path: command, run: (text) => Promise.resolve((alarms.command.push(text), null)) },
    source: { host: "box", pool },
  });

const takeLock = (): Promise<Lock> => {
  order.push("lock");
  const release = () => {
    const isRecorded = host.files.tree.has(LAYOUT.backupHeartbeat);
    return Promise.resolve(void order.push(isRecorded ? "release after the record" : "release"));
  };
  return Promise.resolve({ release });
};

/** A run, and how it failed. */
async function create(
  flags: Partial<BackupCreateFlags> = {},
  parts: Partial<World> = {},
): Promise<OperatorError> {
  const rotateLog = () => Promise.resolve();
  const world = worldOf(host, { pid: 7, hostname: "box", takeLock, openChannels, rotateLog, ...parts });
  const thrown = await backupCreate({ ...CRON, ...flags }, world).catch((error: unknown) => error);
  if (thrown instanceof OperatorError) return thrown;
  throw new TypeError(`it did not fail as expected: ${String(thrown)}`);
}

const record = (): Heartbeat | null =>
  host.files.tree.has(LAYOUT.backupHeartbeat)
    ? parseHeartbeat(host.files.textOf(LAYOUT.backupHeartbeat))
    : null;

function status() {
  host.files.put(CRON_FILES.backup, "# cron");
  const values = (key: string) => (SETTINGS as Record<string, string>)[key];
  return lookAtBackup({ deps: { host } as unknown as StatusDeps, layout: LAYOUT, values });
}

const heldLock = () =>
  Promise.reject(new OperatorError({ exit: "locked", what: "Another run holds the lock." }));

describe("a nightly backup that fails before it begins", () => {
  it.each<{ what: string; spoil: () => void; parts?: Partial<World>; exit: string; summary: string }>([
    {
      what: "the lock is held for an hour",
      spoil: () => {},
      parts: { takeLock: heldLock },
      exit: "locked",
      summary: "Another run holds the lock.",
    },
    {
      what: "a setting is invalid",
      spoil: () => save({ ...SETTINGS, PINNING_API_PORT: "x" }),
      exit: "settings",
      summary: "Some settings are missing or invalid.",
    },
    {
      what: "the recipient does not decode",
      spoil: () => save({ ...SETTINGS, BACKUP_RECIPIENT: RECIPIENT.replace("7hjy", "7hyj") }),
      exit: "settings",
      summary: `BACKUP_RECIPIENT has ${RECIPIENT.replace("7hjy", "7hyj")}, which is not a recipient of the program age.`,
    },
    {
      what: "BACKUP_DIR was taken out, and nobody has joined since then",
      spoil: () => save({ ...SETTINGS, BACKUP_DIR: "" }),
      exit: "settings",
      summary: "BACKUP_DIR or BACKUP_RECIPIENT is not set, but cron starts a backup every night.",
    },
    {
      what: "the log can't be rotated",
      spoil: () => {},
      parts: {
        rotateLog: () => Promise.reject(new OperatorError({ exit: "unavailable", what: "No space." })),
      },
      exit: "unavailable",
      summary: "No space.",
    },
  ])("$what: it is recorded and counted, and the third one raises an alarm", async (given) => {
    const { spoil, parts = {}, exit, summary } = given;
    spoil();
    for (let night = 1; night <= 3; night += 1) {
      expect(await create({}, parts)).toMatchObject({ exit });
      expect(record()).toMatchObject({ operation: "backup create", outcome: exit, summary, failures: night });
      expect(alarms.command).toHaveLength(night === 3 ? 1 : 0);
      host.clock.setBy(CRON_PERIODS_MS.backup);
    }
    expect(JSON.parse(alarms.command[0] ?? "")).toMatchObject({
      kind: "run-failed",
      pool: "pool",
      summary: `backup create failed 3 times in a row; the last time: ${summary}`,
    });
    expect(await status()).toMatchObject({
      state: "attention",
      summary: expect.stringContaining(`the last run failed: ${summary}`) as string,
    });
  });

  it.each([
    ["has a line that is not valid", () => host.files.put(LAYOUT.envFile, "BACKUP_DIR\n", 0o600), "settings"],
    ["is of somebody else", () => host.files.own(LAYOUT.envFile, 1000), "preflight"],
    ["is gone", () => host.files.drop(LAYOUT.envFile), "settings"],
  ])("the .env %s: it is recorded, and the alarm goes to the log", async (_what, spoil, exit) => {
    spoil();
    for (let night = 1; night <= 3; night += 1) expect(await create()).toMatchObject({ exit });
    expect(record()).toMatchObject({ outcome: exit, failures: 3, alarm: { command: "none" } });
    expect(alarms.command).toEqual([]);
    expect(alarms.log).toEqual([expect.stringContaining("run-failed operation=backup-create failures=3")]);
  });
});

it("a nightly backup that fails later counts once, and is recorded while it has the lock", async () => {
  // Postgres does not run.
  expect(await create()).toMatchObject({ exit: "unavailable" });
  expect(record()).toMatchObject({ outcome: "unavailable", failures: 1 });
  expect(order).toEqual(["lock", "release after the record"]);
});

it("a run by hand, or to another directory, that fails before it begins is not recorded", async () => {
  expect(await create({ scheduled: false }, { takeLock: heldLock })).toMatchObject({ exit: "locked" });
  save({ ...SETTINGS, PINNING_API_PORT: "x" });
  expect(await create({ to: "/mnt/other" })).toMatchObject({ exit: "settings" });
  save({ CLUSTERNAME: "pool" });
  expect(await create({ scheduled: false })).toMatchObject({ exit: "usage" });
  expect(record()).toBeNull();
});

it.each([
  ["there is no master", () => host.files.drop(LAYOUT.baseDir)],
  ["there is a storage node", () => host.files.put(LAYOUT.composeFile, "name: fula-storage\n")],
])("where %s, nothing is written", async (_what, spoil) => {
  spoil();
  host.revive();
  expect(await create()).toMatchObject({ exit: "settings" });
  expect(host.writes).toEqual([]);
});
