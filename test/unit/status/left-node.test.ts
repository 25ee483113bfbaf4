import { describe, expect, it } from "vitest";
import { status } from "../../../src/commands/status.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import { table } from "../../../src/ui/text.ts";
import { leaveOn, leavingMaster, masterElsewhere } from "../../support/leave-boxes.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";

async function statusOn(host: FakeStorage) {
  const results: Result[] = [];
  const world = worldOf(host);
  const reporter = { ...world.reporter, table, result: (result: Result) => void results.push(result) };
  const exit = await status({}, { ...world, reporter });
  const { data, lines } = results[0] as Result;
  return { exit, data, text: lines.join("\n") };
}

describe("status of a node that left", () => {
  it("a master: when it left, how it comes back, and what it kept, instead of parts that are down", async () => {
    const host = await leavingMaster();
    await leaveOn(host);
    const { exit, data, text } = await statusOn(host);
    expect(text).toMatch(/This master left on 2026-01-01 \d\d:\d\d UTC\./);
    expect(text).toMatch(/To come back: +fula-node join-as-master --provision-writer\n/);
    expect(text.replaceAll(/\s+/g, " ")).toMatch(/It kept: .*\.env.*\/opt\/fula-master\/snapshots/);
    expect(text).not.toMatch(/down|no snapshot/);
    expect(data).toMatchObject({ kind: null, verdict: "attention", left: { kind: "master" }, parts: [] });
    expect(exit).toBe("pending");
    host.stopEngine();
    expect((await statusOn(host)).text).toMatch(/This master left on/);
  });

  it("a master with its database elsewhere: what another master must do before it comes back", async () => {
    const host = await masterElsewhere();
    await leaveOn(host);
    const text = (await statusOn(host)).text.replaceAll(/\s+/g, " ");
    expect(text).toMatch(
      /First: if the pool has other masters, on one of them: fula-node trust add box To come back: fula-node join/,
    );
  });

  it("a storage node", async () => {
    const host = await storageBoxBefore(null);
    await leaveOn(host);
    expect((await statusOn(host)).text).toMatch(
      /This storage node left on .*\n +To come back: +fula-node join-as-storage-node\n/,
    );
  });

  it("a node whose leave was interrupted has not left, and neither has one that came back", async () => {
    const host = await leavingMaster();
    const before = host.copy();
    await leaveOn(host);
    const journal = host.files.textOf(LAYOUT.journal);
    before.files.put(LAYOUT.journal, journal);
    expect((await statusOn(before)).data).toMatchObject({ kind: "master" });
    const lines = journal.trimEnd().split("\n").slice(0, -1);
    host.files.put(LAYOUT.journal, `${lines.join("\n")}\n`);
    expect((await statusOn(host)).text).not.toMatch(/left on/);
  });

  it("an installed Docker that is silent may have a node: that is not known", async () => {
    const host = new FakeStorage();
    host.stopEngine();
    await expect(statusOn(host)).rejects.toMatchObject({
      exit: "unavailable",
      what: "It is not known which node is installed on this machine.",
    });
  });
});
