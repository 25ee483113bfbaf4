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
