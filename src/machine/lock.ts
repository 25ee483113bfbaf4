import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { OperatorError } from "../errors.ts";
import type { Clock } from "./clock.ts";
import { codeOf, fileError, isAbsence } from "./file-errors.ts";
import { findSocketHolder } from "./processes.ts";

/** The holder of a lock, as the holder itself writes it into the lock's file. */
export interface LockHolder {
  readonly pid: number;
  readonly verb: string;
  readonly since: string;
}

/** A lock that is held until it is released or the process ends for any reason. */
export interface Lock {
  release(): Promise<void>;
}

/** Only root can make a directory in /run, and it is empty after every boot. */
export const LOCK_DIRECTORY = "/run/fula-node";
const MAX_HOLDER_BYTES = 4096;
const MAX_ATTEMPTS = 20;
const FLOCK_TIMEOUT_MS = 10_000;
/** What flock(1) shall exit with if another process holds the lock. */
const CONFLICT = 75;

/**
 * Takes the lock of that name or throws (`locked`), naming the holder. It is a flock(2) lock on a file that only root can
 * open. The kernel releases it with the last descriptor of the open file, so also after `kill -9`. Node opens every file
 * with O_CLOEXEC, so no child inherits the descriptor: only flock(1) gets it, and ends at once. Throws (`preflight`) if
 * others could open or replace the file.
 */
export async function takeLock(name: string, holder: LockHolder, directory = LOCK_DIRECTORY): Promise<Lock> {
  makeDirectory(directory);
  const path = `${directory}/${createHash("sha256").update(name).digest("hex").slice(0, 32)}.lock`;
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    const descriptor = openFile(path);
    let isHeld = false;
    try {
      if (!(await lock(descriptor))) throw locked(name, readHolder(descriptor));
      // The holder before this one removes its file. Whoever had it open then holds a lock that nobody else sees.
      if (!isSameFile(descriptor, path)) continue;
      refuseOlderVersion(name);
      writeHolder(descriptor, path, `${JSON.stringify({ ...holder, name })}\n`);
      isHeld = true;
    } finally {
      if (!isHeld) closeSync(descriptor);
    }
    return { release: () => Promise.resolve(release(descriptor, path)) };
  }
  throw new OperatorError({
    exit: "locked",
    what: `The lock on ${name} could not be taken: its file was replaced ${MAX_ATTEMPTS} times.`,
    remedy: "Run again.",
  });
}

const LONGEST_WAIT_MS = 3_600_000;
const LOCK_LOOK_MS = 10_000;

/** A run of cron waits for another one to end, since its next turn comes late. Throws (`locked`) after an hour. */
export async function onceFree(
  { clock }: { readonly clock: Pick<Clock, "monotonicMs" | "wait"> },
  take: () => Promise<Lock>,
): Promise<Lock> {
  const until = clock.monotonicMs() + LONGEST_WAIT_MS;
  for (;;) {
    try {
      return await take();
    } catch (thrown) {
      const isTaken = thrown instanceof OperatorError && thrown.exit === "locked";
      if (!isTaken || clock.monotonicMs() >= until) throw thrown;
      await clock.wait(LOCK_LOOK_MS);
    }
  }
}

/** Says who holds the lock, for those who find it held. */
function writeHolder(descriptor: number, path: string, line: string): void {
  try {
    ftruncateSync(descriptor, 0);
    writeSync(descriptor, line, 0);
  } catch (thrown) {
    throw fileError("write", path, thrown);
  }
}

/** The file is removed while the lock is still held, so that nobody's file is removed but our own. */
function release(descriptor: number, path: string): void {
  try {
    unlinkSync(path);
  } catch (thrown) {
    if (!isAbsence(thrown)) throw fileError("remove", path, thrown);
  } finally {
    closeSync(descriptor);
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (thrown) {
    if (codeOf(thrown) !== "EEXIST") throw refusal("make the directory", directory, thrown);
  }
  const stat = lstatSync(directory);
  const isSafe = stat.isDirectory() && stat.uid === process.geteuid?.() && (stat.mode & 0o022) === 0;
  if (isSafe) return;
  throw new OperatorError({
    exit: "preflight",
    what: `The directory for locks, ${directory}, is not root's alone.`,
    why: `It is ${stat.isDirectory() ? `a directory of user ${stat.uid} with mode ${(stat.mode & 0o7777).toString(8)}` : "not a directory"}, so another user could hold or replace a lock.`,
    remedy: `Find out who made it, remove it (rm -r ${directory}), then run again.`,
  });
}

function openFile(path: string): number {
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (thrown) {
    throw refusal("open the lock", path, thrown);
  }
}

function refusal(verb: string, path: string, thrown: unknown): OperatorError {
  const isDenied = codeOf(thrown) === "EACCES" || codeOf(thrown) === "EPERM";
  if (!isDenied || process.geteuid?.() === 0) return fileError(verb, path, thrown);
  return new OperatorError({
    exit: "preflight",
    what: "This needs root.",
    why: `Only root can take a lock in ${LOCK_DIRECTORY}.`,
    remedy: "Run the same command as root, or with sudo.",
  });
}

/**
 * Locks an open file with flock(1), as the shell idiom `flock -n 3` does: the lock belongs to the open file, so it stays
 * when flock ends. Returns false if another process holds the lock.
 */
function lock(descriptor: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn("flock", ["--nonblock", "--conflict-exit-code", String(CONFLICT), "3"], {
      cwd: "/",
      env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", LC_ALL: "C.UTF-8" },
      stdio: ["ignore", "ignore", "pipe", descriptor],
      timeout: FLOCK_TIMEOUT_MS,
      killSignal: "SIGKILL",
    });
    let words = "";
    child.stderr?.on("data", (chunk: Buffer) => (words += chunk.toString()));
    child.once("error", (cause: Error) => reject(noFlock(cause.message, cause)));
    child.once("close", (code, signal) => {
      if (code === 0 || code === CONFLICT) resolve(code === 0);
      else reject(noFlock(words.trim() || `flock ended with ${signal ?? `exit code ${code}`}`));
    });
  });
}

function noFlock(why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: "The lock could not be taken, because flock did not work.",
    why,
    remedy: "Install the package util-linux, then run again.",
    cause,
  });
}

function isSameFile(descriptor: number, path: string): boolean {
  const held = fstatSync(descriptor);
  const there = statSync(path, { throwIfNoEntry: false });
  return there?.ino === held.ino && there.dev === held.dev;
}

/** Null if the file has no holder yet, or none that can be read. */
function readHolder(descriptor: number): LockHolder | null {
  const bytes = Buffer.alloc(MAX_HOLDER_BYTES);
  const text = bytes.toString("utf8", 0, readSync(descriptor, bytes, 0, bytes.length, 0));
  try {
    const { pid, verb, since } = JSON.parse(text) as Partial<LockHolder>;
    return typeof pid === "number" && typeof verb === "string" && typeof since === "string"
      ? { pid, verb, since }
      : null;
  } catch {
    return null;
  }
}

/**
 * Up to 0.2.0 the lock was a socket in the abstract namespace, which any process can bind. So only a process of root's on
 * this machine counts, and nobody is asked: the kernel says who has the socket.
 */
function refuseOlderVersion(name: string): void {
  const pid = findSocketHolder(`@fula-node:${name}`);
  if (pid !== null)
    throw lockedBy(`Another run holds the lock on ${name}: process ${pid}, of an older fula-node.`, pid);
}

function locked(name: string, other: LockHolder | null): OperatorError {
  return lockedBy(
    other === null
      ? `Another run holds the lock on ${name}, but did not identify itself.`
      : `Another run holds the lock on ${name}: ${other.verb}, process ${other.pid}, since ${other.since}.`,
    other?.pid ?? null,
  );
}

function lockedBy(what: string, pid: number | null): OperatorError {
  return new OperatorError({
    exit: "locked",
    what,
    why: "Two runs at the same time could undo each other's changes.",
    remedy:
      pid === null
        ? "Wait for it to end, then run again. The lock is released when that process ends, even if it is killed."
        : `Wait for it to end, then run again. If it hangs, end it: kill ${pid}. The lock is released when it ends.`,
  });
}
