import type { IncomingMessage } from "node:http";

/** How long reading a body may take. */
export interface BodyLimits {
  /** Longest silence of the client. */
  readonly stallMs: number;
  readonly totalMs: number;
}

/** What came of reading a body; `lost`: the client broke it off. */
export type Body =
  | { readonly kind: "whole"; readonly bytes: Buffer }
  | { readonly kind: "too-large" }
  | { readonly kind: "too-slow" }
  | { readonly kind: "lost" };

/**
 * Reads a request's body into `room`, whose length is the bound on it. `grown` gets what is there each time
 * more has come. Parts are copied: kept as they come, a body of single bytes would hold a hundred times its
 * size, and the collector of garbage would cost more than the copies.
 */
export function readBody(
  request: IncomingMessage,
  room: Buffer,
  limits: BodyLimits,
  grown: (bytes: Buffer) => void,
): Promise<Body> {
  if (Number(request.headers["content-length"] ?? 0) > room.length) {
    return Promise.resolve({ kind: "too-large" });
  }
  return new Promise((resolve) => {
    let filled = 0;
    const finish = (body: Body): void => {
      clearTimeout(total);
      clearTimeout(stall);
      request.off("data", take).off("end", end).off("close", lose);
      resolve(body);
    };
    const take = (part: Buffer): void => {
      stall.refresh();
      if (filled + part.length > room.length) return finish({ kind: "too-large" });
      part.copy(room, filled);
      filled += part.length;
      grown(room.subarray(0, filled));
    };
    const end = (): void => finish({ kind: "whole", bytes: room.subarray(0, filled) });
    const lose = (): void => finish({ kind: "lost" });
    const giveUp = (): void => finish({ kind: "too-slow" });
    const total = setTimeout(giveUp, limits.totalMs);
    const stall = setTimeout(giveUp, limits.stallMs);
    request.on("data", take).on("end", end).on("close", lose);
    if (request.destroyed) lose();
  });
}

/** Buffers of one size, used again: as many come to be as are taken at once. */
export class Rooms {
  readonly #sizeBytes: number;
  readonly #free: Buffer[] = [];

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  /** Lends one to `use` until its promise is settled; what is left in it is garbage then. */
  async lend<T>(use: (room: Buffer) => Promise<T>): Promise<T> {
    const room = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#sizeBytes);
    try {
      return await use(room);
    } finally {
      this.#free.push(room);
    }
  }
}
