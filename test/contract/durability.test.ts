import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { beginArchive } from "../../src/backup/archive-file.ts";
import { placeStage, type Stage } from "../../src/backup/restore-stage.ts";
import { files } from "../../src/machine/file-writer.ts";
import { openAlertLog } from "../../src/pinset/alerts.ts";
import { openSnapshotStore } from "../../src/pinset/snapshot/store.ts";
import { cidOf } from "../support/cids.ts";

/** One fsync: what was synced, and the names that its directory had then. */
interface Sync {
  readonly path: string;
  readonly names: readonly string[];
  /** The bytes of a file; null for a directory. */
  readonly text: string | null;
}

const syncs: Sync[] = [];
let root: string;
let prototype: { sync: (this: FileHandle) => Promise<void> };
let real: (this: FileHandle) => Promise<void>;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "fula-durable-"));
  const handle = await open(root, "r");
  prototype = Object.getPrototypeOf(handle) as typeof prototype;
  await handle.close();
  real = prototype.sync;
  prototype.sync = async function (this: FileHandle) {
    const path = readlinkSync(`/proc/self/fd/${this.fd}`);
    const isDirectory = (await this.stat()).isDirectory();
    syncs.push({
      path,
      names: readdirSync(isDirectory ? path : join(path, "..")).sort(),
      text: isDirectory ? null : readFileSync(path, "utf8"),
    });
    return real.call(this);
  };
});
afterEach(() => {
  prototype.sync = real;
  syncs.splice(0);
  rmSync(root, { recursive: true, force: true });
});

const namesSynced = (): readonly string[] => syncs.map(({ path }) => basename(path));

test("a file is synced with all its bytes before it gets its name, and the directory after it", async () => {
  await files.writeAtomic(`${root}/settings`, "all of it", { mode: 0o600 });
  expect(syncs).toHaveLength(2);
  expect(syncs[0]).toMatchObject({ text: "all of it" });
  expect(syncs[0]?.names).not.toContain("settings");
  expect(syncs[1]).toEqual({ path: root, names: ["settings"], text: null });
});

test("a directory that was created is synced into its parent, each one that was missing", async () => {
  await files.writeAtomic(`${root}/a/b/file`, "x", { mode: 0o600 });
  const parents = syncs.filter(({ text }) => text === null).map(({ path }) => path);
  expect(parents).toEqual([`${root}/a`, root, `${root}/a/b`]);
  syncs.splice(0);
  await files.makeDirectory(`${root}/c`, { mode: 0o700 });
  expect(syncs).toMatchObject([{ path: `${root}/c` }, { path: root, names: ["a", "c"] }]);
});

test("a mode and an owner are synced, of a file and of a directory, and a link is not followed", async () => {
  await files.writeAtomic(`${root}/settings`, "x", { mode: 0o644 });
  await files.link("settings", `${root}/link`);
  syncs.splice(0);
  await files.chmod(`${root}/settings`, 0o600);
  await files.chown(`${root}/settings`, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
  await files.chmod(root, 0o700);
  await files.chown(`${root}/link`, process.getuid?.() ?? 0, process.getgid?.() ?? 0);
  expect(syncs.map(({ path }) => path)).toEqual([`${root}/settings`, `${root}/settings`, root]);
});

test("a tree that is replaced is removed only after the new one has its name on the disk", async () => {
  await files.writeAtomic(`${root}/new/file`, "new", { mode: 0o600 });
  await files.writeAtomic(`${root}/tree/file`, "old", { mode: 0o600 });
  syncs.splice(0);
  await files.copyTree(`${root}/new`, `${root}/tree`);
  const [renamed, removed] = syncs.filter(({ path }) => path === root);
  expect(renamed?.names).toEqual([expect.stringMatching(/^\.tree\./), "new", "tree"]);
  expect(removed?.names).toEqual(["new", "tree"]);
});

test("an alert is synced, and so are the names of its log and of each directory that was missing", async () => {
  const path = `${root}/a/b/alerts.log`;
  const log = openAlertLog(path, { maxBytes: 3 });
  await log.append(["one"]);
  expect(syncs.map((sync) => sync.text ?? sync.path)).toEqual([`${root}/a`, root, "one\n", `${root}/a/b`]);
  syncs.splice(0);
  await log.append(["two"]);
  expect(syncs.map(({ text }) => text)).toEqual(["two\n", null]);
  expect(syncs.at(-1)?.names).toEqual(["alerts.log", "alerts.log.1"]);
});

test("a backup is synced with all its bytes before it gets its name, and the directory after it", async () => {
  const draft = await beginArchive(root, "one");
  await draft.write(Buffer.from("first "));
  await draft.write(Buffer.from("last"));
  expect(syncs).toEqual([]);
  await draft.seal();
  expect(syncs).toMatchObject([{ text: "first last", names: [".backup-one.partial"] }]);
  await draft.publish("backup-one.age");
  expect(syncs.slice(1)).toMatchObject([{ path: root, text: null, names: ["backup-one.age"] }]);
});

test("a backup gets no name if another run has begun one of the same master in its place", async () => {
  const draft = await beginArchive(root, "one");
  await draft.write(Buffer.from("first"));
  await draft.seal();
  const other = await beginArchive(root, "one");
  await other.write(Buffer.from("half"));
  await expect(draft.publish("backup-one.age")).rejects.toMatchObject({ exit: "unavailable" });
  expect(await files.list(root)).not.toContain("backup-one.age");
  await draft.discard();
  expect(await files.list(root)).toContain(".backup-one.partial");
  await other.discard();
  expect(await files.list(root)).not.toContain(".backup-one.partial");
});

test("the files of a backup are synced with their owner and mode before they get their names, and marked last", async () => {
  await files.writeAtomic(`${root}/stage/base/.env`, "secret", { mode: 0o600 });
  await files.writeAtomic(`${root}/stage/base/state/chain.json`, "{}", { mode: 0o644 });
  await files.chmod(`${root}/stage/base/state`, 0o750);
  const stage = {
    directory: `${root}/stage`,
    manifest: { master: { writer_dir: null }, snapshots: [] as readonly string[] },
  } as Stage;
  for (const run of [1, 2]) {
    syncs.splice(0);
    await placeStage(stage, `${root}/node`, { files });
    const texts = syncs.filter(({ text }) => text !== null);
    expect(new Set(texts.map(({ text }) => text)), `run ${run}`).toEqual(new Set(["", "secret", "{}"]));
    expect(texts.at(-1)?.path).toContain("placed.txt");
    expect(texts.every(({ path }) => path.includes(".fula-node-tmp."))).toBe(true);
    expect(namesSynced()).toContain("state");
  }
  expect((await files.stat(`${root}/node/.env`))?.mode).toBe(0o600);
  expect((await files.stat(`${root}/node/state`))?.mode).toBe(0o750);
  expect(await files.readText(`${root}/node/state/chain.json`)).toBe("{}");
});

test("nothing else in src writes files that must outlive a power cut", () => {
  const changers =
    /\b(appendFile|chmod|chown|copyFile|cp|createWriteStream|ftruncate|lchown|link|mkdir|mkdtemp|rename|rm|rmdir|symlink|truncate|unlink|utimes|write|writeFile)(Sync)?\b/;
  const writes = /\.(writeFile|createWriteStream|appendFile)\(/;
  const source = fileURLToPath(new URL("../../src/", import.meta.url));
  const writers = readdirSync(source, { recursive: true, encoding: "utf8" }).filter((name) => {
    if (!name.endsWith(".ts")) return false;
    const text = readFileSync(join(source, name), "utf8");
    const imports = [...text.matchAll(/import (?:type )?\{([^}]*)\} from "node:fs(?:\/promises)?"/g)];
    return imports.some(([, names]) => changers.test(names ?? "")) || writes.test(text);
  });
  expect(writers.toSorted()).toEqual([
    // Tested below.
    "backup/archive-file.ts",
    // It removes old archives when the new one has its name on the disk.
    "backup/keep-good.ts",
    // Tested below.
    "backup/restore-stage.ts",
    // It syncs each file and directory before the whole has its name.
    "backup/unpack.ts",
    // It syncs the archive, and `replacing` the directory.
    "docker/images/save-archive.ts",
    // For a mail to somebody else: made again in seconds.
    "doctor/bundle-file.ts",
    // A damaged copy, which the drill removes.
    "drills/spoiled-copy.ts",
    "machine/file-writer.ts",
    // A lock is worth nothing after a power cut.
    "machine/lock.ts",
    // Only owners. The directory itself comes last, and is synced.
    "machine/tree-owner.ts",
    "pinset/alerts.ts",
    // What it writes is a copy without a name.
    "pinset/body-reader.ts",
    "pinset/body-writer.ts",
    "pinset/snapshot/store.ts",
    // These remove the names of their files as soon as they are open.
    "pinset/spill.ts",
    "pinset/workspace.ts",
  ]);
});

test("a line that was appended is synced, and so is the directory of a new file", async () => {
  await files.append(`${root}/journal`, "one", { mode: 0o600 });
  await files.append(`${root}/journal`, "two", { mode: 0o600 });
  expect(syncs.map(({ text, path }) => text ?? path)).toEqual(["one\n", root, "one\ntwo\n"]);
});

test("a rename, a link, a removal and a tree are synced", async () => {
  await files.writeAtomic(`${root}/from/file`, "x", { mode: 0o600 });
  await files.makeDirectory(`${root}/to`, { mode: 0o755 });
  syncs.splice(0);
  await files.rename(`${root}/from/file`, `${root}/to/file`);
  expect(syncs.map(({ path, names }) => [path, names])).toEqual([
    [`${root}/to`, ["file"]],
    [`${root}/from`, []],
  ]);
  syncs.splice(0);
  await files.copyTree(`${root}/to`, `${root}/tree`);
  expect(syncs[0]).toMatchObject({ text: "x" });
  expect(syncs.slice(0, -1).every(({ names }) => !names.includes("tree"))).toBe(true);
  expect(syncs.at(-1)).toMatchObject({ path: root, names: ["from", "to", "tree"] });
  syncs.splice(0);
  await files.link("tree", `${root}/current`);
  await files.remove(`${root}/tree`);
  await files.removeEmptyDirectory(`${root}/from`);
  expect(syncs.map(({ path, names }) => [path, names])).toEqual([
    [root, ["current", "from", "to", "tree"]],
    [root, ["current", "from", "to"]],
    [root, ["current", "to"]],
  ]);
});

test("a snapshot is synced, body first, before any of its files has its name, and then its directory", async () => {
  const store = openSnapshotStore(join(root, "snapshots"));
  const draft = await store.begin("pinset-1");
  expect(syncs, "the new directory").toMatchObject([{ path: root, names: ["snapshots"] }]);
  await draft.write(Buffer.from(`${JSON.stringify({ cid: cidOf("a") })}\n`));
  const { sizeBytes } = await draft.finish();
  await draft.commit(Buffer.from("manifest"), Buffer.from("signature"));
  expect(namesSynced().slice(1)).toEqual([
    ".pinset-1.ndjson.gz.partial",
    ".pinset-1.manifest.json.partial",
    ".pinset-1.manifest.sig.partial",
    "snapshots",
    "snapshots",
  ]);
  const named = (names: readonly string[]) => names.filter((name) => !name.startsWith("."));
  for (const { names } of syncs.slice(1, -1)) expect(named(names)).toEqual([]);
  expect(named(syncs.at(-1)?.names ?? [])).toHaveLength(3);
  expect(sizeBytes).toBeGreaterThan(20);
  expect(syncs[1]?.text?.length).toBeGreaterThan(20);
  syncs.splice(0);
  await store.remove("pinset-1");
  expect(syncs).toMatchObject([{ path: store.directory, names: [] }]);
});
