import { OperatorError } from "../../src/errors.ts";
import { takeLock } from "../../src/machine/lock.ts";

/** Takes a lock in its own process, prints "held" or why it can't, and keeps the lock until its standard input ends. */
const [, , name = "", verb = ""] = process.argv;
try {
  await takeLock(name, { pid: process.pid, verb, since: "2026-01-01T00:00:00.000Z" });
  process.stdout.write("held\n");
  process.stdin.resume();
} catch (thrown) {
  if (!(thrown instanceof OperatorError)) throw thrown;
  process.stdout.write(`${thrown.exit}\n`);
}
