import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf, OperatorError } from "../errors.ts";

/** An append-only log of alerts, one per line, for people and log collectors. */
export interface AlertLog {
  readonly path: string;
  /** Appends lines and syncs them to the disk. Throws an OperatorError (unavailable) if that fails: an alert must not get lost without notice. */
  append(lines: readonly string[]): Promise<void>;
}

/**
 * Opens an alert log. If the file is larger than `maxBytes` (default 16 MiB) before an append, it is renamed
 * to `.1`, the previous `.1` to `.2` and so on. `keep` (default 5) old files stay.
 */
export function openAlertLog(
  path: string,
  limits: { readonly maxBytes?: number; readonly keep?: number } = {},
): AlertLog {
  const { maxBytes = 16 * 1024 * 1024, keep = 5 } = limits;
  return {
    path,
    append: async (lines) => {
      if (lines.length === 0) return;
      try {
        await mkdir(dirname(path), { recursive: true });
        if ((await sizeOf(path)) > maxBytes) await rotate(path, keep);
        const file = await open(path, "a", 0o640);
        try {
          await file.writeFile(lines.map((line) => `${line}\n`).join(""));
          await file.sync();
        } finally {
          await file.close();
        }
      } catch (cause) {
        throw new OperatorError({
          exit: "unavailable",
          what: `The alert log ${path} could not be written: ${messageOf(cause)}.`,
          remedy: "Free some space or repair the directory, then run this again.",
          cause,
        });
      }
    },
  };
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw cause;
  }
}

async function rotate(path: string, keep: number): Promise<void> {
  await rm(`${path}.${keep}`, { force: true });
  for (let age = keep - 1; age >= 1; age--) {
    await rename(`${path}.${age}`, `${path}.${age + 1}`).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== "ENOENT") throw cause;
    });
  }
  await rename(path, `${path}.1`);
}
