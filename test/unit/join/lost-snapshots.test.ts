import { expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";
import { oneSnapshot } from "../../support/taken-snapshot.ts";

it("the end of a join does not say that everything works while the snapshots are gone", async () => {
  const host = new FakeStorage();
  const snapshots = await oneSnapshot(host.clock.now());
  const joinWith = async (store: typeof snapshots.store): Promise<string> => {
    const lines: string[] = [];
    const write = (line: string) => void lines.push(line);
    await joinAsMaster(
      {
        dryRun: false,
        yes: true,
        set: ["CLUSTERNAME=pool"],
        adopt: [],
        replace: [],
        ignore: ["clock"],
        provisionWriter: true,
      },
      worldOf(host, {
        pid: 7,
        hostname: "box",
        takeLock: () => Promise.resolve({ release: () => Promise.resolve() }),
        reporter: createLines({ out: write, err: write }, () => host.clock.monotonicMs()),
        openSnapshots: async () => store,
        readVerifyingKey: async () => snapshots.key,
      }),
    );
    return lines.join(" ").replaceAll(/\s+/g, " ");
  };
  try {
    expect(await joinWith(snapshots.store)).toContain("everything works");
    host.files.put(LAYOUT.snapshotMemory, (await snapshots.files.readText(snapshots.memory.path)) ?? "");
    expect(await joinWith(snapshots.store)).toContain("everything works");
    const text = await joinWith({ ...snapshots.store, list: async () => [] });
    expect(text).not.toContain("everything works");
    expect(text).toContain(
      "Left to do: the snapshots: no snapshot; the last one was number 1 (fula-node status).",
    );
  } finally {
    snapshots.clear();
  }
});
