import { readdir } from "node:fs/promises";
import { OperatorError } from "../errors.ts";
import { type ProgramEnvironment, type ProgramResult, runProgram } from "./run-program.ts";

const LISTS_DIRECTORY = "/var/lib/apt/lists";
const LOCK_SECONDS = 300;
const LOCK_POLL_MS = 5_000;
const INSTALL_TIMEOUT_MS = 1_800_000;
const UPDATE_TIMEOUT_MS = 600_000;
/** No prompts, and no restarts of services that are not ours. */
const QUIET = {
  DEBIAN_FRONTEND: "noninteractive",
  NEEDRESTART_SUSPEND: "1",
  APT_LISTCHANGES_FRONTEND: "none",
};
const KEEP_CONFIG = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"];
/** Plain lines instead of a progress display. */
const NO_PTY = ["-o", "Dpkg::Use-Pty=0"];
const LOCK = ["-o", `DPkg::Lock::Timeout=${LOCK_SECONDS}`];

const STALE_LISTS = /Unable to locate package|has no installation candidate|Failed to fetch|Unable to fetch/;
const INTERRUPTED = /dpkg was interrupted|dpkg --configure -a/;
const LISTS_LOCKED = /Could not get lock .*lists/;

/** What an installation needs. */
export interface AptOptions {
  readonly env: ProgramEnvironment;
  readonly report: (line: string) => void;
  readonly wait: (durationMs: number) => Promise<void>;
  /** Where apt keeps the package lists. */
  readonly listsDirectory?: string;
}

/**
 * Installs packages of the distribution. Waits up to 5 minutes for apt's locks, fetches the package
 * lists if they are missing or stale, and completes an interrupted dpkg run. Throws an
 * OperatorError (`unavailable`) with apt's last lines.
 */
export async function installPackages(
  names: readonly string[],
  { env, report, wait, listsDirectory = LISTS_DIRECTORY }: AptOptions,
): Promise<void> {
  const run: Run = (argv, timeoutMs) =>
    runProgram(argv, { env, extra: QUIET, timeoutMs, onLine: (line) => reportLine(line, report) });
  const argv = [
    "apt-get",
    "-y",
    "--no-install-recommends",
    ...LOCK,
    ...KEEP_CONFIG,
    ...NO_PTY,
    "install",
    "--",
    ...names,
  ];
  const install = () => run(argv, INSTALL_TIMEOUT_MS);

  if (await hasNoLists(listsDirectory)) await update(run, wait);
  let result = await install();
  if (mentions(result, INTERRUPTED)) {
    await run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], INSTALL_TIMEOUT_MS);
    result = await install();
  }
  if (mentions(result, STALE_LISTS)) {
    await update(run, wait);
    result = await install();
  }
  if (result.exitCode === 0) return;
  throw failed(`The packages ${names.join(", ")} could not be installed.`, result, argv);
}

type Run = (argv: readonly string[], timeoutMs: number) => Promise<ProgramResult>;

/** apt-get waits for dpkg's lock, but not for the lock of the package lists (apt 2.6), so this function does. */
async function update(run: Run, wait: AptOptions["wait"]): Promise<void> {
  const argv = ["apt-get", ...LOCK, "update"];
  for (let waitedMs = 0; ; waitedMs += LOCK_POLL_MS) {
    const result = await run(argv, UPDATE_TIMEOUT_MS);
    if (result.exitCode === 0) return;
    if (!mentions(result, LISTS_LOCKED) || waitedMs >= LOCK_SECONDS * 1000) {
      throw failed("The package lists could not be fetched.", result, argv);
    }
    await wait(LOCK_POLL_MS);
  }
}

async function hasNoLists(directory: string): Promise<boolean> {
  const names = await readdir(directory).catch(() => []);
  return !names.some((name) => /_(?:Packages|InRelease|Release)/.test(name));
}

function mentions({ exitCode, lastLines }: ProgramResult, pattern: RegExp): boolean {
  return exitCode !== 0 && lastLines.some((line) => pattern.test(line));
}

function reportLine(line: string, report: AptOptions["report"]): void {
  const text = (line.split("\r").at(-1) ?? "").trim();
  if (text !== "") report(text);
}

function failed(what: string, { stopped, lastLines }: ProgramResult, argv: readonly string[]): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what,
    why: stopped ?? lastLines.join("\n"),
    remedy: `Fix the reported problem, then run again. To run this command manually: ${argv.join(" ")}`,
  });
}
