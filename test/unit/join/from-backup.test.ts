import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { packArchive } from "../../../src/backup/archive-writer.ts";
import type { BackupManifest } from "../../../src/backup/backup-manifest.ts";
import { encrypt } from "../../../src/backup/encryption.ts";
import { splitBackupKeys } from "../../../src/join/from-backup/backup-key.ts";
import { beginRestore, refuseOtherMaster } from "../../../src/join/from-backup/begin-restore.ts";
import { requireOldMachineGone } from "../../../src/join/from-backup/old-machine.ts";
import type { JoinFlags } from "../../../src/join/join-run.ts";
import { type MasterLayout, masterLayout } from "../../../src/settings/layout.ts";
import { manifestOf as plainManifest } from "../../support/backup-manifest.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const ID = "0123456789abcdef0123456789abcdef";
const ELSEWHERE = `POSTGRES_HOST=10.0.0.9\nPOSTGRES_PASSWORD=pw\nMASTER_ID=${ID}\n`;
const HEALTH = "https://pool.example/health";
const FLAGS: JoinFlags = {
  dryRun: false,
  yes: true,
  set: [],
  adopt: [],
  replace: [],
  ignore: [],
  provisionWriter: false,
};

/** The settings that decide which master it is, with another host of the database. */
function sameBut(databaseHost: string): (key: string) => string | undefined {
  const values: Readonly<Record<string, string>> = {
    CLUSTERNAME: "my-pool",
    WRITER_DIR: "/opt/fula-writer",
    POSTGRES_HOST: databaseHost,
  };
  return (key) => values[key];
}

function manifestOf(more: Partial<BackupManifest> = {}): BackupManifest {
  return plainManifest({
    master: {
      id: ID,
      name: "berlin-1",
      hostname: "old-box",
      base_dir: "/opt/fula-master",
      writer_dir: "/opt/fula-writer",
    },
    peers: { kubo: "k", cluster: "c" },
    ...more,
  });
}

let directory: string;
/** Not /opt: what must not be written would be written to the disk of this machine. */
let layout: MasterLayout;
let archive: string;
let identityFile: string;
let recipient: string;
let host: FakeStorage;

async function writeArchive(name: string, manifest: BackupManifest): Promise<string> {
  const body = Buffer.from("POSTGRES_PASSWORD=pw\n");
  const entry = {
    name: "base/.env",
    kind: "file" as const,
    mode: 0o600,
    uid: 0,
    gid: 0,
    bytes: body.length,
    body: [body],
  };
  const entries = (async function* () {
    yield await Promise.resolve(entry);
  })();
  const { chunks } = await encrypt(packArchive(manifest, entries), {
    kind: "recipients",
    recipients: [recipient],
  });
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  const path = join(directory, name);
  writeFileSync(path, Buffer.concat(all));
  return path;
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "fula-from-backup-"));
  layout = masterLayout(join(directory, "opt"));
  const identity = await generateX25519Identity();
  recipient = await identityToRecipient(identity);
  archive = await writeArchive("one.age", manifestOf());
  identityFile = identity;
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));
beforeEach(() => {
  host = new FakeStorage();
  host.files.put("/root/key.txt", `${identityFile}\n`);
});

function begin(flags: { [Key in keyof JoinFlags]?: JoinFlags[Key] | undefined } = {}) {
  const whole = {
    ...FLAGS,
    fromBackup: archive,
    setFile: ["BACKUP_IDENTITY=/root/key.txt"],
    oldMachineIsOff: "old-box",
    ...flags,
  };
  return beginRestore(worldOf(host), { flags: whole as JoinFlags, layout, since: "now" });
}

describe("the old machine", () => {
  const gone = (
    env: string,
    {
      name,
      questions = null,
      isIgnored = false,
    }: { name?: string; questions?: string | null; isIgnored?: boolean } = {},
  ) =>
    requireOldMachineGone(
      {
        host,
        questions:
          questions === null
            ? null
            : { confirm: () => Promise.resolve(true), text: () => Promise.resolve(questions) },
      },
      { manifest: manifestOf(), env },
      { name, isIgnored, dryRun: false },
    );
  const beat = (minutes: number): void => {
    host.databasesElsewhere.set("10.0.0.9", {
      user: "pinning_user",
      password: "pw",
      database: "pinning_service",
    });
    host.migrations.applied.add(1);
    const row = { id: ID, pool: "my-pool", name: "berlin-1", heartbeatAgeMs: minutes * 60_000 };
    host.migrations.masters.set(ID, row as never);
  };

  it("lives if it wrote to the database in the last ten minutes, whatever is typed", async () => {
    beat(9);
    await expect(gone(ELSEWHERE, { name: "old-box" })).rejects.toMatchObject({
      exit: "foreign",
      why: expect.stringMatching(
        / 9 min ago\. Also after it was turned off, .* until that is 10 min ago\./,
      ) as string,
    });
  });

  it("is gone without a word if the database says so", async () => {
    beat(11);
    await gone(ELSEWHERE);
  });

  it("is not known to be gone if that database does not answer", async () => {
    await expect(gone(ELSEWHERE)).rejects.toMatchObject({ exit: "preflight" });
  });

  it("lives if its storage API answers, unless that is somebody else", async () => {
    const env = "STORAGE_API_URL=https://pool.example\n";
    host.http.routes.set(HEALTH, { status: 503, body: { version: "0.5.0", checks: {} } });
    await expect(gone(env, { name: "old-box" })).rejects.toMatchObject({ exit: "foreign" });
    await gone(env, { name: "old-box", isIgnored: true });
    await expect(gone(env, { isIgnored: true })).rejects.toMatchObject({ exit: "preflight" });
    host.http.routes.set(HEALTH, { status: 200, body: { hello: "I am a proxy" } });
    await gone(env, { name: "old-box" });
  });

  it.each(["old-box", "m.example.org", "10.0.0.5"])(
    "lives if something answers as its peer at %s",
    async (name) => {
      const env = "PUBLIC_HOST=m.example.org\nPOSTGRES_BIND=10.0.0.5\n";
      host.system.listensElsewhere.add(`${name}:9096`);
      await expect(gone(env, { name: "old-box" })).rejects.toMatchObject({
        exit: "foreign",
        why: expect.stringContaining(`${name}:9096`) as string,
      });
      await gone(env, { name: "old-box", isIgnored: true });
    },
  );

  it("else its name is asked for, and must be right", async () => {
    await expect(gone("")).rejects.toMatchObject({
      exit: "preflight",
      remedy: expect.stringContaining("--old-machine-is-off old-box") as string,
    });
    await expect(gone("", { name: "box" })).rejects.toMatchObject({ exit: "preflight" });
    await expect(gone("", { questions: "" })).rejects.toMatchObject({ exit: "preflight" });
    await gone("", { questions: "old-box" });
    await gone("", { name: "old-box" });
  });
});

describe("a restore", () => {
  it("from a path that is empty is refused by name", async () => {
    await expect(begin({ fromBackup: "" })).rejects.toMatchObject({
      exit: "usage",
      what: "The path of the backup is empty.",
    });
  });

  it("is not begun without the flag, and needs root with it", async () => {
    expect(await beginRestore(worldOf(host), { flags: FLAGS, layout, since: "now" })).toBeNull();
    host.system.uid = () => 1000;
    await expect(begin()).rejects.toMatchObject({ exit: "preflight" });
  });

  it("shows what it would do, and writes nothing", async () => {
    const restoring = await begin({ dryRun: true, oldMachineIsOff: undefined });
    expect(restoring?.outcome?.plan.flatMap(({ changes }) => changes.map(({ kind }) => kind))).toEqual([
      "unpack",
      "place",
    ]);
    expect(host.writes).toEqual([]);
  });

  it.each([
    ["of a newer version", { tool: { name: "fula-node", version: "0.2.0" } }, {}, "newer"],
    ["of another pool than the one that is named", {}, { set: ["CLUSTERNAME=other"] }, "foreign"],
    ["beside an invite", {}, { invite: "x" }, "usage"],
    ["without a key", {}, { setFile: [] }, "usage"],
    ["that is not there", {}, { fromBackup: "/nowhere/x.age" }, "usage"],
  ] as const)("refuses a backup %s, and writes nothing", async (_what, manifest, flags, exit) => {
    const path = await writeArchive("other.age", manifestOf(manifest));
    await expect(begin({ fromBackup: path, ...(flags as Partial<JoinFlags>) })).rejects.toMatchObject({
      exit,
    });
    expect(host.writes).toEqual([]);
  });

  it("of a backup that is cut off shows no plan", async () => {
    const whole = readFileSync(archive);
    const cut = join(directory, "cut.age");
    writeFileSync(cut, whole.subarray(0, whole.length - 40));
    await expect(begin({ fromBackup: cut, dryRun: true })).rejects.toMatchObject({ exit: "integrity" });
  });

  it("needs space for the join after it, before anything is unpacked", async () => {
    host.files.freeBytes = 2 * 1024 ** 3 - 1;
    await expect(begin()).rejects.toMatchObject({
      exit: "preflight",
      what: expect.stringContaining("a restore needs 2.1 GB") as string,
    });
    expect(host.writes).toEqual([]);
  });

  it("says of a directory that it is one", async () => {
    await expect(begin({ fromBackup: directory })).rejects.toMatchObject({
      exit: "usage",
      what: `${directory} is not a regular file.`,
    });
  });

  it.each([
    ["a flag", { set: ["WRITER_DIR=/data/writer"] }, {}],
    ["the environment", {}, { WRITER_DIR: "/data/writer" }],
  ])(
    "with another directory of the writer in %s is refused before anything is unpacked",
    async (_in, flags, env) => {
      const whole = { ...FLAGS, fromBackup: archive, setFile: ["BACKUP_IDENTITY=/root/key.txt"], ...flags };
      const world = { ...worldOf(host), environment: env };
      await expect(beginRestore(world, { flags: whole, layout, since: "now" })).rejects.toMatchObject({
        exit: "settings",
        what: "WRITER_DIR is /data/writer, and in the backup it is /opt/fula-writer.",
      });
      expect(host.writes).toEqual([]);
      expect(await begin({ dryRun: true, set: ["WRITER_DIR=/opt/fula-writer"] })).not.toBeNull();
    },
  );

  it("takes the pool by its name", async () => {
    expect(await begin({ dryRun: true, set: ["CLUSTERNAME=my-pool"] })).not.toBeNull();
  });

  it.each([
    ["settings", () => host.files.put(layout.envFile, "CLUSTERNAME=here\n"), "of the pool here"],
    ["a key", () => host.files.put(layout.signingKey, "x"), "snapshot-ed25519.pem"],
    ["a writer", () => host.files.put("/opt/fula-writer/kubo/config", "{}"), "files in /opt/fula-writer"],
    ["a container", () => host.docker.putContainer("ipfs_host"), "the container ipfs_host"],
  ])("refuses a machine that has %s, and writes nothing", async (_what, put, text) => {
    put();
    const before = host.writes.length;
    const error = await begin().then(
      () => null,
      (thrown: unknown) => thrown as { exit: string; what: string; why: string },
    );
    expect(error).toMatchObject({ exit: "foreign" });
    expect(`${error?.what} ${error?.why}`).toContain(text);
    expect(host.writes.length).toBe(before);
  });

  it("that was ended while it unpacked is not taken for a first join", async () => {
    host.files.put(`${layout.baseDir}/.from-backup.backup-partial/base/.env`, "A=1\n");
    await expect(begin({ fromBackup: undefined })).rejects.toMatchObject({
      exit: "interrupted",
      remedy: expect.stringContaining("--from-backup FILE") as string,
    });
    expect(await begin({ dryRun: true })).not.toBeNull();
  });

  it("that goes on looks again whether the old machine is back, until something of ours may be what answers", async () => {
    const stage = `${layout.baseDir}/from-backup`;
    host.files.put(`${stage}/manifest.json`, JSON.stringify(manifestOf()));
    host.files.put(`${stage}/placed.txt`, "");
    host.files.put(`${stage}/base/.env`, "POSTGRES_BIND=10.0.0.5\n");
    host.system.listensElsewhere.add("10.0.0.5:9096");
    await expect(begin({ fromBackup: undefined })).rejects.toMatchObject({
      exit: "foreign",
      what: "The master of this backup, old-box, still lives.",
    });
    expect(await begin({ fromBackup: undefined, ignore: ["old-master"] })).not.toBeNull();
    for (const name of ["ipfs_cluster", "fula-pinning-webui"]) {
      const other = host.copy();
      other.docker.putContainer(name);
      expect(await beginRestore(worldOf(other), { flags: FLAGS, layout, since: "now" })).not.toBeNull();
    }
    host.system.listensElsewhere.clear();
    expect(await begin({ fromBackup: undefined })).not.toBeNull();
  });

  it("says of a machine that is the master of this backup already how to repair it", async () => {
    host.files.put(layout.envFile, `CLUSTERNAME=my-pool\nMASTER_ID=${ID}\n`);
    await expect(begin()).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("is the master of this backup already") as string,
      remedy: `To repair it: fula-node join-as-master --base-dir ${layout.baseDir}`,
    });
  });

  it.each([
    ["CLUSTERNAME", "other"],
    ["WRITER_DIR", "/data/writer"],
  ])("with another %s than the backup has would make another master: it is refused", (key, value) => {
    const same: Readonly<Record<string, string>> = { CLUSTERNAME: "my-pool", WRITER_DIR: "/opt/fula-writer" };
    const given = { manifest: manifestOf() };
    refuseOtherMaster(given, (one) => same[one]);
    expect(() => refuseOtherMaster(given, (one) => ({ ...same, [key]: value })[one])).toThrow(
      expect.objectContaining({
        exit: "settings",
        what: expect.stringContaining(`${key} is ${value}`) as string,
      }),
    );
    // A backup without a writer says nothing of its directory.
    const master = { ...given.manifest.master, writer_dir: null };
    refuseOtherMaster(
      { manifest: { ...given.manifest, master } },
      (one) => ({ ...same, WRITER_DIR: "/x" })[one],
    );
  });

  it("does not put the database into another machine's Postgres, where its rows would be missing", async () => {
    await expect(begin({ set: ["POSTGRES_HOST=db.internal"] })).rejects.toMatchObject({
      exit: "settings",
      what: "POSTGRES_HOST is db.internal, and the database of this backup was on its own machine.",
    });
    expect(host.writes).toEqual([]);
    const given = { manifest: manifestOf() };
    refuseOtherMaster(
      { manifest: { ...given.manifest, database: { ...given.manifest.database, is_elsewhere: true } } },
      sameBut("db.internal"),
    );
    refuseOtherMaster(given, sameBut("localhost"));
    expect(() => refuseOtherMaster(given, sameBut("db.internal"))).toThrow(
      expect.objectContaining({ exit: "settings" }),
    );
  });

  it.each(["/opt/fula-writer/lost+found/.keep", "/opt/fula-writer/kubo/lost+found/.keep"])(
    "takes a machine with a disk that is mounted for its writer: %s",
    async (path) => {
      host.files.put(path, "");
      expect(await begin({ dryRun: true })).not.toBeNull();
    },
  );

  it("goes on only with the backup that it began with", async () => {
    host.files.put(`${layout.baseDir}/from-backup/manifest.json`, JSON.stringify(manifestOf()));
    host.files.put(`${layout.baseDir}/from-backup/archive.txt`, "another.age\n");
    host.files.put(`${layout.baseDir}/from-backup/placed.txt`, "");
    await expect(begin()).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("another.age") as string,
    });
    const restoring = await begin({ fromBackup: undefined });
    expect(restoring).toMatchObject({
      outcome: null,
      flags: { provisionWriter: true, adopt: ["writer"], setFile: [] },
    });
  });
});

it("what opens a backup is no setting", () => {
  expect(splitBackupKeys(["BACKUP_PASSPHRASE=/a", "BACKUP_IDENTITY=/b", "JWT_SECRET=/c"])).toEqual({
    ofBackup: ["BACKUP_PASSPHRASE=/a", "BACKUP_IDENTITY=/b"],
    others: ["JWT_SECRET=/c"],
  });
});
