import type { Node } from "./command-line.ts";
import { commandsOf, DOLLAR, namesOf, quote, tablesOf } from "./completion-words.ts";

/** The completion of bash, version 4 or newer. */
export function bashCompletion(program: Node): readonly string[] {
  return [
    "# Completion of fula-node for bash. To use it: source <(fula-node completion bash)",
    "",
    ...tablesOf(program),
    "",
    "_fula_node_words() {",
    `  case "$1" in`,
    ...commandsOf(program).map(({ path, commands, flags }) => {
      const below = commands.map((one) => one.path.split(" ").at(-1));
      return `    ${quote(path)}) commands=${quote(below.join(" "))} flags=${quote(flags.flatMap(namesOf).join(" "))} ;;`;
    }),
    "  esac",
    "}",
    ...DRIVER,
  ];
}

const DRIVER = String.raw`
_fula_node_reply() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do COMPREPLY+=("$line"); done
}

_fula_node() {
  local cur="${DOLLAR}{COMP_WORDS[COMP_CWORD]}" at="" opt="" word kind="" choices="" commands="" flags="" before=""
  local -i index count=0
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="${DOLLAR}{COMP_WORDS[index]}"
    if [[ -n $opt ]]; then
      # bash gives --flag=value and KEY=value as three words, and @file as two.
      if [[ $word == "=" ]]; then continue
      elif [[ $word == "@" || -z $before && ${DOLLAR}{COMP_WORDS[index + 1]} == "=" ]]; then before=$word
      else opt="" before=""; fi
      continue
    fi
    case "$word" in
      -*) if _fula_node_value "$at" "$word"; then opt="$word"; fi ;;
      *)
        if ((count == 0)) && _fula_node_command "${DOLLAR}{at:+$at }$word"; then at="${DOLLAR}{at:+$at }$word"; else count+=1; fi
        ;;
    esac
  done
  kind="" choices=""
  if [[ -n $opt ]]; then
    if [[ $opt == --invite && $cur == "@" ]]; then before=$cur; fi
    if [[ $cur == "=" || $cur == "@" ]]; then cur=""; fi
    case "$opt$before" in
      --set-file?*|--invite@) kind=file ;;
      *) if [[ -z $before ]]; then _fula_node_value "$at" "$opt"; fi ;;
    esac
  elif [[ $cur == -* ]]; then
    _fula_node_words "$at"
    kind=words choices=$flags
  else
    _fula_node_words "$at"
    if [[ -n $commands ]]; then kind=words choices=$commands; else _fula_node_argument "$at" "$count"; fi
  fi
  case "$kind" in
    words) _fula_node_reply < <(compgen -W "$choices" -- "$cur") ;;
    file) compopt -o filenames 2>/dev/null; _fula_node_reply < <(compgen -f -- "$cur") ;;
    directory) compopt -o filenames 2>/dev/null; _fula_node_reply < <(compgen -d -- "$cur") ;;
    *) COMPREPLY=() ;;
  esac
  # KEY= goes on with its value.
  if ((${DOLLAR}{#COMPREPLY[@]} == 1)) && [[ ${DOLLAR}{COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi
  return 0
}

complete -F _fula_node fula-node`.split("\n");
