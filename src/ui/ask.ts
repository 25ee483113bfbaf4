import { createInterface } from "node:readline/promises";

/** Puts questions to a person; Enter gives the default. Only made where stdin and stdout are terminals. */
export interface Questions {
  confirm(question: string, byDefault: boolean): Promise<boolean>;
  text(question: string, byDefault: string): Promise<string>;
}

/** Questions on this process's terminal. */
export function createQuestions(input: NodeJS.ReadStream, output: NodeJS.WriteStream): Questions {
  const put = async (prompt: string): Promise<string> => {
    const terminal = createInterface({ input, output });
    try {
      return (await terminal.question(prompt)).trim();
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
