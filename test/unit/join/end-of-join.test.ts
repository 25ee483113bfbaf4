import { expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { createLines } from "../../../src/ui/lines.ts";
import { manifestOf } from "../../support/backup-manifest.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

function joinOn(host: FakeStorage, lines: string[], set: readonly string[] = []) {
  const write = (line: string) => void lines.push(line);
  return joinAsMaster(
    {
      dryRun: false,
      yes: true,
      set: ["CLUSTERNAME=my-pool", "CLUSTER_PEERNAME=one", ...set],
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
}

it("the end of a join names the command for an invite once, also after a restore", async () => {
  const host = new FakeStorage();
  const lines: string[] = [];
  const join = () => joinOn(host, lines);
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

it("the end of a restore says what of the pins is left to do, also with a database that goes on elsewhere", async () => {
  const snapshot = "pinset-20260101T000000Z";
  const restored = async (change: (host: FakeStorage) => void, elsewhere: boolean): Promise<string> => {
    const host = new FakeStorage();
    const lines: string[] = [];
    const stage = LAYOUT.fromBackupDir;
    if (elsewhere) host.postgres.onAsk = () => ({ kind: "open", serverVersion: "17.2" }) as never;
    const manifest = manifestOf({
      snapshots: [snapshot],
      database: { ...manifestOf().database, is_elsewhere: elsewhere },
    });
    const set = elsewhere ? ["POSTGRES_HOST=10.0.0.9", "POSTGRES_PASSWORD=password-of-it"] : [];
    const join = () => joinOn(host, lines, set);
    await join();
    lines.length = 0;
    const { onCommand } = host.system;
    host.system.onCommand = (argv) => (argv[2] === "snapshot" && argv[3] === "restore" ? 0 : onCommand(argv));
    host.files.put(`${stage}/manifest.json`, JSON.stringify(manifest));
    for (const name of ["archive.txt", "placed.txt", "base/.env"])
      host.files.put(`${stage}/${name}`, "A=1\n");
    host.files.put(`${stage}/base/snapshots/${snapshot}.manifest.json`, "{}");
    change(host);
    await join();
    return lines.join("\n");
  };
  expect(await restored(() => {}, false)).toContain("Left to do: look whether the nodes have what is pinned");
  const lost = `${LAYOUT.restoreDir}/${snapshot}.not-restorable.ndjson`;
  const withLost = await restored((host) => host.files.put(lost, "{}\n"), false);
  expect(withLost).toContain("Left to do: some pins can't be made again as they were.");
  expect(withLost).toContain(lost);
  const elsewhere = await restored(() => {}, true);
  expect(elsewhere).toContain("Left to do: the pins come from the other peers, once they are back.");
  expect(elsewhere).toContain(`snapshot restore ${LAYOUT.snapshotsDir}/${snapshot}.manifest.json --dry-run`);
  expect(elsewhere).toContain("Its database is as it was; its files are of:");
});
