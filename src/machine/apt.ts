import { readdir } from "node:fs/promises";
import { OperatorError } from "../errors.ts";
import type { FileReader } from "./file-reader.ts";
import { type ProgramEnvironment, type ProgramResult, runProgram } from "./run-program.ts";

const LISTS_DIRECTORY = "/var/lib/apt/lists";
/** Where dpkg lists what is installed (dpkg(1)). */
const STATUS_FILE = "/var/lib/dpkg/status";
/** What dpkg has changed since, a numbered file for each change. A run that ends merges them into the status file. */
const UPDATES_DIRECTORY = "/var/lib/dpkg/updates";
const LOCK_SECONDS = 300;
const LOCK_POLL_MS = 5_000;
const INSTALL_TIMEOUT_MS = 1_800_000;
const UPDATE_TIMEOUT_MS = 600_000;
const SIMULATE_TIMEOUT_MS = 60_000;
/** No prompts, and no restarts of services that are not ours. */
const QUIET = {
  DEBIAN_FRONTEND: "noninteractive",
  NEEDRESTART_SUSPEND: "1",
  APT_LISTCHANGES_FRONTEND: "none",
};
const KEEP_CONFIG = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"];
const RECOMMENDS = ["--no-install-recommends"];
/** A simulation would otherwise write apt's caches. */
const NO_CACHE = ["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="];
/** Plain lines instead of a progress display. */
const NO_PTY = ["-o", "Dpkg::Use-Pty=0"];
const LOCK = ["-o", `DPkg::Lock::Timeout=${LOCK_SECONDS}`];

const STALE_LISTS = /Unable to locate package|has no installation candidate|Failed to fetch|Unable to fetch/;
/** `Remv docker-ce [5:28.1.1-1]`, a line of apt-get's simulation. */
const REMOVAL = /^Remv (\S+)/;
const REMOVAL_REFUSED = /Packages need to be removed but remove is disabled/;
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
 * dpkg's records of packages, the newest of a package first. Those of a run that was killed stand only beside the status
 * file, until dpkg runs again. Empty on a machine without dpkg.
 */
export async function readDpkg(files: FileReader): Promise<string> {
  const numbered = ((await files.list(UPDATES_DIRECTORY)) ?? []).filter((name) => /^\d+$/.test(name));
  const paths = [...numbered.toReversed().map((name) => `${UPDATES_DIRECTORY}/${name}`), STATUS_FILE];
  const texts = await Promise.all(paths.map((path) => files.readText(path)));
  return texts.map((text) => text ?? "").join("\n\n");
}

/** The packages that apt would remove to install these. Writes nothing. None if apt can't say, for example without lists. */
export async function findRemovals(
  names: readonly string[],
  env: ProgramEnvironment,
): Promise<readonly string[]> {
  const argv = ["apt-get", "-s", ...NO_CACHE, ...RECOMMENDS, "install", "--", ...names];
  const { exitCode, stdout } = await runProgram(argv, { env, extra: QUIET, timeoutMs: SIMULATE_TIMEOUT_MS });
  return exitCode === 0 ? removalsIn(stdout) : [];
}

/** The packages that the output of a simulation removes. */
export function removalsIn(output: string): readonly string[] {
  return [...new Set(output.split("\n").flatMap((line) => REMOVAL.exec(line)?.[1] ?? []))];
}

/**
 * Installs packages of the distribution, and removes none. Waits up to 5 minutes for apt's locks, fetches the package
 * lists if they are missing or stale, and completes an interrupted dpkg run. A repository that does not answer is only
 * reported: the packages may come from another one. Throws an OperatorError with apt's last lines: `foreign` if apt
 * would have to remove packages, else `unavailable`.
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
    // Otherwise -y agrees to removals, too.
    "--no-remove",
    ...RECOMMENDS,
    ...LOCK,
    ...KEEP_CONFIG,
    ...NO_PTY,
    "install",
    "--",
    ...names,
  ];
  const install = () => run(argv, INSTALL_TIMEOUT_MS);
  let stale: OperatorError | null = null;
  const updateLists = async () => {
    stale = await update(run, wait);
    if (stale !== null)
      report("warning: some package lists could not be fetched; trying with those that are there");
  };

  if (await hasNoLists(listsDirectory)) await updateLists();
  let result = await install();
  if (mentions(result, INTERRUPTED)) {
    await run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], INSTALL_TIMEOUT_MS);
    result = await install();
  }
  if (mentions(result, STALE_LISTS)) {
    await updateLists();
    result = await install();
  }
  if (result.exitCode === 0) return;
  if (mentions(result, REMOVAL_REFUSED)) throw await removalError(names, env, result);
  throw stale ?? failed(`The packages ${names.join(", ")} could not be installed.`, result, argv);
}

async function removalError(
  names: readonly string[],
  env: ProgramEnvironment,
  result: ProgramResult,
): Promise<OperatorError> {
  const removed = await findRemovals(names, env);
  return new OperatorError({
    exit: "foreign",
    what: `To install ${names.join(", ")}, apt would remove ${removed.join(", ") || "other packages"}. It was not allowed to.`,
    why: result.lastLines.join("\n"),
    remedy: "Install these packages yourself, or remove what conflicts with them. Then run again.",
  });
}

type Run = (argv: readonly string[], timeoutMs: number) => Promise<ProgramResult>;

/**
 * Fetches the package lists. Returns the error if some could not be fetched, since the others are there then. Throws it
 * if the lists stay locked. apt-get waits for dpkg's lock, but not for the lock of the lists (apt 2.6).
 */
async function update(run: Run, wait: AptOptions["wait"]): Promise<OperatorError | null> {
  const argv = ["apt-get", ...LOCK, "update"];
  for (let waitedMs = 0; ; waitedMs += LOCK_POLL_MS) {
    const result = await run(argv, UPDATE_TIMEOUT_MS);
    if (result.exitCode === 0) return null;
    const error = failed("The package lists could not be fetched.", result, argv);
    if (!mentions(result, LISTS_LOCKED)) return error;
    if (waitedMs >= LOCK_SECONDS * 1000) throw error;
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
