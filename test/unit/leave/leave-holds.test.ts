import { describe, expect, it } from "vitest";
import {
  filesOf,
  HOSTNAME,
  leaveOn,
  leavingMaster,
  masterElsewhere,
  PURGE_ALL,
} from "../../support/leave-boxes.ts";
import { join, LAYOUT, savedValues } from "../../support/master-boxes.ts";
import { FakeStorage } from "../../support/storage-fake.ts";

const BASE = "/opt/fula-master";

describe("what `--purge all` keeps", () => {
  it("keeps the secrets of a database that was there before, until --purge settings names them", async () => {
    const host = await leavingMaster();
    host.docker.putVolume("fula-master_pgdata");
    const before = savedValues(host);
    await leaveOn(host);
    for (const flags of [PURGE_ALL, PURGE_ALL]) {
      host.printed.length = 0;
      const { data } = await leaveOn(host, flags);
      expect(savedValues(host)).toEqual(before);
      expect(data["others"]).toContain("volume fula-master_pgdata");
      expect(host.printed.join("\n")).toMatch(/\.env is kept: .*volume fula-master_pgdata/);
    }
    host.printed.length = 0;
    await leaveOn(host, { purge: ["all", "settings"], confirm: HOSTNAME });
    expect(filesOf(host)).toEqual([]);
    expect(host.printed.join("\n")).toMatch(/can't open .*volume fula-master_pgdata/);
  });

  it("keeps the secrets of its database if somebody else's container uses it", async () => {
    const host = await leavingMaster();
    host.docker.putContainer("theirs", {
      mounts: [{ type: "volume", name: "fula-master_pgdata", source: "", destination: "/x" }],
    });
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([`${BASE}/.env`]);
  });

  it("keeps the secrets of a database elsewhere, until --purge settings names them", async () => {
    const host = await masterElsewhere();
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([`${BASE}/.env`]);
    expect(host.printed.join("\n")).toMatch(/\.env is kept: .*db\.example:5432/);
    await leaveOn(host, { purge: ["settings"], confirm: HOSTNAME });
    expect(filesOf(host)).toEqual([LAYOUT.journal]);
  });

  it("keeps a key that its journal does not say it created, until --purge keys names it", async () => {
    const host = await leavingMaster();
    const record = host.files.textOf(LAYOUT.journal).split("\n");
    const ours = record.filter((line) => !line.includes('"make-signing-key"'));
    host.files.put(LAYOUT.journal, ours.join("\n"), 0o600);
    await leaveOn(host, PURGE_ALL);
    const keys = [`${BASE}/snapshot-ed25519.pem`, `${BASE}/snapshot-ed25519.pub.pem`];
    expect(filesOf(host)).toEqual([LAYOUT.journal, ...keys]);
    await leaveOn(host, { purge: ["keys"], confirm: HOSTNAME });
    expect(filesOf(host)).toEqual([LAYOUT.journal]);
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([]);
  });

  it("removes a key that its journal says came from a backup", async () => {
    const host = await leavingMaster();
    const record = host.files.textOf(LAYOUT.journal);
    host.files.put(
      LAYOUT.journal,
      record.replaceAll('"make-signing-key"', '"x","step":"from-backup"'),
      0o600,
    );
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([]);
  });
});

describe("leave and a database elsewhere that does not answer", () => {
  it("keeps its flags there, and says what to do about them", async () => {
    const host = await masterElsewhere();
    host.databasesElsewhere.clear();
    const { exit } = await leaveOn(host);
    expect(exit).toBe("ok");
    const output = host.printed.join("\n");
    expect(output).toContain("db.example:5432");
    expect(output).toContain(`DELETE FROM masters WHERE id = '${savedValues(host)["MASTER_ID"]}'`);
  });

  it("refuses to remove the settings: only they say where the flags are", async () => {
    const host = await masterElsewhere();
    host.databasesElsewhere.clear();
    const before = host.snapshot();
    const flags = { purge: ["settings"], confirm: HOSTNAME };
    await expect(leaveOn(host, flags)).rejects.toMatchObject({ exit: "unavailable" });
    expect(host.snapshot()).toEqual(before);
  });
});

describe("leave finds its own things", () => {
  it("keeps the cron file of a node in a directory whose path ends with the path of its own", async () => {
    const host = await leavingMaster();
    const sweep = "/etc/cron.d/fula-replication-sweep";
    host.files.put(sweep, host.files.textOf(sweep).replaceAll(BASE, `/data${BASE}`));
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([sweep]);
  });

  it("knows its containers by the first of several compose files", async () => {
    const host = await leavingMaster();
    const label = "com.docker.compose.project.config_files";
    const relabel = (files: string) => {
      for (const [name, box] of host.docker.boxes)
        if (box.labels["com.docker.compose.project"] === "fula-master")
          host.docker.boxes.set(name, { ...box, labels: { ...box.labels, [label]: files } });
    };
    host.files.put("/opt/other/.env", "FULA_NODE_VERSION=0.1.0\n");
    relabel("/opt/other/docker-compose.yml,/opt/other/more.yml");
    await expect(leaveOn(host)).rejects.toMatchObject({ remedy: "Run again with --base-dir /opt/other." });
    relabel(`${BASE}/docker-compose.yml,${BASE}/more.yml`);
    await leaveOn(host);
    expect(host.snapshot().containers).toEqual({});
  });

  it("keeps the settings while only they say where a writer's data is", async () => {
    const host = new FakeStorage();
    await join(host, { set: { WRITER_DIR: "/mnt/w" } });
    host.files.put("/mnt/w/kubo/config", "x", 0o600);
    await leaveOn(host, { purge: ["settings"], confirm: HOSTNAME });
    expect(filesOf(host)).toContain(`${BASE}/.env`);
    expect(host.printed.join("\n")).toContain("/mnt/w");
    await leaveOn(host, { purge: ["settings", "data"], confirm: HOSTNAME });
    expect(filesOf(host)).not.toContain(`${BASE}/.env`);
    expect([...host.files.tree.keys()]).not.toContain("/mnt/w");
  });

  it("finds a writer by its containers if the settings are lost", async () => {
    const host = new FakeStorage();
    await join(host, { set: { WRITER_DIR: "/mnt/w" } });
    host.files.put("/mnt/w/kubo/config", "x", 0o600);
    host.files.drop(`${BASE}/.env`);
    await leaveOn(host, PURGE_ALL);
    expect([...host.files.tree.keys()]).not.toContain("/mnt/w");
  });
});
