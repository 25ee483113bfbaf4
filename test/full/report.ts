import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { LANES } from "./limits.ts";
import { type Planned, reportText } from "./report-text.ts";
import { allFound, EVERY_POINT, PAGE } from "./results.ts";

// After `npm run test:full`: writes the results to docs/crash-matrix.md. What has no results on this machine stays.

const made = `Written on ${new Date().toISOString().slice(0, 10)}, on ${cpus().length} processors, with ${LANES === 1 ? "one box" : `${LANES} boxes`} at once.`;
const former = existsSync(PAGE) ? readFileSync(PAGE, "utf8") : "";
const text = reportText(plannedMatrices(), allFound(), made, { page: former, isLater });
writeFileSync(PAGE, `${text.trim()}\n`);
console.log(`${PAGE}: ${text.split("\n")[2]}`);

/** True if a source is of a later commit than another one. False if git can't say: then a failure stays one. */
function isLater(source: string, than: string): boolean {
  const [one = "", other = ""] = [source, than].map((name) => name.split("-")[0]);
  if (one === other) return false;
  return spawnSync("git", ["merge-base", "--is-ancestor", other, one]).status === 0;
}

/** Every matrix of test/full. What vitest lists is what it would run. */
function plannedMatrices(): readonly Planned[] {
  const args = ["vitest", "list", "--project", "full", "--json"];
  // Vitest lists no case that it would skip, and one that has passed with a seed is skipped.
  // Nor a matrix without failures, if only those that failed are to run.
  const env = { ...process.env, FULA_NODE_TEST_SEED: "0", FULA_NODE_TEST_FAILED: "" };
  const listed = JSON.parse(execFileSync("npx", args, { encoding: "utf8", env })) as readonly {
    readonly name: string;
  }[];
  const matrices = new Map<string, string[]>();
  for (const { name } of listed) {
    const [matrix = "", one = ""] = name.split(" > ");
    matrices.set(matrix, [...(matrices.get(matrix) ?? []), one]);
  }
  return [...matrices]
    .map(([matrix, cases]) => ({ matrix, cases: cases.includes(EVERY_POINT) ? null : cases }))
    .toSorted((one, two) => (one.matrix < two.matrix ? -1 : 1));
}
