import { expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { manifestOf } from "../../support/backup-manifest.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

it("the end of a join names the command for an invite once, also after a restore", async () => {
  const host = new FakeStorage();
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const join = () =>
    joinAsMaster(
      {
        dryRun: false,
        yes: true,
        set: ["CLUSTERNAME=my-pool", "CLUSTER_PEERNAME=one"],
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
      }),
    );
  const invites = () => lines.join("\n").split("fula-node invite create --name NAME").length - 1;
  await join();
  expect(invites()).toBe(1);
  lines.length = 0;
  const stage = LAYOUT.fromBackupDir;
  host.files.put(`${stage}/manifest.json`, JSON.stringify(manifestOf()));
  for (const name of ["archive.txt", "placed.txt"]) host.files.put(`${stage}/${name}`, "x");
  host.files.put(`${stage}/base/.env`, "A=1\n");
  await join();
  expect(lines.join("\n")).toContain("Lost is what came after the backup of:");
  expect(invites()).toBe(1);
});
