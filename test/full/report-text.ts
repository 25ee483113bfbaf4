import type { Found, Result } from "./results.ts";

/** A matrix as its test file defines it. */
export interface Planned {
  readonly matrix: string;
  /** The names of its cases; null if its points are known only when a clean run has been recorded. */
  readonly cases: readonly string[] | null;
}

/** A matrix with its results: those of one source and seed, never a mixture. */
interface Row {
  readonly matrix: string;
  readonly effects: number | null;
  /** Null if no clean run has been recorded yet. */
  readonly points: number | null;
  /** The latest result of each point or case. */
  readonly ran: readonly Result[];
  readonly from: Found | null;
}

/** The page with the results. `found` has the files that come first first: of each matrix only the first results are told. */
export function reportText(planned: readonly Planned[], found: readonly Found[], made: string): string {
  const rows = planned.map((one) => ({ ...rowOf(one, found), isWhole: one.cases === null }));
  const whole = rows.filter(({ isWhole }) => isWhole);
  const cases = rows.filter(({ isWhole }) => !isWhole);
  return `# The crash matrix

${verdict(rows)} ${made}
Each row has the seed and the commit of its results. \`npm run test:full [-- SEED [PART [MINUTES]]]\` goes on where the run before it stopped, on
the same program and tests.

## Every point of a run

An effect is a call of the run that changes something outside of its process: a file, a program that it starts, a request to Docker or
another server, a statement in the database. A run with N effects has 2N + 1 points: before each, in the middle of each, and after the
last. A program's middle counts twice: killed with the run, and left to go on alone. At each point, on a box of its own, the run is
killed with SIGKILL. The trace, the journal and the process table must show that the kill landed there. Then the same command runs again, and the
whole box must be as after a clean run: files, Docker's objects, cron, database. What the killed run had already written of
secrets, identities, keys and snapshots must be the same. The points run in an order that the seed chose.

| run | effects | points | ran | kills | converged | minutes | seed | commit |
| --- | --: | --: | --: | --: | --: | --: | --: | --- |
${whole.map(wholeRow).join("\n")}

\`-\`: no clean run has been recorded yet, so the number is not known. Minutes are those of all points together.
${failures(whole)}
## Kills at other moments, and other faults

| what | cases | ran | passed | minutes | seed | commit |
| --- | --: | --: | --: | --: | --: | --- |
${cases.map(caseRow).join("\n")}
${failures(cases)}
${cases
  .filter(({ ran }) => ran.length > 0)
  .map(section)
  .join("\n\n")}
`.replace(/\n{3,}/g, "\n\n");
}

/** In one line: whether everything has run, and what failed. */
function verdict(rows: readonly Row[]): string {
  const ran = rows.flatMap((row) => row.ran);
  const failed = ran.filter(({ passed }) => !passed).length;
  const left = rows.filter(({ points, ran: some }) => points === null || some.length < points);
  const faults = failed === 0 ? "None of them failed." : `${failed} of them failed.`;
  if (left.length === 0) return `This is complete: all ${ran.length} kills and cases have run. ${faults}`;
  return `**This is not complete**: ${ran.length} kills and cases have run, and ${left.length} of the ${rows.length} rows below have some left. ${faults}`;
}

function rowOf({ matrix, cases }: Planned, found: readonly Found[]): Row {
  const isOf = (one: { readonly matrix: string }): boolean => one.matrix === matrix;
  const from = found.find(({ results, sizes }) => results.some(isOf) || sizes.some(isOf)) ?? null;
  const size = from?.sizes.findLast(isOf);
  const latest = new Map((from?.results ?? []).filter(isOf).map((result) => [result.name, result]));
  const ran = [...latest.values()];
  if (cases === null)
    return { matrix, effects: size?.effects ?? null, points: size?.points ?? null, ran, from };
  return {
    matrix,
    effects: null,
    points: cases.length,
    ran: ran.filter(({ name }) => cases.includes(name)),
    from,
  };
}

function wholeRow(row: Row): string {
  // One that passed by its point killed nothing.
  const kills = row.ran.filter(({ detail }) => !detail.includes("the kill did not land"));
  return line([row.matrix, row.effects, row.points, row.ran.length, kills.length, ...ending(row)]);
}

function caseRow(row: Row): string {
  return line([row.matrix, row.points, row.ran.length, ...ending(row)]);
}

function ending({ ran, from }: Row): readonly (string | number | null)[] {
  const passed = ran.filter((result) => result.passed).length;
  const seconds = ran.reduce((sum, result) => sum + result.seconds, 0);
  return [passed, Math.round(seconds / 60), from?.seed ?? null, from?.source ?? null];
}

/** The points and cases that failed, in their own words. */
function failures(rows: readonly Row[]): string {
  const lines = rows.flatMap(({ ran }) =>
    ran
      .filter(({ passed }) => !passed)
      .map(({ matrix, name, detail }) => `- ${matrix}, ${code(name)}: ${code(detail)}`),
  );
  return lines.length === 0 ? "" : `\nFailed:\n\n${lines.join("\n")}\n`;
}

function section({ matrix, ran }: Row): string {
  return [
    `### ${matrix}`,
    "",
    "| case | result | seconds | what it found |",
    "| --- | --- | --: | --- |",
    ...ran.map(({ name, passed, seconds, detail }) =>
      line([name, passed ? "passed" : "failed", seconds, passed ? detail : "see above"]),
    ),
  ].join("\n");
}

function line(cells: readonly (string | number | null)[]): string {
  return `| ${cells.map((cell) => String(cell ?? "-").replaceAll("|", String.raw`\|`)).join(" | ")} |`;
}

function code(words: string): string {
  return `\`${words.replaceAll("`", "'")}\``;
}
