import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** How one case of a matrix ended. */
export interface Result {
  readonly matrix: string;
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: number;
  /** What it found: how often it was killed, where. */
  readonly detail: string;
}

const DIRECTORY = "test-full";

/** The seed that the matrices take their random moments from (FULA_NODE_TEST_SEED). */
export const SEED = Number(process.env["FULA_NODE_TEST_SEED"] ?? "1");

/** The commit that is checked out, and what was changed since, as a name. */
export function sourceName(): string {
  const git = (...args: string[]): string => execFileSync("git", args, { encoding: "utf8" });
  const commit = git("rev-parse", "--short=12", "HEAD").trim();
  const changes = git("diff", "HEAD", "--", "src", "compose", "migrations", "test", "package-lock.json");
  return changes === ""
    ? commit
    : `${commit}-${createHash("sha256").update(changes).digest("hex").slice(0, 8)}`;
}

/** The file of results of this source and seed: a run that was cut off goes on from it. */
export function resultsFile(): string {
  return join(DIRECTORY, `${sourceName()}-seed${SEED}.ndjson`);
}

/** What the file has, oldest first. A last line that was cut off is no result. */
export function readResults(file: string): readonly Result[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Result);
}

/** Adds one result to the file. */
export function addResult(file: string, result: Result): void {
  mkdirSync(dirname(file), { recursive: true });
  const isCutOff = existsSync(file) && !/(^|\n)$/.test(readFileSync(file, "utf8"));
  appendFileSync(file, `${isCutOff ? "\n" : ""}${JSON.stringify(result)}\n`);
}

/** Numbers from 0 to 1, the same for the same seed and name: a case can be run alone. */
export function randomOf(name: string): () => number {
  let count = 0;
  return () => {
    count += 1;
    const digest = createHash("sha256").update(`${SEED} ${name} ${count}`).digest();
    return digest.readUInt32BE(0) / 2 ** 32;
  };
}
