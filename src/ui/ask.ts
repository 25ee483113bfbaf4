import { createInterface } from "node:readline/promises";
import { OperatorError } from "../errors.ts";

/** Asks the operator. Enter gives the default. Only created if stdin and stdout are terminals. */
export interface Questions {
  confirm(question: string, byDefault: boolean): Promise<boolean>;
  text(question: string, byDefault: string): Promise<string>;
}

/**
 * Questions on the terminal of this process. They throw (`pending`) if the input ends without an answer (Ctrl-D).
 * While a question waits, the terminal passes Ctrl-C to us as a key; `interrupt` turns it into the signal. `isPlain`: no escape codes.
 * `before`: resolves when all that was printed before the question is on the screen.
 */
export function createQuestions(
  input: NodeJS.ReadableStream,
  output: NodeJS.WritableStream,
  {
    interrupt = () => void process.kill(process.pid, "SIGINT"),
    isPlain = false,
    before = () => Promise.resolve(),
  }: {
    readonly interrupt?: () => void;
    readonly isPlain?: boolean;
    readonly before?: () => Promise<void>;
  } = {},
): Questions {
  const ask = async (prompt: string): Promise<string> => {
    await before();
    // Without its editing, the kernel edits the line: that writes no escape codes.
    const terminal = createInterface({ input, output, ...(isPlain ? { terminal: false } : {}) });
    terminal.on("SIGINT", interrupt);
    const ended = new Promise<never>((_resolve, reject) => terminal.once("close", () => reject(noAnswer())));
    try {
      return (await Promise.race([terminal.question(prompt), ended])).trim();
    } finally {
      terminal.close();
    }
  };
  return {
    async confirm(question, byDefault) {
      for (;;) {
        const answer = (await ask(`${question} [${byDefault ? "Y/n" : "y/N"}] `)).toLowerCase();
        if (answer === "") return byDefault;
        if (answer === "y" || answer === "yes") return true;
        if (answer === "n" || answer === "no") return false;
      }
    },
    async text(question, byDefault) {
      const answer = await ask(byDefault === "" ? `${question}: ` : `${question} [${byDefault}]: `);
      return answer === "" ? byDefault : answer;
    },
  };
}

function noAnswer(): OperatorError {
  return new OperatorError({
    exit: "pending",
    what: "The input ended without an answer.",
    remedy: "Run again and answer, or pass the answers as flags (--help lists them).",
  });
}
