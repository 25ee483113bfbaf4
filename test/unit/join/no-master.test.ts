import { describe, expect, it } from "vitest";
import { snapshotList } from "../../../src/commands/snapshot.ts";
import { STORAGE_BASE_DIR } from "../../../src/settings/layout.ts";
import { FakeStorage, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";

const list = (host: FakeStorage, dir?: string) =>
  snapshotList(
    { key: [], ...(dir === undefined ? {} : { dir }) },
    worldOf(host, { listSnapshotFiles: async () => [] }),
  );

describe("snapshot list where no master is installed", () => {
  it("says so, as every verb of a master does", async () => {
    await expect(list(new FakeStorage())).rejects.toMatchObject({
      exit: "settings",
      remedy: "Run join-as-master first, or pass --base-dir.",
    });
  });

  it("on a storage node, joining as a master is no remedy", async () => {
    const host = await storageBoxBefore(null);
    expect(host.files.tree.has(`${STORAGE_BASE_DIR}/.env`)).toBe(true);
    await expect(list(host)).rejects.toMatchObject({
      exit: "settings",
      why: "This machine is a storage node.",
      remedy: "Run this command on a master of its pool.",
    });
  });

  it("needs root for a master's own snapshots, and neither root nor a master for a copy of them", async () => {
    const host = new FakeStorage();
    host.system.facts.uid = 1000;
    await expect(list(host)).rejects.toMatchObject({ exit: "preflight", remedy: "Run it with sudo." });
    expect(await list(host, "/srv/copy")).toBe("ok");
  });
});
