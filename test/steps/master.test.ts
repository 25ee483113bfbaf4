import { describe, expect, it } from "vitest";
import type { Change } from "../../src/engine/step.ts";
import { bareBox, endOf, join, LAYOUT, savedValues } from "../support/master-boxes.ts";

describe("x", () => {
  it("kills", async () => {
    const straight = bareBox();
    await join(straight);
    const total = straight.writes.length;
    const t = performance.now();
    for (let k = 1; k <= total; k += 1) {
      for (const moment of ["before", "after"] as const) {
        const host = bareBox();
        host.killAt(k, moment);
        await join(host).catch(() => {});
        expect(host.killed).toBe(true);
        host.revive();
        await join(host);
        expect(endOf(host)).toEqual(endOf(straight));
      }
    }
    console.log(performance.now() - t);
  });
});
