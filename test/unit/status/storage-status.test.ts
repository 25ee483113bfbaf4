import { table, wrap } from "../../../src/ui/text.ts";
import { describe, expect, it } from "vitest";
import { status } from "../../../src/commands/status.ts";
import { STORAGE_NAMES } from "../../../src/settings/layout.ts";
import type { ReportRow } from "../../../src/status/judge-storage.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import {
  FakeStorage,
  LAYOUT,
  MASTER_ID,
  OWN,
  storageBoxBefore,
  worldOf,
} from "../../support/storage-fake.ts";

const NAME = { peerId: OWN.peerId, addresses: [] };

/** Runs `status` on a box: the exit, the output, and the rows of the report by their subject. */
async function statusOn(host: FakeStorage, flags: { readonly baseDir?: string } = {}) {
  const results: Result[] = [];
  const world = worldOf(host);
  const reporter = { ...world.reporter, table, wrap, result: (result: Result) => void results.push(result) };
  const writes = host.writes.length;
  const exit = await status(flags, { ...world, reporter });
  expect(host.writes).toHaveLength(writes);
  const { data, lines } = results[0] as Result;
  expect(lines.filter((line) => line.length > 80)).toEqual([]);
  const report = (data["report"] ?? []) as readonly ReportRow[];
  return { exit, data, text: lines.join("\n"), report: new Map(report.map((row) => [row.about, row])) };
}

describe("status of a storage node", () => {
  it("reports everything, and that everything is up to date", async () => {
    const { exit, data, text, report } = await statusOn(await storageBoxBefore(null));
    expect(text).toMatch(/^fula-node 0\.1\.0 · storage node node of pool pool\n/);
    expect(text).toMatch(/\nEverything works \(exit 0\)\.$/);
    expect(exit).toBe("ok");
    expect(data).toMatchObject({ verb: "status", kind: "storage-node", pending: false });
    expect(
      [...report.values()].map(({ about, state, sentence }) => `${state} ${about}: ${sentence}`),
    ).toEqual([
      `ok member: of pool, trusts ${MASTER_ID} (master, sees this node)`,
      "ok kubo: connected to 1 other node",
      "ok pins: 3 of 3 known here; 3 pinned",
      "ok ingest: [::]:3601, blocks of up to 2097152 bytes, mode strict",
      "ok quota gate: https://master.example answers",
      "ok name: node, announced to the master",
      "ok storage: 1.0 GB of 10.0 GB used (10.0 %), disk 50.0 GB free",
    ]);
  });

  it.each<[string, (host: FakeStorage) => unknown, string, string, RegExp]>([
    [
      "no master is connected",
      (host) => (host.isMasterConnected = false),
      "member",
      "attention",
      /^not of pool.*not connected/,
    ],
    [
      "no master sees it",
      (host) => (host.isCounted = false),
      "member",
      "attention",
      /^not of pool.*does not see this node/,
    ],
    [
      "it still trusts a master that was removed",
      (host) => {
        const held = host.names?.get("node");
        if (held !== undefined) host.names?.set("node", { ...held, removed: [MASTER_ID] });
      },
      "member",
      "attention",
      /^still trusts a master that was removed from pool: 12D3/,
    ],
    ["its kubo is alone", (host) => (host.kuboPeers = 0), "kubo", "attention", /receives no content/],
    [
      "a pin failed",
      (host) => (host.statuses = ["pin_error"]),
      "pins",
      "attention",
      /3 of 3 known here; 2 pinned, 1 pin_error/,
    ],
    [
      "a pin is missing, and ipfs-cluster had the time to pin it again",
      (host) => {
        host.statuses = ["unexpectedly_unpinned"];
        host.clock.setBy(15 * 60_000);
      },
      "pins",
      "attention",
      /^3 of 3 known here; 2 pinned, 1 unexpectedly_unpinned$/,
    ],
    [
      "it is nearly full",
      (host) => (host.repoBytes = 9_000_000_000),
      "storage",
      "attention",
      /^nearly full: 9\.0 GB of 10\.0 GB used \(90\.0 %\)/,
    ],
    [
      "it is full",
      (host) => (host.repoBytes = 9_999_000_000),
      "storage",
      "attention",
      /^full: .*; uploads are refused$/,
    ],
    [
      "its disk has only the reserve left",
      (host) => (host.diskBytes = 1e9),
      "storage",
      "attention",
      /^full: .*disk 1\.0 GB free, with a reserve of 1\.0 GB; uploads are refused/,
    ],
    ["its name was given back", (host) => host.names?.delete("node"), "name", "attention", /not announced/],
    [
      "its name is another's",
      (host) => host.names?.set("node", { ...NAME, peerId: MASTER_ID }),
      "name",
      "attention",
      /belongs to another node/,
    ],
  ])("needs attention if %s", async (_name, arrange, about, state, sentence) => {
    const host = await storageBoxBefore(null);
    arrange(host);
    const { exit, report, data } = await statusOn(host);
    expect(report.get(about)).toMatchObject({ state, sentence: expect.stringMatching(sentence) });
    expect(exit).toBe("pending");
    expect(data["pending"]).toBe(true);
  });

  it.each<[string, (host: FakeStorage) => unknown, RegExp]>([
    ["knows fewer pins than the master", (host) => (host.masterPins = 8), /^3 of 8 known here; 3 pinned$/],
    [
      "still fetches some",
      (host) => (host.statuses = ["pinning", "pin_queued"]),
      /1 pinned, 1 pinning, 1 pin_queued/,
    ],
    [
      "misses a pin, and ipfs-cluster has just started",
      (host) => (host.statuses = ["unexpectedly_unpinned"]),
      /^3 of 3 known here; 2 pinned, 1 unexpectedly_unpinned$/,
    ],
    [
      "has more pins than the master",
      (host) => (host.masterPins = 2),
      /^3 known here, more than the 2 of the master: not in sync; 3 pinned$/,
    ],
  ])("needs no attention if the node is only syncing: it %s", async (_name, arrange, sentence) => {
    const host = await storageBoxBefore(null);
    arrange(host);
    const { exit, report, text } = await statusOn(host);
    expect(report.get("pins")).toMatchObject({ state: "syncing", sentence: expect.stringMatching(sentence) });
    expect(text).toMatch(/\nEverything works; this node is still syncing \(exit 0\)\.$/);
    expect(exit).toBe("ok");
  });

  it("says of a direct pin what the answer about that pin says, since the list is wrong", async () => {
    const host = await storageBoxBefore(null);
    host.statuses = ["unexpectedly_unpinned"];
    host.directPins.add("0");
    const { report } = await statusOn(host);
    expect(report.get("pins")).toMatchObject({ state: "ok", sentence: "3 of 3 known here; 3 pinned" });
  });

  it("asks no other machine if INGEST_BIND is an address of one", async () => {
    const host = await storageBoxBefore(null);
    const env = host.files.textOf(LAYOUT.envFile);
    host.files.put(LAYOUT.envFile, `${env}INGEST_BIND=9.9.9.9\n`, 0o600);
    let asked = 0;
    host.http.routes.set("http://9.9.9.9:3601/health", () => {
      asked += 1;
      return { status: 200, body: {} };
    });
    const { report } = await statusOn(host);
    expect(report.get("ingest")).toMatchObject({ state: "attention" });
    expect(report.get("ingest")?.sentence).toContain("INGEST_BIND is 9.9.9.9, which is not an address");
    expect(asked).toBe(0);
  });

  it("says that the master is one of another pool, wherever it names the pool", async () => {
    const host = await storageBoxBefore(null);
    host.pool = "my-pool";
    const { report, exit } = await statusOn(host);
    expect(report.get("member")?.sentence).toMatch(/^of a pool that is not pool, trusts /);
    expect(report.get("name")?.sentence).toContain("manages the names of pool my-pool");
    expect([report.get("member")?.state, report.get("name")?.state, exit]).toEqual([
      "attention",
      "attention",
      "pending",
    ]);
  });

  it.each<[string, (host: FakeStorage) => unknown, RegExp]>([
    [
      "how many pins the master has",
      (host) => (host.masterPins = null),
      /^3 known here \(the master's count is unknown: .*HTTP status 404\); 3 pinned$/,
    ],
    [
      "in which status a pin is",
      (host) => (host.statuses = ["UNREADABLE"]),
      /^3 of 3 known here; 2 pinned, 1 unreadable$/,
    ],
  ])("does not report as ok what it could not check: %s", async (_name, arrange, sentence) => {
    const host = await storageBoxBefore(null);
    arrange(host);
    const { exit, report, text } = await statusOn(host);
    expect(report.get("pins")).toMatchObject({ state: "unknown", sentence: expect.stringMatching(sentence) });
    expect(text).toMatch(/\n1 part could not be checked \(exit 29\)\.$/);
    expect(exit).toBe("unavailable");
  });

  it("a port that was changed in .env and not applied needs a join; the ingest is not down", async () => {
    const host = await storageBoxBefore(null);
    const text = host.files.textOf(LAYOUT.envFile);
    host.files.put(LAYOUT.envFile, `${text.replace(/^INGEST_PORT=.*\n/m, "")}INGEST_PORT=3999\n`, 0o600);
    const { exit, report } = await statusOn(host);
    expect(report.get("ingest")).toMatchObject({
      state: "attention",
      sentence: "[::]:3999 does not answer: the settings were changed, and are not applied yet",
      todo: "fula-node join-as-storage-node",
    });
    expect(exit).toBe("pending");
  });

  it("reports both what could not be checked and what is in progress", async () => {
    const host = await storageBoxBefore(null);
    host.masterPins = 8;
    host.http.routes.set("http://127.0.0.1:5001/api/v0/repo/stat?size-only=true", () => null);
    expect((await statusOn(host)).text).toMatch(
      /\n1 part could not be checked; this node is still syncing \(exit 29\)\.$/,
    );
  });

  it("reports everything else while the master's API does not answer, and the consequence", async () => {
    const host = await storageBoxBefore(null);
    host.names = null;
    const { exit, report, text } = await statusOn(host);
    expect(report.get("name")?.state).toBe("unknown");
    expect(report.get("pins")?.sentence).toMatch(
      /^3 known here \(the master's count is unknown: .*does not respond\); 3 pinned$/,
    );
    expect(report.get("quota gate")?.sentence).toMatch(
      /does not answer, so the ingest refuses every upload$/,
    );
    expect(text).toMatch(/^ *ok +settings /m);
    expect(text).toMatch(/^ *ok +ingest +\[::\]:3601/m);
    expect(exit).toBe("pending");
  });

  it("reports the age of the master's count if it is old", async () => {
    const host = await storageBoxBefore(null);
    host.masterCountAgeMs = 300_000;
    expect((await statusOn(host)).report.get("pins")?.sentence).toBe(
      "3 of 3 known here (the master counted 5 minutes ago); 3 pinned",
    );
  });

  it("does not use an incomplete list of pins", async () => {
    const host = await storageBoxBefore(null);
    host.isListWhole = false;
    expect((await statusOn(host)).report.get("pins")).toMatchObject({ state: "unknown" });
  });

  it("a container that is gone has no log to read: the cure is a join", async () => {
    const host = await storageBoxBefore(null);
    host.docker.boxes.delete(STORAGE_NAMES.ingest);
    const { text } = await statusOn(host);
    expect(text).toMatch(/down +ingest .*does not answer\n +fula-node join-as-storage-node\n/);
    expect(text).not.toContain("docker logs");
  });

  it("where Docker does not run, it is the fault", async () => {
    const host = await storageBoxBefore(null);
    host.stopEngine();
    const { exit, text } = await statusOn(host);
    expect(text).toMatch(/down +Docker +does not run/);
    expect(text).not.toMatch(/missing|pending/);
    expect(text).toMatch(/\n1 part does not work, \d parts? could not be checked.* \(exit 27\)\.$/);
    expect(exit).toBe("unhealthy");
  });

  it("reports what has stopped, and what is unknown because of that", async () => {
    const host = await storageBoxBefore(null);
    for (const name of [STORAGE_NAMES.cluster, STORAGE_NAMES.kubo]) {
      const container = host.docker.boxes.get(name);
      if (container !== undefined) host.docker.boxes.set(name, { ...container, status: "exited", pid: 0 });
    }
    const { exit, report, text } = await statusOn(host);
    expect(text).toMatch(/down +kubo +the container ipfs_host is stopped/);
    expect(text).toMatch(/down +member +the container ipfs_cluster is stopped/);
    expect(["member", "pins", "storage"].map((about) => report.get(about)?.state)).toEqual([
      "unknown",
      "unknown",
      "unknown",
    ]);
    expect(text).toMatch(/ok +settings +nothing else to repair\n/);
    expect(text).toMatch(/\n2 parts do not work, .*\(exit 27\)\.$/);
    expect(exit).toBe("unhealthy");
  });

  it("detects a node without .env by its compose file, and reads settings from its containers", async () => {
    const host = await storageBoxBefore(null);
    host.files.drop(LAYOUT.envFile);
    const { exit, text, report } = await statusOn(host);
    expect(text).toContain("storage node node of pool pool");
    expect(text).toMatch(/attention +settings +not completely installed, .*missing:\s+env-file/);
    expect(report.get("member")?.state).toBe("ok");
    expect(exit).toBe("pending");
  });

  it("shows no secret", async () => {
    const host = await storageBoxBefore(null);
    const { data, text } = await statusOn(host);
    const secret = /CLUSTER_SECRET=(\S+)/.exec(host.files.textOf(LAYOUT.envFile))?.[1] ?? "none";
    expect(secret).toMatch(/^[0-9a-f]{64}$/);
    expect(`${JSON.stringify(data)}${text}`).not.toContain(secret);
  });

  it("is refused without root, like that of a master", async () => {
    const host = await storageBoxBefore(null);
    host.system.facts.uid = 1000;
    await expect(statusOn(host)).rejects.toMatchObject({ exit: "preflight" });
  });

  it("with a base directory reports the node in that directory", async () => {
    const host = await storageBoxBefore(null);
    expect((await statusOn(host, { baseDir: "/opt/fula-storage" })).data["kind"]).toBe("storage-node");
    host.files.put("/srv/node/docker-compose.yml", "# a comment\nname: fula-master\n");
    host.files.put("/srv/node/.env", "CLUSTERNAME=pool\n");
    expect((await statusOn(host, { baseDir: "/srv/node" })).data["kind"]).toBe("master");
  });
});
