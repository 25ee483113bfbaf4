import { constants } from "node:fs";
import { copyFile, mkdir, open, rm, stat } from "node:fs/promises";
import { join } from "node:path";

/** What is done to the copy of a snapshot. */
export type Spoiling = "one byte changed" | "cut in half" | "its manifest changed";

/** All of them. */
export const SPOILINGS: readonly Spoiling[] = ["one byte changed", "cut in half", "its manifest changed"];

/**
 * Copies the three files of a snapshot to a new directory, spoils the copy, and gives it to `use`. Then the copy is removed.
 */
export async function withSpoiledCopy<Result>(
  snapshot: {
    readonly directory: string;
    readonly bodyFile: string;
    readonly manifestFile: string;
    readonly signatureFile: string;
  },
  to: string,
  how: Spoiling,
  use: (directory: string) => Promise<Result>,
): Promise<Result> {
  const { directory, bodyFile, manifestFile, signatureFile } = snapshot;
  await mkdir(to, { mode: 0o700 });
  try {
    for (const name of [bodyFile, manifestFile, signatureFile])
      await copyFile(join(directory, name), join(to, name), constants.COPYFILE_FICLONE);
    await spoil(join(to, how === "its manifest changed" ? manifestFile : bodyFile), how);
    return await use(to);
  } finally {
    await rm(to, { recursive: true, force: true });
  }
}

async function spoil(path: string, how: Spoiling): Promise<void> {
  const { size } = await stat(path);
  const middle = Math.floor(size / 2);
  const file = await open(path, "r+");
  try {
    if (how === "cut in half") return await file.truncate(middle);
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, middle);
    await file.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, middle);
  } finally {
    await file.close();
  }
}
