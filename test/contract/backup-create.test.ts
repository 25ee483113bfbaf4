import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { Client } from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { readArchiveFile } from "../../src/backup/archive-file.ts";
import { readArchive } from "../../src/backup/archive-reader.ts";
import { BACKUP_MARK, createBackup, type MadeBackup } from "../../src/backup/create-backup.ts";
import { decrypt, type Opener } from "../../src/backup/encryption.ts";
import { requireUnchanged, unpackArchive } from "../../src/backup/unpack.ts";
import { openNodeFiles } from "../../src/backup/node-files.ts";
import { isUnpacking, unpackStage } from "../../src/backup/restore-stage.ts";
import { files as diskFiles } from "../../src/machine/file-writer.ts";
import { createThrowaway, type Throwaway } from "../../src/dumps/throwaway.ts";
import { OperatorError } from "../../src/errors.ts";
import type { SnapshotFile } from "../../src/pinset/snapshot/store.ts";
import { DUMP_FILE, masterLayout } from "../../src/settings/layout.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { migratorOf, SHIPPED } from "../support/migrations.ts";
import { sql } from "../support/postgres-server.ts";
import { docker, isEngineThere } from "../support/tiny-image.ts";

const isThere = isEngineThere();
if (!isThere && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

const engine = createThrowaway(process.env);
const CHILD = fileURLToPath(new URL("../support/backup-child.ts", import.meta.url));
const DUMPING = "SELECT count(*)::text AS n FROM pg_stat_activity WHERE application_name = 'fula-node dump'";
const AT = new Date("2026-11-27T14:00:00Z");

let base: string;
let node: string;
let writer: string;
let target: string;

function write(path: string, text: string, mode = 0o600): void {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, mode);
}

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "fula-backup-"));
  [node, writer, target] = [join(base, "master"), join(base, "writer"), join(base, "to")];
  write(join(node, ".env"), "ENCRYPTION_KEY=canary-encryption-key\n");
  write(join(node, "snapshot-ed25519.pem"), "a key");
  write(join(node, "state/snapshot-chain.json"), "{}");
  write(join(node, "postgres-tls/server/server.key"), "tls", 0o640);
  write(join(node, "adopted/webui.json"), "{}");
  write(join(node, "snapshots/pinset-1.ndjson.gz"), "pins");
  write(join(node, "snapshots/pinset-1.manifest.json"), "manifest");
  write(join(node, "snapshots/pinset-1.manifest.sig"), "signature");
  write(join(node, "journal.ndjson"), "a log");
  write(join(node, "notes.txt"), "somebody's own");
  write(join(writer, "kubo/config"), '{"Identity":{"PeerID":"12D3KooWKubo","PrivKey":"k"}}');
  write(join(writer, "kubo/version"), "17\n");
  write(join(writer, "kubo/blocks/X/block.data"), "a block");
  write(join(writer, "ipfs-cluster/identity.json"), '{"id":"12D3KooWCluster","private_key":"k"}');
  write(join(writer, "ipfs-cluster/service.json"), "{}");
  write(join(writer, "ipfs-cluster/badger3/000001.vlog"), "pinset");
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

const SNAPSHOT = {
  name: "pinset-1",
  bodyFile: "pinset-1.ndjson.gz",
  manifestFile: "pinset-1.manifest.json",
  signatureFile: "pinset-1.manifest.sig",
} as SnapshotFile;

const memory = (): Promise<string> => Promise.resolve("the same");
const open = (
  choose: () => Promise<readonly SnapshotFile[]> = () => Promise.resolve([SNAPSHOT]),
  read = memory,
) => openNodeFiles({ layout: masterLayout(node), writerDir: writer }, choose, read);

describe("what of a master goes into a backup", () => {
  it("is what nobody can make again, and neither blocks nor logs nor what is not ours", async () => {
    const { files } = await open();
    expect(files.map(({ name }) => name)).toEqual([
      "base/.env",
      "base/snapshot-ed25519.pem",
      "base/adopted",
      "base/adopted/webui.json",
      "base/postgres-tls",
      "base/postgres-tls/server",
      "base/postgres-tls/server/server.key",
      "base/state",
      "base/state/snapshot-chain.json",
      "writer/kubo/config",
      "writer/kubo/version",
      "writer/ipfs-cluster/identity.json",
      "writer/ipfs-cluster/service.json",
      "base/snapshots/pinset-1.ndjson.gz",
      "base/snapshots/pinset-1.manifest.json",
      "base/snapshots/pinset-1.manifest.sig",
    ]);
    expect(files.find(({ name }) => name.endsWith("server.key"))).toMatchObject({ mode: 0o640, bytes: 3 });
    for (const { handle } of files) await handle?.close();
  });

  it("is of one moment: it looks again while snapshots are taken and removed", async () => {
    const seen = ["1", "2", "2", "2"];
    let chosen = 0;
    const choose = (): Promise<readonly SnapshotFile[]> => {
      chosen += 1;
      const gone = { ...SNAPSHOT, bodyFile: "pinset-0.ndjson.gz" };
      return Promise.resolve(chosen === 2 ? [gone] : [SNAPSHOT]);
    };
    const { files } = await open(choose, () => Promise.resolve(seen.shift() ?? "2"));
    expect(chosen).toBe(3);
    for (const { handle } of files) await handle?.close();
    let number = 0;
    const always = open(undefined, () => Promise.resolve(String((number += 1))));
    await expect(always).rejects.toMatchObject({ exit: "unavailable" });
  });

  it("is refused if something of it is not a file", async () => {
    rmSync(join(node, "snapshot-ed25519.pem"));
    symlinkSync("/dev/null", join(node, "snapshot-ed25519.pem"));
    await expect(open()).rejects.toMatchObject({ exit: "foreign" });
  });

  it("is refused at once where a container has put a link or a pipe among the writer's files", async () => {
    mkdirSync(join(writer, "kubo/keystore"));
    symlinkSync("/etc/hostname", join(writer, "kubo/keystore/evil"));
    await expect(open()).rejects.toMatchObject({
      exit: "foreign",
      what: `${join(writer, "kubo/keystore/evil")} is not a file, so it can't be backed up.`,
    });
    rmSync(join(writer, "kubo/keystore/evil"));
    execFileSync("mkfifo", [join(writer, "kubo/swarm.key")]);
    await expect(open()).rejects.toMatchObject({ exit: "foreign" });
  });
});

describe.runIf(isThere)("a backup of a real database", () => {
  let source: DumpSource;
  let opener: Opener;
  let recipients: readonly string[];

  beforeAll(async () => {
    source = await startDumpSource("backup");
    await migratorOf({ directory: SHIPPED }).up(source.target, { report: () => {} });
    await sql(
      source.target,
      "CREATE TABLE much AS SELECT i, md5(i::text) || md5((i+1)::text) AS t FROM generate_series(1, 300000) i",
    );
    const identity = await generateX25519Identity();
    opener = { kind: "identities", identities: [identity] };
    recipients = [await identityToRecipient(identity)];
  });
  afterAll(() => source?.stop());

  const create = async (
    more: {
      directory?: string;
      freeBytes?: number;
      lastBytes?: number;
      onReport?: (line: string) => void;
      stop?: AbortSignal;
      longestSilenceMs?: number;
      engine?: Throwaway;
      rename?: (name: string) => string;
      onOpen?: () => Promise<unknown>;
    } = {},
  ): Promise<MadeBackup> => {
    const openFiles = async () => {
      await more.onOpen?.();
      const { files: found, snapshots } = await open();
      const files = found.map((one) => ({ ...one, name: more.rename?.(one.name) ?? one.name }));
      return { files, snapshots: snapshots.map(({ name }) => name) };
    };
    return createBackup(more.engine ?? engine, {
      directory: more.directory ?? target,
      locked: { kind: "recipients", recipients },
      pool: "my-pool",
      master: { id: "m", name: "berlin-1", hostname: "berlin-1", base_dir: node, writer_dir: writer },
      toolVersion: "0.5.0",
      at: AT,
      openFiles,
      target: source.target,
      isDatabaseElsewhere: false,
      serverVersion: "17.0",
      image: docker("image", "inspect", "--format", "{{.Id}}", source.image),
      container: `fula-backup-dump-${process.pid}`,
      freeBytes: more.freeBytes ?? 1e12,
      lastBytes: more.lastBytes ?? 0,
      stop: more.stop ?? new AbortController().signal,
      longestSilenceMs: more.longestSilenceMs ?? 600_000,
      report: (line) => more.onReport?.(line),
    });
  };
  afterEach(async () => void (await engine.removeMarked(BACKUP_MARK)));

  it("verifies, opens with the secret key, and its dump restores to the same rows", async () => {
    const made = await create();
    expect(readdirSync(target)).toEqual([made.name]);
    expect(statSync(made.path).mode & 0o777).toBe(0o600);
    expect(statSync(target).mode & 0o777).toBe(0o700);
    expect(statSync(made.path).size).toBe(made.bytes);
    expect(execFileSync("sha256sum", [made.path], { encoding: "utf8" }).slice(0, 64)).toBe(made.sha256);
    expect(readFileSync(made.path).includes("canary-encryption-key")).toBe(false);
    const parts: Buffer[] = [];
    const { manifest } = await readArchive(decrypt(readArchiveFile(made.path), opener, made.name), {
      manifest: () => {},
      entry: ({ name }) =>
        Promise.resolve({
          write: (chunk) => void (name.startsWith("database/") ? parts.push(chunk) : 0),
          end: () => Promise.resolve(),
        }),
    });
    expect(manifest).toMatchObject({
      peers: { kubo: "12D3KooWKubo", cluster: "12D3KooWCluster" },
      database: { major: 17, name: "pinning_service" },
      snapshots: ["pinset-1"],
    });
    expect(manifest.database.migration).toBeGreaterThan(30);
    expect(made.dumpBytes).toBe(Buffer.concat(parts).length);
    docker("exec", source.container, "createdb", "-U", "pinning_user", "again");
    execFileSync(
      "docker",
      ["exec", "-i", source.container, "pg_restore", "-U", "pinning_user", "-d", "again", "--exit-on-error"],
      {
        input: Buffer.concat(parts),
      },
    );
    const sum = "SELECT count(*)::text || md5(string_agg(t, '' ORDER BY i)) AS sum FROM much";
    const again = { ...source.target, database: "again" };
    expect(await sql(again, sum)).toEqual(await sql(source.target, sum));
    docker("exec", source.container, "dropdb", "-U", "pinning_user", "again");
  });

  it("unpacks as it was, with its modes, into a new directory; a damaged one writes nothing", async () => {
    const made = await create();
    const space = () => Promise.resolve({ freeBytes: 1e12 });
    const to = join(base, "unpacked");
    mkdirSync(join(base, ".unpacked.backup-partial"));
    const leastBytes = await requireUnchanged(made.path, opener);
    expect(leastBytes).toBeGreaterThan(made.plainBytes);
    const { entries } = await unpackArchive(made.path, opener, to, { space, leastBytes });
    expect(entries).toBeGreaterThan(10);
    expect(readdirSync(to).toSorted()).toEqual(["base", DUMP_FILE, "manifest.json", "writer"]);
    expect(statSync(to).mode & 0o777).toBe(0o700);
    expect(readFileSync(join(to, "base/.env"), "utf8")).toBe(readFileSync(join(node, ".env"), "utf8"));
    expect(statSync(join(to, "base/postgres-tls/server/server.key")).mode & 0o777).toBe(0o640);
    expect(statSync(join(to, DUMP_FILE)).size).toBe(made.dumpBytes);
    await expect(unpackArchive(made.path, opener, to, { space, leastBytes })).rejects.toMatchObject({
      exit: "foreign",
    });
    // Seen before anything is written.
    const full = unpackArchive(made.path, opener, join(base, "x"), {
      space: () => Promise.resolve({ freeBytes: 2 * 1024 ** 3 }),
      leastBytes: 2 * 1024 ** 3,
    });
    await expect(full).rejects.toMatchObject({
      exit: "preflight",
      why: expect.stringContaining("2.1 GB") as string,
    });
    // The disk fills while it is unpacked.
    let free = 1.05e9;
    const filling = unpackArchive(made.path, opener, join(base, "x"), {
      space: () => Promise.resolve({ freeBytes: (free -= 1e8) }),
      leastBytes,
    });
    await expect(filling).rejects.toMatchObject({
      exit: "preflight",
      why: expect.stringContaining("did not fit any more") as string,
    });
    expect(free).toBeGreaterThan(0);
    const bytes = readFileSync(made.path);
    bytes[bytes.length - 20] = (bytes[bytes.length - 20] ?? 0) ^ 1;
    writeFileSync(made.path, bytes);
    for (const refused of [
      requireUnchanged(made.path, opener),
      unpackArchive(made.path, opener, join(base, "x"), { space, leastBytes }),
    ])
      await expect(refused).rejects.toMatchObject({ exit: "integrity" });
    expect(readdirSync(base).filter((name) => name.includes("x"))).toEqual([]);
    expect(readdirSync(base)).not.toContain(".unpacked.backup-partial");
  });

  it("leaves nothing behind when the disk gets full while it is unpacked", async () => {
    const made = await create();
    const small = join(base, "small");
    mkdirSync(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=512k", "tmpfs", small]);
    try {
      const plenty = { freeBytes: 1e12, totalBytes: 1e12, freeInodes: 1e6, totalInodes: 1e6 };
      const space = () => Promise.resolve(plenty);
      const full = unpackArchive(made.path, opener, join(small, "unpacked"), { space, leastBytes: 0 });
      await expect(full).rejects.toMatchObject({
        exit: "unavailable",
        why: "no space is left on the device",
      });
      expect(readdirSync(small)).toEqual([]);
      // Of a restore, the mark stays: without it, a plain join would make a new master.
      const opt = join(small, "opt");
      const restored = unpackStage(made.path, opener, opt, { files: { ...diskFiles, space } }, 0);
      await expect(restored).rejects.toMatchObject({
        exit: "unavailable",
        remedy: expect.stringContaining(`Run again with --from-backup ${made.path}`) as string,
      });
      expect(readdirSync(opt, { recursive: true })).toEqual([".from-backup.backup-partial"]);
      expect(await isUnpacking(diskFiles, opt)).toBe(true);
    } finally {
      execFileSync("umount", [small]);
    }
  });

  it("ends, and leaves nothing, when what it has written does not read back", async () => {
    // A name that leads out of an archive: what reads it along refuses it, in the middle.
    const broken = create({ rename: (name) => name.replace("writer/kubo/config", "writer/../config") });
    await expect(broken).rejects.toMatchObject({ exit: "integrity" });
    expect(readdirSync(target)).toEqual([]);
  });

  it("leaves nothing under a final name if pg_dump is killed in the middle", async () => {
    const dying = create({
      onReport: () => {
        void (async () => {
          for (;;) {
            const there = docker("ps", "--quiet", "--filter", `label=${BACKUP_MARK}`);
            // Not with `docker`, which waits: the engine kills nothing whose output nobody reads meanwhile.
            if (there !== "") return void spawn("docker", ["kill", there], { stdio: "ignore" });
            await wait(5);
          }
        })();
      },
    });
    await expect(dying).rejects.toMatchObject({ exit: "unavailable" });
    expect(readdirSync(target)).toEqual([]);
  });

  const running = (): string => docker("ps", "--quiet", "--filter", `label=${BACKUP_MARK}`);
  const untilNone = () => expect.poll(running, { timeout: 15_000, interval: 100 }).toBe("");

  it("is given up if the database hangs, and leaves nothing, neither a file nor a pg_dump", async () => {
    const said: string[] = [];
    const hanging = create({
      longestSilenceMs: 2_000,
      onReport: (line) => {
        said.push(line);
        if (said.length === 1) docker("pause", source.container);
      },
    });
    try {
      await expect(hanging).rejects.toMatchObject({
        exit: "unavailable",
        what: "The database has sent nothing for 2.0 s, so the backup was given up.",
      });
      expect(said[1]).toBe("the database sends nothing; the backup is given up once that is 2.0 s");
      await untilNone();
    } finally {
      docker("unpause", source.container);
    }
    expect(readdirSync(target)).toEqual([]);
  });

  it("takes back what it made when it is stopped, even while the database hangs", async () => {
    const controller = new AbortController();
    const stopped = create({
      stop: controller.signal,
      onReport: () => {
        docker("pause", source.container);
        const there = expect.poll(running, { timeout: 15_000, interval: 5 }).not.toBe("");
        void there.then(() => controller.abort());
      },
    });
    try {
      await expect(stopped).rejects.toMatchObject({ exit: "interrupted" });
      await untilNone();
    } finally {
      docker("unpause", source.container);
    }
    expect(readdirSync(target)).toEqual([]);
    await expect(create({ stop: AbortSignal.abort() })).rejects.toMatchObject({ exit: "interrupted" });
  });

  it("holds up nobody, and leaves no pg_dump with its locks when whoever asked is killed", async () => {
    const given = {
      mode: "backup",
      target: source.target,
      image: source.image,
      directory: target,
      recipient: recipients[0],
      identity: "",
    };
    const child = spawn("npx", ["tsx", CHILD], {
      detached: true,
      env: { ...process.env, BACKUP: JSON.stringify(given) },
      stdio: "ignore",
    });
    await expect.poll(running, { timeout: 30_000, interval: 5 }).not.toBe("");
    const dumping = () => sql(source.target, DUMPING);
    await expect.poll(dumping, { timeout: 15_000, interval: 5 }).toEqual([{ n: "1" }]);
    process.kill(-(child.pid ?? 0), "SIGSTOP");
    expect(await dumping()).toEqual([{ n: "1" }]);
    // Nobody who works with the database waits for it.
    await sql(source.target, "UPDATE much SET t = t || 'x' WHERE i <= 10");
    await sql(source.target, "INSERT INTO much VALUES (0, 'written meanwhile')");
    await sql(source.target, "CREATE TABLE made_meanwhile (i int)");
    await sql(source.target, "DROP TABLE made_meanwhile");
    expect(await dumping()).toEqual([{ n: "1" }]);
    // It can't come to its own end.
    docker("pause", source.container);
    try {
      process.kill(-(child.pid ?? 0), "SIGKILL");
      await untilNone();
    } finally {
      docker("unpause", source.container);
    }
    await expect.poll(dumping, { timeout: 15_000, interval: 100 }).toEqual([{ n: "0" }]);
  });

  it("is refused where a file has the name of its directory", async () => {
    rmSync(target, { recursive: true, force: true });
    write(target, "mine");
    await expect(create()).rejects.toMatchObject({
      exit: "preflight",
      what: `${target} is not a directory.`,
    });
    expect(readFileSync(target, "utf8")).toBe("mine");
  });

  it("is refused if pg_dump ends well and gives nothing", async () => {
    const ended = Promise.resolve({ exitCode: 0, lastLines: [], stopped: null });
    const attach = () => ({ stdin: new PassThrough(), stdout: Readable.from([]), ended });
    await expect(create({ engine: { ...engine, attach } })).rejects.toMatchObject({
      what: "pg_dump ended well, but gave no dump.",
    });
    expect(readdirSync(target)).toEqual([]);
  });

  it("says of a table that is locked that it is", async () => {
    const session = new Client({ ...source.target, ssl: false });
    await session.connect();
    try {
      await session.query("BEGIN; LOCK TABLE much IN ACCESS EXCLUSIVE MODE");
      await expect(create()).rejects.toMatchObject({
        exit: "unavailable",
        what: "pg_dump did not complete the dump: another session holds a lock on a table.",
      });
    } finally {
      await session.end();
    }
  });

  it("is refused before it begins without space, and leaves nothing when the disk gets full", async () => {
    await expect(create({ freeBytes: 1000 })).rejects.toMatchObject({ exit: "preflight" });
    await expect(create({ freeBytes: 1e9, lastBytes: 1e9 })).rejects.toMatchObject({
      exit: "preflight",
      why: expect.stringContaining("the last backup 1.0 GB") as string,
    });
    const small = join(base, "small");
    mkdirSync(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=512k", "tmpfs", small]);
    try {
      const full = await create({ directory: small }).catch((thrown: unknown) => thrown);
      expect(full).toMatchObject({ exit: "unavailable", why: "no space is left on the device" });
      expect(readdirSync(small)).toEqual([]);
    } finally {
      execFileSync("umount", [small]);
    }
  });

  it("is not unpacked to where a disk is mounted, and says so before it unpacks", async () => {
    const { path } = await create();
    const disk = join(base, "disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=512k", "tmpfs", disk]);
    const space = () => Promise.reject(new Error("it has begun"));
    try {
      await expect(unpackArchive(path, opener, disk, { space, leastBytes: 0 })).rejects.toMatchObject({
        exit: "usage",
        remedy: `Give a new directory on it: ${disk}/backup`,
      });
    } finally {
      execFileSync("umount", [disk]);
    }
  });

  it("removes what a killed run left, and not what another master is writing", async () => {
    write(join(target, ".backup-m.partial"), "half");
    write(join(target, ".backup-paris-2.partial"), "another one's");
    const made = await create();
    expect(readdirSync(target).toSorted()).toEqual([".backup-paris-2.partial", made.name]);
  });

  it("has of the database what was there before the snapshot of the pinset is taken, and nothing of afterwards", async () => {
    await sql(source.target, "CREATE TABLE moments (moment text)");
    await sql(source.target, "INSERT INTO moments VALUES ('before the snapshot')");
    const made = await create({
      onOpen: () => sql(source.target, "INSERT INTO moments VALUES ('after it')"),
    });
    await requireUnchanged(made.path, opener);
    const space = () => Promise.resolve({ freeBytes: 1e12 });
    await unpackArchive(made.path, opener, join(base, "moments"), { space, leastBytes: 0 });
    // It reads only what it needs of a file.
    const restore = "cat >/tmp/dump && pg_restore --data-only --table=moments --file=- /tmp/dump";
    const shell = ["run", "--rm", "--interactive", source.image, "sh", "-c", restore];
    const rows = execFileSync("docker", shell, {
      input: readFileSync(join(base, "moments", DUMP_FILE)),
      encoding: "utf8",
    });
    expect(rows).toContain("before the snapshot");
    expect(rows).not.toContain("after it");
  });

  it("fails with the reason if a table can't be read", async () => {
    const roles =
      "CREATE ROLE limited LOGIN PASSWORD 'limited-canary'; GRANT USAGE ON SCHEMA fula_node TO limited; GRANT SELECT ON ALL TABLES IN SCHEMA fula_node TO limited";
    docker("exec", source.container, "psql", "-U", "pinning_user", "-d", "pinning_service", "-qc", roles);
    const openFiles = async () => ({ files: (await open()).files, snapshots: [] });
    const failing = createBackup(engine, {
      directory: target,
      locked: { kind: "recipients", recipients },
      pool: "p",
      master: { id: null, name: "berlin-1", hostname: "h", base_dir: node, writer_dir: writer },
      toolVersion: "0",
      at: AT,
      openFiles,
      target: { ...source.target, user: "limited", password: "limited-canary" },
      isDatabaseElsewhere: false,
      serverVersion: "17.0",
      image: docker("image", "inspect", "--format", "{{.Id}}", source.image),
      container: `fula-backup-dump-${process.pid}-limited`,
      freeBytes: 1e12,
      lastBytes: 0,
      stop: new AbortController().signal,
      longestSilenceMs: 600_000,
      report: () => {},
    });
    const thrown = await failing.catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(OperatorError);
    expect((thrown as OperatorError).message + (thrown as OperatorError).why).toMatch(/permission denied/);
    expect(readdirSync(target)).toEqual([]);
  });
});
