import { FIRST_JOIN, fulaNode } from "./artifact.ts";
import type { Box, ExecResult } from "./box.ts";
import { bootDocker, JOURNAL, untilHealthy } from "./crash-matrices.ts";
import type { CrashMatrix } from "./crash-matrix.ts";
import { expectExit, stderrOf } from "./master-box.ts";

async function bootJoined(): Promise<Box> {
  const box = await bootDocker();
  expectExit(await fulaNode(box, FIRST_JOIN), 0);
  return box;
}

/** A leave that had removed everything finds no node, and says so with an exit code of its own. */
function judgeLeave(result: ExecResult): string | null {
  if (result.exitCode === 0) return null;
  if (result.exitCode === 21 && stderrOf(result).includes("There is no node on this machine")) return null;
  return `exit code ${result.exitCode}: ${stderrOf(result)}`;
}

/** A master leaves and keeps what only it has: secrets, rows, identities, pins. */
export const LEAVE_MATRIX: CrashMatrix = {
  name: "leave",
  prepare: bootJoined,
  ready: untilHealthy,
  command: ["leave", "--yes"],
  judge: judgeLeave,
  journal: JOURNAL,
};

/** A master leaves without a trace. */
export const PURGE_MATRIX: CrashMatrix = {
  ...LEAVE_MATRIX,
  name: "leave with everything purged",
  command: ["leave", "--yes", "--purge", "all", "--confirm", "matrix"],
};
