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
  const rows = shown.flatMap(({ severity, id, what, evidence, remedy }) => [
    [severity, id, what],
    ...seenRows(evidence, verbose),
    ...(remedy === null ? [] : [["", "", `do: ${remedy}`]]),
  ]);
  return [
    ...wrap(header),
    "",
    ...(rows.length === 0 ? [] : [...table(rows), ""]),
    ...(verbose || fine.length === 0
      ? []
      : [...wrap(`Right (${fine.length}): ${[...new Set(fine.map(({ id }) => id))].join(", ")}.`), ""]),
    ...wrap(`${describeFindings(findings)} (exit ${EXIT_CODES[exitOf(findings)]}).`),
  ];
}

function seenRows(evidence: Finding["evidence"], verbose: boolean): readonly (readonly string[])[] {
  const all = Object.entries(evidence).map(([key, value]) => `seen: ${key}: ${value}`);
  const some = verbose ? all : all.filter((line) => line.length <= SHORT).slice(0, FEW);
  return some.map((line) => ["", "", line]);
}
