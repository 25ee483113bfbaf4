import { setTimeout } from "node:timers/promises";
import type { Clock } from "./host.ts";

/** The clock of this machine. */
export const clock: Clock = {
  now: () => new Date(),
  wait: (durationMs) => setTimeout(durationMs),
};
