import { isOurCompose } from "../docker/compose-document.ts";
import type { HostReader } from "../host.ts";
import { isTemporary } from "../machine/file-writer.ts";
import { MOUNTS, mountPointsOf } from "../machine/file-reader.ts";
import { TAKEN_OVER } from "../settings/layout.ts";
import { type Cleanup, contentsOf } from "./policy.ts";

/** An entry of a directory that a node uses. */
export interface Entry {
  readonly path: string;
  /** Null for what stays. `reason` then says why, if it looks like ours. */
  readonly cleanup: Cleanup | null;
  readonly reason: string | null;
  /** True for a node's data, also behind a link, and for the file that marks data which was taken over. */
  readonly isData: boolean;
}

/**
 * Looks at one entry. It stays if it is a link or a mount point, or lacks the mark that it should have. A directory
 * with something that is not ours, or with a mount point, is split into its own entries, of which only ours go.
 */
export async function lookAtEntry(
  host: HostReader,
  path: string,
  cleanup: Cleanup | null,
): Promise<readonly Entry[]> {
  const mounts = await readMounts(host);
  const isData = cleanup === "data" || path.endsWith(`/${TAKEN_OVER}`);
  const kept = { path, cleanup: null, reason: null, isData };
  if (cleanup === null) return [kept];
  const target = await host.files.readLink(path);
  const isVersionLink = path.endsWith("/cli/current");
  if (target !== null && !isVersionLink) return [{ ...kept, reason: describeLink(path, target) }];
  if (mounts.has(path)) return [{ ...kept, reason: describeMount(path) }];
  if (cleanup === "remove-if-marked" && !isOurCompose(await textOf(host, path))) return [kept];
  const inside = await lookInside(host, path, cleanup);
  const isAllOurs = inside.every((entry) => entry.cleanup !== null) && !holdsMount(mounts, path);
  return isAllOurs ? [{ ...kept, cleanup }] : inside;
}

/** The entries of a directory of ours, each judged by its name; none for a file, or for a directory that is all ours. */
async function lookInside(host: HostReader, path: string, cleanup: Cleanup): Promise<readonly Entry[]> {
  if (isTemporary(path.slice(path.lastIndexOf("/") + 1))) return [];
  if ((await host.files.stat(path))?.kind !== "directory") return [];
  const rule = contentsOf(path);
  const mounts = await readMounts(host);
  if (rule === null && !holdsMount(mounts, path)) return [];
  const names = (await host.files.list(path)) ?? [];
  const entries = await Promise.all(
    names.map((name) => {
      const isOurs = rule === null || rule.test(name) || isTemporary(name);
      return lookAtEntry(host, `${path}/${name}`, isOurs ? cleanup : null);
    }),
  );
  return entries.flat();
}

/** True if a file system is mounted somewhere below the path. */
function holdsMount(mounts: ReadonlySet<string>, path: string): boolean {
  return [...mounts].some((mount) => mount.startsWith(`${path}/`));
}

/** True if an entry is ours with everything in it. */
export function isWhole(path: string, entries: readonly Entry[]): boolean {
  return entries.length === 1 && entries[0]?.path === path && entries[0].cleanup !== null;
}

/** Why a link stays. */
export function describeLink(path: string, target: string): string {
  return `${path} is a link to ${target}: remove its target by hand`;
}

/** Why a mount point stays, with everything in it. */
function describeMount(path: string): string {
  return `${path}: a file system is mounted there`;
}

/** The directories on which something is mounted. */
export async function readMounts(host: HostReader): Promise<ReadonlySet<string>> {
  return mountPointsOf(await textOf(host, MOUNTS));
}

/** Empty if there is no such file. */
export async function textOf({ files }: HostReader, path: string): Promise<string> {
  return (await files.readText(path)) ?? "";
}
