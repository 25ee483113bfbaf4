import type { HostReader } from "../host.ts";
import { MASTER_BASE_DIR, type MasterLayout } from "../settings/layout.ts";
import { parseRotation, unfinishedRotation } from "../settings/rotation.ts";

/**
 * Throws (`preflight`) while a change of a secret is not finished: only `secret rotate` knows which of the two values each
 * part of this master uses.
 */
export async function refuseUnfinishedRotation(
  { files, system }: Pick<HostReader, "files" | "system">,
  { baseDir, rotation: path }: MasterLayout,
): Promise<void> {
  // Without root the file can't be read, and the verb refuses to run anyway.
  const rotation = system.uid() === 0 ? parseRotation(await files.readText(path), path) : null;
  if (rotation !== null) throw unfinishedRotation(rotation, baseDirFlag(baseDir));
}

/** The flag that a command needs for a master in this directory: ` --base-dir DIR`, or nothing for the default one. */
export function baseDirFlag(baseDir: string): string {
  return baseDir === MASTER_BASE_DIR ? "" : ` --base-dir ${baseDir}`;
}
