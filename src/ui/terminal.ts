import { DefaultRenderer, Listr, ListrLogger, type ListrTaskWrapper, ProcessOutput } from "listr2";
import { messageOf } from "../errors.ts";
import { createLines, type Streams } from "./lines.ts";
import type { Reporter } from "./reporter.ts";
import { duration } from "../units.ts";
import { oneLine } from "./text.ts";

// oxlint-disable-next-line typescript/no-explicit-any
type Task = ListrTaskWrapper<unknown, any, any>;

/** Whoever makes this reporter has seen that there is a terminal. */
class LiveRenderer extends DefaultRenderer {
  static override nonTTY = true;
}

/** ECMA-48: the cursor to the line above, and that line erased. */
const UP_AND_CLEAR = "\u001b[1A\u001b[2K";

/** Where the rows are drawn. */
export interface Screen {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

/**
 * A live row for the step at work, which stays when it is done; what comes next stands in the plan above.
 * listr2 only draws: the engine's events drive it. Lines for between the rows wait until none is drawn.
 */
export function createTerminal(
  streams: Streams,
  now: () => number,
  screen: Screen = { stdout: process.stdout, stderr: process.stderr },
): Reporter {
  let row: Row | null = null;
  let overProgress = false;
  /** Settles once all that was begun is drawn; null while nothing is. */
  let drawing: Promise<void> | null = null;
  const whenFree = (write: (line: string) => void) => (line: string) => {
    if (drawing === null) write(line);
    else drawing = drawing.then(() => write(line));
  };
  const lines = createLines({ out: whenFree(streams.out), err: whenFree(streams.err) }, now);

  const begin = (step: string, title: string): void => {
    row = newRow(step, title, now);
    const { draw } = row;
    drawing = (drawing ?? Promise.resolve())
      .then(() => draw(screen))
      .catch((thrown: unknown) => streams.err(`Warning: the progress can't be drawn: ${messageOf(thrown)}`));
  };
  const finish = (succeeded: boolean): void => {
    row?.settle(succeeded);
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
          finish(false);
          begin(event.step, event.title);
          break;
        case "change-started":
          row?.tell(event.summary);
          break;
        case "progress":
          row?.tell(event.line);
          break;
        case "step-done":
          if (row?.step === event.step) finish(true);
          break;
        case "step-failed":
          if (row?.step === event.step) finish(false);
          else lines.listen(event);
          break;
        case "change-done":
          break;
      }
    },
    progress(line) {
      streams.out(overProgress ? `${UP_AND_CLEAR}${line}` : line);
      overProgress = true;
    },
    note(line) {
      overProgress = false;
      row?.giveBack();
      streams.out(line);
    },
    async close() {
      finish(false);
      for (let last = drawing; last !== null; last = last === drawing ? null : drawing) await last;
      drawing = null;
    },
  };
}

/** One step that is being drawn. */
interface Row {
  readonly step: string;
  readonly tell: (line: string) => void;
  readonly settle: (succeeded: boolean) => void;
  /** Resolves when the row stands finished. */
  readonly draw: (screen: Screen) => Promise<void>;
  /** Ends the drawing at once, for a process that is about to exit: lines get through, the cursor is back. */
  readonly giveBack: () => void;
}

function newRow(step: string, title: string, now: () => number): Row {
  const startedMs = now();
  let settle: Row["settle"] = () => undefined;
  const settled = new Promise<{ readonly succeeded: boolean; readonly tookMs: number }>((resolve) => {
    settle = (succeeded) => resolve({ succeeded, tookMs: now() - startedMs });
  });
  let said = "";
  let task: Task | null = null;
  let output: ProcessOutput | null = null;
  return {
    step,
    settle,
    tell(line) {
      said = oneLine(line);
      if (task !== null) task.output = said;
    },
    giveBack: () => output?.release(),
    async draw({ stdout, stderr }) {
      output = new ProcessOutput(stdout, stderr, { leaveEmptyLine: false });
      const logger = new ListrLogger({ processOutput: output, useIcons: true, toStderr: [] });
      const work = async (_context: unknown, own: Task): Promise<void> => {
        task = own;
        own.output = said;
        const { succeeded, tookMs } = await settled;
        own.title = succeeded ? `${title} (${duration(tookMs)})` : `${title}: failed`;
        if (!succeeded) throw new Error(own.title);
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
