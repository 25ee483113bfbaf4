import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { sourceName } from "../full/results.ts";
import { FIRST_JOIN, fulaNode } from "./artifact.ts";
import type { Box, ExecResult } from "./box.ts";
import { eventually } from "./cluster-real.ts";
import { type EndState, endStateOf, lostSince, stateDifference } from "./end-state.ts";
import { bootForKills, killedAt } from "./kill-boxes.ts";
import { ALL_HEALTHY, expectExit, health, stderrOf } from "./master-box.ts";

/** Boots a box for kills, and removes it in the end. */
export async function withBox<Found>(
  image: "docker" | "plain",
  work: (box: Box) => Promise<Found>,
): Promise<Found> {
  const box = await bootForKills(image);
  try {
    return await work(box);
  } finally {
    await box.destroy();
  }
}

let clean: Promise<EndState> | undefined;

/** The end state of a join that nothing disturbed. It is made once for a source, and kept beside the results. */
function cleanMaster(): Promise<EndState> {
  clean ??= makeCleanMaster();
  return clean;
}

async function makeCleanMaster(): Promise<EndState> {
  const file = `test-full/${sourceName()}-clean-master.json`;
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8")) as EndState;
  const state = await withBox("docker", async (box) => {
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    return await endStateOf(box);
  });
  mkdirSync("test-full", { recursive: true });
  writeFileSync(`${file}.${process.pid}`, JSON.stringify(state));
  renameSync(`${file}.${process.pid}`, file);
  return state;
}

/** Waits until the engine of a box answers again: systemd starts one that was killed. */
export async function untilDocker(box: Box): Promise<void> {
  await eventually("the engine answers", async () => (await box.exec("docker version")).exitCode === 0);
}

/**
 * Joins once more: it must end well, and the box must be as after a join that nothing disturbed, with everything that it had written
 * before. `earlier` is what the box was right after the fault; a difference that is `meant` is none.
 */
export async function expectConverged(box: Box, earlier: EndState, meant?: RegExp): Promise<void> {
  expectExit(await fulaNode(box, FIRST_JOIN), 0);
  await expectClean(box, earlier, meant);
}

/** The same without another join. */
export async function expectClean(box: Box, earlier: EndState, meant?: RegExp): Promise<void> {
  expect(await health(box)).toEqual(ALL_HEALTHY);
  const state = await endStateOf(box);
  const faults = [...lostSince(earlier, state), ...stateDifference(await cleanMaster(), state)];
  const others = faults.filter((line) => meant?.test(line) !== true);
  // On one line, since the results keep the last line of an error.
  if (others.length > 0)
    throw new Error(`${others.length} differences from a clean join: ${others.join("; ")}`);
}

/** A run that a fault stopped says so: one of our exit codes but that of a bug, what happened, and what is changed; no stack. */
export function expectClearWords(result: ExecResult): void {
  const words = stderrOf(result);
  const shown = `exit code ${result.exitCode}\n${result.stdout}\n${result.stderr}`;
  expect([20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30], shown).toContain(result.exitCode);
  expect(words, shown).toContain(`Exit code ${result.exitCode}`);
  expect(words, shown).not.toMatch(/ at \S+ \(|\.js:\d+:\d+|This is a bug/);
}

/** A moment of a run's journal, chosen by a number from 0 to 1 among so many changes. */
export function momentOf(random: () => number, changes: number): string {
  const phase = random() < 0.5 ? "intent" : "done";
  return `journal|${phase}|${1 + Math.floor(random() * changes)}`;
}

/** Runs the first join, and has this shell command run at a moment of it (kill-hook.cjs names them); the run goes on. */
export function joinWith(box: Box, moment: string, command: string): Promise<ExecResult> {
  const { env } = killedAt(moment);
  return fulaNode(box, FIRST_JOIN, { env: { ...env, KILL_INSTEAD: command } });
}
