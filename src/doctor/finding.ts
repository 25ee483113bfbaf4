import type { VerbExit } from "../errors.ts";
import { countOf } from "../units.ts";

/**
 * How serious a finding is. `note`: worth knowing, nothing to do now. `warning`: works, but act. `error`: does not work, or
 * is about to fail. `unknown`: could not be asked; never counts as ok.
 */
export type Severity = "ok" | "note" | "warning" | "error" | "unknown";

/** What a check says about one thing. */
export interface Observation {
  readonly severity: Severity;
  /** What was found, as a clause without a full stop. */
  readonly what: string;
  /** What was looked at, by name. It has no secrets. */
  readonly evidence: Readonly<Record<string, string>>;
  /** A command to paste, or a sentence; null if there is nothing to do. */
  readonly remedy: string | null;
}

/** One line of `doctor`: what a check found. */
export interface Finding extends Observation {
  /** Which check, by its stable id: `database`, `space`, `preflight-clock`. */
  readonly id: string;
}

/** In this order they are shown. */
const ORDER: readonly Severity[] = ["error", "warning", "unknown", "note", "ok"];

/** What nothing else can be repaired without. */
const FIRST: ReadonlySet<string> = new Set(["docker", "preflight-disk", "space", "read-only"]);

/** The most serious first, and of equal ones what the others need; else they stay in their order. */
export function sortFindings(findings: readonly Finding[]): readonly Finding[] {
  const rank = ({ severity, id }: Finding) => 2 * ORDER.indexOf(severity) + (FIRST.has(id) ? 0 : 1);
  return findings.toSorted((a, b) => rank(a) - rank(b));
}

/** How `doctor` ends: as `status` does for the same. */
export function exitOf(findings: readonly Pick<Finding, "severity">[]): VerbExit {
  const has = (severity: Severity) => findings.some((one) => one.severity === severity);
  if (has("error")) return "unhealthy";
  if (has("warning")) return "pending";
  return has("unknown") ? "unavailable" : "ok";
}

/** How many findings there are of each severity. */
export function countSeverities(
  findings: readonly Pick<Finding, "severity">[],
): Readonly<Record<Severity, number>> {
  const count = (severity: Severity) => findings.filter((one) => one.severity === severity).length;
  return {
    error: count("error"),
    warning: count("warning"),
    unknown: count("unknown"),
    note: count("note"),
    ok: count("ok"),
  };
}

/** The same in words: `2 errors, 1 warning`. */
export function describeFindings(findings: readonly Pick<Finding, "severity">[]): string {
  const { error, warning, unknown } = countSeverities(findings);
  const said = [
    ...(error === 0 ? [] : [countOf(error, "error")]),
    ...(warning === 0 ? [] : [countOf(warning, "warning")]),
    ...(unknown === 0 ? [] : [`${countOf(unknown, "check")} could not be made`]),
  ];
  return said.length === 0 ? "Nothing is wrong" : said.join(", ");
}
