import { randomBytes } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import type { Clock, Host } from "../host.ts";

/** The clock of this machine. */
export const clock: Clock = {
  now: () => new Date(),
  wait: (durationMs) => setTimeout(durationMs),
};

const BITS_PER_CHARACTER = 6;

/** Randomness of the kernel; each character of a token carries 6 bits. */
export const random: Host["random"] = {
  hex: (bytes) => randomBytes(bytes).toString("hex"),
  token: (characters) =>
    randomBytes(Math.ceil((characters * BITS_PER_CHARACTER) / 8))
      .toString("base64url")
      .slice(0, characters),
};
