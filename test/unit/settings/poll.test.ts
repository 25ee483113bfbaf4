import { expect, it } from "vitest";
import { clock } from "../../../src/machine/clock.ts";
import { poll } from "../../../src/settings/context.ts";
import { FakeHost } from "../../support/fake-host.ts";

const HOUR_MS = 3_600_000;

it.each([
  ["forward", HOUR_MS],
  ["back", -HOUR_MS],
])("a clock that is set %s during a wait moves no deadline", async (_way, differenceMs) => {
  const host = new FakeHost();
  let attempts = 0;
  host.clock.onWait = () => {
    if (attempts === 3) host.clock.setBy(differenceMs);
  };
  const found = await poll(host, 1000, () => {
    attempts += 1;
    if (attempts > 20) throw new Error("the deadline does not pass");
    return Promise.resolve(null);
  });
  expect(found).toBeNull();
  expect(attempts).toBe(11);
});

it("this machine's monotonic clock counts milliseconds", async () => {
  const before = clock.monotonicMs();
  await clock.wait(20);
  const elapsedMs = clock.monotonicMs() - before;
  expect(elapsedMs).toBeGreaterThanOrEqual(15);
  expect(elapsedMs).toBeLessThan(10_000);
});
