import { CommanderError } from "commander";
import { EXIT_CODES, messageOf, OperatorError } from "./errors.ts";
import { describeProgram } from "./program.ts";
import type { Run, Verb, VerbKind } from "./program-verbs.ts";
import type { Reporter } from "./ui/reporter.ts";
import { fitTo, widthFor } from "./ui/text.ts";
import { capitalised } from "./units.ts";
import { createReporter, createWorld } from "./world.ts";

/** Called when standard output can't be written to any more. `isClosed`: its reader has ended, as `head` does. */
export type OnOutputLost = (lost: { readonly isClosed: boolean; readonly why: string }) => void;

/** What cli.ts passes: this process, and the only way to end it. */
export interface ProcessContext {
  readonly process: NodeJS.Process;
  readonly output: {
    /** Sets what happens when standard output is lost; at once if it is lost already. By default, nothing happens. */
    onLost(handler: OnOutputLost): void;
  };
  readonly version: string;
  readonly exit: (exitCode: number) => void;
}

/** Runs the verb that the arguments name, and returns the exit code of the process. */
export async function main(context: ProcessContext): Promise<number> {
  const { process, version } = context;
  let exitCode: number = EXIT_CODES.ok;
  const run: Run = async (verb, kind = "changes") => {
    exitCode = await runVerb(verb, { ...context, kind });
    if (kind === "asks" || kind === "takes-back") context.exit(exitCode);
  };
  const columns = process.stdout.isTTY ? process.stdout.columns : undefined;
  fitTo(columns);
  const program = describeProgram(version, run, widthFor(columns));
  try {
    await program.parseAsync([...process.argv]);
    return exitCode;
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    // It has printed the help, because that was asked for or nothing was.
    if (thrown.exitCode === 0) return EXIT_CODES.ok;
    if (thrown.code === "commander.help") return EXIT_CODES.usage;
    (await createReporter(process, process.argv.includes("--json"), false)).error(
      usageError(thrown),
      EXIT_CODES.usage,
    );
    return EXIT_CODES.usage;
  }
}

/** What an option of a verb that was left out can look like. */
const EXAMPLES: readonly (readonly [option: string, example: string])[] = [
  ["--reason", '--reason "why"'],
  ["--key", "--key invoice-117"],
  ["--email", "--email ann@example.org"],
  ["--since", "--since 2026-01-31T12:00Z"],
];

/** `error: unknown option '--bas-dir'\n(Did you mean --base-dir?)` as one of our errors. */
function usageError({ code, message }: CommanderError): OperatorError {
  const [, what = message, hint] = /^(?:error: )?(.*?)\.?(?:\n\((Did you mean .*)\))?$/s.exec(message) ?? [];
  const help = "fula-node COMMAND --help lists the flags of a command, and fula-node --help all commands.";
  const isMissing = code === "commander.missingMandatoryOptionValue";
  const example = EXAMPLES.find(([option]) => isMissing && what.includes(`'${option} `))?.[1];
  const advice = example === undefined ? hint : `Add it, such as ${example}.`;
  return new OperatorError({
    exit: "usage",
    what: `${capitalised(what)}.`,
    remedy: advice === undefined ? help : `${advice} ${help}`,
  });
}

/** As a shell reports a program that SIGPIPE has ended: 128 and the signal's number. */
const CLOSED_OUTPUT = 141;

/** The exit code for a verb that a signal ends at once: 128 and its number. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

function stopping(signal: string): string {
  return `Stopped by ${signal}: it cleans up, then ends. A second signal ends it at once.\n`;
}

function stoppedAtOnce(signal: string): string {
  return `Stopped by ${signal} at once. Something that it made may be left:\nthe same command removes it when it runs again.\n`;
}

function stopped(signal: string, isUntouched: boolean): string {
  const what = isUntouched
    ? "Nothing was changed."
    : "The last change may be half done; running again is safe and continues from there.";
  return `Stopped by ${signal}. ${what}`;
}

/** A reporter that also notes whether a change was started. */
export function watchChanges(given: Reporter): {
  readonly reporter: Reporter;
  readonly hasStarted: () => boolean;
} {
  let isStarted = false;
  const listen: Reporter["listen"] = (event) => {
    if (event.type === "change-started") isStarted = true;
    given.listen(event);
  };
  return { reporter: { ...given, listen }, hasStarted: () => isStarted };
}

async function runVerb(
  verb: Verb,
  { process, output, version, exit, kind }: ProcessContext & { readonly kind: VerbKind },
): Promise<number> {
  const stopController = new AbortController();
  let watch: ReturnType<typeof watchChanges> | null = null;
  const stop = (signal: keyof typeof SIGNALS): void => {
    const isFirst = !stopController.signal.aborted;
    stopController.abort();
    if (kind === "serves" || kind === "follows") return;
    if (kind === "takes-back") {
      // A terminal that closes sends SIGHUP more than once: it never cuts a clean-up short.
      if (!isFirst && signal === "SIGHUP") return;
      if (signal !== "SIGHUP") process.once(signal, stop);
      process.stderr.write(isFirst ? stopping(signal) : stoppedAtOnce(signal));
      if (isFirst) return;
    } else if (watch === null || kind === "reads" || kind === "asks")
      process.stderr.write(`${stopped(signal, true)}\n`);
    else {
      const { reporter, hasStarted } = watch;
      for (const line of ["", ...reporter.wrap(stopped(signal, kind === "plans" && !hasStarted()))])
        reporter.note(line);
    }
    exit(SIGNALS[signal]);
  };
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  if (kind === "takes-back") process.on("SIGHUP", stop);
  const created = await createWorld(process, version, {
    json: process.argv.includes("--json"),
    stop: stopController.signal,
  });
  watch = watchChanges(created.reporter);
  const world = { ...created, reporter: watch.reporter };
  output.onLost(({ isClosed, why }) => {
    if (!isClosed) process.stderr.write(`Warning: The output can't be written: ${why}.\n`);
    if (kind === "reads" || kind === "asks" || kind === "follows")
      exit(isClosed ? CLOSED_OUTPUT : EXIT_CODES.unavailable);
  });
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
    process.off("SIGHUP", stop);
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
