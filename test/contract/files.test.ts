import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { type Files, files as realFiles } from "../../src/machine/file-writer.ts";
import { FakeHost } from "../support/fake-host.ts";

interface Subject {
  readonly files: Files;
  /** An empty directory to work in. */
  readonly root: string;
}

const temporary: string[] = [];
const isRoot = process.geteuid?.() === 0;
const mounts: string[] = [];

afterAll(() => {
  for (const path of mounts) execFileSync("umount", [path]);
  for (const path of temporary) rmSync(path, { recursive: true, force: true });
});

function makeTemporary(): string {
  const path = mkdtempSync(join(tmpdir(), "fula-node-files-"));
  temporary.push(path);
  return path;
}

const subjects: readonly (readonly [string, () => Subject])[] = [
  [
    "the fake",
    () => {
      const { files } = new FakeHost();
      files.putDirectory("/box");
      return { files, root: "/box" };
    },
  ],
  ["the real one", () => ({ files: realFiles, root: makeTemporary() })],
];

describe.each(subjects)("files: %s", (_name, makeSubject) => {
  it("finds nothing where nothing is, nor below a file", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/file`, "x", { mode: 0o644 });
    for (const path of [`${root}/none`, `${root}/none/deeper`, `${root}/file/below`]) {
      expect(await files.readText(path)).toBeNull();
      expect(await files.stat(path)).toBeNull();
      expect(await files.list(path)).toBeNull();
      expect(await files.readLink(path)).toBeNull();
      expect(await files.hashTree(path)).toBeNull();
    }
  });

  it("writes a file with its mode and makes its parents", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/a/b/secret`, "täxt\n", { mode: 0o600 });
    expect(await files.readText(`${root}/a/b/secret`)).toBe("täxt\n");
    expect(await files.stat(`${root}/a/b/secret`)).toMatchObject({ kind: "file", mode: 0o600, sizeBytes: 6 });
    expect(await files.stat(`${root}/a/b`)).toMatchObject({ kind: "directory", mode: 0o755 });
    expect(await files.list(`${root}/a/b`)).toEqual(["secret"]);
  });

  it("replaces a file whole, mode included", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/x`, "a long first text", { mode: 0o644 });
    await files.writeAtomic(`${root}/x`, "short", { mode: 0o666 });
    expect(await files.readText(`${root}/x`)).toBe("short");
    expect((await files.stat(`${root}/x`))?.mode).toBe(0o666);
  });

  it("refuses to write over a directory, and leaves nothing behind", async () => {
    const { files, root } = makeSubject();
    await files.makeDirectory(`${root}/d`, { mode: 0o755 });
    await expect(files.writeAtomic(`${root}/d`, "x", { mode: 0o644 })).rejects.toBeInstanceOf(OperatorError);
    await expect(files.link("target", `${root}/d`)).rejects.toBeInstanceOf(OperatorError);
    expect(await files.list(root)).toEqual(["d"]);
  });

  it("refuses to write below a file", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/x`, "x", { mode: 0o644 });
    await expect(files.writeAtomic(`${root}/x/y`, "y", { mode: 0o644 })).rejects.toThrow(/Cannot write/);
    await expect(files.makeDirectory(`${root}/x`, { mode: 0o755 })).rejects.toBeInstanceOf(OperatorError);
  });

  it("refuses to read a directory, or to list a file", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/x`, "x", { mode: 0o644 });
    await expect(files.readText(root)).rejects.toThrow(/Cannot read/);
    await expect(files.list(`${root}/x`)).rejects.toBeInstanceOf(OperatorError);
    await expect(files.hashTree(`${root}/x`)).rejects.toBeInstanceOf(OperatorError);
  });

  it("appends lines, drops a last line that a crash cut off, and keeps the mode", async () => {
    const { files, root } = makeSubject();
    await files.append(`${root}/deep/journal`, "one", { mode: 0o600 });
    await files.append(`${root}/deep/journal`, "two", { mode: 0o644 });
    expect(await files.readText(`${root}/deep/journal`)).toBe("one\ntwo\n");
    expect((await files.stat(`${root}/deep/journal`))?.mode).toBe(0o600);
    for (const half of ["", "half a li", "ha".repeat(100_000)])
      for (const whole of ["", "one\ntwo\n"]) {
        await files.writeAtomic(`${root}/torn`, whole + half, { mode: 0o600 });
        await files.append(`${root}/torn`, "next", { mode: 0o600 });
        expect(await files.readText(`${root}/torn`)).toBe(`${whole}next\n`);
      }
  });

  it("makes a directory with its mode, also over one that is there", async () => {
    const { files, root } = makeSubject();
    await files.makeDirectory(`${root}/p/q`, { mode: 0o700 });
    expect((await files.stat(`${root}/p/q`))?.mode).toBe(0o700);
    expect((await files.stat(`${root}/p`))?.mode).toBe(0o755);
    await files.makeDirectory(`${root}/p/q`, { mode: 0o777 });
    expect((await files.stat(`${root}/p/q`))?.mode).toBe(0o777);
  });

  it("changes a mode, and says when there is nothing to change", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/x`, "x", { mode: 0o644 });
    await files.chmod(`${root}/x`, 0o600);
    expect((await files.stat(`${root}/x`))?.mode).toBe(0o600);
    await expect(files.chmod(`${root}/none`, 0o600)).rejects.toBeInstanceOf(OperatorError);
  });

  it.runIf(isRoot)("changes an owner, of a link and not of its target", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/x`, "x", { mode: 0o644 });
    await files.link("x", `${root}/link`);
    await files.chown(`${root}/link`, 1234, 1234);
    expect((await files.stat(`${root}/link`))?.uid).toBe(1234);
    expect((await files.stat(`${root}/x`))?.uid).toBe(0);
    await files.chown(`${root}/x`, 1234, 1234);
    await files.chown(`${root}/x`, 0, 0);
    expect((await files.stat(`${root}/x`))?.uid).toBe(0);
    await expect(files.chown(`${root}/none`, 0, 0)).rejects.toBeInstanceOf(OperatorError);
  });

  it("points and re-points a link, and reads through it", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/1/file`, "first", { mode: 0o644 });
    await files.writeAtomic(`${root}/2/file`, "second", { mode: 0o644 });
    await files.link("1", `${root}/current`);
    expect(await files.readText(`${root}/current/file`)).toBe("first");
    await files.link("2", `${root}/current`);
    expect(await files.readText(`${root}/current/file`)).toBe("second");
    expect(await files.readLink(`${root}/current`)).toBe("2");
    expect((await files.stat(`${root}/current`))?.kind).toBe("symlink");
    expect(await files.readLink(`${root}/1/file`)).toBeNull();
    await files.link("nowhere", `${root}/dangling`);
    expect(await files.readText(`${root}/dangling`)).toBeNull();
    const real = await files.realPath(root);
    expect(await files.realPath(`${root}/current/`)).toBe(`${real}/2`);
    expect(await files.realPath(`${root}//current/../1/./file`)).toBe(`${real}/1/file`);
    for (const path of ["dangling", "dangling/x", "nowhere", "1/file/x"])
      expect(await files.realPath(`${root}/${path}`)).toBeNull();
  });

  it("replaces a link by a file, not the link's target", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/target`, "kept", { mode: 0o644 });
    await files.link("target", `${root}/x`);
    await files.writeAtomic(`${root}/x`, "new", { mode: 0o600 });
    expect(await files.readText(`${root}/target`)).toBe("kept");
    expect((await files.stat(`${root}/x`))?.kind).toBe("file");
  });

  it("renames, and says when there is nothing to rename", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/x`, "x", { mode: 0o644 });
    await files.rename(`${root}/x`, `${root}/y`);
    expect(await files.list(root)).toEqual(["y"]);
    await expect(files.rename(`${root}/x`, `${root}/z`)).rejects.toBeInstanceOf(OperatorError);
    await expect(files.rename(`${root}/y`, `${root}/none/z`)).rejects.toBeInstanceOf(OperatorError);
  });

  it("removes files, trees, links, and what is not there", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/tree/deep/x`, "x", { mode: 0o644 });
    await files.writeAtomic(`${root}/kept`, "x", { mode: 0o644 });
    await files.link("kept", `${root}/link`);
    for (const name of ["tree", "link", "none", "none/deeper"]) await files.remove(`${root}/${name}`);
    expect(await files.list(root)).toEqual(["kept"]);
  });

  it("removes a directory only while it is empty, and nothing that is none", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/full/file`, "x", { mode: 0o644 });
    await files.makeDirectory(`${root}/empty`, { mode: 0o755 });
    for (const path of [`${root}/full`, `${root}/full/file`, `${root}/empty`, `${root}/none/deeper`])
      await files.removeEmptyDirectory(path);
    expect(await files.readText(`${root}/full/file`)).toBe("x");
    expect(await files.list(root)).toEqual(["full"]);
  });

  it("hashes a tree by paths and contents, not by modes or order", async () => {
    const { files, root } = makeSubject();
    const fill = async (at: string, names: readonly string[]) => {
      for (const name of names) await files.writeAtomic(`${at}/${name}`, `text of ${name}`, { mode: 0o644 });
      await files.link("b", `${at}/link`);
    };
    await fill(`${root}/one`, ["b", "a/c"]);
    await fill(`${root}/two`, ["a/c", "b"]);
    await files.chmod(`${root}/two/b`, 0o755);
    const hash = await files.hashTree(`${root}/one`);
    expect(hash).toBe("387113e73c2495dfe96b2cef262ae51daf4b429ae8b9c555a56f111e0bdfc099");
    expect(await files.hashTree(`${root}/two`)).toBe(hash);
    await files.writeAtomic(`${root}/two/b`, "other", { mode: 0o755 });
    expect(await files.hashTree(`${root}/two`)).not.toBe(hash);
  });

  it("hashes only the entries that are asked for", async () => {
    const { files, root } = makeSubject();
    for (const name of ["bin/x", "binary", "dist/y", "other/z"]) {
      await files.writeAtomic(`${root}/all/${name}`, name, { mode: 0o644 });
    }
    for (const name of ["bin/x", "dist/y"]) {
      await files.writeAtomic(`${root}/some/${name}`, name, { mode: 0o644 });
    }
    const only = ["bin", "dist/y", "missing"];
    expect(await files.hashTree(`${root}/all`, only)).toBe(await files.hashTree(`${root}/some`));
  });

  it("copies a tree with modes and links, and replaces what is there", async () => {
    const { files, root } = makeSubject();
    await files.writeAtomic(`${root}/from/bin/run`, "#!", { mode: 0o755 });
    await files.writeAtomic(`${root}/from/secret`, "s", { mode: 0o600 });
    await files.writeAtomic(`${root}/from/left/out`, "o", { mode: 0o644 });
    await files.link("bin/run", `${root}/from/alias`);
    await files.chmod(`${root}/from/bin`, 0o700);
    await files.writeAtomic(`${root}/deep/to/old`, "old", { mode: 0o644 });
    await files.copyTree(`${root}/from`, `${root}/deep/to`, ["bin", "secret", "alias"]);
    expect(await files.list(`${root}/deep/to`)).toEqual(["alias", "bin", "secret"]);
    expect(await files.list(`${root}/deep`)).toEqual(["to"]);
    expect((await files.stat(`${root}/deep/to/bin/run`))?.mode).toBe(0o755);
    expect((await files.stat(`${root}/deep/to/bin`))?.mode).toBe(0o700);
    expect((await files.stat(`${root}/deep/to/secret`))?.mode).toBe(0o600);
    expect(await files.readText(`${root}/deep/to/alias`)).toBe("#!");
    await expect(files.copyTree(`${root}/none`, `${root}/copy`)).rejects.toBeInstanceOf(OperatorError);
    await expect(files.copyTree(`${root}/from/secret`, `${root}/copy`)).rejects.toBeInstanceOf(OperatorError);
    expect(await files.list(root)).toEqual(["deep", "from"]);
  });

  it("measures the space at a path that is still to be made", async () => {
    const { files, root } = makeSubject();
    const { freeBytes, totalBytes } = await files.space(`${root}/none/deeper`);
    expect(freeBytes).toBeGreaterThan(0);
    expect(totalBytes).toBeGreaterThanOrEqual(freeBytes);
  });
});

describe("files: what only the real one can meet", () => {
  it("takes away what a killed run left beside the file, not what a living one writes", async () => {
    const root = makeTemporary();
    const dead = `${root}/.x.fula-node-tmp.4194999.aaaa`;
    const alive = `${root}/.x.fula-node-tmp.${process.ppid}.bbbb`;
    const other = `${root}/.xy.fula-node-tmp.4194999.cccc`;
    for (const path of [dead, alive, other]) writeFileSync(path, "half");
    await realFiles.writeAtomic(`${root}/x`, "whole", { mode: 0o600 });
    expect(await realFiles.list(root)).toEqual(
      [alive, other, `${root}/x`].map((path) => path.slice(root.length + 1)),
    );
  });

  it("gives a file its mode whatever the umask is", async () => {
    const root = makeTemporary();
    const before = process.umask(0o077);
    try {
      await realFiles.writeAtomic(`${root}/a/x`, "x", { mode: 0o644 });
      await realFiles.append(`${root}/a/y`, "y", { mode: 0o666 });
    } finally {
      process.umask(before);
    }
    expect((await realFiles.stat(`${root}/a/x`))?.mode).toBe(0o644);
    expect((await realFiles.stat(`${root}/a/y`))?.mode).toBe(0o666);
    expect((await realFiles.stat(`${root}/a`))?.mode).toBe(0o755);
  });

  it("refuses a file that is too large, no text, or no plain file", async () => {
    const root = makeTemporary();
    writeFileSync(`${root}/large`, Buffer.alloc(16 * 1024 ** 2 + 1, "a"));
    writeFileSync(`${root}/binary`, Buffer.from([0x4b, 0x3d, 0xff, 0xfe]));
    execFileSync("mkfifo", [`${root}/pipe`]);
    await expect(realFiles.readText(`${root}/large`)).rejects.toMatchObject({
      why: expect.stringMatching(/larger than 16777216/),
    });
    await expect(realFiles.readText(`${root}/binary`)).rejects.toMatchObject({
      why: expect.stringMatching(/not UTF-8/),
    });
    await expect(realFiles.readText(`${root}/pipe`)).rejects.toMatchObject({
      why: expect.stringMatching(/not a regular file/),
    });
    await expect(realFiles.hashTree(root)).rejects.toBeInstanceOf(OperatorError);
  });

  it("keeps a byte order mark, so that a file survives byte for byte", async () => {
    const root = makeTemporary();
    writeFileSync(`${root}/x`, "\uFEFFA=1\r\n");
    expect(await realFiles.readText(`${root}/x`)).toBe("\uFEFFA=1\r\n");
  });

  it("names the remedy when this user may not", async (context) => {
    if (isRoot) context.skip("root may do anything");
    const root = makeTemporary();
    mkdirSync(`${root}/locked`);
    chmodSync(`${root}/locked`, 0o500);
    await expect(realFiles.writeAtomic(`${root}/locked/x`, "x", { mode: 0o600 })).rejects.toMatchObject({
      exit: "unavailable",
      remedy: "Run as root.",
    });
  });

  it("leaves the old file and no leftovers when the disk is full", async (context) => {
    const root = makeTemporary();
    if (!isRoot) context.skip("only root can mount a small disk");
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", root], { stdio: "pipe" });
    } catch {
      expect(process.env["CI"], "CI must be able to mount a tmpfs").toBeUndefined();
      context.skip("this machine does not let us mount a tmpfs");
    }
    mounts.push(root);
    await realFiles.writeAtomic(`${root}/x`, "old", { mode: 0o600 });
    const full = realFiles.writeAtomic(`${root}/x`, "n".repeat(200_000), { mode: 0o600 });
    await expect(full).rejects.toMatchObject({
      exit: "unavailable",
      why: "no space is left on the device",
      remedy: expect.stringContaining("no partly written file"),
    });
    expect(await realFiles.list(root)).toEqual(["x"]);
    expect(await realFiles.readText(`${root}/x`)).toBe("old");
    symlinkSync("x", `${root}/big`);
    await realFiles.remove(`${root}/big`);
    writeFileSync(`${root}/source`, "s".repeat(30_000));
    mkdirSync(`${root}/tree`);
    for (const name of ["a", "b"]) writeFileSync(`${root}/tree/${name}`, "t".repeat(12_000));
    await expect(realFiles.copyTree(`${root}/tree`, `${root}/copy`)).rejects.toMatchObject({
      why: "no space is left on the device",
    });
    expect(await realFiles.list(root)).toEqual(["source", "tree", "x"]);
  });

  it("removes nothing where something is mounted below", async (context) => {
    const root = mkdtempSync(join(tmpdir(), "fula-node-mounted-"));
    mkdirSync(`${root}/tree/deep/mount`, { recursive: true });
    if (!isRoot) context.skip("only root can mount");
    try {
      execFileSync("mount", ["-t", "tmpfs", "none", `${root}/tree/deep/mount`], { stdio: "pipe" });
    } catch {
      expect(process.env["CI"], "CI must be able to mount a tmpfs").toBeUndefined();
      context.skip("this machine does not let us mount a tmpfs");
    }
    mounts.push(`${root}/tree/deep/mount`);
    writeFileSync(`${root}/tree/deep/mount/theirs`, "theirs");
    writeFileSync(`${root}/tree/ours`, "ours");
    for (const path of [`${root}/tree`, `${root}/tree/deep/mount`]) {
      await expect(realFiles.remove(path)).rejects.toMatchObject({
        why: `a file system is mounted on ${root}/tree/deep/mount`,
      });
    }
    expect(await realFiles.readText(`${root}/tree/deep/mount/theirs`)).toBe("theirs");
    expect(await realFiles.readText(`${root}/tree/ours`)).toBe("ours");
  });
});
