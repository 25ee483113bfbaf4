/** One line of a log. */
export interface LogLine {
  /** When, in milliseconds since 1970, with the fraction that the source gives. */
  readonly atMs: number;
  /** Which log: `kubo`, `sweep`, `journal`. */
  readonly source: string;
  readonly text: string;
}

/** What a line of a source says; a null time stands for that of the line before. */
export type ReadLine = (raw: string) => { readonly atMs: number | null; readonly text: string };

const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z/;

/** A time as Docker, cron's logs and the journal write it; null for anything else. Digits after the milliseconds stay. */
export function parseTime(text: string): number | null {
  const [, seconds, fraction = ""] = TIME.exec(text) ?? [];
  if (seconds === undefined) return null;
  const ms = Date.parse(`${seconds}Z`);
  return Number.isNaN(ms) ? null : ms + Number(`0.${fraction || "0"}`) * 1000;
}

/** A line of the engine's: its time, a space, then what the container wrote. */
export const readContainerLine: ReadLine = (raw) => {
  const space = raw.indexOf(" ");
  const atMs = parseTime(raw);
  return atMs === null ? { atMs, text: raw } : { atMs, text: space === -1 ? "" : raw.slice(space + 1) };
};

/** A line of a cron job's log or of the alert log. Only its first line has a time, and it is kept out of the text. */
export const readCronLine: ReadLine = (raw) => {
  const atMs = parseTime(raw);
  return { atMs, text: atMs === null ? raw : raw.replace(/^\S+ ?/, "") };
};

/** A line of the journal, in words. A line that a crash cut off stays as it is. */
export const readJournalLine: ReadLine = (raw) => {
  let line: Readonly<Record<string, unknown>>;
  try {
    line = JSON.parse(raw) as Readonly<Record<string, unknown>>;
  } catch {
    return { atMs: null, text: raw };
  }
  const word = (key: string): string => {
    const value = line[key];
    return typeof value === "string" ? value : "";
  };
  const change = line["change"] as Readonly<Record<string, unknown>> | undefined;
  const summary = typeof change?.["summary"] === "string" ? change["summary"] : "";
  const error = word("error");
  const text = `${word("phase")} ${word("step")}: ${summary}${error === "" ? "" : ` (${error})`}`;
  return { atMs: parseTime(word("at")), text };
};

/** How many lines at the start of a log may have no time: then its first time is theirs. */
const MAX_UNTIMED = 1000;

/** Gives every line a time. Lines without one belong to the line before; at the start, to the first one that has one. */
export async function* timeLines(
  source: string,
  lines: AsyncIterable<string>,
  given: {
    readonly read: ReadLine;
    /** The time of lines that have none, if no line has one. */
    readonly otherwiseMs: number;
    /** The time of the line before the first one, if there was one. */
    readonly lastMs?: number;
  },
): AsyncGenerator<LogLine> {
  const { read, otherwiseMs } = given;
  let lastMs = given.lastMs ?? null;
  let untimed: string[] = [];
  for await (const raw of lines) {
    const { atMs, text } = read(raw);
    if (atMs === null && lastMs === null && untimed.length < MAX_UNTIMED) {
      untimed.push(text);
      continue;
    }
    const nowMs: number = atMs ?? lastMs ?? otherwiseMs;
    for (const earlier of untimed) yield { atMs: nowMs, source, text: earlier };
    untimed = [];
    lastMs = nowMs;
    yield { atMs: nowMs, source, text };
  }
  for (const earlier of untimed) yield { atMs: otherwiseMs, source, text: earlier };
}

/**
 * Merges logs by time: each is in order already, so only the next line of each is held. Of lines at the same time, those of the
 * earlier source come first. A log that breaks off is left out from then on; `broke` gets why.
 */
export async function* mergeLogs(
  logs: readonly AsyncIterable<LogLine>[],
  broke: (thrown: unknown) => void,
): AsyncGenerator<LogLine> {
  const iterators = logs.map((log) => log[Symbol.asyncIterator]());
  const next = async (index: number): Promise<LogLine | null> => {
    try {
      const result = await iterators[index]?.next();
      return result === undefined || result.done === true ? null : result.value;
    } catch (thrown) {
      broke(thrown);
      return null;
    }
  };
  try {
    const heads = await Promise.all(iterators.map((_, index) => next(index)));
    for (;;) {
      let first = -1;
      for (const [index, head] of heads.entries())
        if (head !== null && (first === -1 || head.atMs < (heads[first]?.atMs ?? 0))) first = index;
      const line = heads[first];
      if (line === undefined || line === null) return;
      yield line;
      heads[first] = await next(first);
    }
  } finally {
    await Promise.all(iterators.map((one) => Promise.resolve(one.return?.())));
  }
}
