import { createInterface } from "node:readline/promises";
import { OperatorError } from "../errors.ts";

/** Puts questions to a person; Enter gives the default. Only made where stdin and stdout are terminals. */
export interface Questions {
  confirm(question: string, byDefault: boolean): Promise<boolean>;
  text(question: string, byDefault: string): Promise<string>;
}

/**
 * Questions on this process's terminal. Where the input ends without an answer (ctrl-D), they throw
 * (`pending`); ctrl-C, which the terminal then gives to us as a key, becomes the signal that it is.
 */
export function createQuestions(
  input: NodeJS.ReadableStream,
  output: NodeJS.WritableStream,
  interrupt: () => void = () => void process.kill(process.pid, "SIGINT"),
): Questions {
  const put = async (prompt: string): Promise<string> => {
    const terminal = createInterface({ input, output });
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
        const answer = (await put(`${question} [${byDefault ? "Y/n" : "y/N"}] `)).toLowerCase();
        if (answer === "") return byDefault;
        if (answer === "y" || answer === "yes") return true;
        if (answer === "n" || answer === "no") return false;
      }
    },
    async text(question, byDefault) {
      const answer = await put(byDefault === "" ? `${question}: ` : `${question} [${byDefault}]: `);
      return answer === "" ? byDefault : answer;
    },
  };
}

function noAnswer(): OperatorError {
  return new OperatorError({
    exit: "pending",
    what: "The input ended without an answer.",
    remedy: "Run again and answer, or give the answers by flags (--help lists them).",
  });
}
