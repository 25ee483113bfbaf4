import { describe, expect, it } from "vitest";
import { openJournal } from "../../../src/engine/journal.ts";
import { run } from "../../../src/engine/run.ts";
import { EXIT_CODES } from "../../../src/errors.ts";
import { restoredFiles } from "../../../src/steps/master/restored-files.ts";
import { restoredPins } from "../../../src/steps/master/restored-pins.ts";
import { manifestOf } from "../../support/backup-manifest.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { LAYOUT, lookAt, prepare } from "../../support/master-boxes.ts";

const { context } = await prepare(new FakeMaster());
const STAGE = LAYOUT.fromBackupDir;
const SNAPSHOT = "pinset-20260101T000000Z";
const SECRETS = [
  "database.dump",
  "base/.env",
  "base/snapshot-ed25519.pem",
  "writer/ipfs-cluster/identity.json",
];

/** A master whose backup is in place, but for the pins. */
function box(snapshots: readonly string[] = [SNAPSHOT]): FakeMaster {
  const host = new FakeMaster();
  host.files.put(`${STAGE}/manifest.json`, JSON.stringify(manifestOf({ snapshots: [...snapshots] })));
  for (const name of ["archive.txt", "placed.txt", ...SECRETS]) host.files.put(`${STAGE}/${name}`, "x");
  for (const name of snapshots) host.files.put(`${STAGE}/base/snapshots/${name}.manifest.json`, "{}");
  return host;
}

/** The last steps of a join, by the engine. Returns what was changed. */
async function end(host: FakeMaster): Promise<readonly string[]> {
  const { files } = host;
  const { changes } = await run({
    steps: [restoredPins(context), restoredFiles(context)],
    host,
    journal: openJournal({
      files,
      path: LAYOUT.journal,
      attempt: "one",
      version: "0.1.0",
      now: () => host.clock.now(),
    }),
    listen: () => {},
    ask: null,
    dryRun: false,
    yes: true,
    adopted: new Set(),
    consents: new Set(),
  });
  return changes.map(({ change: { kind } }) => kind);
}

describe("the end of a restore", () => {
  it("pins what the snapshot of the backup has, then removes all that was unpacked", async () => {
    const host = box();
    const ran: string[] = [];
    host.system.onCommand = (argv) => void ran.push(argv.join(" "));
    expect(await end(host)).toEqual(["restore-pins", "remove-unpacked"]);
    expect(ran).toEqual([
      expect.stringContaining(
        `snapshot restore ${STAGE}/base/snapshots/${SNAPSHOT}.manifest.json --base-dir`,
      ),
    ]);
    expect(await host.files.list(STAGE)).toBeNull();
    expect(await end(host)).toEqual([]);
  });

  it("goes on while pins are refused, keeps their snapshot and no secret, and a later run ends it", async () => {
    const host = box();
    host.system.onCommand = () => EXIT_CODES.interrupted;
    // The first run, and one while the nodes are still away.
    for (const expected of [["restore-pins", "remove-unpacked"], ["restore-pins"]]) {
      expect(await end(host)).toEqual(expected);
      for (const secret of SECRETS) expect(await host.files.readText(`${STAGE}/${secret}`)).toBeNull();
      expect((await lookAt(restoredPins(context), host)).changes).toHaveLength(1);
    }
    host.system.onCommand = () => 0;
    expect(await end(host)).toEqual(["restore-pins", "remove-unpacked"]);
    expect(await host.files.list(STAGE)).toBeNull();
  });

  it("leaves the pins to the other peers if the database goes on elsewhere: what users deleted stays so", async () => {
    const host = box();
    host.files.put(LAYOUT.envFile, "POSTGRES_HOST=10.0.0.9\nPOSTGRES_PASSWORD=pw\n", 0o600);
    const ran: string[] = [];
    host.system.onCommand = (argv) => void ran.push(argv.join(" "));
    expect(await end(host)).toEqual(["leave-pins", "remove-unpacked"]);
    expect(ran).toEqual([]);
    expect(await host.files.list(STAGE)).toBeNull();
  });

  it("stops at any other failure", async () => {
    const host = box();
    host.system.onCommand = () => EXIT_CODES.integrity;
    await expect(end(host)).rejects.toMatchObject({ exit: "unhealthy" });
    expect(await host.files.readText(`${STAGE}/base/.env`)).toBe("x");
  });

  it("needs no pins of a backup that has no snapshot", async () => {
    const host = box([]);
    expect(await end(host)).toEqual(["remove-unpacked"]);
    expect(await host.files.list(STAGE)).toBeNull();
  });

  it("a removal that was cut off anywhere is ended, and is never taken for a restore that has not placed its files", async () => {
    const done = (): FakeMaster => {
      const host = box();
      host.files.put(`${STAGE}/pins.txt`, "");
      host.files.put(`${STAGE}/database.txt`, "");
      return host;
    };
    const { changes } = await lookAt(restoredFiles(context), done());
    const paths = changes.flatMap((change) => (change as unknown as { paths: readonly string[] }).paths);
    expect(paths.length).toBeGreaterThan(4);
    for (const [index] of paths.entries()) {
      const host = done();
      for (const path of paths.slice(0, index + 1)) await host.files.remove(path);
      // What would be placed goes first, and what says that it is a stage goes last.
      const has = async (name: string) => (await host.files.stat(`${STAGE}/${name}`)) !== null;
      const isPlacedAgain = (await has("manifest.json")) && !(await has("placed.txt"));
      if (isPlacedAgain) expect([await has("base"), await has("writer")]).toEqual([false, false]);
      // The same command goes on: it must find which backup it was.
      if (await has("manifest.json")) expect(await has("archive.txt")).toBe(true);
      // What is gone can't be pinned again.
      expect(await end(host)).not.toContain("restore-pins");
      expect(await host.files.list(STAGE)).toBeNull();
    }
  });
});
