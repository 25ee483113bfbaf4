import { main } from "../../src/main.ts";

/** The result of a verb, as a shell sees it. */
export interface VerbRun {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a verb in this process with the real adapters, and captures its output. */
export async function runVerb(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<VerbRun> {
  const caught = { stdout: "", stderr: "" };
  const stream = (name: "stdout" | "stderr") => ({
    isTTY: false,
    write: (text: string): boolean => {
      caught[name] += text;
      return true;
    },
  });
  const double = {
    argv: ["node", "fula-node", ...args],
    env: environment,
    execPath: process.execPath,
    pid: process.pid,
    stdin: { isTTY: false },
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    on: () => undefined,
    once: () => undefined,
    off: () => undefined,
  };
  const exitCode = await main({
    process: double as unknown as NodeJS.Process,
    output: { onLost: () => undefined },
    version: "0.1.0",
    exit: () => undefined,
  });
  return { exitCode, ...caught };
}
