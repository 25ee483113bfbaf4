import { PassThrough } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import type { Journal } from "../../../src/engine/journal.ts";
import { run } from "../../../src/engine/run.ts";
import type { Change, StepSpec } from "../../../src/engine/step.ts";
import { OperatorError } from "../../../src/errors.ts";
import { createTerminal } from "../../../src/ui/terminal.ts";
import { FakeHost } from "../../support/fake-host.ts";

const HIDE = "\u001B[?25l";
const SHOW = "\u001B[?25h";

/** A screen that keeps everything that is written to it, and a terminal on it that also prints its lines there. */
function makeScreen(columns = 80) {
  let written = "";
  const stream = () => {
    const pipe = new PassThrough();
    const keep = (chunk: string | Uint8Array): boolean => {
      written += String(chunk);
      return true;
    };
    return Object.assign(pipe, { write: keep, columns, rows: 24 }) as unknown as NodeJS.WriteStream;
  };
  const screen = { stdout: stream(), stderr: stream() };
  let clock = 0;
  const put = (line: string): void => void screen.stdout.write(`${line}\n`);
  const terminal = createTerminal({ out: put, err: put }, () => (clock += 1000), screen);
  return {
    terminal,
    raw: () => written,
    isDrawing: () => written.lastIndexOf(HIDE) > written.lastIndexOf(SHOW),
    text: () => stripVTControlCharacters(written),
    until: async (text: string) => {
      const deadline = Date.now() + 10_000;
      while (!stripVTControlCharacters(written).includes(text)) {
        if (Date.now() > deadline) throw new Error(`"${text}" is not in ${written}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  };
}

const started = (step: string) => ({ type: "step-started", step, title: `the ${step}`, changes: 1 }) as const;
const done = (step: string) =>
  ({ type: "step-done", step, title: `the ${step}`, changed: true, durationMs: 1000 }) as const;
const failed = (step: string) => ({ type: "step-failed", step, title: `the ${step}` }) as const;

describe("a wait on a terminal", () => {
  it("is one row with the seconds that are left, replaced in place and never broken in two", () => {
    const { terminal, raw } = makeScreen(40);
    const line = "waiting for a master to list this node as a peer";
    terminal.progress(line, 30_000);
    terminal.progress(line, 29_000);
    terminal.progress("done", 1000);
    const rows = raw()
      .split("\n")
      .filter((row) => row !== "");
    expect(rows).toEqual([
      `${line.slice(0, 25)}… (up to 30 s)`,
      `\u001B[1A\u001B[2K${line.slice(0, 25)}… (up to 29 s)`,
      "\u001B[1A\u001B[2Kdone (up to 1 s)",
    ]);
  });
});

describe("the live list", () => {
  it("draws the step at work with its change and progress, and leaves it there when it is done", async () => {
    const { terminal, text, until, isDrawing } = makeScreen();
    terminal.listen(started("images"));
    terminal.listen({ type: "change-started", step: "images", summary: "pull kubo" });
    await until("pull kubo");
    terminal.listen({ type: "progress", step: "images", line: "\u001B[31m17 of\r 40 MB" });
    await until("17 of 40 MB");
    terminal.listen(done("images"));
    terminal.listen(started("postgres"));
    await until("the postgres");
    terminal.listen(done("postgres"));
    await terminal.close();
    expect(text()).toMatch(/the images \(\d+\.0 s\)[^]*the postgres \(\d+\.0 s\)/);
    expect(isDrawing()).toBe(false);
  });

  it("shows the seconds of the current step", async () => {
    const { terminal, until } = makeScreen();
    terminal.listen(started("images"));
    await until("the images (1 s)");
    await terminal.close();
  });

  it("draws whole lines on a terminal that says it is 0 columns wide", async () => {
    const before = process.stdout.columns;
    process.stdout.columns = 0;
    try {
      const { terminal, text } = makeScreen(0);
      terminal.listen(started("images"));
      terminal.listen(done("images"));
      await terminal.close();
      expect(text()).toMatch(/[\u2714\u221A] the images \(1\.0 s\)\n/);
    } finally {
      process.stdout.columns = before;
    }
  });

  it("shows a failed step as failed, and the one before it as done", async () => {
    const { terminal, text } = makeScreen();
    terminal.listen(started("images"));
    terminal.listen(done("images"));
    terminal.listen(started("postgres"));
    terminal.listen(failed("postgres"));
    await terminal.close();
    terminal.error(new OperatorError({ exit: "unhealthy", what: "It does not work." }), 27);
    expect(text()).toMatch(/the images \(1\.0 s\)/);
    expect(text()).toMatch(/[\u2716\u00D7] the postgres: failed\n[^]*fula-node: It does not work\./);
    expect(text()).not.toMatch(/[\u2714\u221A] the postgres/);
  });

  it("prints a line if a step fails that changes nothing", async () => {
    const { terminal, text } = makeScreen();
    terminal.listen(failed("services"));
    await terminal.close();
    expect(text()).toContain("services: failed\n");
  });

  it("prints lines after the rows that were started before them, drawn or not", async () => {
    const { terminal, text } = makeScreen();
    terminal.listen(started("images"));
    terminal.listen({ type: "warning", text: "early" });
    terminal.listen(done("images"));
    terminal.listen(failed("services"));
    await terminal.close();
    expect(text()).toMatch(/the images \(1\.0 s\)\nWarning: early\nservices: failed\n$/);
  });

  it("ends at close, wherever the run is", async () => {
    const events = [
      started("images"),
      { type: "change-started", step: "images", summary: "s" } as const,
      done("images"),
      started("postgres"),
      failed("postgres"),
    ];
    for (let count = 0; count <= events.length; count += 1) {
      for (const waits of [false, true]) {
        const { terminal, isDrawing, until } = makeScreen();
        for (const event of events.slice(0, count)) terminal.listen(event);
        if (waits && count > 0) await until("the images");
        await terminal.close();
        await terminal.close();
        expect(isDrawing()).toBe(false);
      }
    }
  });

  it("keeps warnings out of the drawing, and shows them behind the row in their order", async () => {
    const { terminal, text, until } = makeScreen();
    terminal.listen({ type: "warning", text: "first" });
    terminal.listen(started("images"));
    await until("the images");
    terminal.listen({ type: "warning", text: "second" });
    terminal.listen({ type: "warning", text: "third" });
    expect(text()).not.toContain("second");
    terminal.listen(done("images"));
    await terminal.close();
    terminal.result({ data: {}, lines: ["Done."] });
    expect(text()).toMatch(
      /^Warning: first\n[^]*the images \(\d+\.0 s\)\nWarning: second\nWarning: third\nDone\.\n$/,
    );
  });

  it("gives the screen back at once when a note comes, as at a signal", async () => {
    const { terminal, raw, until, isDrawing } = makeScreen();
    terminal.listen(started("images"));
    await until("the images");
    expect(isDrawing()).toBe(true);
    terminal.note("Stopped by SIGINT.");
    expect(isDrawing()).toBe(false);
    expect(raw()).toMatch(/Stopped by SIGINT\.\n$/);
    await terminal.close();
  });

  it("leaves signals and their exit codes to others", async () => {
    const { terminal, until } = makeScreen();
    const before = process.listenerCount("SIGINT");
    terminal.listen(started("images"));
    await until("the images");
    expect(process.listenerCount("SIGINT")).toBe(before);
    await terminal.close();
  });

  it("warns if it can't draw, and the run continues", async () => {
    const lines: string[] = [];
    const write = () => {
      throw new Error("the screen is gone");
    };
    const stream = { write } as unknown as NodeJS.WriteStream;
    const broken = { stdout: stream, stderr: stream };
    const streams = {
      out: (line: string) => void lines.push(line),
      err: (line: string) => void lines.push(line),
    };
    const terminal = createTerminal(streams, () => 0, broken);
    terminal.listen(started("images"));
    terminal.listen(done("images"));
    await terminal.close();
    expect(lines).toEqual(["Warning: the progress can't be shown: the screen is gone"]);
  });
});

describe("a run on a terminal", () => {
  it("asks everything before it draws, and nothing while it does", async () => {
    const { terminal, isDrawing, text } = makeScreen();
    const asked: { readonly question: string; readonly whileDrawing: boolean }[] = [];
    const made = new Set<string>();
    const journal: Journal = { around: (_step, _change, effect) => effect() };
    await run({
      steps: [stepOf("first", made), stepOf("second", made)],
      host: new FakeHost(),
      journal,
      listen: terminal.listen,
      ask: (question) => {
        asked.push({ question, whileDrawing: isDrawing() });
        return Promise.resolve(true);
      },
      dryRun: false,
      yes: false,
      adopted: new Set(),
      consents: new Set(),
    });
    await terminal.close();
    expect(asked).toEqual([
      { question: "May first be made?", whileDrawing: false },
      { question: "May second be made?", whileDrawing: false },
      { question: "Make these 2 changes?", whileDrawing: false },
    ]);
    expect(text()).toMatch(/2 changes\. Nothing has been changed yet\.\n[^]*the first \([^]*the second \(/);
  });
});

function stepOf(id: string, made: Set<string>): StepSpec<null, Change> {
  return {
    id,
    title: `the ${id}`,
    touches: "Nothing real.",
    probe: () =>
      Promise.resolve(
        made.has(id)
          ? { state: "ours", seen: null, evidence: {} }
          : {
              state: "absent",
              seen: null,
              evidence: {},
              consent: {
                flag: `--${id}`,
                question: `May ${id} be made?`,
                byDefault: true,
                explicit: false,
                remedy: "",
              },
            },
      ),
    plan: ({ state }) => (state === "ours" ? [] : [{ kind: "make", summary: `make ${id}` }]),
    apply: async (_change, _host, report) => {
      report("at it");
      await new Promise((resolve) => setImmediate(resolve));
      made.add(id);
    },
    verify: () => Promise.resolve(),
  };
}
