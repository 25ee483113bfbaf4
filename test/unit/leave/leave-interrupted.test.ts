import { describe, expect, it } from "vitest";
import type { LeaveFlags } from "../../../src/commands/leave.ts";
import { OperatorError } from "../../../src/errors.ts";
import { Killed, type Snapshot } from "../../support/fake-host.ts";
import { leaveOn, leavingMaster, PURGE_ALL } from "../../support/leave-boxes.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { type FakeStorage, storageBoxBefore } from "../../support/storage-fake.ts";
import type { KillMoment } from "../../support/write-gate.ts";

const MASTER = await leavingMaster();
const NODE = await storageBoxBefore(null);
NODE.files.put("/opt/fula-storage/journal.ndjson", "{}\n", 0o600);

const CASES = [
  ["a master", () => MASTER.copy(), {}],
  ["a master that purges everything", () => MASTER.copy(), PURGE_ALL],
  ["a storage node", () => NODE.copy(), {}],
  ["a storage node that purges everything", () => NODE.copy(), PURGE_ALL],
] as const satisfies readonly (readonly [string, () => FakeStorage, Partial<LeaveFlags>])[];

/** The state after a leave. The journal differs with the way there, so only its existence counts. */
function endOf(host: FakeStorage): Snapshot & { readonly names: readonly string[] } {
  const { files, ...rest } = host.snapshot();
  const entries = Object.entries(files).map(([path, entry]) => [
    path,
    path === LAYOUT.journal || path.endsWith("/journal.ndjson") ? "" : entry,
  ]);
  return {
    ...rest,
    files: Object.fromEntries(entries) as Snapshot["files"],
    names: [...(host.names ?? new Map()).keys()],
  };
}

describe.each(CASES)("one more run after a kill gives the same result: %s", (_name, make, flags) => {
  it("before, during and after every write", { timeout: 600_000 }, async () => {
    const straight = make();
    await leaveOn(straight, flags);
    const end = endOf(straight);
    const { writes } = straight;
    expect(writes.length).toBeGreaterThan(15);
    // Boxes that look alike are tried once: after write k is before write k + 1.
    const tried = new Set<string>();
    for (let k = 1; k <= writes.length; k += 1) {
      for (const moment of ["before", "during", "after"] satisfies KillMoment[]) {
        const host = make();
        host.killAt(k, moment);
        const thrown: unknown = await leaveOn(host, flags).catch((error: unknown) => error);
        expect(host.killed, `the kill ${moment} write ${k} landed`).toBe(true);
        expect(thrown).toBeInstanceOf(Killed);
        host.revive();
        const box = JSON.stringify([host.snapshot(), [...(host.names ?? [])]]);
        if (tried.has(box)) continue;
        tried.add(box);
        const story = `killed ${moment} write ${k}, ${writes[k - 1]}`;
        // If the last write was the last of the leave, there is no node any more.
        const again: unknown = await leaveOn(host, flags).catch((error: unknown) => error);
        if (again instanceof Error) {
          expect(again, story).toBeInstanceOf(OperatorError);
          expect(again, story).toMatchObject({ exit: "settings" });
        }
        expect(endOf(host), story).toEqual(end);
      }
    }
  });
});
