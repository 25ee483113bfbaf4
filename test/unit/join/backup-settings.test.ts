import { describe, expect, it } from "vitest";
import { renderBackupRecord } from "../../../src/backup/keep-good.ts";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { parseHeartbeat } from "../../../src/pinset/heartbeat.ts";
import type { PostgresTarget } from "../../../src/settings/postgres-target.ts";
import type { World } from "../../../src/world.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
/** Two characters of it are the other way round. */
const MISTYPED = RECIPIENT.replace("7hjy", "7hyj");

function joinOn(host: FakeStorage, set: readonly string[], parts: Partial<World> = {}) {
  return joinAsMaster(
    {
      dryRun: false,
      yes: true,
      set: ["CLUSTERNAME=pool", ...set],
      adopt: [],
      replace: [],
      ignore: ["clock"],
      provisionWriter: true,
    },
    worldOf(host, {
      pid: 7,
      hostname: "box",
      takeLock: () => Promise.resolve({ release: () => Promise.resolve() }),
      ...parts,
    }),
  );
}

describe("a mistyped BACKUP_RECIPIENT", () => {
  const refused = {
    exit: "settings",
    changed: undefined,
    problems: [
      {
        subject: "BACKUP_RECIPIENT",
        what: `BACKUP_RECIPIENT has ${MISTYPED}, which is not a recipient of the program age. A character of it is wrong or missing, or it is one of a plugin of age.`,
        remedy:
          "Where its secret key is, age-keygen -y backup-key.txt prints it again. Then give it: --set BACKUP_RECIPIENT=age1RECIPIENT",
      },
    ],
  };

  it.each([MISTYPED, `${RECIPIENT},${MISTYPED}`])("is refused by the join: %s", async (recipient) => {
    const host = new FakeStorage();
    const given = ["BACKUP_DIR=/mnt/backup", `BACKUP_RECIPIENT=${recipient}`];
    await expect(joinOn(host, given)).rejects.toMatchObject(refused);
    expect(host.writes).toEqual([]);
  });

  it("is refused where it is saved already, until another one is given", async () => {
    const host = new FakeStorage();
    await joinOn(host, ["BACKUP_DIR=/mnt/backup", `BACKUP_RECIPIENT=${RECIPIENT}`]);
    host.files.put(LAYOUT.envFile, host.files.textOf(LAYOUT.envFile).replace(RECIPIENT, MISTYPED), 0o600);
    await expect(joinOn(host, [])).rejects.toMatchObject(refused);
    expect(await joinOn(host, [`BACKUP_RECIPIENT=${RECIPIENT}`])).toBe("ok");
  });
});

describe("the backup before an upgrade", () => {
  const SPARE = "/mnt/spare";
  const FLAGS = ["PINNING_EDGE_PORT=6002", `BACKUP_DIR=${SPARE}`, `BACKUP_RECIPIENT=${RECIPIENT}`];

  /** A master of an earlier version, with more lines in its .env. Its port is the newer version's default of another setting. */
  async function olderMaster(more = ""): Promise<FakeStorage> {
    const host = new FakeStorage();
    await joinOn(host, ["POSTGRES_PORT=5544"]);
    const text = `${host.files.textOf(LAYOUT.envFile)}PINNING_API_PORT=6001\n${more}`;
    host.files.put(LAYOUT.envFile, text, 0o600);
    return host;
  }

  /** Upgrades it; its database answers until the backup asks it. Returns the error, and which databases the backup asked. */
  async function upgrade(host: FakeStorage, set: readonly string[]) {
    const asked: PostgresTarget[] = [];
    let isBackup = false;
    const { onAsk } = host.postgres;
    host.postgres.onAsk = (target) => {
      if (!isBackup) return onAsk(target);
      asked.push(target);
      return { kind: "unreachable", why: "connection refused" };
    };
    const openChannels: World["openChannels"] = ({ log }) => {
      isBackup = true;
      const append = () => Promise.resolve();
      return Promise.resolve({
        log: { path: log, append },
        command: null,
        source: { host: "box", pool: "" },
      });
    };
    const before = host.files.textOf(LAYOUT.envFile);
    const thrown = await joinOn(host, set, { version: "0.9.0", openChannels }).then(
      () => null,
      (error: unknown) => error,
    );
    // What goes into the archive.
    expect(host.files.textOf(LAYOUT.envFile)).toBe(before);
    return { thrown, asked };
  }

  const silent = {
    exit: "unavailable",
    what: expect.stringContaining("The backup before the upgrade was not made. ") as string,
  };

  it("is of what is installed, although a setting of it is valid only with the flags of this run", async () => {
    const host = await olderMaster();
    const { thrown, asked } = await upgrade(host, [...FLAGS, "POSTGRES_PORT=5600"]);
    expect(thrown).toMatchObject(silent);
    // Not the database that this run would use after it: the file on disk names this one.
    expect(asked).toMatchObject([{ port: 5544 }]);
    expect(parseHeartbeat(host.files.textOf(LAYOUT.backupHeartbeat))).toMatchObject({
      outcome: "unavailable",
      failures: 1,
    });
  });

  it("takes from the flags what is no value at all in the file, such as another port of the database", async () => {
    const host = await olderMaster("POSTGRES_PORT=none\n");
    const { thrown, asked } = await upgrade(host, [...FLAGS, "POSTGRES_PORT=5600"]);
    expect(thrown).toMatchObject(silent);
    expect(asked).toMatchObject([{ port: 5600 }]);
  });

  it("goes where the flags say, for whom they say, whatever is saved", async () => {
    const saved = `BACKUP_DIR=/mnt/old\nBACKUP_RECIPIENT=${MISTYPED}\n`;
    expect((await upgrade(await olderMaster(saved), FLAGS)).thrown).toMatchObject(silent);
    for (const lines of ["", saved]) {
      const host = await olderMaster(lines);
      // The disk of that directory, and of no other one, is known to be missing.
      const one = { name: "backup-pool.age", bytes: 1, sha256: "0".repeat(64), at: "2026-01-01T00:00:00Z" };
      const record = renderBackupRecord([{ ...one, directory: SPARE, is_own_disk: false }]);
      host.files.put(LAYOUT.backupRecord, record, 0o600);
      expect((await upgrade(host, FLAGS)).thrown).toMatchObject({
        what: expect.stringContaining(`${SPARE} is on a file system of this master`) as string,
      });
    }
  });
});
