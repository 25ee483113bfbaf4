import { CommanderError } from "commander";
import { EXIT_CODES, messageOf, OperatorError } from "./errors.ts";
import { describeProgram, type OnSignal, type Run, type Verb } from "./program.ts";
import { createWorld } from "./world.ts";

/** What cli.ts passes: this process, and the only way to end it. */
export interface ProcessContext {
  readonly process: NodeJS.Process;
  readonly version: string;
  readonly exit: (exitCode: number) => void;
}

/** Runs the verb that the arguments name, and returns the exit code of the process. */
export async function main(context: ProcessContext): Promise<number> {
  const { process, version } = context;
  let exitCode: number = EXIT_CODES.ok;
  const run: Run = async (verb, onSignal = "exit") => {
    exitCode = await runVerb(verb, { ...context, onSignal });
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
  { process, version, exit, onSignal }: ProcessContext & { readonly onSignal: OnSignal },
): Promise<number> {
  const stopController = new AbortController();
  const world = await createWorld(process, version, {
    json: process.argv.includes("--json"),
    stop: stopController.signal,
  });
  const stop = (signal: "SIGINT" | "SIGTERM"): void => {
    stopController.abort();
    if (onSignal === "finish") return;
    world.reporter.note(
      `\nStopped by ${signal}. The last change may be half done; running again is safe and continues from there.`,
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
    remedy: "Report it with these lines. Running again is safe.",
    changed: "unknown; the journal in the base directory lists every change that was started.",
    cause: thrown,
  });
}
