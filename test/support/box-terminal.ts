import { stripVTControlCharacters } from "node:util";
import { execa } from "execa";
import type { Box } from "./box.ts";

/** A person at a terminal of a box, who sees the output of a command and types. */
export interface Terminal {
  /** All output so far, without colours and cursor movements. */
  shown(): string;
  /** Waits until this text appears after the texts of earlier calls. Throws with the screen if it does not appear in time. */
  see(text: string | RegExp, withinMs?: number): Promise<void>;
  /** Types; `\n` is Enter, `\x03` ctrl-C, `\x04` ctrl-D. */
  type(keys: string): void;
  /** The command's exit code, after its end. Throws with the screen if it does not end in time. */
  ended(withinMs?: number): Promise<number>;
}

const SEEN_DEADLINE_MS = 60_000;
const ENDED_DEADLINE_MS = 180_000;

/** Runs a command on a terminal of the box. util-linux's script(1) provides one if this process has none. */
export function openTerminal(box: Box, command: string): Terminal {
  const program = execa(
    "docker",
    ["exec", "--interactive", box.container, "script", "-qec", command, "/dev/null"],
    { stdin: "pipe", reject: false, buffer: false },
  );
  let screen = "";
  let seen = 0;
  let over = false;
  let wake = (): void => {};
  const changed = (): Promise<void> => new Promise((resolve) => (wake = resolve));
  program.stdout.on("data", (chunk: Buffer) => {
    screen += chunk.toString();
    wake();
  });
  const exit = program.then(({ exitCode }) => {
    over = true;
    wake();
    return exitCode ?? -1;
  });
  const shown = (): string => stripVTControlCharacters(screen).replaceAll("\r", "");
  return {
    shown,
    async see(text, withinMs = SEEN_DEADLINE_MS) {
      const deadline = Date.now() + withinMs;
      for (;;) {
        const rest = shown().slice(seen);
        const at = typeof text === "string" ? rest.indexOf(text) : rest.search(text);
        if (at >= 0) {
          seen += at + (typeof text === "string" ? text.length : (text.exec(rest)?.[0].length ?? 0));
          return;
        }
        const leftMs = deadline - Date.now();
        if (over || leftMs <= 0) throw new Error(`not shown: ${String(text)}; the screen:\n${shown()}`);
        const late = new Promise<void>((resolve) => setTimeout(resolve, leftMs).unref());
        await Promise.race([changed(), late]);
      }
    },
    type: (keys) => void program.stdin.write(keys),
    async ended(withinMs = ENDED_DEADLINE_MS) {
      const late = new Promise<null>((resolve) => setTimeout(resolve, withinMs, null).unref());
      const exitCode = await Promise.race([exit, late]);
      if (exitCode !== null) return exitCode;
      program.kill();
      throw new Error(`it has not ended within ${withinMs} ms; the screen:\n${shown()}`);
    },
  };
}
