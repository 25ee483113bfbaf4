import type { InstalledMaster } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";

/** How a drill ended. `skipped`: what it would prove is not there to be proven, such as billing on a master that bills nobody. */
export interface DrillOutcome {
  readonly state: "passed" | "failed" | "skipped";
  /** What was found, with its numbers: "3 of 3 copies came back in 4 s". */
  readonly summary: string;
  /** What to do about a failed drill, as a command or a sentence; null if there is nothing to do. */
  readonly todo: string | null;
  /** What was looked at and found. Only `--verbose` and `--json` show it. It has no secrets. */
  readonly evidence: Readonly<Record<string, string>>;
}

/** What every drill gets. Its other adapters it names itself. */
export interface DrillContext {
  readonly master: InstalledMaster;
  /** Aborted at the end of the drill's time, and by SIGINT and SIGTERM. */
  readonly stop: AbortSignal;
  /** Says what goes on, in one line. */
  readonly report: (line: string) => void;
}

/**
 * A rehearsal on the live box: it proves that something works by doing it, with things of its own, and removes them. Whatever
 * it makes carries its mark, so that what a killed run left is found by the mark alone.
 */
export interface Drill<Deps = JoinDeps> {
  /** D1 to D10. */
  readonly id: string;
  /** One or two words: "stack health". */
  readonly title: string;
  /** What a passed drill proves, in one sentence. */
  readonly proves: string;
  /** True if cron may run it unattended. */
  readonly isScheduled: boolean;
  readonly deadlineMs: number;
  /** Throws only what is not a finding about the box, and `Stopped` once `stop` is aborted. */
  run(deps: Deps, context: DrillContext): Promise<DrillOutcome>;
  /**
   * Removes whatever this run, or one that was killed, has left. It runs before and after each `run`, even one that was
   * stopped, and is safe to repeat. Returns a line for each thing that it removed.
   */
  cleanUp(deps: Deps, context: Omit<DrillContext, "stop">): Promise<readonly string[]>;
}
