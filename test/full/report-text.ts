import { type Found, type MatrixSize, type Result, withoutNumber } from "./results.ts";

/** A matrix as its test file defines it. */
export interface Planned {
  readonly matrix: string;
  /** The names of its cases; null if its points are known only when a clean run has been recorded. */
  readonly cases: readonly string[] | null;
}

/** A row of the page, with what it says below its table. */
interface Row {
  readonly matrix: string;
  readonly isWhole: boolean;
  readonly cells: readonly string[];
  readonly ran: number;
  readonly isComplete: boolean;
  /** The points and cases that failed, in their own words, and how they ended when they ran again. */
  readonly failures: readonly string[];
  readonly section: string | null;
}

/** The page as it was, and which of two sources is the later one. */
export interface Former {
  readonly page: string;
  readonly isLater: (source: string, than: string) => boolean;
}

/** How a failed point ended on a later commit stands behind its words. */
const AGAIN = "; ran again on ";
const AGAIN_ON = /; ran again on (\S+): /;
const PASSED_LATER = /; ran again on \S+: passed$/;

/**
 * The page with the results. Of each matrix it tells the first results of `found`, those of one source and seed, never a mixture.
 * A matrix that has none there stays as it is in `former`. A failure tells how its point ended on a later commit.
 */
export function reportText(
  planned: readonly Planned[],
  found: readonly Found[],
  made: string,
  former: Former = { page: "", isLater: () => false },
): string {
  const rows = planned.map((one) => rowOf(one, found, former));
  const whole = rows.filter(({ isWhole }) => isWhole);
  const cases = rows.filter(({ isWhole }) => !isWhole);
  return `# The crash matrix

${verdict(rows)} ${made}
Each row has the seed and the commit of its results. \`npm run test:full [-- SEED [PART [MINUTES]]]\` goes on where the run before it stopped, on
the same program and tests; with \`FULA_NODE_TEST_FAILED=1\` only the points run that failed below.

## Every point of a run

An effect is a call of the run that changes something outside of its process: a file, a program that it starts, a request to Docker or
another server, a statement in the database. A run with N effects has 2N + 1 points: before each, in the middle of each, and after the
last. A program's middle counts twice: killed with the run, and left to go on alone. At each point, on a box of its own, the run is
killed with SIGKILL. The trace, the journal and the process table must show that the kill landed there. Then the same command runs again, and the
whole box must be as after a clean run: files, Docker's objects, cron, database. What the killed run had already written of
secrets, identities, keys and snapshots must be the same. The points run in an order that the seed chose.

| run | effects | points | ran | kills | converged | minutes | seed | commit |
| --- | --: | --: | --: | --: | --: | --: | --: | --- |
${whole.map(({ cells }) => line(cells)).join("\n")}

\`-\`: no clean run has been recorded yet, so the number is not known. Minutes are those of all points together.
${failureList(whole)}
## Kills at other moments, and other faults

| what | cases | ran | passed | minutes | seed | commit |
| --- | --: | --: | --: | --: | --: | --- |
${cases.map(({ cells }) => line(cells)).join("\n")}
${failureList(cases)}
${cases.flatMap(({ section }) => section ?? []).join("\n\n")}
`.replace(/\n{3,}/g, "\n\n");
}

/** The points of a matrix that the page tells as failed, without those that passed later. */
export function failedOf(page: string, matrix: string): readonly string[] {
  return failuresIn(page, matrix)
    .filter((words) => !PASSED_LATER.test(words))
    .map((words) => pointOf(words, matrix));
}

/** In one line: whether everything has run, and what failed. */
function verdict(rows: readonly Row[]): string {
  const ran = rows.reduce((sum, row) => sum + row.ran, 0);
  const failed = rows.flatMap(({ failures }) => failures);
  const later = failed.filter((words) => PASSED_LATER.test(words)).length;
  const left = rows.filter(({ isComplete }) => !isComplete);
  const commits = new Set(rows.map(({ cells }) => cells.at(-1)).filter((source) => source !== "-")).size;
  const of = commits > 1 ? ` The rows are of ${commits} commits.` : "";
  const still = later === 0 ? "" : ` ${later} of these passed when they ran again on a later commit.`;
  const faults = failed.length === 0 ? "None of them failed." : `${failed.length} of them failed.${still}`;
  if (left.length === 0) return `This is complete: all ${ran} kills and cases have run. ${faults}${of}`;
  return `**This is not complete**: ${ran} kills and cases have run, and ${left.length} of the ${rows.length} rows below have some left. ${faults}${of}`;
}

function rowOf(one: Planned, found: readonly Found[], { page, isLater }: Former): Row {
  const row = rowFound(one, found) ?? rowIn(page, one) ?? rowOfResults(one, [], null);
  const source = row.cells.at(-1) ?? "";
  const later = found.filter((from) => isLater(from.source, source));
  const failures = row.failures.map((words) => withLater(words, one.matrix, later, isLater));
  const now = later.flatMap(({ sizes }) => sizes.filter(({ matrix }) => matrix === one.matrix))[0];
  return now === undefined || !row.isWhole || row.cells[2]?.split(",")[0] === String(now.points)
    ? { ...row, failures }
    : {
        ...row,
        failures,
        isComplete: false,
        cells: row.cells.with(2, `${row.cells[2]?.split(",")[0]}, now ${now.points}`),
      };
}

/** Null if there are no results of this matrix. Those of points that ran again are not results of the whole matrix. */
function rowFound(planned: Planned, found: readonly Found[]): Row | null {
  const isOf = (one: Result): boolean => one.matrix === planned.matrix && one.again !== true;
  const isSize = ({ matrix, again }: MatrixSize): boolean => matrix === planned.matrix && again !== true;
  const from = found.find(({ results, sizes }) => results.some(isOf) || sizes.some(isSize));
  if (from === undefined) return null;
  const latest = new Map(from.results.filter(isOf).map((result) => [result.name, result]));
  return rowOfResults(planned, [...latest.values()], from);
}

function rowOfResults({ matrix, cases }: Planned, latest: readonly Result[], from: Found | null): Row {
  const size = from?.sizes.findLast((one) => one.matrix === matrix && one.again !== true);
  // A run in parts records a clean run for each. If one had another number of effects, its points have other names.
  const isOfSize = (name: string): boolean => {
    const [, effects] = / of (\d+): /.exec(name) ?? [];
    return effects === undefined || size === undefined || Number(effects) === size.effects;
  };
  const ran =
    cases === null
      ? latest.filter(({ name }) => isOfSize(name))
      : latest.filter(({ name }) => cases.includes(name));
  // Null if no clean run has been recorded yet.
  const points = cases === null ? (size?.points ?? null) : cases.length;
  // One that passed by its point killed nothing.
  const kills = ran.filter(({ detail }) => !detail.includes("the kill did not land")).length;
  const seconds = ran.reduce((sum, result) => sum + result.seconds, 0);
  const cells = [
    matrix,
    ...(cases === null ? [size?.effects, points, ran.length, kills] : [points, ran.length]),
    ran.filter(({ passed }) => passed).length,
    Math.round(seconds / 60),
    from?.seed,
    from?.source,
  ];
  return {
    matrix,
    isWhole: cases === null,
    cells: cells.map((cell) => String(cell ?? "-")),
    ran: ran.length,
    isComplete: points !== null && ran.length >= points,
    failures: ran
      .filter(({ passed }) => !passed)
      .map(({ name, detail }) => `- ${matrix}, ${code(name)}: ${code(detail)}`),
    section: cases === null || ran.length === 0 ? null : sectionOf(matrix, ran),
  };
}

/** The row that the page has, if it has the same cases. */
function rowIn(page: string, { matrix, cases }: Planned): Row | null {
  const cells = page
    .split("\n")
    .filter((words) => words.startsWith(`| ${matrix} | `))
    .map((words) => words.slice(2, -2).split(" | "))
    .find(({ length }) => length === (cases === null ? 9 : 7));
  if (cells === undefined) return null;
  const [, , points, ran] = cases === null ? cells : ["", ...cells];
  const [, rest] = page.split(`\n### ${matrix}\n`);
  const section = rest === undefined ? null : `### ${matrix}\n${rest.split("\n### ")[0]}`.trim();
  const names = section === null ? [] : section.split("\n").slice(4).map(nameIn);
  if (cases !== null && (points !== String(cases.length) || names.some((name) => !cases.includes(name))))
    return null;
  return {
    matrix,
    isWhole: cases === null,
    cells,
    ran: Number(ran),
    isComplete: points === ran,
    failures: failuresIn(page, matrix),
    section,
  };
}

/** The name of the case in a line of a section. */
function nameIn(words: string): string {
  return (
    words
      .slice(2)
      .split(" | ")[0]
      ?.replaceAll(String.raw`\|`, "|") ?? ""
  );
}

function failuresIn(page: string, matrix: string): readonly string[] {
  return page.split("\n").filter((words) => words.startsWith(`- ${matrix}, \``));
}

function pointOf(words: string, matrix: string): string {
  return words.slice(`- ${matrix}, \``.length).split("`: `")[0] ?? "";
}

/** A failure with what became of its point when it ran again; `later`: the results of later commits. */
function withLater(
  words: string,
  matrix: string,
  later: readonly Found[],
  isLater: Former["isLater"],
): string {
  const point = withoutNumber(pointOf(words, matrix));
  return later.reduce((told, { source, results }) => {
    const last = results.findLast(
      (one) => one.again === true && one.matrix === matrix && withoutNumber(one.name) === point,
    );
    const [, before] = AGAIN_ON.exec(told) ?? [];
    if (last === undefined || (before !== undefined && before !== source && !isLater(source, before)))
      return told;
    return `${words.split(AGAIN)[0]}${AGAIN}${source}: ${last.passed ? "passed" : code(last.detail)}`;
  }, words);
}

function failureList(rows: readonly Row[]): string {
  const lines = rows.flatMap(({ failures }) => failures);
  return lines.length === 0 ? "" : `\nFailed:\n\n${lines.join("\n")}\n`;
}

function sectionOf(matrix: string, ran: readonly Result[]): string {
  return [
    `### ${matrix}`,
    "",
    "| case | result | seconds | what it found |",
    "| --- | --- | --: | --- |",
    ...ran.map(({ name, passed, seconds, detail }) =>
      line([name, passed ? "passed" : "failed", String(seconds), passed ? detail : "see above"]),
    ),
  ].join("\n");
}

function line(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", String.raw`\|`)).join(" | ")} |`;
}

function code(words: string): string {
  return `\`${words.replaceAll("`", "'")}\``;
}
