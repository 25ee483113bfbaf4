import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { type Bench, type Machine, shortNumber, type Verdict } from "./report.ts";

const FILE = fileURLToPath(new URL("results.json", import.meta.url));
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** One measurement that the page shows: what was found, when, of what, and on what. */
export interface Result extends Verdict {
  readonly at: string;
  /** Of the program that was measured; with a `+` if files were changed since. */
  readonly commit: string;
  readonly machine: Machine & { readonly loadAfter: string };
}

/** All recorded measurements. */
export function readResults(): readonly Result[] {
  return JSON.parse(readFileSync(FILE, "utf8")) as readonly Result[];
}

/** Writes measurements down: each bench that ran takes the place of its older results. */
export async function record(
  verdicts: readonly Verdict[],
  { at, machine }: Pick<Result, "at" | "machine">,
): Promise<void> {
  const git = (...args: string[]) => execFileSync("git", args, { cwd: ROOT, encoding: "utf8" }).trim();
  const isChanged = git("status", "--porcelain", "--", "src", "test/bench", "package.json") !== "";
  const commit = `${git("rev-parse", "--short=10", "HEAD")}${isChanged ? "+" : ""}`;
  const ran = new Set(verdicts.map(({ bench }) => bench));
  const results = [
    ...readResults().filter(({ bench }) => !ran.has(bench)),
    ...verdicts.map((verdict): Result => ({ ...verdict, at, commit, machine })),
  ];
  await writeFile(FILE, `${JSON.stringify(results, null, 2)}\n`);
}

/** The table of docs/benchmarks.md: every number of ours beside that of its anchor. */
export function listResults(benches: readonly Bench[], results: readonly Result[]): readonly string[] {
  const rows = benches.flatMap(({ name }) => {
    const own = results.filter(({ bench }) => bench === name);
    return own.length === 0 ? [row([`\`${name}\``, "not recorded yet", "", "", "", ""])] : own.map(rowOf);
  });
  return [row(HEAD), row(HEAD.map(() => "---")), ...rows, "", ...describeRuns(results)];
}

const HEAD = ["measurement", "ours: median (least to most)", "anchor: the same", "ratio", "target", "run"];

function rowOf(result: Result): string {
  const { bench, name, unit, ours, anchor, anchorNumbers, ratio, target, reached, runs } = result;
  const judged = reached === null ? "" : reached ? ", reached" : ", **NO**";
  return row([
    `\`${bench}\`: ${name.trim()}`,
    `${spreadOf(ours)} ${unit}`,
    anchor === null || anchorNumbers === null ? "-" : `${anchor}: ${spreadOf(anchorNumbers)} ${unit}`,
    ratio === null ? "-" : ratio.toFixed(2),
    target === null ? "-" : `${target}${judged}`,
    `${runOf(result)}, ${runs === 1 ? "once" : `${runs} times`}`,
  ]);
}

function spreadOf({ min, median, max }: Verdict["ours"]): string {
  return `${shortNumber(median)} (${shortNumber(min)} to ${shortNumber(max)})`;
}

/** Results of one run have one name: its day and its commit. */
function runOf({ at, commit }: Result): string {
  return `${at.slice(0, 10)}, ${commit}`;
}

function describeRuns(results: readonly Result[]): readonly string[] {
  const keyOf = (result: Result) => `${runOf(result)} ${result.at}`;
  const runs = new Map(results.map((result) => [keyOf(result), result]));
  return [...runs].map(([key, result]) => {
    const own = results.filter((one) => keyOf(one) === key);
    const { cpu, cpus, node, load, loadAfter } = result.machine;
    const benches = [...new Set(own.map(({ bench }) => `\`${bench}\``))].join(", ");
    return `- ${runOf(result)} (${benches}): ${cpus} processors (${cpu}), Node.js ${node}; load ${load} before and ${loadAfter} after.`;
  });
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}
