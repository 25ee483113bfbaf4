import { countOf, duration } from "../../units.ts";
import type { Drill } from "../drill.ts";
import { type Entry, slugOf } from "../catalogue.ts";
import type { DrillResult, DrillRun } from "./run-drills.ts";

type Table = (rows: readonly (readonly string[])[]) => readonly string[];

/** What people read about a drill that has ended: state, id, title and what it found; below it what to do about it. */
export function linesOfDrill(result: DrillResult, table: Table, verbose: boolean): readonly string[] {
  const { id, title, state, summary, todo, proves, evidence, durationMs } = result;
  const below = [
    ...(todo === null ? [] : [`Do: ${todo}`]),
    ...result.leftovers.map((line) => `An earlier run had left: ${line}`),
    ...(verbose ? [`It proves: ${proves}`] : []),
    ...(verbose ? Object.entries(evidence).map(([key, value]) => `${key}: ${value}`) : []),
    ...(verbose ? result.cleaned.map((line) => `Cleaned up: ${line}`) : []),
  ];
  return unbroken(table, [
    [state.padEnd("skipped".length), id.padEnd(3), `${title}: ${summary} (${duration(durationMs)})`],
    ...below.map((line) => ["", "", line]),
  ]);
}

/** A table that breaks no line between a number and its unit. */
function unbroken(table: Table, rows: readonly (readonly string[])[]): readonly string[] {
  const tied = rows.map((row) =>
    row.map((cell) => cell.replaceAll(/(\d) (?=(?:s|ms|min|h|days?|bytes|[kMGT]B)\b)/g, "$1\u00a0")),
  );
  return table(tied).map((line) => line.replaceAll("\u00a0", " "));
}

/** The drills that did not begin for the same reason as one before them, which people read once. */
export function linesOfSame(ids: readonly string[], table: Table): readonly string[] {
  return ids.length === 0 ? [] : table([[`Not run for the same reason: ${ids.join(", ")}`]]);
}

/** The last lines: how many drills passed and did not, and what is left undone. */
export function concludeDrills(
  { results, stopped }: DrillRun,
  durationMs: number,
  exitCode: number,
): readonly string[] {
  const count = countStates(results);
  const said = [
    ...(count.failed === 0 ? [] : [`${count.failed} failed`]),
    ...(count.passed === 0 ? [] : [`${count.passed} passed`]),
    ...(count.skipped === 0
      ? []
      : [`${count.skipped} skipped (${count.skipped === 1 ? "it proves" : "they prove"} nothing here)`]),
  ];
  const counts = said.length === 0 ? "no drill ended" : said.join(", ");
  const all = results.length > 0 && count.passed === results.length && stopped === null;
  const whole = all
    ? results.length === 1
      ? "The drill passed"
      : `All ${results.length} drills passed`
    : counts;
  const end = `${whole} ${said.length === 0 ? `(${duration(durationMs)}, exit ${exitCode})` : `in ${duration(durationMs)} (exit ${exitCode})`}.`;
  return [
    `${end.charAt(0).toUpperCase()}${end.slice(1)}`,
    ...(stopped === null ? [] : [tellStop(stopped, results.length)]),
  ];
}

/** How many drills ended how. */
export function countStates(
  results: readonly Pick<DrillResult, "state">[],
): Record<DrillResult["state"], number> {
  const count = (state: DrillResult["state"]) => results.filter((one) => one.state === state).length;
  return { passed: count("passed"), failed: count("failed"), skipped: count("skipped") };
}

function tellStop({ drill }: NonNullable<DrillRun["stopped"]>, ended: number): string {
  if (drill === null && ended === 0) return "Stopped before the first drill: nothing was made.";
  if (drill === null) return "Stopped between two drills. Nothing is left of them.";
  const { id, title, fault } = drill;
  return fault === null
    ? `Stopped in ${id} ${title}. It has cleaned up: nothing of it is left.`
    : `Stopped in ${id} ${title}, and ${fault}. Run it again: it cleans up first.`;
}

/** The list of the drills: what each proves, what it touches, how long it takes, and whether cron may run it. */
export function linesOfList(
  drills: readonly (Pick<Drill, "id" | "proves" | "isScheduled"> &
    Pick<Entry, "title" | "touches" | "usual">)[],
  table: Table,
): readonly string[] {
  return unbroken(
    table,
    drills.flatMap((drill) => [
      [drill.id, slugOf(drill), drill.proves],
      [
        "",
        "",
        `Touches ${drill.touches}. Usually ${drill.usual}.${drill.isScheduled ? "" : " Never by cron."}`,
      ],
    ]),
  );
}

/** What ends TAP before any drill could begin. */
export function tapRefusal(what: string): readonly string[] {
  return ["TAP version 14", `Bail out! ${escapeTap(what)}`];
}

/** The first lines of TAP version 14 (testanything.org). */
export function tapStart(count: number): readonly string[] {
  return ["TAP version 14", `1..${count}`];
}

/** A test point of TAP with its diagnostics, which are YAML: a text in double quotes is written as JSON writes it. */
export function tapOfDrill(result: DrillResult, number: number): readonly string[] {
  const { id, title, state, summary, todo, proves, evidence, durationMs, leftovers, cleaned } = result;
  const directive = state === "skipped" ? ` # SKIP ${escapeTap(summary)}` : "";
  const list = (key: string, lines: readonly string[]) =>
    lines.length === 0 ? [] : [`${key}: ${JSON.stringify(lines)}`];
  const diagnostics = [
    ...(state === "failed" ? [`message: ${JSON.stringify(summary)}`, "severity: fail"] : []),
    ...(state === "passed" ? [`found: ${JSON.stringify(summary)}`] : []),
    ...(todo === null ? [] : [`todo: ${JSON.stringify(todo)}`]),
    `proves: ${JSON.stringify(proves)}`,
    `duration_ms: ${durationMs}`,
    ...list("leftovers", leftovers),
    ...list("cleaned", cleaned),
    ...Object.entries(evidence).flatMap(([key, value], index) => [
      ...(index === 0 ? ["evidence:"] : []),
      `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`,
    ]),
  ];
  return [
    `${state === "failed" ? "not ok" : "ok"} ${number} - ${escapeTap(`${id} ${title}`)}${directive}`,
    "  ---",
    ...diagnostics.map((line) => `  ${line}`),
    "  ...",
  ];
}

/** What ends TAP before its plan is fulfilled; nothing if it is. */
export function tapEnd({ results, stopped }: DrillRun): readonly string[] {
  return stopped === null
    ? [`# ${countOf(results.length, "drill")}`]
    : [`Bail out! ${escapeTap(tellStop(stopped, results.length))}`];
}

/** In a description, `#` begins a directive. */
function escapeTap(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll("\\", "\\\\").replaceAll("#", "\\#");
}
