import { type Command, Help, type HelpConfiguration, Option } from "commander";
import type { VerbExit } from "./errors.ts";
import type { World } from "./world.ts";

/** One verb with its flags; it still needs the World. */
export type Verb = (world: World) => Promise<VerbExit>;
/**
 * How a verb ends before its end. A signal ends it at once (running again continues), but a service finishes its requests.
 * A closed output (`| head`) ends a verb that only reads; one that changes something goes on. `asks`: as `reads`, and when
 * it has printed, it does not wait for questions that are still open. `takes-back`: the first signal lets it take back what it
 * made, and a second one ends it at once; when it has ended, it does not wait either. `follows`: a signal is its usual end, and
 * a closed output ends it as if it only `reads`. `plans`: as `changes`, and it reports each change before it starts it: until the
 * first one, nothing was changed.
 */
export type VerbKind = "changes" | "plans" | "reads" | "asks" | "serves" | "takes-back" | "follows";
/** Runs one verb until it ends. */
export type Run = (verb: Verb, kind?: VerbKind) => Promise<void>;

/** Adds commands to a group. Each gets the flags that all of them have. */
export function adderTo(group: Command, baseDir: () => Option): (name: string, about: string) => Command {
  return (name, about) =>
    group
      .command(name)
      .description(about)
      .addOption(baseDir())
      .option("--json", "print one JSON object instead of text");
}

/** The flag of joins that puts the version before back. What that version is, its settings say. */
export function rollback(): Option {
  const others = ["set", "setFile", "adopt", "replace", "ignore", "images", "invite", "fingerprint"];
  const about =
    "put the version before back: revert what it does not know of the schema, then let it make its services again; kubo's repository and ipfs-cluster's data stay as they are";
  return new Option("--rollback", about).default(false).conflicts([...others, "provisionWriter"]);
}

/** The flag of verbs that can show what they would do. */
export function dryRun(): Option {
  const about = "show what would change, and change nothing (exit code 20 if anything would change)";
  return new Option("--dry-run", about).default(false);
}

const USUAL_COLUMNS = 80;
const BELOW = 6;

/**
 * How the help is laid out. No default is shown that only says that nothing was given. On a narrow terminal, the text of each item
 * stands below its name.
 */
export function helpFor(columns: number): HelpConfiguration {
  const usual: HelpConfiguration = { optionDescription: describeOption };
  if (columns >= USUAL_COLUMNS) return usual;
  return {
    ...usual,
    minWidthToWrap: BELOW,
    formatItem(term, _width, description, helper) {
      const lines = description === "" ? [] : helper.boxWrap(description, columns - BELOW).split("\n");
      return [`  ${term}`, ...lines.map((line) => " ".repeat(BELOW) + line)].join("\n");
    },
  };
}

function describeOption(option: Option): string {
  const { defaultValue } = option as { readonly defaultValue: unknown };
  const isNothing = defaultValue === false || (Array.isArray(defaultValue) && defaultValue.length === 0);
  const shown = isNothing
    ? Object.assign(Object.create(option) as Option, { defaultValue: undefined })
    : option;
  return new Help().optionDescription(shown);
}

/** Collects the values of a flag that can be given more than once. */
export function collect(value: string, previous: readonly string[]): readonly string[] {
  return [...previous, value];
}
