import { setMaxListeners } from "node:events";
import { Readable } from "node:stream";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { OpenLogFile, openLogFile } from "./log-file.ts";
import { type LogLine, mergeLogs, parseTime, readContainerLine, timeLines } from "./log-line.ts";
import type { LogSource } from "./sources.ts";

/** What reads logs. */
export interface LogDeps {
  readonly host: Pick<HostReader, "docker" | "clock">;
  readonly openLogFile: typeof openLogFile;
}

/** Which lines. */
export interface LogQuery {
  readonly since: Date | null;
  /** The last lines of each log; null: all since then. */
  readonly lines: number | null;
  readonly follow: boolean;
  readonly signal: AbortSignal;
  /** They were asked for by name: one that is not there is told to `missing`, too. */
  readonly areNamed: boolean;
  /** A log that can't be read, with the reason. */
  readonly missing: (source: string, why: string) => void;
}

/**
 * The lines of several logs in the order of their times; then, with `follow`, each new line as it comes. Holds one line of each
 * log, however long they are. A log that can't be read is told to `missing`, and the others are read.
 */
export async function* readLogs(
  sources: readonly LogSource[],
  { host, openLogFile: openFile }: LogDeps,
  query: LogQuery,
): AsyncGenerator<LogLine> {
  const { since, follow, signal, missing } = query;
  // Each followed log listens to it.
  setMaxListeners(0, signal);
  const until = host.clock.now();
  const silent = sources.some(({ kind }) => kind === "container") ? await host.docker.unreachable() : null;
  if (silent !== null) missing("Docker", `the logs of its containers can't be read: ${silent}`);
  const readable = sources.filter(({ kind }) => kind === "file" || silent === null);
  const opened = await Promise.all(
    readable.map(async (source) => {
      try {
        const one = await openSource(source, { host, openLogFile: openFile }, { ...query, until });
        if (query.areNamed && one?.isThere !== true)
          missing(
            source.name,
            `there is no ${placeOf(source)}${follow && one !== null ? ": waiting for it" : ""}`,
          );
        return one;
      } catch (thrown) {
        missing(source.name, whyOf(thrown));
        return null;
      }
    }),
  );
  const open = opened.filter((one) => one !== null);
  try {
    const broke = (thrown: unknown): void => missing("a log", whyOf(thrown));
    const sinceMs = since?.getTime() ?? -Infinity;
    const merged = mergeLogs(
      open.map(({ history }) => history),
      broke,
    );
    for await (const line of merged) {
      if (signal.aborted) return;
      if (line.atMs >= sinceMs) yield line;
    }
    if (!follow) return;
    yield* together(
      open.map(({ follow: start }) => start()),
      broke,
    );
  } finally {
    await Promise.all(open.map((one) => one.close()));
  }
}

/** The reason, for people. A bug is thrown on. */
function whyOf(thrown: unknown): string {
  if (!(thrown instanceof OperatorError)) throw thrown;
  return [thrown.what, thrown.why].filter(Boolean).join(" ");
}

function placeOf(source: LogSource): string {
  return source.kind === "file" ? `file ${source.path} yet` : `container ${source.container}`;
}

interface OpenSource {
  readonly isThere: boolean;
  readonly history: AsyncIterable<LogLine>;
  readonly follow: () => AsyncIterable<LogLine>;
  readonly close: () => Promise<void>;
}

async function openSource(
  source: LogSource,
  deps: LogDeps,
  query: LogQuery & { readonly until: Date },
): Promise<OpenSource | null> {
  const { until } = query;
  if (source.kind === "container") return await openContainer(source, deps, query);
  const tail = query.lines;
  const file: OpenLogFile | null = await deps.openLogFile(source.path, {
    rotated: source.rotated,
    ...(tail === null ? {} : { tail }),
  });
  if (file === null) return null;
  const otherwiseMs = until.getTime();
  const { name, read } = source;
  return {
    isThere: file.isThere,
    history: timeLines(name, file.lines(), { read, otherwiseMs }),
    // A line is shown as it comes, also if it has no time.
    follow: () => timeLines(name, file.follow(query.signal), { read, otherwiseMs, lastMs: otherwiseMs }),
    close: () => file.close(),
  };
}

async function openContainer(
  { name, container }: LogSource & { readonly kind: "container" },
  { host }: LogDeps,
  { since, lines, follow, signal, until }: LogQuery & { readonly until: Date },
): Promise<OpenSource | null> {
  const timed = (raw: AsyncIterable<string>) =>
    timeLines(name, raw, { read: readContainerLine, otherwiseMs: until.getTime() });
  const history = await host.docker.openLog(container, {
    until,
    signal,
    follow: false,
    ...(since === null ? {} : { since }),
    ...(lines === null ? {} : { tail: lines }),
  });
  // One that is followed may still be created.
  if (history === null && !follow) return null;
  return {
    isThere: history !== null,
    history: timed(history ?? Readable.from([])),
    follow: () => timed(followContainer(container, host, { since: until, signal })),
    close: () => Promise.resolve(),
  };
}

/** A line this much earlier than another before it was written after the clock of the machine was set back. */
const CLOCK_SET_BACK_MS = 1_000;

/**
 * The lines that the engine sends again when a followed log is opened again: those from the last millisecond on. Times alone do
 * not say which: stdout and stderr get theirs apart, so two lines can have the same time, or come in the other order.
 */
class ShownLines {
  #lastMs: number | null = null;
  /** How often each line was shown. */
  readonly #counts = new Map<string, number>();

  /** From when on the log is to be opened again; null before the first line. */
  get since(): Date | null {
    return this.#lastMs === null ? null : new Date(this.#lastMs);
  }

  add(raw: string): void {
    const atMs = Math.floor(parseTime(raw) ?? this.#lastMs ?? Number.NaN);
    if (Number.isNaN(atMs)) return;
    if (this.#lastMs === null || atMs > this.#lastMs || atMs < this.#lastMs - CLOCK_SET_BACK_MS) {
      this.#lastMs = atMs;
      this.#counts.clear();
    }
    this.#counts.set(raw, (this.#counts.get(raw) ?? 0) + 1);
  }

  /** Returns a test that is true for each line shown so far as often as it was shown. */
  filterRepeated(): (raw: string) => boolean {
    const left = new Map(this.#counts);
    return (raw) => {
      const count = left.get(raw) ?? 0;
      if (count > 0) left.set(raw, count - 1);
      return count > 0;
    };
  }
}

/** How often it is looked whether a container runs again. */
const LOOK_MS = 1_000;

/** Goes on when the container is created, stops and starts again, or the engine was restarted: until the signal. */
async function* followContainer(
  container: string,
  { docker, clock }: LogDeps["host"],
  { since, signal }: { readonly since: Date; readonly signal: AbortSignal },
): AsyncGenerator<string> {
  const shown = new ShownLines();
  while (!signal.aborted) {
    const isRepeated = shown.filterRepeated();
    try {
      const more = await docker.openLog(container, { since: shown.since ?? since, follow: true, signal });
      for await (const raw of more ?? []) {
        if (isRepeated(raw)) continue;
        shown.add(raw);
        yield raw;
      }
    } catch (thrown) {
      // The engine was stopped: the log goes on with it.
      if (!(thrown instanceof OperatorError)) throw thrown;
    }
    do {
      if (signal.aborted) return;
      await clock.wait(LOOK_MS);
    } while (!(await isRunning(container, docker)));
  }
}

async function isRunning(container: string, docker: LogDeps["host"]["docker"]): Promise<boolean> {
  try {
    return (await docker.container(container))?.status === "running";
  } catch (thrown) {
    if (thrown instanceof OperatorError) return false;
    throw thrown;
  }
}

/** Every line of several streams as it comes. */
async function* together(
  streams: readonly AsyncIterable<LogLine>[],
  broke: (thrown: unknown) => void,
): AsyncGenerator<LogLine> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  const ask = async (index: number) => {
    try {
      return { index, result: await iterators[index]?.next() };
    } catch (thrown) {
      broke(thrown);
      return { index, result: undefined };
    }
  };
  const asked = new Map(iterators.map((_, index) => [index, ask(index)] as const));
  while (asked.size > 0) {
    const { index, result } = await Promise.race(asked.values());
    if (result === undefined || result.done === true) {
      asked.delete(index);
      continue;
    }
    asked.set(index, ask(index));
    yield result.value;
  }
}
