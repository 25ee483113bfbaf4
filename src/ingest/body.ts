import type { IncomingMessage } from "node:http";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** How long reading a body may take. */
export interface BodyLimits {
  /** The longest time without data from the client. */
  readonly stallMs: number;
  readonly totalMs: number;
  /** After this time the client must have kept to the minimum rate. */
  readonly slackMs: number;
  /** In bytes per second, counted from the end of `slackMs`. */
  readonly minimumRate: number;
}

/** The result of reading a body. `aborted`: the client disconnected. */
type Body =
  | { readonly kind: "complete"; readonly bytes: Buffer }
  | { readonly kind: "too-large" }
  | { readonly kind: "too-slow" }
  | { readonly kind: "aborted" };

/** The clock is looked at this often, so that no timer has to be set for each part. */
const LOOKS = 5;

/**
 * Reads a request's body into `buffer`, whose length is the limit. `onData` gets all bytes so far each time more have
 * arrived. Chunks are copied: if they were kept, a body sent in single bytes would take a hundred times its size, and
 * garbage collection would cost more than the copies.
 */
export function readBody(
  request: IncomingMessage,
  buffer: Buffer,
  limits: BodyLimits,
  onData: (bytes: Buffer) => void,
): Promise<Body> {
  return new Promise((resolve) => {
    const startedMs = performance.now();
    let filled = 0;
    let seen = { filled, atMs: startedMs };
    const finish = (body: Body): void => {
      clearInterval(timer);
      request.off("data", take).off("end", end).off("close", abort);
      resolve(body);
    };
    const take = (part: Buffer): void => {
      if (filled + part.length > buffer.length) return finish({ kind: "too-large" });
      part.copy(buffer, filled);
      filled += part.length;
      onData(buffer.subarray(0, filled));
      freeMemory(part);
    };
    const end = (): void => finish({ kind: "complete", bytes: buffer.subarray(0, filled) });
    const abort = (): void => finish({ kind: "aborted" });
    const look = (): void => {
      const nowMs = performance.now();
      if (filled > seen.filled) seen = { filled, atMs: nowMs };
      const tookMs = nowMs - startedMs;
      const owed = ((tookMs - limits.slackMs) / 1_000) * limits.minimumRate;
      if (tookMs >= limits.totalMs || nowMs - seen.atMs >= limits.stallMs || filled < owed)
        finish({ kind: "too-slow" });
    };
    const shortest = Math.min(limits.stallMs, limits.totalMs, limits.slackMs);
    const timer = setInterval(look, Math.max(1, shortest / LOOKS));
    request.on("data", take).on("end", end).on("close", abort);
    if (request.destroyed) abort();
  });
}

/**
 * Frees a received part at once. Otherwise its memory waits for the garbage collector, which then runs all the time: at
 * 200 MB/s it took a quarter of the processor.
 */
function freeMemory({ buffer, length }: Buffer): void {
  // A part that shares its memory with others must stay.
  if (buffer.byteLength === length && buffer instanceof ArrayBuffer) transfer?.call(buffer, 0);
}

/** ECMAScript 2024. Node 20 has it behind a flag, which only takes effect in a new context. */
const transfer = findTransfer();

function findTransfer(): ((this: ArrayBuffer, newLength: number) => unknown) | null {
  const own = (ArrayBuffer.prototype as { transfer?: (this: ArrayBuffer, newLength: number) => unknown })
    .transfer;
  if (own !== undefined) return own;
  setFlagsFromString("--harmony-rab-gsab-transfer");
  return (runInNewContext("ArrayBuffer.prototype.transfer") as typeof own) ?? null;
}

/** Reusable buffers of one size. It creates as many as are used at the same time. */
export class BufferPool {
  /** The size of each buffer. */
  readonly sizeBytes: number;
  readonly #free: Buffer[] = [];

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  /** Gives `use` a buffer until its promise settles. The buffer is then reused, so do not keep a reference. */
  async use<T>(use: (buffer: Buffer) => Promise<T>): Promise<T> {
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.sizeBytes);
    try {
      return await use(buffer);
    } finally {
      this.#free.push(buffer);
    }
  }
}
