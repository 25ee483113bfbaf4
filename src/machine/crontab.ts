/** What one of our files in /etc/cron.d runs, and when. */
export interface CronEntry {
  /** The five fields of crontab(5). */
  readonly schedule: string;
  /** Absolute paths and plain words only: crontab(5) gives % a meaning, the shell most others. */
  readonly argv: readonly string[];
  /** Where its output goes; absolute. */
  readonly log: string;
  readonly about: string;
}

const PLAIN = /^[A-Za-z0-9/._=:@+-]+$/;

/**
 * The text of the file, its first line marked with the hash of the rest. PATH is spelled out since
 * cron's own lacks /usr/sbin and /usr/local. Throws RangeError for words that a crontab could misread.
 */
export function renderCron(entry: CronEntry, hash: (text: string) => string): string {
  const odd = [...entry.argv, entry.log].find((word) => !PLAIN.test(word));
  if (odd !== undefined) throw new RangeError(`"${odd}" can't stand in a crontab`);
  const body = [
    `# ${entry.about}`,
    "SHELL=/bin/sh",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    `${entry.schedule} root ${entry.argv.join(" ")} >> ${entry.log} 2>&1`,
    "",
  ].join("\n");
  return `${marker(hash(body))}\n${body}`;
}

/** Whether a file on disk is the wished one, one of ours that differs, or somebody else's. */
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

/** True where the first line says that we wrote it, as it stands or edited since. */
export function isOurCron(text: string): boolean {
  return text.startsWith(MARKER);
}

const MARKER = "# fula-node cron sha256=";

function marker(sha256: string): string {
  return `${MARKER}${sha256}`;
}
