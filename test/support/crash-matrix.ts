import { PROGRAM } from "./artifact.ts";
import { Box, type Checkpoint, type ExecResult } from "./box.ts";
import { HOLD_CRON } from "./box-snapshot.ts";
import {
  type Effect,
  effectsOf,
  type Evidence,
  type Point,
  pointsOf,
  processesOf,
  proveKill,
  watched,
} from "./effects.ts";
import { type EndState, endStateOf, lostSince, stateDifference } from "./end-state.ts";

/** A run that is killed at every point. */
export interface CrashMatrix {
  readonly name: string;
  /** Boots a box and brings it to the state before the run, with the artifact on it. It is shut down then, and others are made from it. */
  readonly prepare: () => Promise<Box>;
  /** Boots a box from the checkpoint, with others that it needs; by default it alone. */
  readonly boot?: (from: Checkpoint) => Promise<{ readonly box: Box; readonly destroy: () => Promise<void> }>;
  /** Removes what `prepare` made beside its box. */
  readonly dispose?: () => Promise<void>;
  /** Waits until a box that was made from the checkpoint is as the run expects it, for example its containers healthy. */
  readonly ready?: (box: Box) => Promise<void>;
  /** The arguments of fula-node in the run that is killed. */
  readonly command: readonly string[];
  /** Its arguments in the run that repairs, or what chooses them by what it finds; by default the same. */
  readonly again?: readonly string[] | ((box: Box) => Promise<readonly string[]>);
  /** What the run that repairs may end with; by default exit code 0. Returns a reason if it may not. */
  readonly judge?: (result: ExecResult, point: Point) => string | null;
  /** What a repair may leave otherwise than a clean run after a kill at these effects: all of the differences, or none. */
  readonly allowed?: { readonly at: RegExp; readonly differences: readonly RegExp[] };
  /** The path of the journal. */
  readonly journal: string;
  /** Waits until a box stands still after a run, before its end state is read. Without a point it is the clean run. */
  readonly settle?: (box: Box, point?: Point) => Promise<void>;
  /** The end state; by default the whole one. */
  readonly endState?: (box: Box) => Promise<EndState>;
}

/** A matrix that can be run: its checkpoint, and what a clean run from there does. */
export interface Prepared {
  readonly matrix: CrashMatrix;
  readonly effects: readonly Effect[];
  readonly points: readonly Point[];
  readonly clean: EndState;
  /** Runs one point on a box of its own. Returns what it found; throws if the kill did not land or the box did not converge. */
  readonly run: (point: Point) => Promise<string>;
  readonly destroy: () => Promise<void>;
}

const HOOK_DIRECTORY = "/root/effects";
const HOOK = `${HOOK_DIRECTORY}/effect-hook.cjs`;
/** Not on the disk, so that it is in no end state. */
const TRACE = "/run/effects.ndjson";
const SHOWN_DIFFERENCES = 8;

/** Makes the checkpoint, and records a clean run from there: its effects and its end state. */
export async function prepareMatrix(matrix: CrashMatrix): Promise<Prepared> {
  const source = await matrix.prepare();
  const destroy = async (): Promise<void> => {
    await source.destroy();
    await matrix.dispose?.();
  };
  try {
    for (const file of ["effect-hook.cjs", "effect-names.cjs"])
      await source.copyIn(`${import.meta.dirname}/${file}`, `${HOOK_DIRECTORY}/${file}`);
    const from = await source.save();
    const { effects, initial, clean } = await withBox(matrix, from, async (box) => {
      const before = await stateOf(matrix, box);
      mustSucceed(await run(box, matrix.command), "the clean run");
      const trace = await box.readFile(TRACE);
      return { effects: effectsOf(trace), initial: before, clean: await settledState(matrix, box) };
    });
    return {
      matrix,
      effects,
      points: pointsOf(effects),
      clean,
      run: (point) => withBox(matrix, from, (box) => runPoint(matrix, { initial, clean }, box, point)),
      destroy,
    };
  } catch (error) {
    await destroy();
    throw error;
  }
}

/** The states of the checkpoint and of a clean run from it. */
interface Known {
  readonly initial: EndState;
  readonly clean: EndState;
}

async function runPoint(matrix: CrashMatrix, known: Known, box: Box, point: Point): Promise<string> {
  const killed = await run(box, matrix.command, point);
  const evidence = await evidenceOf(matrix, box, killed);
  proveKill(point, evidence);
  const kept = mustStay(await stateOf(matrix, box), known);
  const { again = matrix.command } = matrix;
  const repair = typeof again === "function" ? await again(box) : again;
  const repaired = await box.exec(["node", PROGRAM, ...repair]);
  const why = matrix.judge?.(repaired, point);
  if (why === undefined) mustSucceed(repaired, "the run after the kill");
  else if (why !== null) throw new Error(`the run after the kill: ${why}`);
  const after = await settledState(matrix, box, point);
  const differences = stateDifference(known.clean, after);
  const allowed = matrix.allowed?.at.test(point.key) === true ? matrix.allowed.differences : [];
  const faults = [...lostSince(kept, after), ...withoutAllowed(differences, allowed)];
  if (faults.length === 0) return `${Object.keys(kept.kept).length} kept`;
  const shown = faults.slice(0, SHOWN_DIFFERENCES).join("; ");
  throw new Error(`${faults.length} differences from a clean run: ${shown}`);
}

/** The differences, without those that are allowed if all of them are there, each once. */
export function withoutAllowed(
  differences: readonly string[],
  allowed: readonly RegExp[],
): readonly string[] {
  const isAllowed = (one: string): boolean => allowed.some((words) => words.test(one));
  const counts = allowed.map((words) => differences.filter((one) => words.test(one)).length);
  return counts.every((count) => count === 1) ? differences.filter((one) => !isAllowed(one)) : differences;
}

/** What a killed run left, without what was so before it and what a clean run changes, too: an old secret that is rotated. */
export function mustStay(written: EndState, { initial, clean }: Known): EndState {
  const kept = Object.entries(written.kept).filter(
    ([name, value]) => value !== initial.kept[name] || clean.kept[name] === value,
  );
  return { ...written, kept: Object.fromEntries(kept) };
}

function run(box: Box, command: readonly string[], point?: Point): Promise<ExecResult> {
  return box.exec(["node", PROGRAM, ...command], { env: watched(HOOK, TRACE, point) });
}

/** What the box shows right after a run: the trace, the journal, and which of its processes are left. */
async function evidenceOf({ journal }: CrashMatrix, box: Box, { exitCode }: ExecResult): Promise<Evidence> {
  const trace = await box.readFile(TRACE);
  const text = await box.exec(["cat", journal]);
  const processes = processesOf(trace);
  // A killed process is there until the kernel has ended its threads.
  const script = `
const { readFileSync } = require("node:fs");
const isThere = ({ pid, started }) => {
  try {
    const words = readFileSync("/proc/" + pid + "/stat", "utf8").replace(/^.*\\) /, "").split(" ");
    return words[19] === started && words[0] !== "Z";
  } catch { return false; }
};
const processes = ${JSON.stringify(processes)};
const until = Date.now() + 2000;
const look = () => {
  const alive = processes.filter(isThere);
  if (alive.length === 0 || Date.now() > until) console.log(JSON.stringify(alive));
  else setTimeout(look, 20);
};
look();`;
  const { stdout } = await box.run(["node", "-e", script]);
  return {
    exitCode,
    trace,
    // Exactly as it is: the newline at its end counts.
    journal: text.exitCode === 0 ? await box.readFile(journal) : null,
    alive: JSON.parse(stdout) as Evidence["alive"],
  };
}

async function settledState(matrix: CrashMatrix, box: Box, point?: Point): Promise<EndState> {
  await matrix.settle?.(box, point);
  // A run may have started cron's daemon.
  await box.run(HOLD_CRON);
  return await stateOf(matrix, box);
}

function stateOf(matrix: CrashMatrix, box: Box): Promise<EndState> {
  return (matrix.endState ?? endStateOf)(box);
}

async function withBox<T>(matrix: CrashMatrix, from: Checkpoint, work: (box: Box) => Promise<T>): Promise<T> {
  const { box, destroy } = await (matrix.boot ?? bootAlone)(from);
  try {
    await matrix.ready?.(box);
    return await work(box);
  } finally {
    await destroy();
  }
}

async function bootAlone(from: Checkpoint): ReturnType<NonNullable<CrashMatrix["boot"]>> {
  const box = await Box.bootFrom(from);
  return { box, destroy: () => box.destroy() };
}

function mustSucceed({ exitCode, stdout, stderr }: ExecResult, what: string): void {
  if (exitCode === 0) return;
  const last = `${stdout}\n${stderr}`.trim().split("\n").slice(-12).join(" ").replaceAll(/\s+/g, " ");
  throw new Error(`${what} ended with exit code ${exitCode}: ${last}`);
}

/** Runs work for each item, so many at a time, in their order. Stops starting when `isOver` says so. */
export async function inLanes<T>(
  items: readonly T[],
  lanes: number,
  work: (item: T) => Promise<void>,
  isOver: () => boolean = () => false,
): Promise<void> {
  const queue = [...items];
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (let item = queue.shift(); item !== undefined && !isOver(); item = queue.shift()) await work(item);
    }),
  );
}
