import { flatten, type Flag, type Node, type Place } from "./command-line.ts";

/** Before a brace of a script, which a template of ours would read itself. */
export const DOLLAR = "$";

/** A text between single quotes of bash and zsh. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** The names of a flag: `-y` and `--yes`. */
export function namesOf({ short, long }: Flag): readonly string[] {
  return [short, long].filter((name) => name !== null);
}

/** Every command below the program, and the program itself. */
export function commandsOf(program: Node): readonly Node[] {
  return flatten(program);
}

/**
 * Functions that bash and zsh read alike. `_fula_node_command` is true for a path that is a command. `_fula_node_value` is true if a
 * flag of a command takes a value, and `_fula_node_argument` if something is known of an argument; both set `kind` and `choices`.
 */
export function tablesOf(program: Node): readonly string[] {
  const commands = commandsOf(program);
  const values = commands.flatMap(({ path, flags }) =>
    flags.flatMap((flag) =>
      flag.value === null
        ? []
        : [
            `    ${namesOf(flag)
              .map((name) => quote(`${path} ${name}`))
              .join("|")}) ${setPlace(flag.value)} ;;`,
          ],
    ),
  );
  const places = commands.flatMap(({ path, arguments: all }) =>
    all.flatMap((place, index) =>
      place.kind === "text"
        ? []
        : [`    ${quote(`${path} `)}${place.repeatable ? "*" : quote(String(index))}) ${setPlace(place)} ;;`],
    ),
  );
  const paths = commands.map(({ path }) => path).filter((path) => path !== "");
  return [
    "_fula_node_command() {",
    `  case "$1" in`,
    `    ${paths.map(quote).join("|")}) return 0 ;;`,
    "  esac",
    "  return 1",
    "}",
    "",
    "_fula_node_value() {",
    `  case "$1 $2" in`,
    ...values,
    "    *) return 1 ;;",
    "  esac",
    "}",
    "",
    "_fula_node_argument() {",
    `  case "$1 $2" in`,
    ...places,
    "    *) return 1 ;;",
    "  esac",
    "}",
  ];
}

function setPlace({ kind, choices }: Place): string {
  return `kind=${kind} choices=${quote(choices.join(" "))}`;
}
