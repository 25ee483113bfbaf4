import { OperatorError, type Problem } from "../errors.ts";
import type { JoinDeps } from "./join-run.ts";

/** The flags that give values to settings. */
export interface AssignmentFlags {
  /** `KEY=VALUE`, one for each `--set`. */
  readonly set: readonly string[];
  /** `KEY=PATH`, one for each `--set-file`; the path `-` is standard input. */
  readonly setFile?: readonly string[];
  /** `-` if the invite comes from standard input. */
  readonly invite?: string;
}

/**
 * The values of `--set` and `--set-file`, by key. Throws one error (`usage`) that lists every flag that can't be
 * used. It contains no value, and nothing that may be one.
 */
export async function readAssignments(
  { set, setFile = [], invite }: AssignmentFlags,
  deps: Pick<JoinDeps, "host" | "readStdin">,
): Promise<ReadonlyMap<string, string>> {
  const { values, problems } = splitAssignments(set);
  const paths = splitPaths(setFile, new Set(values.keys()));
  problems.push(...paths.problems);
  const fromStdin = [...paths.values].filter(([, path]) => path === "-").map(([key]) => key);
  if (fromStdin.length > 1 || (fromStdin.length === 1 && invite === "-"))
    problems.push({
      subject: "--set-file",
      what: `Standard input is read more than once: for ${[...fromStdin, ...(invite === "-" ? ["--invite"] : [])].join(", ")}.`,
      remedy: "Use - only once, and files for the others.",
    });
  refuse(problems);
  for (const [key, path] of paths.values) {
    const read = await readValueFile(`--set-file ${key}`, { subject: key, path }, deps);
    if ("problem" in read) problems.push(read.problem);
    else values.set(key, read.value);
  }
  refuse(problems);
  return values;
}

interface Split {
  readonly values: Map<string, string>;
  readonly problems: Problem[];
}

/** Splits `KEY=VALUE` at the first `=`. A key with two different values is a problem, since one of them would be lost. */
function splitAssignments(pairs: readonly string[]): Split {
  const values = new Map<string, string>();
  const problems: Problem[] = [];
  for (const [index, pair] of pairs.entries()) {
    const [, key, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(pair) ?? [];
    if (key === undefined || value === undefined) {
      const what = `The ${ordinal(index + 1)} --set is not of the form KEY=VALUE.`;
      problems.push({ subject: "--set", what, remedy: "For example: --set CLUSTERNAME=my-pool." });
    } else if ((values.get(key) ?? value) === value) values.set(key, value);
    else {
      const what = `${key} has two different values in --set.`;
      problems.push({ subject: key, what, remedy: "Pass it once." });
    }
  }
  return { values, problems };
}

/** Splits `KEY=PATH`. A key may be given once, and not by `--set` as well. */
function splitPaths(pairs: readonly string[], alreadySet: ReadonlySet<string>): Split {
  const values = new Map<string, string>();
  const problems: Problem[] = [];
  for (const [index, pair] of pairs.entries()) {
    const [, key, path] = /^([A-Za-z_][A-Za-z0-9_]*)=([^\0]+)$/s.exec(pair) ?? [];
    if (key === undefined || path === undefined) {
      const what = `The ${ordinal(index + 1)} --set-file is not of the form KEY=PATH.`;
      const remedy = "For example: --set-file POSTGRES_PASSWORD=/root/password.txt.";
      problems.push({ subject: "--set-file", what, remedy });
    } else if (values.has(key) || alreadySet.has(key)) {
      const other = values.has(key) ? "in two --set-file flags" : "by --set and by --set-file";
      problems.push({ subject: key, what: `${key} is given ${other}.`, remedy: "Give it once." });
    } else values.set(key, path);
  }
  return { values, problems };
}

const MAX_VALUE_BYTES = 64 * 1024;

/**
 * Reads a value without its last line break. An editor adds that, so it is not part of the value. `flag` names the flag
 * that gave the path, and `subject` what a problem is about.
 */
export async function readValueFile(
  flag: string,
  { subject, path }: { readonly subject: string; readonly path: string },
  deps: Pick<JoinDeps, "host" | "readStdin">,
): Promise<{ readonly value: string } | { readonly problem: Problem }> {
  const place = path === "-" ? "Standard input" : `The file ${path}`;
  const refuseFor = (why: string, remedy: string) => ({
    problem: { subject, what: `${place} for ${flag} ${why}.`, remedy },
  });
  const asText = "Give a file with the value alone, as one line of UTF-8 text.";
  let text: string | null;
  try {
    text = path === "-" ? await deps.readStdin() : await deps.host.files.readText(path);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const why = `can't be read: ${(thrown.why ?? thrown.what).replace(/\.$/, "")}`;
    return refuseFor(why, "Give a readable text file with the value, or - for standard input.");
  }
  if (text === null) return refuseFor("does not exist", "Check the path.");
  if (Buffer.byteLength(text) > MAX_VALUE_BYTES) return refuseFor("is larger than 64 KiB", asText);
  // U+FFFD stands for bytes that were not UTF-8.
  if (text.includes("\uFFFD")) return refuseFor("is not UTF-8 text", asText);
  const value = text.replace(/\r?\n$/, "");
  if (value === "") return refuseFor("is empty", "Write the value into it.");
  return { value };
}

function refuse(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  throw new OperatorError({ exit: "usage", what: "Some --set or --set-file flags can't be used.", problems });
}

function ordinal(number: number): string {
  return ["first", "second", "third"][number - 1] ?? `${number}th`;
}
