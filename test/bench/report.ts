import { availableParallelism, cpus, loadavg } from "node:os";

/** The target of a measurement: the median of the paired ratios ours/anchor, or only ours in its own unit. */
export type Target = {
  readonly of: "ratio" | "ours";
  readonly bound: "at most" | "at least";
  readonly value: number;
};

/** Numbers of one measurement. `anchor[i]` was taken directly before or after `ours[i]`, so that the machine's state was the same. */
export interface Measurement {
  /** Short, for the table: `take, 1000000 pins`. */
  readonly name: string;
  /** What was run, and the anchor that it is compared with; null if the target is for ours only. */
  readonly what: string;
  readonly against: string | null;
  /** `ms`, `bytes`, `MiB`, `pins/s`. */
  readonly unit: string;
  readonly ours: readonly number[];
  /** As many numbers as `ours`; empty without an anchor. */
  readonly anchor: readonly number[];
  /** Null for a number that is only shown. */
  readonly target: Target | null;
}

/** One thing that `npm run bench -- NAME` runs. A module of this folder exports `benches`; main.ts lists the modules. */
export interface Bench {
  readonly name: string;
  /** True: it takes long, and runs only if it is named. */
  readonly onlyByName?: boolean;
  /** Throws if it can't run here. The other benches still run. */
  readonly run: () => Promise<readonly Measurement[]>;
}

/** Minimum, median and maximum. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** A measurement with its verdict, as in the JSON file. */
export interface Verdict {
  readonly bench: string;
  readonly name: string;
  readonly what: string;
  readonly anchor: string | null;
  readonly unit: string;
  readonly runs: number;
  readonly ours: Spread;
  readonly anchorNumbers: Spread | null;
  /** The median of the paired ratios ours/anchor. */
  readonly ratio: number | null;
  readonly target: string | null;
  readonly reached: boolean | null;
}

/** Compares one measurement with its target. Throws RangeError if the numbers are not pairs. */
export function judge(bench: string, measured: Measurement): Verdict {
  const { name, what, against, unit, ours, anchor, target } = measured;
  if (ours.length === 0 || (against === null ? anchor.length > 0 : anchor.length !== ours.length)) {
    throw new RangeError(`${bench}: ${ours.length} runs of ours and ${anchor.length} of the anchor`);
  }
  const ratio =
    against === null ? null : spread(ours.map((value, index) => value / (anchor[index] ?? 0))).median;
  const judged = target?.of === "ratio" ? ratio : spread(ours).median;
  return {
    bench,
    name,
    what,
    anchor: against,
    unit,
    runs: ours.length,
    ours: spread(ours),
    anchorNumbers: against === null ? null : spread(anchor),
    ratio,
    target: target === null ? null : describeTarget(target, unit),
    reached: target === null || judged === null ? null : isReached(target, judged),
  };
}

/** The machine of a report, since numbers of different or busy machines can't be compared. */
export function describeMachine(): Machine {
  const load = loadavg()[0] ?? 0;
  return {
    node: process.version,
    cpu: (cpus()[0]?.model ?? "unknown").replaceAll(/\s+/g, " ").trim(),
    cpus: availableParallelism(),
    load: load.toFixed(1),
  };
}

/** What a measurement was taken on. */
export interface Machine {
  readonly node: string;
  readonly cpu: string;
  readonly cpus: number;
  /** How many processes wanted to run, over the last minute. */
  readonly load: string;
}

const WIDTH = 80;
const LABEL = 33;
const NUMBER = 9;

/** The verdicts as lines of at most 80 columns, two for each: first ours, then the anchor. */
export function renderTable(verdicts: readonly Verdict[]): string {
  const head = row("BENCH (ours, then its anchor)", ["min", "median", "max"], "ratio", "target");
  const rows = verdicts.flatMap((verdict) => {
    const { name, unit, ours, anchor, anchorNumbers, ratio, target, reached } = verdict;
    const mark = reached === null ? (target ?? "-") : `${target ?? ""} ${reached ? "yes" : "NO"}`;
    const first = row(`${name}, ${unit}`, numbers(ours), ratio === null ? "" : ratio.toFixed(2), mark);
    if (anchor === null || anchorNumbers === null) return [first];
    return [first, row(`  ${anchor}`, numbers(anchorNumbers), "", `n=${verdict.runs}`)];
  });
  return [head, "-".repeat(WIDTH), ...rows].join("\n");
}

function row(label: string, cells: readonly string[], ratio: string, mark: string): string {
  const short = label.length <= LABEL ? label : `${label.slice(0, LABEL - 3)}...`;
  const columns = cells.map((cell) => cell.padStart(NUMBER)).join("");
  return `${short.padEnd(LABEL)}${columns}${ratio.padStart(7)} ${mark}`.slice(0, WIDTH).trimEnd();
}

function numbers({ min, median, max }: Spread): readonly string[] {
  return [min, median, max].map(shortNumber);
}

/** A number with as many digits as it is worth. */
export function shortNumber(value: number): string {
  if (value >= 1e7) return `${Math.round(value / 1000)}k`;
  return value >= 1000 ? String(Math.round(value)) : value.toFixed(1);
}

function describeTarget({ of, bound, value }: Target, unit: string): string {
  const sign = bound === "at most" ? "<=" : ">=";
  return of === "ratio" ? `${sign}${value}x` : `${sign}${value} ${unit}`;
}

function isReached({ bound, value }: Target, found: number): boolean {
  return bound === "at most" ? found <= value : found >= value;
}

function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (index: number) => sorted[index] ?? Number.NaN;
  const middle = (sorted.length - 1) / 2;
  return {
    min: at(0),
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    max: at(sorted.length - 1),
  };
}
