import type { Command } from "commander";
import { EXIT_CODES, EXIT_MEANINGS, type ExitName, OperatorError, type VerbExit } from "../errors.ts";
import { describeCommand } from "../shell/command-line.ts";
import type { World } from "../world.ts";

/** `help [COMMAND...]`: what `--help` prints, or with `--json` the whole command line as one object. */
export function help(
  words: readonly string[],
  isJson: boolean,
  { program, world }: { readonly program: Command; readonly world: Pick<World, "reporter" | "version"> },
): VerbExit {
  const command = find(program, words);
  if (!isJson) {
    command.outputHelp();
    return "ok";
  }
  const { commands, ...described } = describeCommand(command);
  world.reporter.result({
    data: {
      verb: "help",
      version: world.version,
      program: program.name(),
      ...described,
      commands,
      exitCodes: Object.entries(EXIT_CODES).map(([name, code]) => {
        const [meaning, remedy] = EXIT_MEANINGS[name as ExitName];
        return { code, name, meaning, remedy };
      }),
    },
    lines: [],
  });
  return "ok";
}

/** The command of these words. Throws (`usage`) if there is none. */
function find(program: Command, words: readonly string[]): Command {
  let at = program;
  for (const word of words) {
    const next = at.commands.find((one) => one.name() === word);
    if (next === undefined)
      throw new OperatorError({
        exit: "usage",
        what: `There is no command ${JSON.stringify(words.join(" "))}.`,
        remedy: "fula-node help lists all commands.",
      });
    at = next;
  }
  return at;
}
