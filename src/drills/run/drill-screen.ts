import type { Monotonic } from "../../status/collect.ts";
import type { Reporter } from "../../ui/reporter.ts";
import { utcSeconds } from "../../units.ts";
import { concludeDrills, linesOfDrill, linesOfSame, tapEnd, tapOfDrill, tapStart } from "./drill-lines.ts";
import { type DrillListener, type DrillResult, type DrillRun, NOT_RUN } from "./run-drills.ts";

/** Shows drills while they run. */
export interface DrillScreen extends DrillListener {
  /** What earlier runs of other drills had left, and is removed now. */
  cleared(lines: readonly string[]): void;
  /** The last lines, which the result has. */
  end(run: DrillRun, durationMs: number, exitCode: number): readonly string[];
}

type Lines = Pick<Reporter, "note" | "progress" | "table">;

/** What takes longer than this is shown before it ends. */
const LONG_MS = 2_000;

/** For people: a line for each drill as it ends, and what goes on in one that takes long. */
export function openTextScreen(reporter: Lines, clock: Monotonic, verbose: boolean): DrillScreen {
  const table: Lines["table"] = (rows) => reporter.table(rows);
  const same = rememberNotRun();
  let isLong = false;
  let callOff = (): void => {};
  return {
    cleared(lines) {
      for (const line of lines)
        for (const row of table([[`Removed what an earlier run had left: ${line}`]])) reporter.note(row);
    },
    started({ id, title }) {
      isLong = false;
      callOff = clock.after(LONG_MS, () => {
        isLong = true;
        reporter.progress(`  ${id} ${title} ...`);
      });
    },
    said({ id }, line) {
      if (isLong) reporter.progress(`  ${id} ${line}`);
    },
    ended(result) {
      callOff();
      if (same.isSame(result)) return;
      for (const line of linesOfDrill(result, table, verbose)) reporter.note(line);
    },
    end(run, durationMs, exitCode) {
      callOff();
      return [...linesOfSame(same.ids(), table), ...concludeDrills(run, durationMs, exitCode)];
    },
  };
}

/** Knows the drills that did not begin for a reason that was said before. */
function rememberNotRun() {
  const reasons = new Set<string>();
  const ids: string[] = [];
  return {
    ids: () => ids,
    isSame({ id, summary }: DrillResult): boolean {
      if (!summary.startsWith(NOT_RUN)) return false;
      const isSame = reasons.has(summary);
      reasons.add(summary);
      if (isSame) ids.push(id);
      return isSame;
    },
  };
}

/** For a test harness: TAP version 14, with a comment where it takes long. */
export function openTapScreen({ note }: Lines, clock: Monotonic, count: number): DrillScreen {
  let number = 0;
  let callOff = (): void => {};
  for (const line of tapStart(count)) note(line);
  return {
    cleared(lines) {
      for (const line of lines) note(`# removed what an earlier run had left: ${line}`);
    },
    started({ id, title }) {
      callOff = clock.after(LONG_MS, () => note(`# ${id} ${title} ...`));
    },
    said() {},
    ended(result) {
      callOff();
      number += 1;
      for (const line of tapOfDrill(result, number)) note(line);
    },
    end(run) {
      callOff();
      return tapEnd(run);
    },
  };
}

/** For the log of the cron job: one line for each drill, with its time. */
export function openLogScreen({ note }: Lines, now: () => Date): DrillScreen {
  return {
    cleared(lines) {
      for (const line of lines) note(`${utcSeconds(now())} removed what an earlier run had left: ${line}`);
    },
    started() {},
    said() {},
    ended({ id, title, state, summary, todo, leftovers }) {
      const rest = [
        ...(todo === null ? [] : [`do: ${todo}`]),
        ...leftovers.map((line) => `an earlier run had left: ${line}`),
      ];
      note(`${utcSeconds(now())} ${state} ${id} ${[`${title}: ${summary}`, ...rest].join("; ")}`);
    },
    end: (run, durationMs, exitCode) =>
      concludeDrills(run, durationMs, exitCode).map((line) => `${utcSeconds(now())} ${line}`),
  };
}
