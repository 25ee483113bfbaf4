import type { OnOutputLost, ProcessContext } from "./main.ts";

declare const FULA_NODE_VERSION: string;

const output = watchOutput();
const asksVersionOnly = process.argv.length === 3 && ["--version", "-V"].includes(process.argv[2] ?? "");
if (asksVersionOnly) process.stdout.write(`${FULA_NODE_VERSION}\n`);
else {
  const { main } = await import("./main.ts");
  process.exitCode = await main({
    process,
    output,
    version: FULA_NODE_VERSION,
    exit: (exitCode) => process.exit(exitCode),
  });
}

/**
 * Keeps a lost output from ending the process: without a listener, Node throws the stream's error, also in the middle of a
 * change. A lost standard error has no consequence. It stands here, since what prints the version loads no other file.
 */
function watchOutput(): ProcessContext["output"] {
  let handle: OnOutputLost = () => {};
  let lost: Parameters<OnOutputLost>[0] | null = null;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (lost !== null) return;
    lost = { isClosed: error.code === "EPIPE", why: error.message };
    handle(lost);
  });
  process.stderr.on("error", () => {});
  return {
    onLost(handler) {
      handle = handler;
      if (lost !== null) handler(lost);
    },
  };
}
