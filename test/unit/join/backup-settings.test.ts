import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
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
