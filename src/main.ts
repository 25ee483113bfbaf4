import { CommanderError } from "commander";
import { EXIT_CODES, messageOf, OperatorError } from "./errors.ts";
import { describeProgram, type OnSignal, type Run, type Verb } from "./program.ts";
import { createWorld } from "./world.ts";

/** What cli.ts hands on: this process, and the only way out of it. */
export interface Surroundings {
  readonly process: NodeJS.Process;
  readonly version: string;
  readonly exit: (exitCode: number) => void;
}

/** Runs the verb that the arguments name and gives the process's exit code. */
export async function main(surroundings: Surroundings): Promise<number> {
  const { process, version } = surroundings;
  let exitCode: number = EXIT_CODES.ok;
  const run: Run = async (verb, onSignal = "exit") => {
    exitCode = await runVerb(verb, { ...surroundings, onSignal });
  };
  const program = describeProgram(version, run);
  try {
    await program.parseAsync([...process.argv]);
    return exitCode;
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT_CODES.ok : EXIT_CODES.usage;
    throw thrown;
  }
}

async function runVerb(
  verb: Verb,
  { process, version, exit, onSignal }: Surroundings & { readonly onSignal: OnSignal },
): Promise<number> {
  const stopping = new AbortController();
  const world = await createWorld(process, version, {
    json: process.argv.includes("--json"),
    stop: stopping.signal,
  });
  const stop = (signal: "SIGINT" | "SIGTERM"): void => {
    stopping.abort();
    if (onSignal === "finish") return;
    world.reporter.note(
      `\nStopped by ${signal}. What was begun may be half done; running again is safe and goes on from there.`,
    );
    exit(signal === "SIGINT" ? 130 : 143);
  };
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  try {
    return EXIT_CODES[await verb(world)];
  } catch (thrown) {
    const error = thrown instanceof OperatorError ? thrown : asBug(thrown);
    await world.reporter.close();
    world.reporter.error(error, EXIT_CODES[error.exit]);
    return EXIT_CODES[error.exit];
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

function asBug(thrown: unknown): OperatorError {
  return new OperatorError({
    exit: "bug",
    what: `This is a bug in fula-node: ${messageOf(thrown)}.`,
    why: thrown instanceof Error ? (thrown.stack ?? "no stack") : "no stack",
    remedy: "Please report it with these lines. Running again is safe.",
    changed: "unknown; the journal in the base directory tells what was begun.",
    cause: thrown,
  });
}
