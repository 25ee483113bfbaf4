/**
 * Numbers and texts for people: bytes, durations and ages in the same form everywhere, and a text as it may be shown.
 * Scripts read `--json`, which has plain numbers.
 */

const DECIMAL = ["bytes", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in units of 1000, the unit of disks and of KUBO_STORAGE_MAX: `1.2 GB`. */
export function decimalBytes(bytes: number): string {
  const step = Math.min(DECIMAL.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  return `${step === 0 ? bytes : (bytes / 1000 ** step).toFixed(1)} ${DECIMAL[step] ?? ""}`;
}

/** Bytes in units of 1024^3, the unit of memory: `1.9 GiB`. Rounded down, so that less than a minimum never looks like the minimum. */
export function gibibytes(bytes: number): string {
  return `${(Math.floor((bytes / 1024 ** 3) * 10) / 10).toFixed(1)} GiB`;
}

/** A duration in milliseconds: `0.4 s`, `42 s`, `2 min 5 s`, `3 h 20 min`. */
export function duration(ms: number): string {
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** An age in milliseconds, in its largest unit: `45 s`, `90 min`, `5 h`, `3 days`. A negative age is in the future. */
export function age(ms: number): string {
  if (ms < 0) return "in the future";
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  return minutes < 72 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} days`;
}

/** A count with its noun: `1 change`, `16 changes`. */
export function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * Characters that nobody sees, but that change what is seen: control characters (a terminal acts on them), format
 * characters (U+202E turns the rest of a line around), line and paragraph separators, halves of surrogate pairs.
 */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/**
 * A text with every invisible character shown as an escape, such as `\u001b`. Names of nodes and pins come from other
 * people. Everything that is printed, logged or sent goes through here. Line breaks stay unless `oneLine` is true.
 */
export function visible(text: string, { oneLine = false } = {}): string {
  return text.replaceAll(INVISIBLE, (character) =>
    character === "\n" && !oneLine ? character : escapeUnits(character),
  );
}

/** CIDs in the encodings that programs use (multibase: Qm, b, B, z, f, F, k, m, u), wherever they stand in a text. */
const CIDS =
  /(?<![A-Za-z0-9])(?:Qm[1-9A-HJ-NP-Za-km-z]{44}|[bB][A-Za-z2-7]{50,}|z[1-9A-HJ-NP-Za-km-z]{45,}|[fF][0-9A-Fa-f]{60,}|k[0-9a-z]{45,}|[mu](?=[\w+/-]*\d)(?=[\w+/-]*[A-Z])[\w+/-]{45,})(?![A-Za-z0-9])/g;

/** A text for logs and health: what users store is not named in them. Each CID becomes `:cid`. */
export function withoutCids(text: string): string {
  return text.replaceAll(CIDS, ":cid");
}

/** The JSON text of a value, in one line and without invisible characters. It parses to the same value. */
export function visibleJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(INVISIBLE, escapeUnits);
}

function escapeUnits(character: string): string {
  return character
    .split("")
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");
}

/** A log as people read it: a line of JSON of one of our services is `TIME LEVEL TEXT`, any other line stays. */
export function plainLog(text: string): string {
  return text.split("\n").map(plainLine).join("\n");
}

function plainLine(line: string): string {
  if (!line.startsWith("{")) return line;
  try {
    const fields = JSON.parse(line) as Readonly<Record<string, string | number | undefined>>;
    const { time, level, msg, method, route, status } = fields;
    if (typeof time !== "string" || typeof level !== "string" || typeof msg !== "string") return line;
    const request = method === undefined ? "" : ` ${method} ${route ?? ""} ${status ?? ""}`;
    return `${time} ${level} ${msg}${request}`;
  } catch {
    return line;
  }
}

/** A count with commas between groups of three digits: `4,812`. Without Intl, which takes 10 ms to load. */
export function grouped(count: number): string {
  return String(count).replaceAll(/\B(?=(?:\d{3})+$)/g, ",");
}

/** A time in UTC, in whole seconds: `2026-11-21T20:05:01Z`. */
export function utcSeconds(at: Date): string {
  return at.toISOString().replace(/\.\d{3}Z$/, "Z");
}

/** A sentence with a capital at its beginning. */
export function capitalised(sentence: string): string {
  return `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}`;
}
