import { spawn } from "node:child_process";
import { messageOf } from "../errors.ts";
import type { FileReader } from "../machine/file-reader.ts";
import { findOwnerFaults } from "../machine/owner-check.ts";
import type { ProgramEnvironment } from "../machine/run-program.ts";

/** A program of the operator's that fula-node runs, such as ALERT_COMMAND. */
export interface OperatorCommand {
  readonly path: string;
  /** Runs it with this text on its standard input. Null if it ended with exit code 0, otherwise why it did not, as a clause. */
  run(input: string): Promise<string | null>;
}

type CommandFiles = Pick<FileReader, "stat" | "readLink" | "realPath">;

const DEADLINE_MS = 30_000;
const KEPT_BYTES = 2_000;
const EXECUTABLE = 0o111;

/**
 * Opens a command. Before each run its owner and its directories are checked, because root runs it. It runs without a
 * shell, in a process group of its own, which is killed after `deadlineMs` (default 30 s) with everything in it.
 */
export function openOperatorCommand(
  path: string,
  options: {
    readonly files: CommandFiles;
    readonly environment: ProgramEnvironment;
    readonly deadlineMs?: number;
  },
): OperatorCommand {
  const { files, environment, deadlineMs = DEADLINE_MS } = options;
  return {
    path,
    run: async (input) =>
      (await refusalOf(files, path)) ?? (await runInGroup(path, { input, environment, deadlineMs })),
  };
}

/** Why root may not run a program, as a clause; null if it may: an executable file that only root can change or replace. */
export async function refusalOf(files: CommandFiles, path: string): Promise<string | null> {
  try {
    const [fault] = await findOwnerFaults(files, path);
    if (fault !== undefined) return fault.sentence;
    const real = await files.realPath(path);
    const stat = real === null ? null : await files.stat(real);
    if (stat === null) return `${path} does not exist`;
    if (stat.kind !== "file") return `${path} is not a regular file`;
    return (stat.mode & EXECUTABLE) === 0 ? `${path} is not executable` : null;
  } catch (thrown) {
    return messageOf(thrown);
  }
}

/**
 * Not runProgram: there the deadline ends only the program itself, and a child that keeps its output open would be
 * waited for.
 */
function runInGroup(
  path: string,
  run: { readonly input: string; readonly environment: ProgramEnvironment; readonly deadlineMs: number },
): Promise<string | null> {
  return new Promise((resolve) => {
    const child = spawn(path, [], { cwd: "/", env: run.environment, detached: true });
    let output = "";
    let isLate = false;
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString("utf8")).slice(-KEPT_BYTES);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    // A command that does not read its input is not a fault.
    child.stdin.on("error", () => undefined);
    child.stdin.end(run.input);
    const timer = setTimeout(() => {
      isLate = true;
      killGroup(child.pid);
    }, run.deadlineMs);
    const end = (why: string | null): void => {
      clearTimeout(timer);
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy();
      child.unref();
      resolve(why);
    };
    child.once("error", (thrown) => end(`it could not be started (${messageOf(thrown)})`));
    child.once("exit", (exitCode, signal) => {
      if (exitCode === 0) return end(null);
      const said = output.trim() === "" ? "" : `: ${output.trim()}`;
      if (isLate) return end(`it did not end within ${Math.round(run.deadlineMs / 1000)} s${said}`);
      end(`it ended with ${exitCode === null ? `the signal ${signal}` : `exit code ${exitCode}`}${said}`);
    });
  });
}

/** Kills a process and all processes that it started in its group. */
function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "ESRCH") throw thrown;
  }
}
