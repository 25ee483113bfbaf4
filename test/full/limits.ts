/** How many boxes a long run has at work at once (FULA_NODE_TEST_LANES). */
export const LANES = Number(process.env["FULA_NODE_TEST_LANES"] || "3");

/** A run starts no more points and cases after this time, and goes on where it stopped the next time (FULA_NODE_TEST_MINUTES). */
const MINUTES = Number(process.env["FULA_NODE_TEST_MINUTES"] || "Infinity");

const began = performance.now();

export function isOver(): boolean {
  return performance.now() - began > MINUTES * 60_000;
}
