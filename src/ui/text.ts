import { X509Certificate } from "node:crypto";
import { stripVTControlCharacters } from "node:util";
import type { PlanItem } from "../engine/events.ts";
import type { OperatorError, Problem } from "../errors.ts";
import { countOf, visible } from "../units.ts";

const USUAL_WIDTH = 80;
/** Below this width a terminal does not know its size: script(1) reports 0 columns without a window. */
export const NARROWEST_SCREEN = 20;
const NARROWEST_CELL = 24;

/** How wide lines are: one terminal shows all that a process prints. */
let screenWidth = USUAL_WIDTH;

/**
 * Fits all lines to a terminal of that many columns; undefined if the output is not a terminal. A wider one changes nothing: long
 * lines are hard to read, and a log is read later. Only the composition root calls it.
 */
export function fitTo(columns: number | undefined): void {
  screenWidth = widthFor(columns);
}

/** The width of lines on a terminal of that many columns. */
export function widthFor(columns: number | undefined): number {
  return columns === undefined || columns < NARROWEST_SCREEN ? USUAL_WIDTH : Math.min(columns, USUAL_WIDTH);
}
/** The indent of a last column that stands below the others. */
const BELOW = 6;
const WIDEST_VERB = "unchanged".length;

/**
 * A table of left-aligned columns that fits the screen if the words allow it. The last column is wrapped. If
 * the other columns leave too little space, for all rows or for one with a long word, it stands below them. A line of
 * one word that is longer still moves to the left.
 */
export function table(rows: readonly (readonly string[])[]): readonly string[] {
  const columns = Math.max(...rows.map((row) => row.length), 0);
  const widths = Array.from({ length: Math.max(columns - 1, 0) }, (_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  const wide = widths.reduce((sum, width) => sum + width + 2, 2);
  const isNarrow = screenWidth - wide < NARROWEST_CELL;
  // Columns that do not fit beside each other are no columns any more.
  if (wide - 2 > screenWidth && screenWidth < USUAL_WIDTH)
    return rows.flatMap((row) =>
      hang(
        "  ",
        row
          .filter((cell) => cell.trim() !== "")
          .map(oneLine)
          .join("  "),
        BELOW,
      ),
    );
  return rows.flatMap((row) => {
    const head = widths.map((width, column) => (row[column] ?? "").padEnd(width)).join("  ");
    const last = oneLine(row[columns - 1] ?? "");
    const longest = Math.max(...wordsOf(last).map((word) => word.length));
    const below =
      last !== "" && (isNarrow || (longest > screenWidth - wide && longest <= screenWidth - BELOW));
    const indent = below ? BELOW : wide;
    const cell = wrap(last, screenWidth - indent);
    const [start = ""] = cell;
    const apart = below || (indent + start.length > screenWidth && indent > BELOW);
    if (apart && head.trim() === "") return cell.map((line) => place(line, indent));
    const [first = "", ...rest] = apart ? ["", ...cell] : cell;
    return [
      `  ${head}${head === "" ? "" : "  "}${first}`.trimEnd(),
      ...rest.map((line) => place(line, indent)),
    ];
  });
}

/** A line at its indent, or further left if it is too long for it. */
function place(line: string, indent: number): string {
  return " ".repeat(Math.max(0, Math.min(indent, screenWidth - line.length))) + line;
}

/** What an operator pastes begins with one of these, or has a sign of a shell in it. */
const PROGRAMS =
  "(?:sudo|fula-node|node|npx|docker|systemctl|journalctl|apt-get|curl|sed|mkdir|scp|cp|chmod)";
const COMMAND = new RegExp(`^${PROGRAMS} [-\\w./]`);
const HAS_COMMAND = new RegExp(`(?:^|\\s)${PROGRAMS} [-a-z/]|[$|>&\`]| --`);

/** The parts of a text between which a line may break: words, what is between `backticks`, and a text that is a command as a whole. */
function wordsOf(text: string): readonly string[] {
  if (COMMAND.test(text) && !/[.,:;](?: |$)| \(/.test(text)) return [text];
  const words = text.split(" ");
  if (text.split("`").length % 2 === 0) return words;
  const parts: string[] = [];
  let isOpen = false;
  for (const word of words) {
    if (isOpen) parts.push(`${parts.pop() ?? ""} ${word}`);
    else parts.push(word);
    if (word.split("`").length % 2 === 0) isOpen = !isOpen;
  }
  return parts;
}

/** Breaks a text at spaces. A word that is too long gets its own line, so that paths and commands can be copied. */
export function wrap(text: string, width = screenWidth): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of wordsOf(text)) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/**
 * The plan: one line per change, with the reason below a repair; what is blocked, and what to do about it; in one
 * line what stays unchanged; the missing confirmations; and the number of changes. [] if there is nothing to do.
 */
export function planLines(items: readonly PlanItem[]): readonly string[] {
  const rows = items.flatMap(planRows);
  if (rows.length === 0) return [];
  const unchanged = items.filter((item) => planRows(item).length === 0).map(({ step }) => step);
  const consents = items.flatMap(({ consent, confirmations = [], changes }) =>
    [...(consent === undefined ? [] : [consent]), ...confirmations].flatMap(({ flag, question, given }) =>
      given || changes.length === 0 ? [] : hang("  ", `Confirmation required (${flag}): ${question}`, 4),
    ),
  );
  return [
    "",
    ...rows,
    ...(unchanged.length === 0 ? [] : planRow("=", "unchanged", unchanged.join(", "))),
    ...(consents.length === 0 ? [] : ["", ...consents]),
    "",
    ...hang("  ", planTotal(items)),
  ];
}

function planRows(item: PlanItem): readonly string[] {
  const { step, state, changes, drift, settings = [], why = "", remedy } = item;
  if (isBlocked(item))
    return [...planRow("!", "blocked", `${step}: ${why}`), ...planRow(" ", "", remedy ?? "")];
  if (changes.length === 0) return [];
  const kept = settings.flatMap((line) => KEPT_DEFAULT.exec(line)?.[1] ?? []);
  const settingRows = [
    ...settings
      .filter((line) => !KEPT_DEFAULT.test(line))
      .flatMap((line) => planRow(state === "absent" ? "+" : "~", "setting", shortenCertificates(line))),
    ...(kept.length === 0
      ? []
      : planRow("~", "setting", `no longer saved, the value stays: ${kept.join(", ")}`)),
  ];
  if (state === "absent")
    return [
      ...changes.flatMap(({ summary }) => {
        const [verb, object] = splitSummary(summary);
        return planRow("+", verb, object);
      }),
      ...settingRows,
    ];
  const verb = state === "foreign" ? "adopt" : "repair";
  const reasons =
    state === "foreign" ? [why] : drift.filter((line) => !settings.includes(line)).map(shortenCertificates);
  return [
    ...changes.flatMap(({ summary }) => {
      const removed = /^remove (.+)$/s.exec(summary)?.[1];
      return removed === undefined ? planRow("~", verb, summary) : planRow("-", "remove", removed);
    }),
    ...reasons.flatMap((reason) => planRow(" ", "", `reason: ${reason}`)),
    ...settingRows,
  ];
}

/** A default that `.env` has no more, and that is still the same. */
const KEPT_DEFAULT = /^(\S+) (.+) -> \2 \(default released\)$/s;

/** A foreign thing has a remedy in the plan unless `--adopt` takes it over. */
function isBlocked({ state, remedy }: PlanItem): boolean {
  return state === "foreign" && remedy !== undefined;
}

function planRow(mark: string, verb: string, text: string): readonly string[] {
  return hang(`  ${mark} ${verb.padEnd(WIDEST_VERB)} `, oneLine(text));
}

/** The verbs that the plan shows in their own column for something new, by the first word of a change's summary. */
const VERBS: ReadonlyMap<string, string> = new Map([
  ...["announce", "build", "create", "install", "load", "migrate", "point", "pull", "record", "start"].map(
    (verb) => [verb, verb] as const,
  ),
  ["go", "go"],
  ["take", "take"],
  ["make", "create"],
  ["write", "create"],
]);

/** `write /opt/x/.env` -> `create` and `/opt/x/.env`. A summary that begins with another verb is given whole. */
function splitSummary(summary: string): readonly [verb: string, object: string] {
  const services = /^bring up (.+)$/s.exec(summary)?.[1];
  if (services !== undefined) return ["start", services];
  const [, word = "", object = ""] = /^([a-z]+) (.+)$/s.exec(summary) ?? [];
  const verb = VERBS.get(word);
  // `write down in FILE that ...` and the like are more than a verb and an object.
  if (verb === undefined || (verb === "create" && !/^(?:\/|the |its |an? )/.test(object)))
    return ["create", summary];
  return [verb, object];
}

function planTotal(items: readonly PlanItem[]): string {
  const changes = items.reduce((sum, item) => sum + item.changes.length, 0);
  const blocked = items.filter(isBlocked).length;
  if (blocked === 0) return `${countOf(changes, "change")}. Nothing has been changed yet.`;
  const counts = [...(changes === 0 ? [] : [countOf(changes, "change")]), `${blocked} blocked`];
  return `${counts.join(", ")}. Nothing has been changed.`;
}

/** What failed, why, each problem with its remedy, what to do, and what was changed before the error. */
export function errorLines(error: OperatorError, exitCode: number): readonly string[] {
  const { what, why, changed } = error;
  // A single problem that the headline already says is not repeated below it.
  const problems = error.problems.filter(
    (one) => error.problems.length > 1 || (one.what !== what && nameSubject(one) !== what),
  );
  const remedy = remedyOf(error);
  const reason = why === undefined ? [] : paragraph("  Why:     ", why);
  const end = [
    ...(remedy === undefined ? [] : paragraph("  Do:      ", remedy)),
    ...paragraph("  Changed: ", changed ?? "nothing."),
  ];
  const numbered = problems.length > 1;
  const blocks = [
    paragraph("fula-node: ", what),
    ...(problems.length === 0
      ? [[...reason, ...end]]
      : [
          ...(reason.length === 0 ? [] : [reason]),
          ...problems.map((problem, index) =>
            numbered
              ? numberedProblem(problem, index, problems.length)
              : paragraph("  ", nameSubject(problem)),
          ),
          end,
        ]),
    [`Exit code ${exitCode} (${error.exit}).`],
  ];
  return blocks.flatMap((block, index) => (index === 0 ? block : ["", ...block]));
}

function numberedProblem(problem: Problem, index: number, count: number): readonly string[] {
  const mark = `  ${`${index + 1}.`.padStart(count > 9 ? 3 : 2)} `;
  return [
    ...paragraph(mark, nameSubject(problem)),
    ...(problem.remedy === undefined ? [] : paragraph(`${" ".repeat(mark.length)}Do: `, problem.remedy)),
  ];
}

/** The remedy of the whole error. That of a single problem belongs to it; several problems show theirs themselves. */
function remedyOf({ remedy, problems }: OperatorError): string | undefined {
  if (problems.length === 0) return remedy;
  const own = problems.length === 1 ? problems[0]?.remedy : undefined;
  if (own !== undefined) return remedy === undefined ? own : `${own} ${remedy}`;
  return remedy ?? "Correct what is listed, then run again.";
}

function nameSubject({ subject, what }: Problem): string {
  return what.startsWith(`${subject} `) ? what : `${subject}: ${what}`;
}

/** A text without colours, cursor movements and other control characters. Line breaks and tabs become plain ones. */
export function printable(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll(/\r\n?/g, "\n")
    .replaceAll("\t", "  ")
    .replaceAll(/(?!\n)\p{Cc}/gu, "");
}

/** The same as one line. */
export function oneLine(text: string): string {
  return visible(printable(text))
    .trim()
    .replaceAll(/\s*\n\s*/g, " ");
}

/**
 * A label and a text. The first line is wrapped behind the label. Further lines (a log, a stack) stand below it,
 * unwrapped, so that they can be read and searched for.
 */
function paragraph(label: string, text: string): readonly string[] {
  const [first = "", ...log] = printable(text).trimEnd().split("\n");
  const indent = " ".repeat(label.length);
  return [...hang(label, first), ...log.map((line) => `${indent}${line}`.trimEnd())];
}

/**
 * A label, and a text that is wrapped behind it at `indent`. A word that is too long moves to the left, so that
 * the line fits the screen if the word does.
 */
export function hang(label: string, text: string, indent = label.length): readonly string[] {
  const lines = wrap(text, screenWidth - Math.max(indent, label.length));
  const [first = "", ...rest] = lines;
  if (label.length + first.length > screenWidth && label.trim() !== "")
    return [label.trimEnd(), ...lines.map((line) => place(line, indent))];
  if (label.length + first.length > screenWidth) return lines.map((line) => place(line, indent));
  return [`${label}${first}`.trimEnd(), ...rest.map((line) => place(line, indent))];
}

/**
 * A line of progress, with the seconds that the wait can still take, in at most `width` characters: the seconds stay.
 */
export function progressLine(
  line: string,
  leftMs: number | undefined,
  width = Number.POSITIVE_INFINITY,
): string {
  const left = leftMs === undefined ? "" : ` (up to ${Math.ceil(leftMs / 1000)} s)`;
  const room = Math.max(0, width - left.length);
  return `${line.length <= room ? line : `${line.slice(0, Math.max(0, room - 1))}…`}${left}`;
}

/** A certificate in base64, as settings have it. */
const CERTIFICATE = /(?<![A-Za-z0-9+/])MI[A-Za-z0-9+/]{100,8000}={0,2}/g;

/** A line in which each certificate is shown by its fingerprint and its end: nobody reads the base64 of one. */
function shortenCertificates(line: string): string {
  return line.replaceAll(CERTIFICATE, (base64) => {
    try {
      const { fingerprint256, validTo } = new X509Certificate(Buffer.from(base64, "base64"));
      const start = fingerprint256.replaceAll(":", "").slice(0, 16).toLowerCase();
      return `certificate ${start}... until ${new Date(validTo).toISOString().slice(0, 10)}`;
    } catch {
      return `${base64.slice(0, 12)}... (${base64.length} characters)`;
    }
  });
}

/**
 * A line that no caller has wrapped, broken for a narrow terminal. One with a command stays in one piece: the terminal
 * breaks it where it likes, and gives it back whole to whoever copies it.
 */
export function fold(line: string): readonly string[] {
  if (screenWidth === USUAL_WIDTH) return [line];
  return line.split("\n").flatMap((part) => {
    if (part.length <= screenWidth || HAS_COMMAND.test(part)) return [part];
    const indent = /^ */.exec(part)?.[0] ?? "";
    return hang(indent, part.slice(indent.length));
  });
}
