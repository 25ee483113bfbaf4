import { EXIT_CODES } from "../errors.ts";
import type { Reporter } from "../ui/reporter.ts";
import { describeFindings, exitOf, type Finding } from "./finding.ts";

/** Longer evidence, such as a stack, is for `--verbose` and `--json`. */
const SHORT = 160;
const FEW = 3;

/** The lines of a diagnosis: what is wrong with its evidence and what to do, then in one line what is right. */
export function linesOfFindings(
  header: string,
  findings: readonly Finding[],
  { table, wrap, verbose }: Pick<Reporter, "table" | "wrap"> & { readonly verbose: boolean },
): readonly string[] {
  const shown = findings.filter(({ severity }) => verbose || severity !== "ok");
  const fine = findings.filter(({ severity }) => severity === "ok");
  const widest = (column: "severity" | "id") => Math.max(0, ...shown.map((one) => one[column].length));
  const [severities, ids] = [widest("severity"), widest("id")];
  const blocks = shown.flatMap(({ severity, id, what, evidence, remedy }) => [
    ...table([
      [severity.padEnd(severities), id.padEnd(ids), what],
      ...seenRows(evidence, verbose).map((line) => ["", "", line]),
    ]),
    ...remedyLines(remedy, table),
  ]);
  return [
    ...wrap(header),
    "",
    ...(blocks.length === 0 ? [] : [...blocks, ""]),
    ...(verbose || fine.length === 0
      ? []
      : [...wrap(`Right (${fine.length}): ${[...new Set(fine.map(({ id }) => id))].join(", ")}.`), ""]),
    ...wrap(`${describeFindings(findings)} (exit ${EXIT_CODES[exitOf(findings)]}).`),
  ];
}

/** Each command has a line of its own that is as wide as can be, so that it can be copied. */
function remedyLines(remedy: string | null, table: Reporter["table"]): readonly string[] {
  if (remedy === null) return [];
  return table(remedy.split("; ").map((step, index) => [index === 0 ? "    do:" : "       ", step]));
}

function seenRows(evidence: Finding["evidence"], verbose: boolean): readonly string[] {
  const all = Object.entries(evidence).map(([key, value]) => `seen: ${key}: ${value}`);
  return verbose ? all : all.filter((line) => line.length <= SHORT).slice(0, FEW);
}
