import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { MASTER_BASE_DIR, type MasterLayout, STORAGE_BASE_DIR, storageLayout } from "../settings/layout.ts";
import { RULES } from "../settings/rules.ts";

/** Directories of the system itself, and those that a restart empties (hier(7)). */
export const SYSTEM = /^\/(?:bin|boot|etc|lib\w*|sbin|usr|var)$|^\/(?:dev|proc|run|sys)(?:\/|$)/;

/**
 * The one name of a base directory, for every verb: absolute, without symbolic links, `..` and needless slashes. So
 * each way to write it gives the same locks, cron lines and labels. A default directory keeps its own name, even if
 * it is a link. Throws (`usage`) if it can't be used.
 */
export async function resolveBaseDir(
  { files }: Pick<HostReader, "files">,
  given: string | undefined,
  byDefault: string,
): Promise<string> {
  if (given === undefined) return byDefault;
  const refuse = (why: string) =>
    new OperatorError({
      exit: "usage",
      what: `--base-dir is ${JSON.stringify(given)}; ${why}.`,
      remedy: `Leave it out for ${byDefault}, or give an absolute path such as /srv/fula.`,
    });
  if (given === "" || given.includes("\0")) throw refuse(`it must be ${RULES.path.requirement}`);
  // The kernel resolves the current directory: its name is unknown if it was deleted.
  const current = given.startsWith("/") ? "" : await files.realPath(".");
  if (current === null) throw refuse("it is relative to the current directory, which no longer exists");
  const resolved = await canonicalBaseDir({ files }, `${current}/${given}`);
  if (resolved === null) throw refuse("it is, or is in, a symbolic link to a directory that does not exist");
  const place = resolved === given ? "it" : `which is ${JSON.stringify(resolved)}; it`;
  if (SYSTEM.test(resolved)) throw refuse(`${place} belongs to the system, or is emptied at a restart`);
  if (RULES.path.holds(resolved)) return resolved;
  throw refuse(`${place} must be ${RULES.path.requirement}`);
}

/** The same for an absolute path; null if a link on the way leads nowhere. */
export async function canonicalBaseDir(
  { files }: Pick<HostReader, "files">,
  path: string,
): Promise<string | null> {
  const resolved = await resolve(files, path);
  for (const name of [MASTER_BASE_DIR, STORAGE_BASE_DIR])
    if (resolved === name || (resolved !== null && (await files.realPath(name)) === resolved)) return name;
  return resolved;
}

/** Resolves what exists of a path, and appends the rest. Null if a link on the way leads nowhere. */
async function resolve(files: HostReader["files"], path: string): Promise<string | null> {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  const missing: string[] = [];
  for (;;) {
    const at = `/${parts.join("/")}`;
    const real = await files.realPath(at);
    if (real !== null) return missing.reduce(append, real);
    if (parts.at(-1) !== ".." && (await files.readLink(at)) !== null) return null;
    missing.unshift(parts.pop() ?? "");
  }
}

function append(directory: string, part: string): string {
  if (part === "..") return directory.replace(/\/[^/]*$/, "") || "/";
  return directory === "/" ? `/${part}` : `${directory}/${part}`;
}

/** Throws (`preflight`) without root. `why` is a clause. */
export function requireRoot({ system }: Pick<HostReader, "system">, why: string): void {
  if (system.uid() === 0) return;
  const what = `This command needs root, because ${why}.`;
  throw new OperatorError({ exit: "preflight", what, remedy: "Run it with sudo." });
}

/** Throws (`settings`) if no master is installed there. On a storage node, joining as a master is no remedy. */
export async function requireMaster({ files }: HostReader, { envFile }: MasterLayout): Promise<void> {
  if ((await files.stat(envFile)) !== null) return;
  const isStorageNode = (await files.stat(storageLayout(STORAGE_BASE_DIR).envFile)) !== null;
  throw new OperatorError({
    exit: "settings",
    what: `There is no file ${envFile}, so no master is installed there.`,
    ...(isStorageNode ? { why: "This machine is a storage node." } : {}),
    remedy: isStorageNode
      ? "Run this command on a master of its pool."
      : "Run join-as-master first, or pass --base-dir.",
  });
}
