import type { IncomingMessage } from "node:http";
import { OperatorError } from "../errors.ts";
import { ask, refusedAnswer, startRequest, unreachable, type Wire } from "./request.ts";

/**
 * Takes whole lines, newline included, as they come. The bytes are the receiver's to keep. What it
 * throws ends the listing; while its promise is pending the server is made to wait.
 */
export type TakeLines = (lines: Buffer) => void | Promise<void>;

/** What a complete listing was. */
export interface Listing {
  /** True for a 204: the server said "nothing", which `/pins` also says when no peer could tell. */
  readonly saidNothing: boolean;
  readonly bytes: number;
}

const BLOCK_BYTES = 256 * 1024;
const NEWLINE = 0x0a;

/**
 * Reads one streamed list of the REST API (api/common/api.go, StreamResponse) in constant memory.
 * Returns only when the list is proven complete: the HTTP message ended properly, the X-Stream-Error
 * trailer is there with nothing but empty values, the last line is whole, and the peer still accepts
 * new connections (it closes its listeners before it interrupts running lists). Anything else throws
 * an OperatorError (unavailable); lines handed out until then prove nothing.
 */
export async function readListing(wire: Wire, path: string, takeLines: TakeLines): Promise<Listing> {
  let response: IncomingMessage;
  try {
    response = await startRequest(wire, { method: "GET", path }, wire.listingTimeoutMs);
  } catch (cause) {
    throw unreachable(wire, `GET ${path}`, cause);
  }
  const status = response.statusCode ?? 0;
  if (status === 204) {
    response.resume();
    await confirmAlive(wire, path);
    return { saidNothing: true, bytes: 0 };
  }
  if (status !== 200) {
    throw refusedAnswer(wire, `GET ${path}`, { status, text: await readStart(response) });
  }
  const bytes = await pump(wire, path, response, takeLines);
  judgeEnd(wire, path, response);
  await confirmAlive(wire, path);
  return { saidNothing: false, bytes };
}

function pump(wire: Wire, path: string, response: IncomingMessage, takeLines: TakeLines): Promise<number> {
  return new Promise((resolve, reject) => {
    const lines = new LineBlocks();
    let bytes = 0;
    let busy: Promise<void> = Promise.resolve();
    let failed = false;
    const fail = (cause: unknown): void => {
      if (failed) return;
      failed = true;
      response.destroy();
      reject(cause);
    };
    const handOver = (block: Buffer | null): void => {
      if (block === null || failed) return;
      try {
        const pending = takeLines(block);
        if (pending === undefined) return;
        response.pause();
        busy = pending.then(() => void response.resume());
        busy.catch(fail);
      } catch (cause) {
        fail(cause);
      }
    };
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      handOver(lines.add(chunk));
    });
    response.on("error", (cause) => fail(cut(wire, path, bytes, cause)));
    response.on("aborted", () => fail(cut(wire, path, bytes, undefined)));
    response.on("end", () => {
      if (failed) return;
      busy
        .then(async () => {
          const rest = lines.rest();
          if (rest.length > 0) await takeLines(rest);
          resolve(bytes);
        })
        .catch(fail);
    });
  });
}

function judgeEnd(wire: Wire, path: string, response: IncomingMessage): void {
  const values: string[] = [];
  for (let i = 0; i + 1 < response.rawTrailers.length; i += 2) {
    if (response.rawTrailers[i]?.toLowerCase() === "x-stream-error")
      values.push(response.rawTrailers[i + 1] ?? "");
  }
  if (!response.complete) throw cut(wire, path, 0, undefined);
  if (values.length === 0) {
    throw incomplete(
      wire,
      path,
      "it ended without the X-Stream-Error trailer that says whether it is whole",
      {
        remedy: "Ask the cluster itself: a proxy that speaks HTTP/1.0 drops the trailer.",
      },
    );
  }
  const problem = values.find((value) => value.trim() !== "");
  if (problem !== undefined) throw incomplete(wire, path, `the cluster ended it with: ${problem.trim()}`);
}

async function confirmAlive(wire: Wire, path: string): Promise<void> {
  try {
    const answer = await ask(wire, "GET", "/id", { fresh: true });
    if (answer.status === 200) return;
    throw refusedAnswer(wire, "GET /id", answer);
  } catch (cause) {
    throw incomplete(wire, path, "the peer stopped answering while it was read, so its end may be missing", {
      cause,
    });
  }
}

function cut(wire: Wire, path: string, bytes: number, cause: unknown): OperatorError {
  return incomplete(wire, path, bytes > 0 ? `it was cut off after ${bytes} bytes` : "it was cut off", {
    cause,
  });
}

function incomplete(
  wire: Wire,
  path: string,
  why: string,
  more: { readonly cause?: unknown; readonly remedy?: string } = {},
): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The list ${path} of the cluster at ${wire.where} is not complete: ${why}.`,
    why: "An incomplete list must not be taken for the pinset.",
    remedy: more.remedy ?? "Look at the cluster's log, then run this again.",
    cause: more.cause,
  });
}

async function readStart(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const part of response) {
    text += String(part);
    if (text.length > 4096) break;
  }
  return text;
}

/** Gathers the server's one-line chunks into blocks of whole lines. */
class LineBlocks {
  #buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  #used = 0;

  /** A block when one is full, else null. */
  add(chunk: Buffer): Buffer | null {
    if (this.#used + chunk.length <= this.#buffer.length) {
      chunk.copy(this.#buffer, this.#used);
      this.#used += chunk.length;
      return null;
    }
    const whole = this.#buffer.lastIndexOf(NEWLINE, this.#used - 1) + 1;
    const held = this.#used === 0 ? 0 : whole;
    const carried = this.#used - held;
    const next = Buffer.allocUnsafe(Math.max(BLOCK_BYTES, (carried + chunk.length) * 2));
    this.#buffer.copy(next, 0, held, this.#used);
    chunk.copy(next, carried);
    const block = this.#buffer.subarray(0, held);
    this.#buffer = next;
    this.#used = carried + chunk.length;
    return block.length === 0 ? null : block;
  }

  /** What is left at the end; a last line without its newline is in it, too. */
  rest(): Buffer {
    return this.#buffer.subarray(0, this.#used);
  }
}
