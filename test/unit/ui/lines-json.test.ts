import { describe, expect, it, onTestFinished, vi } from "vitest";
import type { RunEvent } from "../../../src/engine/events.ts";
import { OperatorError } from "../../../src/errors.ts";
import { createJson } from "../../../src/ui/json.ts";
import { createLines } from "../../../src/ui/lines.ts";
import type { Reporter } from "../../../src/ui/reporter.ts";
import { createTerminal } from "../../../src/ui/terminal.ts";
import { visible } from "../../../src/units.ts";
import { REALISTIC_PLAN } from "../../support/ui-samples.ts";

function catchLines() {
  const out: string[] = [];
  const err: string[] = [];
  return {
    out,
    err,
    streams: { out: (line: string) => void out.push(line), err: (line: string) => void err.push(line) },
  };
}

const step = "images";
const begun: RunEvent = { type: "change-started", step, summary: "pull kubo" };
const progress = (line: string): RunEvent => ({ type: "progress", step, line });

describe("plain lines", () => {
  const printLines = () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const caught = catchLines();
    return { ...caught, reporter: createLines(caught.streams, () => performance.now()) };
  };
  const started: RunEvent = { type: "step-started", step, title: "images", changes: 2 };
  const done = (durationMs: number, changed = true): RunEvent => ({
    type: "step-done",
    step,
    title: "images",
    changed,
    durationMs,
  });

  it("print a short step when it is done, and nothing of a step that changed nothing", () => {
    const { out, err, reporter } = printLines();
    reporter.listen(started);
    reporter.listen(begun);
    vi.advanceTimersByTime(1999);
    reporter.listen(progress("half"));
    reporter.listen({ type: "change-done", step, summary: "pull kubo" });
    reporter.listen(done(1999));
    vi.advanceTimersByTime(60_000);
    reporter.listen(done(5, false));
    expect(out).toEqual(["images: done in 2.0 s"]);
    expect(err).toEqual([]);
  });

  it("print a long step after two seconds, its progress at most every 30 seconds, and its end", () => {
    const { out, reporter } = printLines();
    reporter.listen(started);
    reporter.listen(begun);
    for (let second = 1; second <= 70; second += 1) {
      vi.advanceTimersByTime(1000);
      reporter.listen(progress(`${second} of 70`));
    }
    reporter.listen({ type: "step-failed", step, title: "images" });
    expect(out).toEqual(["images: pull kubo ...", "images: 32 of 70", "images: 62 of 70", "images: failed"]);
  });

  it("do not repeat the same progress", () => {
    const { out, reporter } = printLines();
    reporter.listen(started);
    for (let second = 1; second <= 90; second += 1) {
      vi.advanceTimersByTime(1000);
      reporter.listen(progress("waiting for kubo"));
    }
    expect(out).toEqual(["images: images ...", "images: waiting for kubo"]);
  });

  it("say what a step waits for after two seconds, also if it changes nothing, and not every time", () => {
    const { out, reporter } = printLines();
    const wait = (line: string): RunEvent => ({ type: "progress", step: "edge", line, waits: true });
    reporter.listen(wait("not yet: no certificate"));
    vi.advanceTimersByTime(1900);
    reporter.listen(wait("not yet: no certificate"));
    expect(out).toEqual([]);
    for (let tenth = 0; tenth <= 400; tenth += 1) {
      vi.advanceTimersByTime(100);
      reporter.listen(wait(tenth < 200 ? "not yet: no certificate" : "not yet: no answer"));
    }
    expect(out).toEqual(["edge: not yet: no certificate", "edge: not yet: no answer"]);
  });

  it("continue when the clock is set back", () => {
    const { out, reporter } = printLines();
    reporter.listen(started);
    vi.advanceTimersByTime(2000);
    vi.setSystemTime(0);
    vi.advanceTimersByTime(30_000);
    reporter.listen(progress("still there"));
    expect(out.at(-1)).toBe("images: still there");
  });

  it("print the progress of a long run every ten seconds, and no line twice in a row", () => {
    const { out, reporter } = printLines();
    for (let second = 0; second <= 25; second += 1) {
      reporter.progress(second < 20 ? "waiting for a peer" : `${second} of 25 pins`);
      vi.advanceTimersByTime(1000);
    }
    expect(out).toEqual(["waiting for a peer", "20 of 25 pins"]);
  });

  it("print a wait once, with the seconds that it can still take", () => {
    const { out, reporter } = printLines();
    for (let second = 0; second <= 25; second += 1) {
      reporter.progress("waiting for a peer", 30_000 - second * 1000);
      vi.advanceTimersByTime(1000);
    }
    expect(out).toEqual(["waiting for a peer (up to 30 s)"]);
  });

  it("stop at close", async () => {
    const { out, reporter } = printLines();
    reporter.listen(started);
    await reporter.close();
    vi.advanceTimersByTime(5000);
    expect(out).toEqual([]);
  });

  it("contain no control characters, no empty progress, and no long warnings", () => {
    const { out, err, reporter } = printLines();
    reporter.listen(started);
    reporter.listen({ type: "change-started", step, summary: "\u001B[31mpull\nkubo" });
    vi.advanceTimersByTime(40_000);
    reporter.listen(progress("\u001B[2K\r"));
    reporter.listen(progress("\u001B[1A10 %\r20 %"));
    reporter.listen({ type: "warning", text: `two\nlines\u0007 ${"word ".repeat(14)}` });
    expect(out).toEqual(["images: pull kubo ...", "images: 10 % 20 %"]);
    expect(err).toEqual([`Warning: two lines ${"word ".repeat(12).trim()}`, "         word word"]);
  });

  it("keep results on stdout and errors on stderr", () => {
    const { out, err, streams } = catchLines();
    const reporter = createLines(streams, () => 0);
    reporter.result({ data: {}, lines: ["done"] });
    reporter.error(new OperatorError({ exit: "locked", what: "It is locked." }), 25);
    expect(out).toEqual(["done"]);
    expect(err[0]).toBe("fula-node: It is locked.");
  });
});

describe("--json", () => {
  const feed = async (reporter: Reporter): Promise<void> => {
    reporter.listen({ type: "warning", text: "memory is low" });
    reporter.listen({ type: "planned", items: REALISTIC_PLAN });
    reporter.listen(begun);
    reporter.listen(progress("half"));
    reporter.listen({ type: "change-done", step, summary: "pull kubo" });
    reporter.listen({ type: "step-failed", step, title: "images" });
    reporter.note("a note");
    await reporter.close();
  };

  it("prints one object for a result, on one line, with the warnings", async () => {
    const { out, err, streams } = catchLines();
    const reporter = createJson(streams);
    await feed(reporter);
    reporter.result({ data: { verb: "status", text: "two\nlines\u2028" }, lines: ["for people"] });
    expect(out).toHaveLength(1);
    expect(out[0]).not.toContain("\n");
    expect(JSON.parse(out[0] ?? "")).toEqual({
      verb: "status",
      text: "two\nlines\u2028",
      warnings: ["memory is low"],
    });
    expect(err).toEqual([]);
  });

  it("prints one object for an error, on stderr, each field there", async () => {
    const { out, err, streams } = catchLines();
    const reporter = createJson(streams);
    await feed(reporter);
    const problems = [{ subject: "PORT", what: "PORT is bad.", remedy: "Correct it." }];
    reporter.error(new OperatorError({ exit: "settings", what: "It is wrong.", problems }), 21);
    expect(out).toEqual([]);
    expect(err).toHaveLength(1);
    expect(JSON.parse(err[0] ?? "")).toEqual({
      error: {
        exit: "settings",
        exitCode: 21,
        what: "It is wrong.",
        why: null,
        remedy: null,
        changed: null,
        problems,
      },
      warnings: ["memory is low"],
    });
  });
});

describe("a name with escape sequences", () => {
  const EVIL = "evil\u001b[2J\u202e\u009bnode";
  const SHOWN = "evil\\u001b[2J\\u202e\\u009bnode";

  it("is shown escaped in every line, and a line break in it does not make a line", () => {
    const { out, err, streams } = catchLines();
    const lines = createLines(streams, Date.now);
    lines.note(EVIL);
    lines.progress(EVIL);
    lines.result({ data: {}, lines: [`${EVIL}\nforged`] });
    lines.listen({ type: "warning", text: "a\u202eb" });
    lines.error(new OperatorError({ exit: "usage", what: `${EVIL.slice(0, 4)}\u202e is unknown.` }), 2);
    expect(out).toEqual([SHOWN, SHOWN, `${SHOWN}\\u000aforged`]);
    expect(err[0]).toContain("a\\u202eb");
    expect(visible([...out, ...err].join("\n"))).toBe([...out, ...err].join("\n"));
  });

  it("is escaped on a terminal too", () => {
    const { out, streams } = catchLines();
    const terminal = createTerminal(streams, Date.now);
    terminal.progress(EVIL);
    terminal.note(EVIL);
    terminal.result({ data: {}, lines: [EVIL] });
    expect(out).toEqual([SHOWN, SHOWN, SHOWN]);
  });

  it("is escaped in JSON, as JSON does it", () => {
    const { out, err, streams } = catchLines();
    const json = createJson(streams);
    json.result({ data: { name: EVIL }, lines: [] });
    json.error(new OperatorError({ exit: "usage", what: EVIL }), 2);
    expect(JSON.parse(out.join(""))).toMatchObject({ name: EVIL });
    for (const text of [...out, ...err]) expect(visible(text)).toBe(text);
  });
});
