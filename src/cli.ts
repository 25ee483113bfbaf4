import type { OnOutputLost, ProcessContext } from "./main.ts";

declare const FULA_NODE_VERSION: string;

hideX25519Warning();
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

/** Node.js 20 calls X25519 of Web Crypto, with which backups are encrypted, experimental, in each run and in cron's logs. */
function hideX25519Warning(): void {
  const warn = process.emitWarning.bind(process) as (...given: readonly unknown[]) => void;
  process.emitWarning = (warning: string | Error, ...more: readonly unknown[]): void => {
    if (!String(warning).includes("X25519")) warn(warning, ...more);
  };
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
