import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { createQuestions } from "../../../src/ui/ask.ts";

function makeQuestions() {
  const input = new PassThrough();
  const output = new PassThrough();
  let shown = "";
  output.on("data", (chunk: Buffer) => (shown += chunk.toString()));
  return { input, questions: createQuestions(input, output), shown: () => shown };
}

describe("questions", () => {
  it.each([
    ["\n", true, true],
    ["\n", false, false],
    ["y\n", false, true],
    ["YES\n", false, true],
    [" n \n", true, false],
    ["no\n", true, false],
  ])("take %j for an answer", async (typed, byDefault, answer) => {
    const { input, questions, shown } = makeQuestions();
    const asked = questions.confirm("Go on?", byDefault);
    input.write(typed);
    expect(await asked).toBe(answer);
    expect(shown()).toBe(`Go on? [${byDefault ? "Y/n" : "y/N"}] `);
  });

  it("come after what is still being printed", async () => {
    const input = new PassThrough();
    const output = new PassThrough();
    let printed = (): void => {};
    const before = () => new Promise<void>((resolve) => (printed = resolve));
    const asked = createQuestions(input, output, { before }).confirm("Go on?", true);
    input.write("y\n");
    await new Promise((resolve) => setImmediate(resolve));
    expect(output.read()).toBeNull();
    printed();
    expect(await asked).toBe(true);
    expect(String(output.read())).toBe("Go on? [Y/n] ");
  });

  it("ask again after an invalid answer", async () => {
    const { input, questions, shown } = makeQuestions();
    const asked = questions.confirm("Go on?", true);
    input.write("maybe\n");
    await new Promise((resolve) => setImmediate(resolve));
    input.write("n\n");
    expect(await asked).toBe(false);
    expect(shown().split("Go on?")).toHaveLength(3);
  });

  it.each([
    ["my pool\n", "my pool"],
    ["\n", "fula"],
  ])("take the text %j", async (typed, answer) => {
    const { input, questions } = makeQuestions();
    const asked = questions.text("Name of the pool", "fula");
    input.write(typed);
    expect(await asked).toBe(answer);
  });

  it("throw if the input ends without an answer, instead of waiting for ever", async () => {
    const { input, questions } = makeQuestions();
    const asked = questions.confirm("Go on?", true);
    input.end();
    const thrown: unknown = await asked.catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(OperatorError);
    expect((thrown as OperatorError).exit).toBe("pending");
  });

  it("turn Ctrl-C, which a terminal passes as a key, into the signal", async () => {
    const input = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => undefined });
    const output = Object.assign(new PassThrough(), { isTTY: true, columns: 80 });
    output.resume();
    const interrupted = new Promise<void>((resolve) => {
      const questions = createQuestions(input, output, { interrupt: resolve });
      questions.confirm("Go on?", true).catch(() => undefined);
    });
    input.write("\u0003");
    await interrupted;
    input.end();
  });
});
