import { DefaultRenderer, Listr, ListrLogger, type ListrTaskWrapper, ProcessOutput } from "listr2";
import { messageOf } from "../errors.ts";
import { duration, visible } from "../units.ts";
import { createLines, type Streams, visibleStreams } from "./lines.ts";
import type { Reporter } from "./reporter.ts";
import { fold, NARROWEST_SCREEN, oneLine, progressLine } from "./text.ts";

// oxlint-disable-next-line typescript/no-explicit-any
type Task = ListrTaskWrapper<unknown, any, any>;

/** The caller of createTerminal has checked that there is a terminal. */
class LiveRenderer extends DefaultRenderer {
  static override nonTTY = true;
}

/** ECMA-48: moves the cursor to the line above and erases that line. */
const UP_AND_CLEAR = "\u001b[1A\u001b[2K";

const USUAL_WIDTH = 80;

/** Where the rows are drawn. */
export interface Screen {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

/**
 * Draws a live row for the current step, with its seconds. The row stays when the step is done. listr2 only draws;
 * the engine's events drive it. Other lines wait until no row is being drawn.
 */
export function createTerminal(
  given: Streams,
  now: () => number,
  screen: Screen = { stdout: process.stdout, stderr: process.stderr },
): Reporter {
  const streams = visibleStreams(given);
  let row: Row | null = null;
  let overProgress = false;
  /** Settles when every started row is drawn; null if there is none. */
  let drawing: Promise<void> | null = null;
  const afterRows = (write: (line: string) => void) => (line: string) => {
    if (drawing === null) write(line);
    else drawing = drawing.then(() => write(line));
  };
  const lines = createLines({ out: afterRows(streams.out), err: afterRows(streams.err) }, now);

  const begin = (step: string, title: string): void => {
    row = newRow(step, title, now);
    const { draw } = row;
    drawing = (drawing ?? Promise.resolve())
      .then(() => draw(screen))
      .catch((thrown: unknown) => streams.err(`Warning: the progress can't be shown: ${messageOf(thrown)}`));
  };
  const finish = (durationMs: number | null): void => {
    row?.settle(durationMs);
    row = null;
  };

  return {
    ...lines,
    listen(event) {
      switch (event.type) {
        case "planned":
        case "warning":
          lines.listen(event);
          break;
        case "step-started":
          finish(null);
          begin(event.step, event.title);
          break;
        case "change-started":
          row?.show(event.summary);
          break;
        case "progress":
          if (row?.step === event.step) row.show(event.line);
          else if (event.waits === true) lines.listen(event);
          break;
        case "step-done":
          if (row?.step === event.step) finish(event.durationMs);
          break;
        case "step-failed":
          if (row?.step === event.step) finish(null);
          else lines.listen(event);
          break;
        case "change-done":
          break;
      }
    },
    progress(line, leftMs) {
      // A line that the terminal would break takes two rows, and only one of them would be replaced.
      const columns = screen.stdout.columns ?? 0;
      const shown = progressLine(
        visible(line, { oneLine: true }),
        leftMs,
        columns > NARROWEST_SCREEN ? columns - 1 : Number.POSITIVE_INFINITY,
      );
      given.out(overProgress ? `${UP_AND_CLEAR}${shown}` : shown);
      overProgress = true;
    },
    note(line) {
      overProgress = false;
      row?.release();
      for (const part of fold(line)) streams.out(part);
    },
    async close() {
      finish(null);
      for (let last = drawing; last !== null; last = last === drawing ? null : drawing) await last;
      drawing = null;
    },
  };
}

/** The row of one step. */
interface Row {
  readonly step: string;
  /** Shows this line below the row. */
  readonly show: (line: string) => void;
  /** Ends the row: with the time that the step took, or null if it failed. */
  readonly settle: (durationMs: number | null) => void;
  /** Resolves when the finished row is drawn. */
  readonly draw: (screen: Screen) => Promise<void>;
  /** Ends the drawing at once, because the process is about to exit: lines are printed again, the cursor is visible. */
  readonly release: () => void;
}

function newRow(step: string, title: string, now: () => number): Row {
  const startedMs = now();
  let settle: Row["settle"] = () => undefined;
  const settled = new Promise<number | null>((resolve) => (settle = resolve));
  let lastLine = "";
  let task: Task | null = null;
  let output: ProcessOutput | null = null;
  return {
    step,
    settle,
    show(line) {
      lastLine = oneLine(line);
      if (task !== null) task.output = lastLine;
    },
    release: () => output?.release(),
    async draw({ stdout, stderr }) {
      widen(stdout);
      output = new ProcessOutput(stdout, stderr, { leaveEmptyLine: false });
      const logger = new ListrLogger({ processOutput: output, useIcons: true, toStderr: [] });
      const work = async (_context: unknown, own: Task): Promise<void> => {
        task = own;
        own.output = lastLine;
        const ticks = setInterval(() => {
          own.title = `${title} (${Math.round((now() - startedMs) / 1000)} s)`;
        }, 1000).unref();
        const durationMs = await settled;
        clearInterval(ticks);
        own.title = durationMs === null ? `${title}: failed` : `${title} (${duration(durationMs)})`;
        if (durationMs === null) throw new Error(own.title);
      };
      await new Listr([{ title, task: work }], {
        renderer: LiveRenderer,
        rendererOptions: { logger, showErrorMessage: false, collapseErrors: false },
        exitOnError: false,
        registerSignalListeners: false,
      }).run();
    },
  };
}

/** Corrects a width that would break every line after one character. listr2 reads it from process.stdout. */
function widen(stdout: NodeJS.WriteStream): void {
  for (const stream of [process.stdout, stdout])
    if (stream.columns !== undefined && stream.columns < NARROWEST_SCREEN) stream.columns = USUAL_WIDTH;
}
