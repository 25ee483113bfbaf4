import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { LANES } from "./limits.ts";
import { type Planned, reportText } from "./report-text.ts";
import { allFound, EVERY_POINT, PAGE } from "./results.ts";

// After `npm run test:full`: writes the results to docs/crash-matrix.md. What has no results on this machine stays.

const made = `Written on ${new Date().toISOString().slice(0, 10)}, on ${cpus().length} processors, with ${LANES === 1 ? "one box" : `${LANES} boxes`} at once.`;
const former = existsSync(PAGE) ? readFileSync(PAGE, "utf8") : "";
const text = reportText(plannedMatrices(), allFound(), made, former);
writeFileSync(PAGE, `${text.trim()}\n`);
console.log(`${PAGE}: ${text.split("\n")[2]}`);

/** Every matrix of test/full. What vitest lists is what it would run. */
function plannedMatrices(): readonly Planned[] {
  const args = ["vitest", "list", "--project", "full", "--json"];
  // Vitest lists no case that it would skip, and one that has passed with a seed is skipped.
  const env = { ...process.env, FULA_NODE_TEST_SEED: "0" };
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
