import type { IncomingMessage } from "node:http";
import { OperatorError } from "../../errors.ts";
import type { Answer } from "../engine-answers.ts";
import { reasonOf } from "../engine-client.ts";

type Report = (line: string) => void;

const BYTES_PER_MB = 1_000_000;
/** A download is reported again after this share of its known size. */
const REPORTED_SHARE = 0.1;

/**
 * Reads the engine's progress stream (one JSON object per line) to its end, and reports the useful lines. Throws
 * if a line has `errorDetail`, which means failure for any HTTP status, and if the stream is cut off.
 * (docker-modem's own reader treats both as success.)
 */
export async function followProgress(
  stream: NodeJS.ReadableStream,
  what: string,
  report: Report,
): Promise<readonly string[]> {
  const { readAnswer } = await import("../engine-answers.ts");
  const answer = stream as IncomingMessage;
  const download = new Download(what, report);
  const messages: string[] = [];
  try {
    for await (const text of linesOf(answer)) {
      if (text.trim() === "") continue;
      const read = readAnswer("progress", JSON.parse(text));
      if ("why" in read) throw failed(what, read.why);
      const line = read.data;
      const error = line.errorDetail?.message ?? line.error;
      if (error !== undefined) throw failed(what, error);
      if (line.progressDetail?.total !== undefined) download.add(line);
      const message = line.stream?.trim() ?? (line.id === undefined ? line.status : undefined);
      if (message === undefined || message === "") continue;
      messages.push(message);
      report(message);
    }
  } catch (thrown) {
    throw thrown instanceof OperatorError ? thrown : failed(what, reasonOf(thrown, answer), thrown);
  }
  if (!answer.complete) throw failed(what, "the engine closed the connection before the end");
  return messages;
}

/** Far longer than any line of progress. */
const MAX_LINE_CHARACTERS = 4 * 1024 ** 2;

/**
 * The lines of an answer. When its reader stops, the connection is closed: an engine that still sends, or that breaks the
 * connection later, is not listened to any more.
 */
async function* linesOf(answer: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of answer.setEncoding("utf8") as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
    if (rest.length > MAX_LINE_CHARACTERS) throw new Error("a line of the answer is longer than 4 MiB");
  }
  yield rest;
}

/** Adds up the downloaded and total bytes of one image's layers. */
class Download {
  readonly #what: string;
  readonly #report: (line: string) => void;
  readonly #layers = new Map<string, { readonly current: number; readonly total: number }>();
  #reportedBytes = 0;

  constructor(what: string, report: (line: string) => void) {
    this.#what = what;
    this.#report = report;
  }

  add({ id = "", status, progressDetail }: Answer<"progress">): void {
    if (status !== "Downloading") return;
    this.#layers.set(id, { current: progressDetail?.current ?? 0, total: progressDetail?.total ?? 0 });
    const sum = (part: "current" | "total") =>
      [...this.#layers.values()].reduce((bytes, layer) => bytes + layer[part], 0);
    const current = sum("current");
    const total = sum("total");
    if (current - this.#reportedBytes < total * REPORTED_SHARE) return;
    this.#reportedBytes = current;
    const [have, need] = [current, total].map((bytes) => Math.round(bytes / BYTES_PER_MB));
    this.#report(`${this.#what}: ${have} of ${need} MB`);
  }
}

function failed(what: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({ exit: "unavailable", what: `Docker could not ${what}.`, why, cause });
}
