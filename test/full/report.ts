import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { readResults, readSizes, resultsFile, type Result, SEED, sourceName } from "./results.ts";

// After `npm run test:full`: writes the results to docs/crash-matrix.md. Usage: report.ts EXIT-CODE (the exit code of the run).

const TARGET = "docs/crash-matrix.md";

const exitCode = Number(process.argv[2] ?? "1");
const file = resultsFile();
/** The latest result of each case or point. */
const last = new Map(
  readResults(file).map((result) => [JSON.stringify([result.matrix, result.name]), result]),
);
const results = [...last.values()];
const failed = results.filter(({ passed }) => !passed);
const sizes = new Map(readSizes(file).map((size) => [size.matrix, size]));
const others = [...new Set(results.map(({ matrix }) => matrix))].filter((name) => !sizes.has(name));
const missing = [...sizes.values()].reduce((sum, { matrix, points }) => sum + points - of(matrix).length, 0);
const end =
  missing > 0
    ? ` ${missing} points are left.`
    : exitCode !== 0 && failed.length === 0
      ? " The run was interrupted."
      : "";

const text = `# The crash matrix

What the last \`npm run test:full\` found: ${results.length} kills and cases, ${failed.length} failed.${end}
On ${new Date().toISOString().slice(0, 10)}, at commit ${sourceName()}, with seed ${SEED}, on ${cpus().length} processors; three boxes run at once.
An interrupted run continues where it stopped: \`npm run test:full [-- SEED [PART [MINUTES]]]\`.

## Every point of a run

An effect is a call of the run that changes something outside of its process: a file, a program that it starts, a request to Docker or
another server, a statement in the database. A run with N effects has 2N + 1 points: before each, in the middle of each, and after the
last. A program's middle counts twice: killed with the run, and left to go on alone. At each point, on a box of its own, the run is
killed with SIGKILL. The trace, the journal and the process table must show that the kill landed there. Then the same command runs again, and the
whole box must be as after a clean run: files, Docker's objects, cron, database. What the killed run had already written of
secrets, identities, keys and snapshots must be the same.

| run | effects | points | kills | converged | minutes |
| --- | --: | --: | --: | --: | --: |
${[...sizes.values()].map(sizeRow).join("\n")}

Minutes are those of all points together.
${failures([...sizes.keys()])}
${others.map(section).join("\n\n")}
`;
writeFileSync(TARGET, `${text.trim()}\n`);
console.log(`${TARGET}: ${results.length} kills and cases, ${failed.length} failed.${end}`);

function of(name: string): readonly Result[] {
  return results.filter(({ matrix }) => matrix === name);
}

function sizeRow({ matrix, effects, points }: { matrix: string; effects: number; points: number }): string {
  const all = of(matrix);
  const converged = all.filter(({ passed }) => passed).length;
  const seconds = all.reduce((sum, { seconds: took }) => sum + took, 0);
  return `| ${matrix} | ${effects} | ${points} | ${all.length} | ${converged} | ${Math.round(seconds / 60)} |`;
}

/** The points that failed, in their own words. */
function failures(names: readonly string[]): string {
  const rows = failed.filter(({ matrix }) => names.includes(matrix));
  if (rows.length === 0) return "";
  const lines = rows.map(({ matrix, name, detail }) => `- ${matrix}, ${code(name)}: ${code(detail)}`);
  return `\nFailed:\n\n${lines.join("\n")}\n`;
}

function code(words: string): string {
  return `\`${words.replaceAll("`", "'")}\``;
}

function section(name: string): string {
  return [
    `## ${name}`,
    "",
    "| case | result | seconds | what it found |",
    "| --- | --- | --: | --- |",
    ...of(name).map(row),
  ].join("\n");
}

function row({ name, passed, seconds: took, detail }: Result): string {
  return `| ${name} | ${passed ? "passed" : "failed"} | ${took} | ${detail.replaceAll("|", "\\|")} |`;
}
