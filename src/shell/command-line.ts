import type { Argument, Command, Option } from "commander";

/** What a place on the command line can hold, for completion. */
export type Kind = "words" | "file" | "directory" | "text";

/** The value of an option, or an argument. */
export interface Place {
  /** As the help names it: `file`, `key=value`. */
  readonly name: string;
  readonly required: boolean;
  readonly repeatable: boolean;
  readonly kind: Kind;
  /** All possible values if the kind is `words`, else those that are known; a word that ends with `=` goes on. */
  readonly choices: readonly string[];
}

/** One flag. */
export interface Flag {
  readonly long: string | null;
  readonly short: string | null;
  readonly about: string;
  /** Null for a flag without a value. */
  readonly value: Place | null;
  /** Null if there is none, or if the text says it. */
  readonly byDefault: string | number | boolean | null;
  readonly isMandatory: boolean;
  readonly isRepeatable: boolean;
}

/** One command with everything below it. */
export interface Node {
  /** `snapshot take`; empty for the program itself. */
  readonly path: string;
  readonly about: string;
  readonly usage: string;
  readonly arguments: readonly (Place & { readonly about: string })[];
  readonly flags: readonly Flag[];
  readonly commands: readonly Node[];
}

/** Values that the description of a place does not have itself, by the command's path and the place. */
export type Suggest = (path: string, place: string) => readonly string[];

/** The names of values in the help that stand for a file, and for a directory. */
const FILES: ReadonlySet<string> = new Set(["file", "path", "archive", "pem", "key=path"]);
const DIRECTORIES: ReadonlySet<string> = new Set(["dir"]);

/** Describes a command and what is below it, as `--help` shows them: without what is hidden. */
export function describeCommand(command: Command, suggest: Suggest = () => []): Node {
  const path = pathOf(command);
  const help = command.createHelp();
  const own = new Set(command.commands);
  return {
    path,
    about: command.description(),
    usage: `${[programOf(command), path].filter((part) => part !== "").join(" ")} ${command.usage()}`,
    arguments: command.registeredArguments.map((one) => ({
      ...placeOf(one, suggest(path, one.name())),
      about: one.description,
    })),
    flags: help.visibleOptions(command).map((option) => flagOf(option, path, suggest)),
    commands: help
      .visibleCommands(command)
      // Not the command help that commander adds to each group.
      .filter((one) => own.has(one))
      .map((one) => describeCommand(one, suggest)),
  };
}

/** A command and all below it. */
export function flatten(node: Node): readonly Node[] {
  return [node, ...node.commands.flatMap(flatten)];
}

/** `snapshot take`: the words after the program's name. */
function pathOf(command: Command): string {
  const { parent } = command;
  if (parent === null) return "";
  return [pathOf(parent), command.name()].filter((part) => part !== "").join(" ");
}

function programOf(command: Command): string {
  return command.parent === null ? command.name() : programOf(command.parent);
}

function placeOf(argument: Argument, known: readonly string[]): Place {
  const { argChoices } = argument;
  return {
    name: argument.name(),
    required: argument.required,
    repeatable: argument.variadic,
    ...kindOf(argument.name(), argChoices, known),
  };
}

function flagOf(option: Option, path: string, suggest: Suggest): Flag {
  const { long = null, short = null, description, defaultValue, mandatory } = option;
  const [, name] = /[<[]([^\]>]+?)(?:\.\.\.)?[\]>]/.exec(option.flags) ?? [];
  const known = long === null ? [] : suggest(path, long);
  const isRepeatable = option.variadic || Array.isArray(defaultValue);
  const isPlain = ["string", "number", "boolean"].includes(typeof defaultValue);
  return {
    long,
    short,
    about: description,
    value:
      name === undefined
        ? null
        : {
            name,
            required: option.required,
            repeatable: isRepeatable,
            ...kindOf(name, option.argChoices, known),
          },
    byDefault: isPlain ? (defaultValue as string | number | boolean) : null,
    isMandatory: mandatory,
    isRepeatable,
  };
}

function kindOf(
  name: string,
  choices: readonly string[] | undefined,
  known: readonly string[],
): Pick<Place, "kind" | "choices"> {
  if (choices !== undefined) return { kind: "words", choices };
  if (known.length > 0) return { kind: "words", choices: known };
  if (DIRECTORIES.has(name)) return { kind: "directory", choices: [] };
  return { kind: FILES.has(name) ? "file" : "text", choices: [] };
}
