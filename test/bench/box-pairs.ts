import { fileURLToPath } from "node:url";
import { FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box, requireBoxes } from "../support/box.ts";
import type { Pairs } from "./pairs.ts";

/** One side of a comparison inside a box, as bash scripts. Only `run` is timed. */
export interface BoxContender {
  readonly prepare?: string;
  readonly run: string;
}

const SCRIPT = "/root/box-pairs.mjs";
const LONGEST_MS = 3_600_000;

/** Boots a box, joins it as the first master of a pool, and destroys it after the work. Throws if boxes can't run. */
export async function withMaster<Result>(name: string, work: (box: Box) => Promise<Result>): Promise<Result> {
  const reason = await requireBoxes();
  if (reason !== undefined) throw new Error(`boxes cannot run here: ${reason}`);
  const box = await Box.boot({ name, image: "docker" });
  try {
    await installArtifact(box);
    const { exitCode, stdout, stderr } = await fulaNode(box, FIRST_JOIN);
    if (exitCode !== 0) throw new Error(`${stdout}\n${stderr}`);
    return await work(box);
  } finally {
    await box.destroy();
  }
}

/** Milliseconds of both, taken in turns inside the box, so without the time of `docker exec`. */
export async function timePairsInBox(
  box: Box,
  task: { readonly rounds: number; readonly ours: BoxContender; readonly anchor: BoxContender },
): Promise<Pairs> {
  await box.copyIn(fileURLToPath(new URL("box-pairs.mjs", import.meta.url)), SCRIPT);
  const { stdout } = await box.run(["node", SCRIPT], { input: JSON.stringify(task), timeoutMs: LONGEST_MS });
  return JSON.parse(stdout) as Pairs;
}
