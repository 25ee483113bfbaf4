import { Listr, type ListrTaskWrapper } from "listr2";
import type { PlanItem, RunEvent } from "../engine/events.ts";
import { createLines, type Streams } from "./lines.ts";
import type { Reporter } from "./reporter.ts";
import { planLines } from "./text.ts";

// oxlint-disable-next-line typescript/no-explicit-any
type Task = ListrTaskWrapper<unknown, any, any>;

interface Row {
  readonly done: Promise<boolean>;
  readonly finish: (succeeded: boolean) => void;
  task: Task | null;
}

/**
 * A live list of the steps that change something. listr2 only draws: the engine's events drive it, and
 * questions are asked before it starts.
 */
export function createTerminal(streams: Streams, now: () => number): Reporter {
  const lines = createLines(streams, now);
  const rows = new Map<string, Row>();
  let items: readonly PlanItem[] = [];
  let drawing: Promise<unknown> | null = null;

  const start = (): void => {
    if (drawing !== null) return;
    const changing = items.filter(({ changes }) => changes.length > 0);
    for (const { step } of changing) rows.set(step, newRow());
    const list = new Listr(
      changing.map(({ step, title }) => ({
        title,
        task: async (_context: unknown, task: Task) => {
          const row = rows.get(step);
          if (row === undefined) return;
          row.task = task;
          if (!(await row.done)) throw new Error(`${title} failed`);
        },
      })),
      { concurrent: true, exitOnError: false, rendererOptions: { collapseSubtasks: false } },
    );
    drawing = list.run();
  };

  const show = (event: RunEvent): void => {
    switch (event.type) {
      case "planned":
        items = event.items;
        for (const line of planLines(event.items)) streams.out(line);
        break;
      case "warning":
        lines.listen(event);
        break;
      case "step-started":
        start();
        break;
      case "change-started":
        output(rows.get(event.step), event.summary);
        break;
      case "progress":
        output(rows.get(event.step), event.line);
        break;
      case "step-done":
        rows.get(event.step)?.finish(true);
        break;
      case "step-failed":
        rows.get(event.step)?.finish(false);
        break;
      case "change-done":
        break;
    }
  };

  return {
    ...lines,
    listen: show,
    async close() {
      for (const row of rows.values()) row.finish(false);
      await drawing;
      drawing = null;
    },
  };
}

function newRow(): Row {
  let finish: (succeeded: boolean) => void = () => undefined;
  const done = new Promise<boolean>((resolve) => (finish = resolve));
  return { done, finish, task: null };
}

function output(row: Row | undefined, line: string): void {
  if (row?.task != null) row.task.output = line;
}
