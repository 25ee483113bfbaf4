import type { Node } from "./command-line.ts";
import { commandsOf, DOLLAR, namesOf, quote, tablesOf } from "./completion-words.ts";

/** The completion of zsh. */
export function zshCompletion(program: Node): readonly string[] {
  return [
    "#compdef fula-node",
    "# Completion of fula-node for zsh. To use it: save it as _fula-node in a directory of $fpath.",
    "",
    ...tablesOf(program),
    "",
    "_fula_node_words() {",
    `  case "$1" in`,
    ...commandsOf(program).flatMap(({ path, commands, flags }) => [
      `    ${quote(path)})`,
      `      commands=(${commands.map((one) => described(one.path.split(" ").at(-1) ?? "", one.about)).join(" ")})`,
      `      flags=(${flags.flatMap((flag) => namesOf(flag).map((name) => described(name, flag.about))).join(" ")})`,
      "      ;;",
    ]),
    "  esac",
    "}",
    ...DRIVER,
  ];
}

/** A name and what it does, as `_describe` reads them. */
function described(name: string, about: string): string {
  return quote(`${name.replaceAll(":", String.raw`\:`)}:${about}`);
}

const DRIVER = String.raw`
_fula_node() {
  local cur="${DOLLAR}{words[CURRENT]}" at="" opt="" word kind="" choices=""
  local -a commands flags known open
  local -i index count=0
  for ((index = 2; index < CURRENT; index++)); do
    word="${DOLLAR}{words[index]}"
    if [[ -n $opt ]]; then
      opt=""
      continue
    fi
    case "$word" in
      -*=*) ;;
      -*) if _fula_node_value "$at" "$word"; then opt="$word"; fi ;;
      *)
        if ((count == 0)) && _fula_node_command "${DOLLAR}{at:+$at }$word"; then at="${DOLLAR}{at:+$at }$word"; else count+=1; fi
        ;;
    esac
  done
  kind="" choices=""
  if [[ -z $opt && $cur == --*=* ]]; then
    opt="${DOLLAR}{cur%%=*}"
    compset -P '*='
  fi
  if [[ -n $opt ]]; then
    _fula_node_value "$at" "$opt"
    if [[ $opt == --set-file && $cur == *=* ]]; then
      compset -P '*='
      kind=file
    elif [[ $opt == --invite && $cur == @* ]]; then
      compset -P '@'
      kind=file
    fi
  elif [[ $cur == -* ]]; then
    _fula_node_words "$at"
    _describe -o 'option' flags
    return
  else
    _fula_node_words "$at"
    if ((${DOLLAR}{#commands})); then
      _describe 'command' commands
      return
    fi
    _fula_node_argument "$at" "$count"
  fi
  case "$kind" in
    words)
      # KEY= goes on with its value.
      open=(${DOLLAR}{(M)${DOLLAR}{=choices}:#*=})
      known=(${DOLLAR}{${DOLLAR}{=choices}:#*=})
      if ((${DOLLAR}{#open})); then compadd -S '' -- $open; fi
      if ((${DOLLAR}{#known})); then compadd -- $known; fi
      ;;
    file) _files ;;
    directory) _files -/ ;;
  esac
}

if [[ $funcstack[1] == _fula-node ]]; then
  _fula_node "$@"
else
  compdef _fula_node fula-node
fi`.split("\n");
