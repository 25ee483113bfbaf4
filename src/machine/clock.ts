import { randomBytes } from "node:crypto";
import { setTimeout } from "node:timers/promises";

/** Randomness for secrets. */
export interface Random {
  /** Random bytes as lower-case hex. */
  hex(bytes: number): string;
  /** Random characters of [A-Za-z0-9_-]. */
  token(characters: number): string;
}

/** The time of this machine. */
export interface Clock {
  /** The date. It jumps when the clock is set, so no duration and no deadline may be counted with it. */
  now(): Date;
  /** Milliseconds since an arbitrary start (CLOCK_MONOTONIC). For durations and deadlines: setting the clock does not change it. */
  monotonicMs(): number;
  /** Resolves after this duration. Only for polls with a deadline. */
  wait(durationMs: number): Promise<void>;
}

/** The clock of this machine. */
export const clock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  wait: (durationMs) => setTimeout(durationMs),
};

const BITS_PER_CHARACTER = 6;

/** Random data from the kernel. Each character of a token carries 6 bits. */
export const random: Random = {
  hex: (bytes) => randomBytes(bytes).toString("hex"),
  token: (characters) =>
    randomBytes(Math.ceil((characters * BITS_PER_CHARACTER) / 8))
      .toString("base64url")
      .slice(0, characters),
};
