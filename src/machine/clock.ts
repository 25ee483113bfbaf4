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
  now(): Date;
  /** Resolves after this duration. Only for polls with a deadline. */
  wait(durationMs: number): Promise<void>;
}

/** The clock of this machine. */
export const clock: Clock = {
  now: () => new Date(),
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
