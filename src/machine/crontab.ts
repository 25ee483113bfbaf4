import { type FileStat, nameOfKind } from "./file-reader.ts";
import type { OwnerFault } from "./owner-check.ts";

/** One of our files in /etc/cron.d: what it runs, and when. */
export interface CronEntry {
  /** The five fields of crontab(5). */
  readonly schedule: string;
  /** Only absolute paths and plain words: crontab(5) treats % specially, and the shell most other characters. */
  readonly argv: readonly string[];
  /** The absolute path of the file for its output. */
  readonly log: string;
  readonly about: string;
}

const PLAIN = /^[A-Za-z0-9/._=:@+-]+$/;

/**
 * The text of the file. Its first line contains the hash of the rest. PATH is set because cron's default
 * lacks /usr/sbin and /usr/local. Throws a RangeError for words that a crontab could misinterpret.
 */
export function renderCron(entry: CronEntry, hash: (text: string) => string): string {
  const unsafe = [...entry.argv, entry.log].find((word) => !PLAIN.test(word));
  if (unsafe !== undefined) throw new RangeError(`"${unsafe}" is not allowed in a crontab`);
  const body = [
    `# ${entry.about}`,
    "SHELL=/bin/sh",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    `${entry.schedule} root ${entry.argv.join(" ")} >> ${entry.log} 2>&1`,
    "",
  ].join("\n");
  return `${marker(hash(body))}\n${body}`;
}

/** Compares a file on disk with the desired text: same, ours but different (older or edited), or foreign. */
export function compareCron(
  onDisk: string,
  wanted: string,
  hash: (text: string) => string,
): "same" | "older" | "edited" | "foreign" {
  if (onDisk === wanted) return "same";
  const lineEnd = onDisk.indexOf("\n");
  const first = lineEnd < 0 ? onDisk : onDisk.slice(0, lineEnd);
  if (!isOurCron(first)) return "foreign";
  return first === marker(hash(onDisk.slice(lineEnd + 1))) ? "older" : "edited";
}

/** True if the first line says that fula-node wrote the file, edited or not. */
export function isOurCron(text: string): boolean {
  return text.startsWith(MARKER);
}

const MARKER = "# fula-node cron sha256=";

function marker(sha256: string): string {
  return `${MARKER}${sha256}`;
}

/**
 * Why cron would ignore a file in /etc/cron.d, or would not run it as written: cron(8) takes only regular files of
 * root's that nobody else can write to. Null for a file as fula-node writes it.
 */
export function whyIgnored(path: string, { kind, uid, mode }: FileStat): string | null {
  if (kind !== "file") return `${path} is a ${nameOfKind(kind)}, not a regular file`;
  if (uid !== 0) return `${path} belongs to user ${uid}, so cron ignores it`;
  return mode === 0o644 ? null : `${path} has mode ${mode.toString(8)}, not 644`;
}

/** What a line of ours runs. */
export interface CronCommand {
  /** The Node.js program. */
  readonly program: string;
  readonly script: string;
}

/** The program and the script of the first line that cron runs; null if there is none. */
export function parseCronCommand(text: string): CronCommand | null {
  const [, command = ""] = /^(?:[\d*/,-]+[ \t]+){5}\S+[ \t]+(.+)$/m.exec(text) ?? [];
  const [program, script] = command.split(" ");
  return program === undefined || script === undefined ? null : { program, script };
}

/** The verdict on one of our files in /etc/cron.d, for `status`. */
export interface CronLineVerdict {
  readonly state: "ok" | "attention" | "down";
  /** A full sentence. */
  readonly sentence: string;
  readonly todo: string | null;
}

/** What was found out about a file in /etc/cron.d. */
interface CronLineFacts {
  /** Why cron ignores the file; null if it does not. */
  readonly ignored: string | null;
  readonly command: CronCommand | null;
  /** Why `PROGRAM SCRIPT --version` failed; null if it worked. */
  readonly failure: string | null;
  /** Who else could change what the line runs. */
  readonly faults: readonly Pick<OwnerFault, "sentence" | "repair">[];
}

/** It writes the file again. */
const JOIN = "fula-node join-as-master";

/** Judges one of our files in /etc/cron.d. `facts` is null if there is no such file. */
export function judgeCronLine(path: string, facts: CronLineFacts | null): CronLineVerdict {
  if (facts === null) return { state: "down", sentence: `There is no ${path}.`, todo: JOIN };
  const { ignored, command, failure, faults } = facts;
  if (ignored !== null) return { state: "down", sentence: `${ignored}.`, todo: JOIN };
  if (command === null) return { state: "down", sentence: `${path} runs nothing.`, todo: JOIN };
  if (failure !== null) {
    const sentence = `${path} runs ${command.program} ${command.script}, which does not work: ${failure}.`;
    // It puts the program back.
    return { state: "down", sentence, todo: `${JOIN}; if Node.js is gone, install it first` };
  }
  const [fault] = faults;
  if (fault === undefined) return { state: "ok", sentence: `${command.program} runs it.`, todo: null };
  return {
    state: "attention",
    sentence: `Root's cron runs what others can replace: ${fault.sentence}.`,
    todo: `Run ${fault.repair}.`,
  };
}
