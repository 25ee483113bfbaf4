import { stripVTControlCharacters } from "node:util";
import type { PlanItem } from "../engine/events.ts";
import type { ExitName, OperatorError } from "../errors.ts";

const WIDTH = 80;
const NARROWEST_CELL = 24;

/**
 * A table of left-aligned columns, the last one wrapped, that fits 80 columns where words allow. Where
 * the columns before it leave too little room, the last one stands below them.
 */
export function table(rows: readonly (readonly string[])[]): readonly string[] {
  const columns = Math.max(...rows.map((row) => row.length), 0);
  const widths = Array.from({ length: Math.max(columns - 1, 0) }, (_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  const wide = widths.reduce((sum, width) => sum + width + 2, 2);
  const below = WIDTH - wide < NARROWEST_CELL;
  const indent = below ? 6 : wide;
  return rows.flatMap((row) => {
    const head = widths.map((width, column) => (row[column] ?? "").padEnd(width)).join("  ");
    const cell = wrap(oneLine(row[columns - 1] ?? ""), WIDTH - indent);
    const [first = "", ...rest] = below ? ["", ...cell] : cell;
    return [
      `  ${head}${head === "" ? "" : "  "}${first}`.trimEnd(),
      ...rest.map((line) => " ".repeat(indent) + line),
    ];
  });
}

/** Breaks a text at blanks; a longer word stands alone, so that paths and commands can be copied whole. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** The plan as a table: one row a change, and why; what is as wished is only counted. */
export function planLines(items: readonly PlanItem[]): readonly string[] {
  const idle = items.filter(({ changes, state }) => changes.length === 0 && state !== "foreign");
  if (idle.length === items.length) return [nothingToDo(items.length)];
  const rows = items.flatMap(({ step, title, state, changes, drift }) => {
    if (state === "foreign" && changes.length === 0) return [[state, step, title]];
    if (changes.length === 0) return [];
    const found = drift.map((difference) => `because: ${difference}`);
    const texts = [...changes.map(({ summary }) => summary), ...found];
    return texts.map((text, index) => (index === 0 ? [state, step, text] : ["", "", text]));
  });
  const rest = idle.length === 0 ? [] : hang(`  As wished: ${idle.map(({ step }) => step).join(", ")}`, 4);
  const consents = items.flatMap(({ consent, changes }) =>
    consent === undefined || consent.given || changes.length === 0
      ? []
      : hang(`  Confirmation required (${consent.flag}): ${consent.question}`, 4),
  );
  return ["Plan", ...table(rows), ...rest, ...consents];
}

function nothingToDo(count: number): string {
  if (count < 2) return "Nothing to do: all is as wished.";
  return `Nothing to do: all ${count} things are as wished.`;
}

/** What failed, why, each problem with its way out, what to do, and what was changed by then. */
export function errorLines(error: OperatorError, exitCode: number): readonly string[] {
  const { what, why, remedy, changed, problems } = error;
  const further = remedy ?? (problems.length > 0 ? "what is said above, then run again." : undefined);
  return [
    ...paragraph("fula-node: ", what, 0),
    ...(why === undefined ? [] : paragraph("Why:     ", why, 2)),
    ...problems.flatMap((problem, index) => {
      const mark = problems.length === 1 ? "- " : `${index + 1}. `.padStart(problems.length > 9 ? 4 : 3);
      return ["", ...paragraph(mark, nameSubject(problem), 2), ...wayOut(problem.remedy, mark.length)];
    }),
    ...(problems.length === 0 ? [] : [""]),
    ...(further === undefined ? [] : paragraph("To do:   ", further, 2)),
    ...paragraph("Changed: ", changed ?? "nothing.", 2),
    `  Exit code ${exitCode} (${error.exit}): ${MEANINGS[error.exit]}.`,
  ];
}

/** The exit codes in words; a script sees the number only. */
const MEANINGS: Record<ExitName, string> = {
  ok: "done",
  bug: "a bug in fula-node",
  usage: "the command line can't be understood",
  pending: "something is still to be done",
  settings: "a setting is missing or wrong",
  preflight: "this machine is not ready",
  foreign: "something of somebody else is in the way",
  drift: "something differs that is not mended unasked",
  locked: "another run is at work",
  interrupted: "stopped part-way; running again is safe",
  unhealthy: "applied, but it does not work",
  integrity: "something was altered; do not try again before you know what",
  unavailable: "something does not answer; try again later",
  newer: "a newer version of fula-node made this",
};

/** A text without colours, cursor movements and other control characters; line breaks and tabs become plain ones. */
export function printable(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll(/\r\n?/g, "\n")
    .replaceAll("\t", "  ")
    .replaceAll(/(?!\n)\p{Cc}/gu, "");
}

/** The same as one line: of a progress bar that draws over itself, the last state. */
export function oneLine(text: string): string {
  return printable(text)
    .trim()
    .replaceAll(/\s*\n\s*/g, " ");
}

function nameSubject({ subject, what }: { readonly subject: string; readonly what: string }): string {
  return what.startsWith(`${subject} `) ? what : `${subject}: ${what}`;
}

function wayOut(remedy: string | undefined, indent: number): readonly string[] {
  return remedy === undefined ? [] : paragraph("To do: ", remedy, 2 + indent);
}

/**
 * A label and a text: a sentence is wrapped behind the label. Further lines of it (a log, a stack) stand
 * below, one to one, so that they can be read and searched for.
 */
function paragraph(label: string, text: string, indent: number): readonly string[] {
  const [first = "", ...rest] = printable(text).trimEnd().split("\n");
  const lead = " ".repeat(indent);
  const behind = " ".repeat(indent + label.length);
  const [line = "", ...more] = wrap(first, WIDTH - behind.length);
  return [
    `${lead}${label}${line}`,
    ...more.map((each) => behind + each),
    ...rest.map((each) => `${behind}${each}`.trimEnd()),
  ];
}

function hang(line: string, indent: number): readonly string[] {
  const lead = /^ */.exec(line)?.[0] ?? "";
  const [first = "", ...rest] = wrap(line.slice(lead.length), WIDTH - Math.max(lead.length, indent));
  return [lead + first, ...rest.map((each) => " ".repeat(indent) + each)];
}
