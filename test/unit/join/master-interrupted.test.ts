import { describe, expect, it } from "vitest";
import { Killed } from "../../support/fake-host.ts";
import type { FakeMaster } from "../../support/fake-master.ts";
import { bareBox, endOf, join, LAYOUT, savedValues } from "../../support/master-boxes.ts";
import type { KillMoment } from "../../support/write-gate.ts";

/** What a kill must never lose: secrets that were on disk, and the password that the database was created with. */
function keptBy(host: FakeMaster): Readonly<Record<string, string>> {
  const env = host.files.tree.has(LAYOUT.envFile) ? savedValues(host) : {};
  const pem = host.files.tree.get(LAYOUT.signingKey)?.text;
  return { ...env, ...(pem === undefined ? {} : { pem }) };
}

async function dieAt(k: number, moment: KillMoment): Promise<FakeMaster> {
  const host = bareBox();
  host.killAt(k, moment);
  const thrown: unknown = await join(host).catch((error: unknown) => error);
  expect(host.killed, `the kill ${moment} write ${k} landed`).toBe(true);
  expect(thrown).toBeInstanceOf(Killed);
  host.revive();
  return host;
}

const straight = bareBox();
await join(straight);
const end = endOf(straight);
const { writes } = straight;

const SHARES = 6;
const shares = Array.from({ length: SHARES }, (_, share) => {
  const at = (part: number) => Math.floor((writes.length * part) / SHARES);
  return [at(share) + 1, at(share + 1)] as const;
});

describe("a join that is killed before, during or after a write reaches the same result with one more run", () => {
  it("over all of its writes", () => {
    expect(writes.length).toBeGreaterThan(60);
    expect(shares.at(-1)?.[1]).toBe(writes.length);
  });

  it.each(shares)("writes %i to %i", { timeout: 600_000 }, async (first, last) => {
    // Boxes that look alike are tried once: after write k is before write k + 1.
    const tried = new Set<string>();
    for (let k = first; k <= last; k += 1) {
      for (const moment of ["before", "during", "after"] as const) {
        const host = await dieAt(k, moment);
        const box = JSON.stringify(host.snapshot());
        if (tried.has(box)) continue;
        tried.add(box);
        const kept = keptBy(host);
        await join(host);
        const story = `killed ${moment} write ${k}, ${writes[k - 1]}`;
        expect(endOf(host), story).toEqual(end);
        expect(keptBy(host), story).toMatchObject(kept);
        host.revive();
        expect((await join(host, { provisionWriter: false })).changes, `${story}: a third run`).toEqual([]);
        expect(host.writes, `${story}: a third run`).toEqual([]);
      }
    }
    expect(tried.size).toBeGreaterThan(last - first);
  });
});
