import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** The result of one case of a matrix. */
export interface Result {
  readonly matrix: string;
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: number;
  /** What it found: how often and where it was killed. */
  readonly detail: string;
}

/** How large a crash matrix is. */
export interface MatrixSize {
  readonly matrix: string;
  readonly effects: number;
  readonly points: number;
}

const DIRECTORY = "test-full";

/** The seed of the random moments in the matrices (FULA_NODE_TEST_SEED). */
export const SEED = Number(process.env["FULA_NODE_TEST_SEED"] ?? "1");

/** A name for the source: the commit, and a hash of uncommitted changes. */
export function sourceName(): string {
  const git = (...args: string[]): string => execFileSync("git", args, { encoding: "utf8" });
  const commit = git("rev-parse", "--short=12", "HEAD").trim();
  const changes = git("diff", "HEAD", "--", "src", "compose", "migrations", "test", "package-lock.json");
  return changes === ""
    ? commit
    : `${commit}-${createHash("sha256").update(changes).digest("hex").slice(0, 8)}`;
}

/** The file with the results of this source and seed. An interrupted run continues from it. */
export function resultsFile(): string {
  return join(DIRECTORY, `${sourceName()}-seed${SEED}.ndjson`);
}

/** The results in the file, oldest first, without a last line that was cut off. */
export function readResults(file: string): readonly Result[] {
  return linesOf(file).filter((line) => "passed" in line);
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

/** The names of what has passed already of a matrix. */
export function passedOf(file: string, matrix: string): ReadonlySet<string> {
  const results = readResults(file).filter((result) => result.matrix === matrix && result.passed);
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
