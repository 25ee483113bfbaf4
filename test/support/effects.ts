/** A line of the trace that effect-hook.cjs writes. */
type TraceLine =
  | { readonly at: "start"; readonly pid: number; readonly started: string }
  | { readonly at: "begin"; readonly key: string }
  | { readonly at: "end"; readonly key: string; readonly parts: number }
  | ({ readonly at: "journal" } & JournalHead)
  | { readonly at: "reads"; readonly what: string }
  | ({ readonly at: "kill" } & Kill);

interface Kill extends Pick<Point, "when" | "key"> {
  readonly pid: number;
  readonly withChildren: boolean;
  readonly children: readonly Process[];
}

/** A process is known by its number and the moment of its start, since numbers are given again. */
interface Process {
  readonly pid: number;
  readonly started: string;
}

/** What is compared of a line of the journal. */
interface JournalHead {
  readonly phase: string;
  readonly step: string;
  readonly kind: string;
}

/** One thing that a run changes, in the order in which they begin. */
export interface Effect {
  /** Kind, name and how often it came: the same in every run from the same state. */
  readonly key: string;
  /** Of how many calls it consists, for a tree. */
  readonly parts: number;
}

/** A moment of a run: before an effect, in its middle, or after the last one. */
export interface Point {
  readonly name: string;
  readonly when: "before" | "during" | "after";
  readonly key: string;
  /** The part of a tree at which it is killed. */
  readonly part?: number;
  /** True if the programs that the run has started are killed with it; otherwise they go on alone. */
  readonly children?: boolean;
}

/** What a box shows after a kill. */
export interface Evidence {
  readonly exitCode: number;
  readonly trace: string;
  /** The journal's text, or null if there is none. */
  readonly journal: string | null;
  /** Which processes of the trace are still there. */
  readonly alive: readonly Process[];
}

/** The environment that makes a run write its trace, and kills it at a point. The hook must be on the box already. */
export function watched(hook: string, trace: string, point?: Point): Readonly<Record<string, string>> {
  const env = { NODE_OPTIONS: `--require ${hook}`, EFFECTS_TRACE: trace };
  return point === undefined ? env : { ...env, EFFECTS_KILL: JSON.stringify(point) };
}

/** The lines of a trace, without a last one that was cut off. */
export function readTrace(text: string): readonly TraceLine[] {
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as TraceLine);
}

/** The effects of a whole run. Throws if one of them has not ended: the trace is not that of a whole run then. */
export function effectsOf(text: string): readonly Effect[] {
  const lines = readTrace(text);
  const ends = new Map(lines.flatMap((line) => (line.at === "end" ? [[line.key, line.parts]] : [])));
  const keys = lines.flatMap((line) => (line.at === "begin" ? [line.key] : []));
  const open = keys.filter((key) => !ends.has(key));
  if (open.length > 0) throw new Error(`these effects have not ended: ${open.join("; ")}`);
  if (keys.length === 0) throw new Error("the run changed nothing");
  return keys.map((key) => ({ key, parts: ends.get(key) ?? 0 }));
}

/**
 * The points of a run with these effects: before each, in the middle of each, and after the last (after the others is before
 * the next). In the middle of a program it has two: with the program killed, too, and with the program going on alone.
 */
export function pointsOf(effects: readonly Effect[]): readonly Point[] {
  const width = String(effects.length).length;
  const points = effects.flatMap(({ key, parts }, index): Point[] => {
    const of = `${String(index + 1).padStart(width, "0")} of ${effects.length}: ${key}`;
    const middle = { when: "during", key } as const;
    const half = Math.max(1, Math.ceil(parts / 2));
    return [
      { name: `before ${of}`, when: "before", key },
      ...(/^(?:in [^:]*: )?run /.test(key)
        ? [
            { ...middle, name: `during ${of}, its program killed too`, children: true },
            { ...middle, name: `during ${of}, its program left alone` },
          ]
        : [
            { ...middle, name: `during ${of}`, ...(/^(?:in [^:]*: )?give /.test(key) ? { part: half } : {}) },
          ]),
    ];
  });
  const last = effects.at(-1);
  if (last === undefined) return points;
  return [
    ...points,
    { name: `after ${effects.length} of ${effects.length}: ${last.key}`, when: "after", key: last.key },
  ];
}

/** All processes that a trace names: the run, and what it had started when it was killed. */
export function processesOf(trace: string): readonly Process[] {
  return readTrace(trace).flatMap((line) =>
    line.at === "start"
      ? [{ pid: line.pid, started: line.started }]
      : line.at === "kill"
        ? line.children
        : [],
  );
}

/** Throws if the evidence does not prove that the run was killed at that point, and nowhere else. */
export function proveKill(point: Point, { exitCode, trace, journal, alive }: Evidence): void {
  const doubt = (why: string): never => {
    throw new Error(`the kill did not land: ${why}`);
  };
  const lines = readTrace(trace);
  const kill = lines.at(-1);
  if (kill?.at !== "kill") {
    const begun = lines.findLast((line) => line.at === "begin");
    return doubt(
      `the run passed by this point; it ended with exit code ${exitCode} after ${begun?.at === "begin" ? begun.key : "no effect"}`,
    );
  }
  if (exitCode !== 137) doubt(`the exit code is ${exitCode}, not that of signal 9`);
  if (kill.when !== point.when || kill.key !== point.key) doubt(`it was ${kill.when} ${kill.key}`);
  const begun = lines.flatMap((line) => (line.at === "begin" ? [line.key] : []));
  const ended = new Set(lines.flatMap((line) => (line.at === "end" ? [line.key] : [])));
  const open = begun.filter((key) => !ended.has(key));
  const isIn = { before: [false, false], during: [true, false], after: [true, true] }[point.when];
  if (begun.includes(point.key) !== isIn[0]) doubt(`${point.key} has${isIn[0] ? " not" : ""} begun`);
  if (ended.has(point.key) !== isIn[1]) doubt(`${point.key} has${isIn[1] ? " not" : ""} ended`);
  // A program that is a fula-node has effects of its own.
  const isOuter = point.key.startsWith("run node ");
  const isWithin = (key: string): boolean => isOuter && key.startsWith("in ");
  // The three files of a snapshot are written together.
  const ofSnapshot = (key: string): boolean => /^in snapshot take: write \S+\/snapshots\/pinset-/.test(key);
  const isBeside = (key: string): boolean => ofSnapshot(point.key) && ofSnapshot(key);
  const later = begun.slice(begun.indexOf(point.key) + 1).filter((key) => !isWithin(key) && !isBeside(key));
  if (isIn[0] && later.length > 0) doubt(`${later[0]} had begun, too`);
  // An effect lies inside of another one only if that writes a tree and moves the old one away, or is that fula-node.
  const isAround = (key: string): boolean =>
    key.startsWith("write ") || (point.key.startsWith("in ") && /^(?:run node |in [^:]*: write )/.test(key));
  const others = open.filter((key) => key !== point.key && !isWithin(key) && !isAround(key));
  if (others.length > 0) doubt(`${others.join("; ")} was under way`);
  const runs = new Set(lines.flatMap((line) => (line.at === "start" ? [line.pid] : [])));
  // A program that was left alone goes on, also one that is a fula-node.
  const mayLive = (pid: number): boolean =>
    point.children !== true && (!runs.has(pid) || (isOuter && pid !== kill.pid));
  const left = alive.filter(({ pid }) => !mayLive(pid));
  if (left.length > 0) doubt(`the process ${left.map(({ pid }) => pid).join(", ")} is still there`);
  proveJournal(point, lines, journal, doubt);
}

/** The journal must end with what the trace says was written last, whole; or with half of a line if that was the point. */
function proveJournal(
  point: Point,
  lines: readonly TraceLine[],
  journal: string | null,
  doubt: (why: string) => never,
): void {
  const heads = lines.filter((line) => line.at === "journal");
  if (heads.length === 0) return;
  const isHalf = point.when === "during" && /^write \S+\/journal\.ndjson #/.test(point.key);
  const removed = lines.some(
    (line) => line.at === "begin" && line.key.startsWith("remove ") && !line.key.includes("/run/"),
  );
  if (journal === null) {
    if (!removed) doubt("there is no journal");
    return;
  }
  const whole = journal.split("\n").slice(0, -1);
  if (isHalf === journal.endsWith("\n"))
    doubt(`the journal's last line is ${isHalf ? "whole" : "not whole"}`);
  const { phase, step, change } = JSON.parse(whole.at(-1) ?? "{}") as {
    phase?: string;
    step?: string;
    change?: { kind: string };
  };
  const last = heads.at(-1);
  const [shown, expected] = [
    `${phase} ${step} ${change?.kind}`,
    last === undefined ? "" : `${last.phase} ${last.step} ${last.kind}`,
  ];
  if (shown !== expected) doubt(`the journal's last line says ${shown}, not ${expected}`);
}
