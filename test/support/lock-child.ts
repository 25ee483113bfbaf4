import { spawn } from "node:child_process";
import { OperatorError } from "../../src/errors.ts";
import { takeLock } from "../../src/machine/lock.ts";

/**
 * Takes a lock in its own process, prints "held" or why it can't, and keeps the lock until its standard input ends. With
 * `sleep` as the last word it first starts a child that outlives it, and prints the child's pid behind "held".
 */
const [, , name = "", verb = "", directory = "", also = ""] = process.argv;
try {
  await takeLock(name, { pid: process.pid, verb, since: "2026-01-01T00:00:00.000Z" }, directory);
  const child = also === "sleep" ? spawn("sleep", ["60"], { stdio: "ignore", detached: true }) : null;
  process.stdout.write(`held ${child?.pid ?? ""}\n`);
  process.stdin.resume();
} catch (thrown) {
  if (!(thrown instanceof OperatorError)) throw thrown;
  process.stdout.write(`${thrown.exit}\n`);
}
