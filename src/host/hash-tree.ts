import { createHash } from "node:crypto";

/** One file or symbolic link below a directory. */
export interface TreeEntry {
  /** Relative to the directory, with forward slashes. */
  readonly path: string;
  readonly kind: "file" | "symlink";
  /** digestOf its content; of its target, for a link. */
  readonly digest: string;
}

/** Lower-case hex sha256. */
export function digestOf(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}

/**
 * Lower-case hex sha256 over relative paths, kinds and contents, whatever the order they come in; modes,
 * times and empty directories do not count.
 */
export function hashEntries(entries: readonly TreeEntry[]): string {
  const sorted = [...entries].sort((a, b) => (a.path < b.path ? -1 : 1));
  return digestOf(sorted.map(({ path, kind, digest }) => `${kind}\0${path}\0${digest}\n`).join(""));
}

/** True for a relative path that is one of these entries, lies inside one or leads to one; all are when none is named. */
export function isWanted(path: string, only: readonly string[] | undefined): boolean {
  return (
    only === undefined ||
    only.some((entry) => `${path}/`.startsWith(`${entry}/`) || entry.startsWith(`${path}/`))
  );
}
