import type { Container } from "../docker/engine.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";

/** A problem with the check that found it. */
export interface PreflightProblem extends CheckProblem {
  readonly check: string;
  /** True for a failure that `--ignore` turned into a warning. */
  readonly ignored: boolean;
}

/**
 * Runs all checks in parallel and returns every problem, in the order of the checks. A check that ends with an
 * error counts as failed, with the text of the error. Throws (`usage`) for an `--ignore` that does not name a
 * check, or names a check that can't be ignored. `ofRestore` names checks that are not made here: only a join
 * with `--from-backup` makes them.
 */
export async function runPreflight(
  checks: readonly Check[],
  host: HostReader,
  context: PreflightContext,
  ignored: readonly string[],
  ofRestore: readonly string[] = [],
): Promise<readonly PreflightProblem[]> {
  refuseUnknown(checks, ignored, ofRestore);
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
    const { what, why, remedy = "Fix this problem, then run again." } = thrown;
    return [{ severity: "failure", what, remedy, ...(why === undefined ? {} : { why }) }];
  }
}

function refuseUnknown(
  checks: readonly Check[],
  ignored: readonly string[],
  ofRestore: readonly string[],
): void {
  const ignorable = checks.filter((check) => check.ignorable).map(({ id }) => id);
  const wrong = ignored.filter((id) => !ignorable.includes(id));
  if (wrong.length === 0) return;
  const known = new Set(checks.map(({ id }) => id));
  const whyNot = (id: string): string => {
    if (ofRestore.includes(id)) return "Only a join with --from-backup makes this check.";
    return known.has(id) ? "fula-node can't work if this check fails." : "There is no such check.";
  };
  const also = ofRestore.length === 0 ? "" : `; with --from-backup also ${ofRestore.join(", ")}`;
  throw new OperatorError({
    exit: "usage",
    what: "--ignore has a value that can't be ignored.",
    problems: wrong.map((id) => ({ subject: `--ignore ${id}`, what: whyNot(id) })),
    remedy: `These checks can be ignored: ${ignorable.join(", ")}${also}.`,
  });
}

/** A port that a node needs, and the address that it listens on. */
export interface PortNeed {
  readonly port: number;
  /** `0.0.0.0` for all addresses. */
  readonly address: string;
  /** What needs the port, such as "Postgres". */
  readonly purpose: string;
  /** Another solution than stopping the program that uses the port, as a sentence. */
  readonly remedy?: string;
}

/** Who a container belongs to. */
export type Ownership = "ours" | "adopted-writer" | "foreign";

/** The input of every check: plain data, complete before the first check runs. */
export interface PreflightContext {
  readonly baseDir: string;
  readonly ports: readonly PortNeed[];
  /** An address, with its port, at which Docker is to publish the database now; null if there is none, or if it does already. */
  readonly published: string | null;
  /** The free space required in the base directory and in Docker's root directory. */
  readonly minimumFreeBytes: { readonly baseDir: number; readonly dockerRoot: number };
  readonly minimumMemoryBytes: { readonly required: number; readonly recommended: number };
  /** Who a container belongs to, by its labels and its name. */
  readonly ownership: (container: Container) => Ownership;
  /** Paths that root's programs read or run. What lies above them must be root's alone. */
  readonly guarded: readonly string[];
  /** The program that runs now and bin/fula-node.js, if a Node.js for cron is needed. */
  readonly cronNode: { readonly running: string; readonly script: string } | null;
  /** The systemd units of an adopted writer. */
  readonly writerUnits: readonly string[];
}

/** One problem that a check found. */
export interface CheckProblem {
  /** A failure stops the run, a warning is only printed. */
  readonly severity: "failure" | "warning";
  readonly what: string;
  readonly why?: string;
  readonly remedy: string;
}

/** One check of the machine before anything is changed. It writes nothing. */
export interface Check {
  /** The name for `--ignore`. */
  readonly id: string;
  readonly title: string;
  /** False if fula-node can't work when this check fails. */
  readonly ignorable: boolean;
  run(host: HostReader, context: PreflightContext): Promise<readonly CheckProblem[]>;
}
