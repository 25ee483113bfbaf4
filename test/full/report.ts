import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { readResults, resultsFile, type Result, SEED, sourceName } from "./results.ts";

// After `npm run test:full`: writes the results to docs/test-full.md. Usage: report.ts EXIT-CODE (the exit code of the run).

const TARGET = "docs/test-full.md";

const exitCode = Number(process.argv[2] ?? "1");
/** The latest result of each case. */
const last = new Map(
  readResults(resultsFile()).map((result) => [JSON.stringify([result.matrix, result.name]), result]),
);
const results = [...last.values()];
const failed = results.filter(({ passed }) => !passed).length;
const seconds = results.reduce((sum, result) => sum + result.seconds, 0);

const text = `# The long tests

What the last \`npm run test:full\` found: ${results.length} cases, ${failed} failed${exitCode !== 0 && failed === 0 ? ", and the run was interrupted" : ""}.
Three cases run at once. The times of all cases together are ${Math.round(seconds / 60)} minutes on ${cpus().length} processors, on ${new Date().toISOString().slice(0, 10)}, at commit ${sourceName()},
with seed ${SEED}. An interrupted run continues where it stopped: \`npm run test:full [-- SEED]\`.

${[...new Set(results.map(({ matrix }) => matrix))].map(section).join("\n\n")}
`;
writeFileSync(TARGET, text);
console.log(`${TARGET}: ${results.length} cases, ${failed} failed.`);

function section(matrix: string): string {
  const rows = results.filter((result) => result.matrix === matrix).map(row);
  return [
    `## ${matrix}`,
    "",
    "| case | result | seconds | what it found |",
    "| --- | --- | --: | --- |",
    ...rows,
  ].join("\n");
}

function row({ name, passed, seconds: took, detail }: Result): string {
  return `| ${name} | ${passed ? "passed" : "failed"} | ${took} | ${detail.replaceAll("|", "\\|")} |`;
}
