import { EXIT_CODES } from "../errors.ts";
import { describeVerdict, EXIT_OF, type Part, verdictOf } from "./part.ts";

/** One fact below the parts that is shown as it is, and not judged: `Pins  4,812`. */
export interface Note {
  readonly name: string;
  readonly text: string;
}

/** What the screen shows. */
export interface Screen {
  /** `fula-node 0.2.0 · master berlin-1 of pool my-pool`. */
  readonly header: string;
  readonly parts: readonly Part[];
  readonly notes: readonly Note[];
  /** More about a node on which nothing is wrong, as the start of a clause: "this node is still syncing". */
  readonly remark: string | null;
}

/** The rows of the parts: state, name, summary; below them what to do and, with `verbose`, the evidence. */
export function rowsOf(parts: readonly Part[], verbose: boolean): readonly (readonly string[])[] {
  return parts.flatMap(({ state, name, summary, todo, evidence }) => [
    [state, name, summary],
    ...(todo === null ? [] : [["", "", todo]]),
    ...(verbose ? Object.entries(evidence).map(([key, value]) => ["", "", `${key}: ${value}`]) : []),
  ]);
}

/** Both keep to 80 columns: `table` aligns rows and wraps the last column, `wrap` breaks a sentence. */
export interface Widths {
  readonly table: (rows: readonly (readonly string[])[]) => readonly string[];
  readonly wrap: (text: string) => readonly string[];
}

/** All lines. */
export function linesOf(
  { header, parts, notes, remark }: Screen,
  { table, wrap }: Widths,
  verbose: boolean,
): readonly string[] {
  return [
    ...wrap(header),
    "",
    ...table(rowsOf(parts, verbose)),
    "",
    ...(notes.length === 0 ? [] : [...table(notes.map(({ name, text }) => [name, text])), ""]),
    ...wrap(conclude(parts, remark)),
  ];
}

/** The last line: how many parts are not ok, the most serious first, and the exit code. */
export function conclude(parts: readonly Pick<Part, "state">[], remark: string | null): string {
  const exit = EXIT_CODES[EXIT_OF[verdictOf(parts)]];
  const all = describeVerdict(parts);
  return `${all}${remark === null ? "" : `; ${remark}`} (exit ${exit}).`;
}
