import { beforeEach, describe, expect, it } from "vitest";
import { refuseUnfinishedRestore } from "../../../src/join/installed-node.ts";
import { masterLayout } from "../../../src/settings/layout.ts";
import { restoredDatabase } from "../../../src/steps/master/restored-database.ts";
import { manifestOf } from "../../support/backup-manifest.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { LAYOUT, lookAt, prepare } from "../../support/master-boxes.ts";

const { context } = await prepare(new FakeMaster());
const STAGE = LAYOUT.fromBackupDir;

let host: FakeMaster;

/** A master whose files of the backup are in place. */
beforeEach(() => {
  host = new FakeMaster();
  host.files.put(`${STAGE}/manifest.json`, JSON.stringify(manifestOf()));
  for (const name of ["placed.txt", "database.dump"]) host.files.put(`${STAGE}/${name}`, "x");
  host.files.put(LAYOUT.envFile, "POSTGRES_PASSWORD=pw-of-the-backup\n", 0o600);
  host.postgres.onAsk = () => ({ kind: "open", serverVersion: "17.2" }) as never;
});

const kinds = async () => (await lookAt(restoredDatabase(context), host)).changes.map(({ kind }) => kind);

describe("the database of a backup", () => {
  it("is restored into one that is empty", async () => {
    expect(await kinds()).toEqual(["restore-database"]);
  });

  it("is there if the first migration on record is older than the backup, or the restore said so", async () => {
    host.migrations.applied.add(1);
    host.migrations.ledgerSince = new Date("2025-12-31T00:00:00Z");
    expect(await kinds()).toEqual([]);
    // The clock was set back after it was made.
    host.migrations.ledgerSince = new Date("2026-02-01T00:00:00Z");
    host.files.put(`${STAGE}/database.txt`, "");
    expect(await kinds()).toEqual([]);
  });

  it("is not taken for restored because somebody made a new schema meanwhile: its dump stays", async () => {
    host.migrations.applied.add(1);
    host.migrations.ledgerSince = new Date("2026-01-02T00:00:00Z");
    await expect(kinds()).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("is not that of the backup, which is not restored yet") as string,
      remedy: expect.stringContaining("DROP DATABASE") as string,
    });
    expect(await host.files.readText(`${STAGE}/database.dump`)).toBe("x");
  });

  it("lets nothing write into its place before it is there", async () => {
    await expect(refuseUnfinishedRestore(host, LAYOUT)).rejects.toMatchObject({ exit: "preflight" });
    // The rest of the join may take long: this master works already.
    const restored = host.copy();
    restored.files.put(`${STAGE}/database.txt`, "");
    await refuseUnfinishedRestore(restored, LAYOUT);
    await host.files.remove(`${STAGE}/database.dump`);
    await refuseUnfinishedRestore(host, LAYOUT);
    host.files.put(`/srv/fula/from-backup/database.dump`, "x");
    await expect(refuseUnfinishedRestore(host, masterLayout("/srv/fula"))).rejects.toMatchObject({
      remedy: "Finish that first: fula-node join-as-master --base-dir /srv/fula",
    });
  });
});
