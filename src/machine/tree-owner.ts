import { mountPointsOf } from "./file-reader.ts";
import { constants, lchownSync, lstatSync } from "node:fs";
import { type FileHandle, open, readdir, realpath, readFile } from "node:fs/promises";

/** A user and group, by their numbers. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Progress is reported after this many entries. */
const REPORT_EVERY = 5000;
/** Only the owner may enter. */
const PRIVATE_MODE = 0o700;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** The walk through one tree. */
interface Walk {
  readonly owner: Owner;
  readonly device: number;
  readonly mounts: ReadonlySet<string>;
  readonly report: (line: string) => void;
  readonly path: string;
  seen: number;
}

/**
 * Gives a directory and everything in it to an owner; only the owner may enter it (0700). The directory itself comes last:
 * until then it keeps its old owner, so that an interrupted call can be told from a complete one. It follows no symbolic
 * link below the directory, and leaves file systems alone that are mounted below it. The names of the parts are resolved
 * from open directories, so that nobody can lead the walk elsewhere by renaming.
 */
export async function giveTree(path: string, owner: Owner, report: (line: string) => void): Promise<void> {
  const real = await realpath(path);
  const root = await open(real, DIRECTORY);
  try {
    await root.chmod(PRIVATE_MODE);
    const { dev: device } = await root.stat();
    const mounts = mountPointsOf(await readFile("/proc/self/mountinfo", "utf8"));
    await giveBelow(root, real, { owner, device, mounts, report, path, seen: 0 });
    await root.chown(owner.uid, owner.gid);
    await root.sync();
  } finally {
    await root.close();
  }
}

async function giveBelow(directory: FileHandle, path: string, walk: Walk): Promise<void> {
  const { owner, device, mounts } = walk;
  const inside = `/proc/self/fd/${directory.fd}`;
  for (const entry of await readdir(inside, { withFileTypes: true })) {
    const name = `${inside}/${entry.name}`;
    const place = `${path}/${entry.name}`;
    if (mounts.has(place)) continue;
    if (entry.isDirectory()) {
      const child = await open(name, DIRECTORY);
      try {
        if ((await child.stat()).dev !== device) continue;
        await giveBelow(child, place, walk);
        await child.chown(owner.uid, owner.gid);
      } finally {
        await child.close();
      }
    } else {
      // Synchronous: a store can have millions of small files, and a promise for each takes many times longer.
      const { uid, gid } = lstatSync(name);
      if (uid !== owner.uid || gid !== owner.gid) lchownSync(name, owner.uid, owner.gid);
    }
    walk.seen += 1;
    if (walk.seen % REPORT_EVERY === 0)
      walk.report(`${walk.path}: ${walk.seen} files and directories so far`);
  }
}
