import type { IncomingMessage } from "node:http";

/** How much of a body is read, and how long that may take. */
export interface BodyLimits {
  readonly maxBytes: number;
  /** Longest silence of the client. */
  readonly stallMs: number;
  readonly totalMs: number;
}

/** What came of reading a body; `lost`: the client broke it off. */
export type Body =
  | { readonly kind: "whole"; readonly parts: readonly Uint8Array[]; readonly sizeBytes: number }
  | { readonly kind: "too-large" }
  | { readonly kind: "too-slow" }
  | { readonly kind: "lost" };

/**
 * Reads a request's body, and gives each part to `take` as well when it has come. It keeps no more than
 * `maxBytes`, and nothing of a body that it gives up.
 */
export function readBody(
  request: IncomingMessage,
  limits: BodyLimits,
  take: (part: Uint8Array) => void,
): Promise<Body> {
  if (Number(request.headers["content-length"] ?? 0) > limits.maxBytes) {
    return Promise.resolve({ kind: "too-large" });
  }
  return new Promise((resolve) => {
    const kept = new KeptParts(take);
    const finish = (body: Body): void => {
      clearTimeout(total);
      clearTimeout(stall);
      request.off("data", keep).off("end", end).off("close", lose);
      resolve(body);
    };
    const keep = (part: Buffer): void => {
      stall.refresh();
      if (kept.sizeBytes + part.length > limits.maxBytes) finish({ kind: "too-large" });
      else kept.add(part);
    };
    const end = (): void => finish({ kind: "whole", parts: kept.parts(), sizeBytes: kept.sizeBytes });
    const lose = (): void => finish({ kind: "lost" });
    const giveUp = (): void => finish({ kind: "too-slow" });
    const total = setTimeout(giveUp, limits.totalMs);
    const stall = setTimeout(giveUp, limits.stallMs);
    request.on("data", keep).on("end", end).on("close", lose);
    if (request.destroyed) lose();
  });
}

const SMALL_BYTES = 4_096;
const GATHER_BYTES = 65_536;

/**
 * The parts of a body as they came, the small ones gathered: a body that comes byte by byte would
 * otherwise hold a hundred times its size in buffers.
 */
export class KeptParts {
  readonly #parts: Uint8Array[] = [];
  #gathered: Buffer | null = null;
  readonly #take: (part: Uint8Array) => void;
  #filled = 0;
  sizeBytes = 0;

  /** `take` gets each part that is kept. */
  constructor(take: (part: Uint8Array) => void) {
    this.#take = take;
  }

  add(part: Buffer): void {
    this.sizeBytes += part.length;
    if (part.length >= SMALL_BYTES) {
      this.#flush();
      this.#keep(part);
      return;
    }
    this.#gathered ??= Buffer.allocUnsafe(GATHER_BYTES);
    part.copy(this.#gathered, this.#filled);
    this.#filled += part.length;
    if (this.#filled > GATHER_BYTES - SMALL_BYTES) this.#flush();
  }

  /** What was added, in order. */
  parts(): readonly Uint8Array[] {
    this.#flush();
    return this.#parts;
  }

  #flush(): void {
    if (this.#gathered === null || this.#filled === 0) return;
    this.#keep(Buffer.from(this.#gathered.subarray(0, this.#filled)));
    this.#filled = 0;
  }

  #keep(part: Uint8Array): void {
    this.#parts.push(part);
    this.#take(part);
  }
}
