import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

/** The page with the results. */
export const PAGE = "docs/crash-matrix.md";

/** The name of the test that runs a whole matrix. */
export const EVERY_POINT = "converges from every point";

/** The result of one case of a matrix. */
export interface Result {
  readonly matrix: string;
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: number;
  /** What it found: how often and where it was killed. */
  readonly detail: string;
  /** True if only points ran that had failed before, on another commit (ONLY_FAILED). */
  readonly again?: true;
}

/** How large a crash matrix is. */
export interface MatrixSize {
  readonly matrix: string;
  /** As in a Result. */
  readonly again?: true;
  readonly effects: number;
  readonly points: number;
}

/** What a file of results has. */
export interface Found {
  /** The source of the results: a commit, with a hash of changes that were not committed. */
  readonly source: string;
  readonly seed: string;
  readonly results: readonly Result[];
  readonly sizes: readonly MatrixSize[];
}

const DIRECTORY = "test-full";
const LONGEST_WORDS = 1500;

/** The seed of the random moments in the matrices (FULA_NODE_TEST_SEED). */
export const SEED = Number(process.env["FULA_NODE_TEST_SEED"] ?? "1");

/** Only the points run that failed in docs/crash-matrix.md (FULA_NODE_TEST_FAILED). */
export const ONLY_FAILED = process.env["FULA_NODE_TEST_FAILED"] === "1";

/** A point without its number, which changes with the program: `before mkdir /opt/fula-storage/cli #1`. */
export function withoutNumber(point: string): string {
  return point.replace(/^(before|during|after) \d+ of \d+: /, "$1 ");
}

/** What a result depends on: the program, and how it is killed and compared. Other tests and pages change nothing. */
const PROVEN = [
  "src",
  "bin",
  "compose",
  "migrations",
  "scripts",
  "package-lock.json",
  "test/full",
  "test/images",
  "test/support",
];

/** A name for the source: the last commit that changed what is proven, and a hash of uncommitted changes. */
export function sourceName(): string {
  const git = (...args: string[]): string => execFileSync("git", args, { encoding: "utf8" });
  const commit = git("log", "-1", "--abbrev=12", "--format=%h", "--", ...PROVEN).trim();
  const changes = git("diff", "HEAD", "--", ...PROVEN);
  return changes === ""
    ? commit
    : `${commit}-${createHash("sha256").update(changes).digest("hex").slice(0, 8)}`;
}

/** The file with the results of this source and seed. An interrupted run continues from it. */
export function resultsFile(): string {
  return join(DIRECTORY, `${sourceName()}-seed${SEED}.ndjson`);
}

/** What was thrown, on one line that is not too long for a table. */
export function wordsOf(thrown: unknown): string {
  return String(thrown).replaceAll(/\s+/g, " ").trim().slice(0, LONGEST_WORDS);
}

/** The results in the file, oldest first, without a last line that was cut off. */
export function readResults(file: string): readonly Result[] {
  return linesOf(file).filter((line) => "passed" in line);
}

/** What all files of results have: first that of this source and seed, then the others, the newest first. */
export function allFound(directory = DIRECTORY, own = resultsFile()): readonly Found[] {
  if (!existsSync(directory)) return [];
  const files = readdirSync(directory).flatMap((name) => {
    const [, source, seed] = /^(.+)-seed(\d+)\.ndjson$/.exec(name) ?? [];
    if (source === undefined || seed === undefined) return [];
    const file = join(directory, name);
    const age = file === own ? -1 : Date.now() - statSync(file).mtimeMs;
    return [{ age, source, seed, results: readResults(file), sizes: readSizes(file) }];
  });
  return files.toSorted((one, two) => one.age - two.age);
}

/** The sizes of the crash matrices of which the file has results, oldest first. */
export function readSizes(file: string): readonly MatrixSize[] {
  return linesOf(file).filter((line) => "effects" in line);
}

function linesOf(file: string): readonly (Result | MatrixSize)[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Result | MatrixSize);
}

/** The names of what has passed already of a matrix; `again`: of the points that had failed. */
export function passedOf(file: string, matrix: string, again = ONLY_FAILED): ReadonlySet<string> {
  const results = readResults(file).filter(
    (result) => result.matrix === matrix && result.passed && (result.again === true) === again,
  );
  return new Set(results.map(({ name }) => name));
}

/** Adds one result, or a size, to the file. A last line that was cut off is removed. */
export function addResult(file: string, result: Result | MatrixSize): void {
  mkdirSync(dirname(file), { recursive: true });
  const text = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (!/(^|\n)$/.test(text)) writeFileSync(file, text.slice(0, text.lastIndexOf("\n") + 1));
  appendFileSync(file, `${JSON.stringify(result)}\n`);
}

/** Numbers from 0 to 1. They depend on seed and name only, so that a case can run alone. */
export function randomOf(name: string): () => number {
  let count = 0;
  return () => {
    count += 1;
    const digest = createHash("sha256").update(`${SEED} ${name} ${count}`).digest();
    return digest.readUInt32BE(0) / 2 ** 32;
  };
}

/** The same things in an order that depends on the seed only, so that a part of a run is a sample. */
export function inSeedOrder<T extends { readonly name: string }>(things: readonly T[], seed: number): T[] {
  const place = ({ name }: T): string => createHash("sha256").update(`${seed} ${name}`).digest("hex");
  return things.toSorted((one, two) => (place(one) < place(two) ? -1 : 1));
}
