import type { Options } from "execa";

/** How a program ended. */
export interface ProgramResult {
  /** Null where it could not be started, was killed, or took too long. */
  readonly exitCode: number | null;
  readonly stdout: string;
  /** The last lines of both streams, in the order they came. */
  readonly lastLines: readonly string[];
  /** Why it did not run to its end, for a person: "docker is not installed". Null where it did. */
  readonly stopped: string | null;
}

/** What a program is run with. */
export interface ProgramOptions {
  readonly env: ProgramEnvironment;
  readonly timeoutMs: number;
  /** Variables for this program alone. */
  readonly extra?: Readonly<Record<string, string>>;
  /** What it reads on its standard input; nothing when left out. */
  readonly input?: string;
  /** Gets every line of both streams as it comes. */
  readonly onLine?: (line: string) => void;
}

/** The variables that programs get: a closed list, so that the operator's shell can't change what they do. */
export type ProgramEnvironment = Readonly<Record<string, string>> & { readonly PATH: string };

const SYSTEM_PATH = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const PASSED_ON =
  /^(?:HOME|USER|LOGNAME|TERM|TMPDIR|DOCKER_CONFIG|SSL_CERT_(?:FILE|DIR)|(?:https?|no|all|ftp)_proxy)$/i;
const KEPT_LINES = 20;
const MAX_STDOUT_BYTES = 16 * 1024 ** 2;

/**
 * The environment for programs: root's usual PATH first (cron's is poor), messages in English, and of
 * the rest only what reaches a network or finds a home.
 */
export function programEnvironment(env: Readonly<Record<string, string | undefined>>): ProgramEnvironment {
  const passed = Object.entries(env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && PASSED_ON.test(entry[0]),
  );
  return { HOME: "/root", ...Object.fromEntries(passed), PATH: pathOf(env["PATH"]), LC_ALL: "C.UTF-8" };
}

/**
 * Runs a program to its end; argv only, no shell. Never throws for what
 * the program does: the result tells.
 */
export async function runProgram(argv: readonly string[], options: ProgramOptions): Promise<ProgramResult> {
  const { execa } = await import("execa");
  const [program = "", ...rest] = argv;
  const settings = {
    env: { ...options.env, ...options.extra },
    extendEnv: false,
    ...(options.input === undefined ? { stdin: "ignore" as const } : { input: options.input }),
    reject: false,
    timeout: options.timeoutMs,
    stripFinalNewline: true,
    maxBuffer: MAX_STDOUT_BYTES,
    all: true,
    buffer: { stdout: true, stderr: false, all: false },
  } as const satisfies Options;
  const lastLines: string[] = [];
  const child = execa(program, rest, settings);
  const told = (async () => {
    for await (const line of child.iterable({ from: "all" })) {
      lastLines.push(line);
      if (lastLines.length > KEPT_LINES) lastLines.shift();
      options.onLine?.(line);
    }
  })().catch(() => {});
  const result = await child;
  await told;
  const exitCode = result.exitCode ?? null;
  const stopped = exitCode === null ? reasonOf(program, result, options.timeoutMs) : null;
  return { exitCode, stdout: result.stdout, lastLines, stopped };
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
