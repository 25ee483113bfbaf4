import type { Flag, Node, Place } from "./command-line.ts";
import { commandsOf, namesOf } from "./completion-words.ts";

/** The completion of fish. */
export function fishCompletion(program: Node): readonly string[] {
  const commands = commandsOf(program);
  const paths = commands.map(({ path }) => path).filter((path) => path !== "");
  const valued = commands.flatMap(({ path, flags }) =>
    flags.flatMap((flag) => (flag.value === null ? [] : namesOf(flag).map((name) => `${path} ${name}`))),
  );
  return [
    "# Completion of fula-node for fish. To use it: fula-node completion fish | source",
    "",
    `set -g __fula_node_commands ${paths.map(quoteFish).join(" ")}`,
    `set -g __fula_node_valued ${valued.map(quoteFish).join(" ")}`,
    ...HELPERS,
    "",
    "complete -c fula-node -e",
    "complete -c fula-node -f",
    ...commands.flatMap(linesOf),
  ];
}

function quoteFish(text: string): string {
  return `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`;
}

function linesOf({ path, commands, flags, arguments: places }: Node): readonly string[] {
  const here = `complete -c fula-node -n ${quoteFish(`__fula_node_at ${quoteFish(path)}`)}`;
  return [
    ...commands.map(
      (one) => `${here} -a ${quoteFish(one.path.split(" ").at(-1) ?? "")} -d ${quoteFish(one.about)}`,
    ),
    ...flags.map((flag) => `${here} ${flagWords(flag)} -d ${quoteFish(flag.about)}`),
    ...places
      .filter(({ kind }) => kind !== "text")
      .slice(0, 1)
      .map((place) => `${here} ${placeWords(place)}`),
  ];
}

function flagWords({ short, long, value }: Flag): string {
  return [
    ...(short === null ? [] : [`-s ${short.slice(1)}`]),
    ...(long === null ? [] : [`-l ${long.slice(2)}`]),
    ...(value === null ? [] : [valueWords(value)]),
  ].join(" ");
}

/** fish itself completes a path behind `KEY=`. */
function valueWords(value: Place): string {
  if (value.kind === "file") return "-r -F";
  return `${value.name === "key=path" ? "-r -F" : "-x"} ${placeWords(value)}`.trim();
}

function placeWords({ kind, choices }: Place): string {
  if (kind === "file") return "-F";
  if (kind === "directory") return `-a '(__fish_complete_directories)'`;
  return kind === "words" ? `-a ${quoteFish(choices.join(" "))}` : "";
}

const HELPERS = String.raw`
# True if the command that was typed so far is this one.
function __fula_node_at
    set -l at
    set -l skip 0
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case '-*=*'
            case '-*'
                if contains -- "$at $word" $__fula_node_valued
                    set skip 1
                end
            case '*'
                set -l next (string trim -- "$at $word")
                if contains -- $next $__fula_node_commands
                    set at $next
                end
        end
    end
    test "$at" = "$argv[1]"
end`.split("\n");
