import { spawn } from "node:child_process";
import type { BillingSettings } from "../../settings/billing.ts";
import type { Pricing } from "../../settings/quota.ts";
import type { PoolSettings } from "../../settings/services.ts";

/** How one master's billing crons run in a drill. */
export interface CronSettings {
  /** Who it is in the lease. */
  readonly masterId: string;
  readonly postgres: PoolSettings;
  readonly pricing: Pricing;
  readonly billing: BillingSettings;
  /** How many accounts a transaction charges. */
  readonly batchSize: number;
}

/** What such a process says of itself, again and again. */
export interface CronState {
  readonly leads: boolean;
  readonly runs: Readonly<Record<string, number>>;
  readonly failures: Readonly<Record<string, number>>;
}

/** The billing crons of one master, in a process of their own. */
export interface CronProcess {
  readonly name: string;
  /** The newest of what it said; null before the first. */
  state(): CronState | null;
  /** The lines of its log. */
  log(): readonly string[];
  /** How it ended, as a clause; null while it runs. */
  ended(): string | null;
  /** Kills it with SIGKILL, and resolves when it is gone. Safe to repeat. */
  kill(): Promise<void>;
}

/** Starts such a process. It ends when this process does, however that ends. */
export type StartCrons = (settings: CronSettings) => CronProcess;

/** The newest lines that are kept: a drill that goes wrong shows the last ones. */
const KEPT_LINES = 1_000;

/**
 * Starts the crons with this program and its arguments. They get the settings, with the password, by their standard input, and
 * end when that closes: the kernel closes it with this process.
 */
export function cronStarter(
  [program, ...args]: readonly [string, ...string[]],
  environment: Readonly<Record<string, string>>,
): StartCrons {
  return (settings) => {
    // A group of its own: Ctrl-C reaches this process alone, which then ends it.
    const child = spawn(program, args, { cwd: "/", env: environment, detached: true });
    const lines: string[] = [];
    let state: CronState | null = null;
    let ended: string | null = null;
    const keep = (line: string): void => {
      lines.push(line);
      if (lines.length > KEPT_LINES) lines.shift();
    };
    const take = (line: string): void => {
      const said = readSaid(line);
      if (typeof said === "string") keep(said);
      else state = said;
    };
    for (const stream of [child.stdout, child.stderr]) {
      let rest = "";
      stream.setEncoding("utf8").on("data", (text: string) => {
        const parts = (rest + text).split("\n");
        rest = parts.pop() ?? "";
        for (const line of parts) take(line);
      });
    }
    // One that has ended reads no more; `ended` says how it did.
    child.stdin.on("error", () => {});
    child.stdin.write(`${JSON.stringify(settings)}\n`);
    const gone = new Promise<void>((resolve) => {
      child.once("error", (error) => {
        ended = `could not be started: ${error.message}`;
        resolve();
      });
      child.once("close", (exitCode, signal) => {
        ended ??= signal === null ? `ended with the exit code ${exitCode}` : `was ended by ${signal}`;
        resolve();
      });
    });
    return {
      name: settings.masterId,
      state: () => state,
      log: () => lines,
      ended: () => ended,
      async kill() {
        child.kill("SIGKILL");
        await gone;
      },
    };
  };
}

/** A line of the child: its state as JSON, or a line of its log. */
function readSaid(line: string): CronState | string {
  if (!line.startsWith('{"state":')) return line;
  return (JSON.parse(line) as { readonly state: CronState }).state;
}
