import type { PlanItem } from "../engine/events.ts";
import type { OperatorError } from "../errors.ts";

const WIDTH = 80;

/** A table of left-aligned columns, the last one wrapped, that fits 80 columns where words allow. */
export function table(rows: readonly (readonly string[])[]): readonly string[] {
  const columns = Math.max(...rows.map((row) => row.length), 0);
  const widths = Array.from({ length: Math.max(columns - 1, 0) }, (_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  const indent = widths.reduce((sum, width) => sum + width + 2, 2);
  return rows.flatMap((row) => {
    const head = widths.map((width, column) => (row[column] ?? "").padEnd(width)).join("  ");
    const [first = "", ...rest] = wrap(row[columns - 1] ?? "", Math.max(WIDTH - indent, 24));
    return [
      `  ${head}${head === "" ? "" : "  "}${first}`.trimEnd(),
      ...rest.map((line) => " ".repeat(indent) + line),
    ];
  });
}

/** Breaks a text at blanks; a longer word stands alone. */
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

/** The plan as a table: one row a change; what is as wished is only counted. */
export function planLines(items: readonly PlanItem[]): readonly string[] {
  const idle = items.filter(({ changes, state }) => changes.length === 0 && state !== "foreign");
  const rows = items.flatMap(({ step, state, changes, why }) => {
    if (state === "foreign" && changes.length === 0) return [[state, step, why ?? ""]];
    return changes.map(({ summary }, index) => (index === 0 ? [state, step, summary] : ["", "", summary]));
  });
  const consents = items.flatMap(({ consent, changes }) =>
    consent === undefined || changes.length === 0
      ? []
      : [`  needs your word (${consent.flag}): ${consent.question}`],
  );
  if (rows.length === 0) return [`Nothing to do: all ${idle.length} things are as wished.`];
  const rest = idle.length === 0 ? [] : [`  as wished: ${idle.map(({ step }) => step).join(", ")}`];
  return [
    "Plan",
    ...table(rows),
    ...rest.flatMap((line) => hang(line)),
    ...consents.flatMap((line) => hang(line)),
  ];
}

/** What failed, why, what to do, what was changed. */
export function errorLines(error: OperatorError, exitCode: number): readonly string[] {
  return [
    ...hang(`fula-node: ${error.what}`, 11),
    ...error.problems.flatMap(({ subject, what, remedy }) => [
      ...hang(`  - ${subject}: ${what}`, 4),
      ...(remedy === undefined ? [] : hang(`    To do: ${remedy}`, 11)),
    ]),
    ...(error.why === undefined ? [] : hang(`  Why: ${error.why}`, 7)),
    ...(error.remedy === undefined ? [] : hang(`  To do: ${error.remedy}`, 9)),
    ...hang(`  Changed: ${error.changed ?? "nothing."}`, 11),
    `  Exit code ${exitCode} (${error.exit}).`,
  ];
}

/** A duration for people: `0.4 s`, `2 min 5 s`. */
export function duration(ms: number): string {
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

function hang(line: string, indent = 4): readonly string[] {
  const lead = /^ */.exec(line)?.[0] ?? "";
  const [first = "", ...rest] = wrap(line.slice(lead.length), WIDTH - Math.max(lead.length, indent));
  return [lead + first, ...rest.map((each) => " ".repeat(indent) + each)];
}
