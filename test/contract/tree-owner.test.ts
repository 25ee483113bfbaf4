import { lstat, mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { execa } from "execa";
import { files } from "../../src/machine/file-writer.ts";

const OWNER = { uid: 61_077, gid: 61_077 };

describe.skipIf(process.geteuid?.() !== 0)("a tree that gets another owner", () => {
  let box: string;
  let tree: string;

  const ownerOf = async (path: string): Promise<number> => (await lstat(join(box, path))).uid;

  beforeEach(async () => {
    box = await mkdtemp(join(tmpdir(), "fula-node-owner-"));
    tree = join(box, "tree");
    await mkdir(join(tree, "blocks", "AB"), { recursive: true });
    await writeFile(join(tree, "blocks", "AB", "one.data"), "1");
    await writeFile(join(tree, "identity.json"), "{}", { mode: 0o600 });
    await mkdir(join(box, "outside"));
    await writeFile(join(box, "outside", "file"), "theirs");
    await execa("chown", ["-R", "1000:100", tree]);
  });
  afterEach(async () => {
    await execa("umount", [join(tree, "mounted")], { reject: false });
    await rm(box, { recursive: true });
  });

  it("belongs to it with every file, keeps their modes, and only the owner may enter", async () => {
    const seen: string[] = [];
    await files.giveTree(tree, OWNER, (line) => void seen.push(line));
    for (const path of [
      "tree",
      "tree/blocks",
      "tree/blocks/AB",
      "tree/blocks/AB/one.data",
      "tree/identity.json",
    ])
      expect([path, await ownerOf(path)]).toEqual([path, OWNER.uid]);
    expect((await stat(tree)).mode & 0o7777).toBe(0o700);
    expect((await stat(join(tree, "identity.json"))).mode & 0o7777).toBe(0o600);
  });

  it("has links whose targets stay as they are", async () => {
    await symlink(join(box, "outside"), join(tree, "directory-link"));
    await symlink(join(box, "outside", "file"), join(tree, "file-link"));
    await files.giveTree(tree, OWNER, () => {});
    expect(await ownerOf("tree/directory-link")).toBe(OWNER.uid);
    expect(await ownerOf("outside")).toBe(0);
    expect(await ownerOf("outside/file")).toBe(0);
  });

  it("has a link as its name: the target is the tree", async () => {
    await symlink(tree, join(box, "link"));
    await files.giveTree(join(box, "link"), OWNER, () => {});
    expect(await ownerOf("tree/identity.json")).toBe(OWNER.uid);
    expect(await ownerOf("link")).toBe(0);
  });

  it("leaves alone what is mounted below it, also from the same file system", async () => {
    await mkdir(join(tree, "mounted"));
    const { exitCode } = await execa("mount", ["--bind", join(box, "outside"), join(tree, "mounted")], {
      reject: false,
    });
    if (exitCode !== 0) return;
    await files.giveTree(tree, OWNER, () => {});
    expect(await ownerOf("outside")).toBe(0);
    expect(await ownerOf("outside/file")).toBe(0);
    expect(await ownerOf("tree/identity.json")).toBe(OWNER.uid);
  });

  it("keeps its own old owner until everything in it has the new one", async () => {
    // A file that the kernel does not let go stands for a kill in the middle.
    const stuck = join(tree, "blocks", "AB", "one.data");
    const { exitCode } = await execa("chattr", ["+i", stuck], { reject: false });
    if (exitCode !== 0) return;
    await expect(files.giveTree(tree, OWNER, () => {})).rejects.toMatchObject({ exit: "unavailable" });
    expect(await ownerOf("tree")).toBe(1000);
    await execa("chattr", ["-i", stuck]);
    await files.giveTree(tree, OWNER, () => {});
    expect(await ownerOf("tree")).toBe(OWNER.uid);
    expect(await ownerOf("tree/blocks/AB/one.data")).toBe(OWNER.uid);
  });

  it("is refused if it is no directory", async () => {
    await expect(files.giveTree(join(tree, "identity.json"), OWNER, () => {})).rejects.toMatchObject({
      exit: "unavailable",
    });
  });
});
