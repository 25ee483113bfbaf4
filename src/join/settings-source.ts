import type { World } from "../world.ts";
import { OperatorError, type Problem } from "../errors.ts";
import { type EnvFile, parseEnvFile } from "../settings/env-file.ts";

/**
 * Splits `--set KEY=VALUE`. Throws (`usage`) for anything else, and for a key that is given two values,
 * since one of them would be lost. No value appears in the error, nor what may be one.
 */
export function parseAssignments(pairs: readonly string[]): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  const problems: Problem[] = [];
  for (const [index, pair] of pairs.entries()) {
    const [, key, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(pair) ?? [];
    if (key === undefined || value === undefined) {
      const what = `The ${ordinal(index + 1)} --set is not of the form KEY=VALUE.`;
      problems.push({ subject: "--set", what, remedy: "For example: --set CLUSTERNAME=my-pool." });
    } else if ((values.get(key) ?? value) === value) values.set(key, value);
    else {
      const what = `${key} is given two different values by --set.`;
      problems.push({ subject: key, what, remedy: "Give it once." });
    }
  }
  if (problems.length === 0) return values;
  throw new OperatorError({ exit: "usage", what: "The flags can't be understood.", problems });
}

/**
 * Reads `.env` as it is saved. Throws (`settings`) where it can't be read or understood. Without root it is
 * taken for empty: preflight refuses anyway, and so that it can name all that is wrong.
 */
export async function readSavedSettings(world: World, envFile: string): Promise<EnvFile & { ok: true }> {
  const saved = parseEnvFile(await readSaved(world, envFile));
  if (saved.ok) return saved;
  throw new OperatorError({
    exit: "settings",
    what: `Line ${saved.line} of ${envFile} can't be understood: ${saved.what}.`,
    why: "A setting or a secret could be lost if the file were guessed at.",
    remedy: "Mend that line, or put a # before it, then run again.",
  });
}

async function readSaved({ host }: World, envFile: string): Promise<string> {
  if (host.system.uid() !== 0) return "";
  try {
    return (await host.files.readText(envFile)) ?? "";
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw new OperatorError({
      exit: "settings",
      what: `${envFile} is there, but can't be read.`,
      why: thrown.why ?? thrown.what,
      remedy:
        thrown.remedy ?? "Put a plain UTF-8 text file there, from your backup or as it was, then run again.",
      cause: thrown,
    });
  }
}

function ordinal(number: number): string {
  return ["first", "second", "third"][number - 1] ?? `${number}th`;
}
