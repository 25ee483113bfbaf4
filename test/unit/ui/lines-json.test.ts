import { describe, expect, it } from "vitest";
import type { RunEvent } from "../../../src/engine/events.ts";
import { OperatorError } from "../../../src/errors.ts";
import { createJson } from "../../../src/ui/json.ts";
import { createLines } from "../../../src/ui/lines.ts";
import type { Reporter } from "../../../src/ui/reporter.ts";
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
  it("tell of a change when it begins and when it is done, and of its progress every two seconds at most", () => {
    const { out, err, streams } = catchLines();
    let clock = 1_000_000;
    const { listen } = createLines(streams, () => clock);
    listen({ type: "step-started", step, title: "images", changes: 2 });
    listen(begun);
    for (let tick = 0; tick <= 50; tick += 1) {
      listen(progress(`${tick} of 50`));
      clock += 100;
    }
    listen({ type: "change-done", step, summary: "pull kubo", durationMs: 5100 });
    listen(begun);
    listen({ type: "step-failed", step, title: "images" });
    expect(out).toEqual([
      "images: pull kubo ...",
      "images:   20 of 50",
      "images:   40 of 50",
      "images: done in 5.1 s",
      "images: pull kubo ...",
      "images: failed",
    ]);
    expect(err).toEqual([]);
  });

  it("go on telling when the clock is set back", () => {
    const { out, streams } = catchLines();
    let clock = 1_000_000;
    const { listen } = createLines(streams, () => clock);
    listen(begun);
    clock = 0;
    listen(progress("still there"));
    expect(out.at(-1)).toBe("images:   still there");
  });

  it("hold no control characters and no blank progress", () => {
    const { out, err, streams } = catchLines();
    let clock = 0;
    const { listen } = createLines(streams, () => (clock += 5000));
    listen(progress("\u001B[2K\r"));
    listen(progress("\u001B[1A10 %\r20 %"));
    listen({ type: "warning", text: "two\nlines\u0007" });
    expect(out).toEqual(["images:   10 % 20 %"]);
    expect(err).toEqual(["Warning: two lines"]);
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
    reporter.listen({ type: "change-done", step, summary: "pull kubo", durationMs: 1 });
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
    const problems = [{ subject: "PORT", what: "PORT is bad.", remedy: "Mend it." }];
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
