import type { Container } from "../docker/engine.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";

/** A problem, and the check that found it. */
export interface PreflightProblem extends CheckProblem {
  readonly check: string;
  /** True for a failure that `--ignore` has made a warning of. */
  readonly ignored: boolean;
}

/**
 * Runs all checks at once and gives every problem, in the order of the checks. A check that can't tell
 * fails, with its error's words. Throws (`usage`) for an `--ignore` that names no check, or one whose
 * failure nothing could work in spite of.
 */
export async function runPreflight(
  checks: readonly Check[],
  host: HostReader,
  context: PreflightContext,
  ignored: readonly string[],
): Promise<readonly PreflightProblem[]> {
  refuseUnknown(checks, ignored);
  const found = await Promise.all(checks.map((check) => runOne(check, host, context)));
  return checks.flatMap(({ id }, index) =>
    (found[index] ?? []).map((problem): PreflightProblem => {
      const demoted = problem.severity === "failure" && ignored.includes(id);
      return { ...problem, severity: demoted ? "warning" : problem.severity, check: id, ignored: demoted };
    }),
  );
}

async function runOne(
  check: Check,
  host: HostReader,
  context: PreflightContext,
): Promise<readonly CheckProblem[]> {
  try {
    return await check.run(host, context);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const { what, why, remedy = "Mend what it says, then run again." } = thrown;
    return [{ severity: "failure", what, remedy, ...(why === undefined ? {} : { why }) }];
  }
}

function refuseUnknown(checks: readonly Check[], ignored: readonly string[]): void {
  const ignorable = checks.filter((check) => check.ignorable).map(({ id }) => id);
  const wrong = ignored.filter((id) => !ignorable.includes(id));
  if (wrong.length === 0) return;
  const known = new Set(checks.map(({ id }) => id));
  throw new OperatorError({
    exit: "usage",
    what: "--ignore names what can't be ignored.",
    problems: wrong.map((id) => ({
      subject: `--ignore ${id}`,
      what: known.has(id) ? "Nothing could work in spite of this failure." : "There is no such check.",
    })),
    remedy: `Checks that can be ignored, one by one: ${ignorable.join(", ")}.`,
  });
}

/** A port that the product needs, and where it will listen. */
export interface PortNeed {
  readonly port: number;
  /** `0.0.0.0` for all addresses. */
  readonly address: "127.0.0.1" | "0.0.0.0";
  /** Who needs it: "PostgreSQL". */
  readonly purpose: string;
  /** A way out beside stopping the holder, as a sentence. */
  readonly remedy?: string;
}

/** Whose a container is. */
export type Ownership = "ours" | "adopted-writer" | "foreign";

/** What a check is told: plain data, settled before the first check runs. */
export interface PreflightContext {
  readonly baseDir: string;
  readonly ports: readonly PortNeed[];
  /** What has to be free at the base directory and at Docker's root. */
  readonly minimumFreeBytes: { readonly baseDir: number; readonly dockerRoot: number };
  readonly minimumMemoryBytes: { readonly required: number; readonly recommended: number };
  /** Whose a container is, by its labels and its name. */
  readonly ownership: (container: Container) => Ownership;
  /** Units whose processes are the adopted writer. */
  readonly writerUnits: readonly string[];
}

/** One thing that a check found wrong. */
export interface CheckProblem {
  /** A failure stops the run, a warning is told. */
  readonly severity: "failure" | "warning";
  readonly what: string;
  readonly why?: string;
  readonly remedy: string;
}

/** One small question about the machine, asked before anything is changed. It writes nothing. */
export interface Check {
  /** What `--ignore` calls it. */
  readonly id: string;
  readonly title: string;
  /** False where nothing could work in spite of the failure. */
  readonly ignorable: boolean;
  run(host: HostReader, context: PreflightContext): Promise<readonly CheckProblem[]>;
}
