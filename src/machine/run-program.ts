import type { Options } from "execa";

/** How a program ended. */
export interface ProgramResult {
  /** Null if it could not be started, was killed, or took too long. */
  readonly exitCode: number | null;
  readonly stdout: string;
  /** The last lines of both streams, in order of arrival. */
  readonly lastLines: readonly string[];
  /** Why it did not run to its end, for the operator: "docker is not installed". Null if it did. */
  readonly stopped: string | null;
}

/** How to run a program. */
export interface ProgramOptions {
  readonly env: ProgramEnvironment;
  readonly timeoutMs: number;
  /** Variables for this program alone. */
  readonly extra?: Readonly<Record<string, string>>;
  /** Its standard input. Default: empty. */
  readonly input?: string;
  /** A file as its standard input, in the place of `input`. */
  readonly inputFile?: string;
  /** Receives every line of both streams. */
  readonly onLine?: (line: string) => void;
}

/** The environment of programs. It is an allow-list, so that the operator's shell can't change their behaviour. */
export type ProgramEnvironment = Readonly<Record<string, string>> & { readonly PATH: string };

const SYSTEM_PATH = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const PASSED_ON =
  /^(?:HOME|USER|LOGNAME|TERM|TMPDIR|DOCKER_CONFIG|SSL_CERT_(?:FILE|DIR)|(?:https?|no|all|ftp)_proxy)$/i;
const KEPT_LINES = 20;
/** How long output is read after the program itself has ended. */
const OPEN_STREAMS_MS = 3000;
const MAX_STDOUT_BYTES = 16 * 1024 ** 2;

/**
 * Creates the environment for programs: root's usual PATH first (cron's PATH is short), messages in English, and
 * from the caller's environment only variables for home, terminal, temporary files, Docker, certificates and proxies.
 */
export function programEnvironment(env: Readonly<Record<string, string | undefined>>): ProgramEnvironment {
  const passed = Object.entries(env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && PASSED_ON.test(entry[0]),
  );
  return { HOME: "/root", ...Object.fromEntries(passed), PATH: pathOf(env["PATH"]), LC_ALL: "C.UTF-8" };
}

/**
 * Runs a program to its end, without a shell. It does not throw if the program fails: the result
 * describes the failure.
 */
export async function runProgram(argv: readonly string[], options: ProgramOptions): Promise<ProgramResult> {
  const { execa } = await import("execa");
  const [program = "", ...rest] = argv;
  const settings = {
    // The directory of the caller may have been removed, and no program of ours gets a relative path.
    cwd: "/",
    env: { ...options.env, ...options.extra },
    extendEnv: false,
    ...inputOf(options),
    reject: false,
    timeout: options.timeoutMs,
    stripFinalNewline: true,
    maxBuffer: MAX_STDOUT_BYTES,
    all: true,
    buffer: { stdout: true, stderr: false, all: false },
  } as const satisfies Options;
  const lastLines: string[] = [];
  const child = execa(program, rest, settings);
  // A child of the program may keep its streams open for ever (gpg-agent does), and is no part of its end.
  child.once("exit", () => {
    setTimeout(() => {
      for (const stream of [child.stdout, child.stderr, child.all]) stream.destroy();
    }, OPEN_STREAMS_MS).unref();
  });
  const reading = (async () => {
    for await (const line of child.iterable({ from: "all" })) {
      lastLines.push(line);
      if (lastLines.length > KEPT_LINES) lastLines.shift();
      options.onLine?.(line);
    }
  })().catch(() => {});
  const result = await child;
  await reading;
  const exitCode = result.exitCode ?? null;
  const stopped = exitCode === null ? reasonOf(program, result, options.timeoutMs) : null;
  return { exitCode, stdout: result.stdout, lastLines, stopped };
}

function inputOf({ input, inputFile }: ProgramOptions) {
  if (inputFile !== undefined) return { inputFile };
  return input === undefined ? { stdin: "ignore" as const } : { input };
}

function pathOf(given: string | undefined): string {
  const others = (given ?? "").split(":").filter((entry) => entry.startsWith("/"));
  return [...new Set([...SYSTEM_PATH, ...others])].join(":");
}

interface Ending {
  readonly code?: string | undefined;
  readonly timedOut: boolean;
  readonly signal?: string | undefined;
}

function reasonOf(program: string, { code, timedOut, signal }: Ending, timeoutMs: number): string {
  if (code === "ENOENT") return `${program} is not installed`;
  if (timedOut) return `${program} did not end within ${Math.round(timeoutMs / 1000)} s`;
  if (signal !== undefined) return `${program} was killed by ${signal}`;
  return `${program} could not be run${code === undefined ? "" : ` (${code})`}`;
}
