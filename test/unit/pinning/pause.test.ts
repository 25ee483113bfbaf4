import { expect, test } from "vitest";
import { Pause } from "../../../src/pinning/batches.ts";

const HOUR_MS = 3_600_000;
const NEVER = new AbortController().signal;

/** What ends first: the wait, or everything else that this process has to do now. */
function first(wait: Promise<void>): Promise<string> {
  return Promise.race([
    wait.then(() => "ended"),
    new Promise<string>((resolve) => void setImmediate(() => resolve("waits"))),
  ]);
}

test("a wait ends by the wake-up, by the stop, and at once by a wake-up that came before it", async () => {
  const stop = new AbortController();
  const pause = new Pause();
  const woken = pause.wait(HOUR_MS, NEVER);
  expect(await first(woken)).toBe("waits");
  pause.end();
  expect(await first(woken)).toBe("ended");

  pause.end();
  expect(await first(pause.wait(HOUR_MS, NEVER))).toBe("ended");
  // One wake-up ends one wait.
  const stopped = pause.wait(HOUR_MS, stop.signal);
  expect(await first(stopped)).toBe("waits");
  stop.abort();
  expect(await first(stopped)).toBe("ended");
});
