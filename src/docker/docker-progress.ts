import type { IncomingMessage } from "node:http";
import { createInterface } from "node:readline";
import { messageOf, OperatorError } from "../errors.ts";

interface ProgressLine {
  readonly status?: string;
  readonly id?: string;
  readonly stream?: string;
  readonly error?: string;
  readonly errorDetail?: { readonly message?: string };
  readonly progressDetail?: { readonly current?: number; readonly total?: number };
}

const BYTES_PER_MB = 1_000_000;
/** A download is told again when this much more of it is there, as a share of what is known to come. */
const TOLD_SHARE = 0.1;

/**
 * Reads the engine's progress stream (one JSON object a line) to its end, and tells what is worth a line.
 * `errorDetail` in any line means failure, whatever the HTTP status was: it throws then.
 */
export async function followProgress(
  answer: IncomingMessage,
  what: string,
  report: (line: string) => void,
): Promise<readonly string[]> {
  const download = new Download(what, report);
  const messages: string[] = [];
  try {
    for await (const text of createInterface({ input: answer, crlfDelay: Infinity })) {
      if (text.trim() === "") continue;
      const line = JSON.parse(text) as ProgressLine;
      const error = line.errorDetail?.message ?? line.error;
      if (error !== undefined) throw failed(what, error);
      if (line.progressDetail?.total !== undefined) download.add(line);
      const message = line.stream?.trim() ?? (line.id === undefined ? line.status : undefined);
      if (message === undefined || message === "") continue;
      messages.push(message);
      report(message);
    }
  } catch (thrown) {
    throw thrown instanceof OperatorError ? thrown : failed(what, messageOf(thrown), thrown);
  }
  if (!answer.complete) throw failed(what, "the engine broke off in the middle");
  return messages;
}

/** Adds up what the layers of one image have and need. */
class Download {
  readonly #what: string;
  readonly #report: (line: string) => void;
  readonly #layers = new Map<string, { readonly current: number; readonly total: number }>();
  #toldBytes = 0;

  constructor(what: string, report: (line: string) => void) {
    this.#what = what;
    this.#report = report;
  }

  add({ id = "", status, progressDetail }: ProgressLine): void {
    if (status !== "Downloading") return;
    this.#layers.set(id, { current: progressDetail?.current ?? 0, total: progressDetail?.total ?? 0 });
    const sum = (part: "current" | "total") =>
      [...this.#layers.values()].reduce((bytes, layer) => bytes + layer[part], 0);
    const current = sum("current");
    const total = sum("total");
    if (current - this.#toldBytes < total * TOLD_SHARE) return;
    this.#toldBytes = current;
    const [have, need] = [current, total].map((bytes) => Math.round(bytes / BYTES_PER_MB));
    this.#report(`${this.#what}: ${have} of ${need} MB`);
  }
}

function failed(what: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({ exit: "unavailable", what: `Docker could not ${what}.`, why, cause });
}
