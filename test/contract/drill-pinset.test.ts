import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { chmod, chown, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createSnapshotDrill, snapshotDrill } from "../../src/drills/snapshot-drill.ts";
import { createSweepDrill, sweepDrill } from "../../src/drills/sweep-drill.ts";
import { OperatorError } from "../../src/errors.ts";
import { generateSigningKeyPem, parseSigningKey } from "../../src/machine/signing.ts";
import { drillMark } from "../../src/pinset/drill-mark.ts";
import { restoreSnapshot } from "../../src/pinset/restore/restore.ts";
import { takeSnapshot } from "../../src/pinset/snapshot/take.ts";
import { verifySnapshot } from "../../src/pinset/snapshot/verify.ts";
import { sweep } from "../../src/pinset/sweep/sweep.ts";
import { cidOf } from "../support/cids.ts";
import { eventually } from "../support/cluster-real.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import {
  type DrillMaster,
  type KuboDouble,
  startDrillMaster,
  startKuboDouble,
} from "../support/pinset-drills.ts";

const PINS = ["one", "two", "three"].map((text) => ({ cid: cidOf(text), name: text }));
const PARTS = { take: takeSnapshot, verify: verifySnapshot, restore: restoreSnapshot };

let cluster: ClusterDouble;
let kubo: KuboDouble;
let box: DrillMaster;

beforeEach(async () => {
  cluster = await startClusterDouble({ pins: PINS, peers: 3 });
  kubo = await startKuboDouble((cid) => cluster.pins.has(cid));
  box = startDrillMaster({ clusterUrl: cluster.url, kuboUrl: kubo.url });
  box.registered = [1, 2].map((index) => ({
    owner: `12D3KooWPeer${index}`,
    name: `follower-${index}`,
    announced_at: null,
  }));
});
afterEach(async () => {
  await cluster.stop();
  await kubo.stop();
  box.clear();
});

/** Nothing is there but what was there before any drill. */
function expectNothingLeft(): void {
  expect([...cluster.pins.keys()].sort()).toEqual(PINS.map(({ cid }) => cid).sort());
  expect([...kubo.blocks]).toEqual([]);
  expect(box.left()).toEqual([]);
}

/** As after sweeps of long ago: no node is new. */
function knowNodes(): Promise<void> {
  const seen = { first_seen: "2026-01-01T00:00:00Z", last_seen: "2026-01-01T00:00:00Z" };
  const nodes = cluster.peers.map(({ id, name }) => ({ id, name, registered: true, kept: null, ...seen }));
  return writeFile(box.master.layout.knownNodes, JSON.stringify({ nodes }));
}

describe("D6, snapshot", () => {
  test("takes, verifies, refuses what is damaged, restores the pin that is gone, and leaves nothing", async () => {
    const outcome = await box.run(snapshotDrill);
    expect(outcome).toMatchObject({ state: "passed", todo: null });
    expect(outcome.summary).toMatch(
      /^took and verified a snapshot \(4 pins, .*3 damaged copies.*came back in/,
    );
    expect(Object.keys(outcome.evidence).filter((key) => key.startsWith("refused"))).toHaveLength(3);
    expect(outcome.cleaned).toEqual([
      expect.stringMatching(/^fula-drill-snapshot-[0-9a-f]{16}: its pin, its block, its directory$/),
    ]);
    expectNothingLeft();
  });

  test("restores its own pin alone: what somebody unpins meanwhile stays unpinned", async () => {
    const [first] = PINS;
    const drill = createSnapshotDrill({
      ...PARTS,
      verify: (...given) => {
        cluster.pins.delete(first?.cid ?? "");
        return verifySnapshot(...given);
      },
    });
    expect(await box.run(drill)).toMatchObject({ state: "passed" });
    expect(cluster.pins.has(first?.cid ?? "")).toBe(false);
    const posts = cluster.requests.filter((line) => line.startsWith("POST /pins/"));
    expect(new Set(posts).size).toBe(1);
  });

  test("does not touch the operator's snapshots, chain and heartbeat", async () => {
    await box.run(snapshotDrill);
    const { snapshotsDir, snapshotMemory, snapshotHeartbeat, alertLog, restoreDir } = box.master.layout;
    for (const path of [snapshotsDir, snapshotMemory, snapshotHeartbeat, alertLog, restoreDir])
      expect(await box.deps.host.files.stat(path)).toBeNull();
  });

  describe("the directory of the operator's snapshots", () => {
    const kept = "pinset-20260101T000000Z-0001.manifest.json";
    const snapshots = () => box.master.layout.snapshotsDir;
    beforeEach(async () => {
      await mkdir(snapshots(), { mode: 0o700 });
      await writeFile(join(snapshots(), kept), "{}");
    });

    test("is where it writes, in a directory of its own, so that its disk is tried", async () => {
      const places: string[] = [];
      const openSnapshots: typeof box.deps.openSnapshots = async (directory) => {
        places.push(directory);
        return box.deps.openSnapshots(directory);
      };
      expect(await box.run(snapshotDrill, { ...box.deps, openSnapshots })).toMatchObject({ state: "passed" });
      const own = places.filter((place) => place !== snapshots());
      expect(own.length).toBeGreaterThan(0);
      for (const place of own) expect(place).toMatch(/\/snapshots\/fula-drill-snapshot-[0-9a-f]{16}/);
      expect(await readdir(snapshots())).toEqual([kept]);
      expectNothingLeft();
    });

    test("fails it if nothing can be written there, and nothing is pinned", async () => {
      const { host } = box.deps;
      const makeDirectory: typeof host.files.makeDirectory = (path, options) =>
        path.startsWith(`${snapshots()}/`)
          ? Promise.reject(new OperatorError({ exit: "unavailable", what: "the file system is read-only" }))
          : host.files.makeDirectory(path, options);
      const deps = { ...box.deps, host: { ...host, files: { ...host.files, makeDirectory } } };
      await expect(box.run(snapshotDrill, deps)).rejects.toThrow("read-only");
      expect(cluster.requests.filter((line) => line.startsWith("POST /pins/"))).toEqual([]);
    });

    test("must have the space for the copies", async () => {
      const { host } = box.deps;
      const space = (path: string) =>
        Promise.resolve({
          freeBytes: path === snapshots() ? 1000 : 1e12,
          totalBytes: 1e12,
          freeInodes: 1,
          totalInodes: 1,
        });
      const deps = { ...box.deps, host: { ...host, files: { ...host.files, space } } };
      await expect(box.run(snapshotDrill, deps)).rejects.toThrow(/\/snapshots has 1.0 kB free/);
    });

    test("what a killed drill left there is removed", async () => {
      const left = join(snapshots(), "fula-drill-snapshot-0123456789abcdef");
      await mkdir(left, { mode: 0o700 });
      await writeFile(join(left, "pinset-20260101T000000Z-0002.ndjson.gz"), "half");
      const context = { master: box.master, report: () => {} };
      expect(await snapshotDrill.cleanUp(box.deps, context)).toEqual([
        "fula-drill-snapshot-0123456789abcdef: its directory",
      ]);
      expect(await readdir(snapshots())).toEqual([kept]);
    });
  });

  test.each([
    [
      "a verification that accepts everything",
      createSnapshotDrill({
        ...PARTS,
        verify: async (file, keys, deps) => {
          const good = await verifySnapshot(file, keys, deps).catch(() => null);
          return (
            good ?? {
              file,
              manifest: null,
              count: 4,
              sizeBytes: 1,
              sha256: "",
              keyId: "",
              order: { state: "first", why: null },
            }
          );
        },
      }),
      "a damaged snapshot was accepted as genuine (one byte changed)",
    ],
    [
      "a restore that does nothing, and says that it is well",
      createSnapshotDrill({
        ...PARTS,
        restore: async (options) => ({
          ...(await restoreSnapshot({ ...options, dryRun: true })),
          exit: "ok",
          run: { pinned: 1, failed: 0, elapsedMs: 1, concurrency: 1, ratePerSecond: 1 },
        }),
      }),
      "the restore ended well, but the pin is not in the pinset again",
    ],
    [
      "a restore that finds nothing to do",
      createSnapshotDrill({
        ...PARTS,
        restore: (options) => restoreSnapshot({ ...options, dryRun: true }),
      }),
      "the pin was not restored",
    ],
    [
      "a snapshot that lacks a pin",
      createSnapshotDrill({
        ...PARTS,
        take: (options) =>
          takeSnapshot({
            ...options,
            cluster: {
              ...options.cluster,
              list: (name, takeLines) =>
                options.cluster.list(name, (block) => {
                  const kept = block
                    .toString()
                    .split("\n")
                    .filter((line) => !line.includes("fula-drill-"));
                  return takeLines(Buffer.from(kept.join("\n")));
                }),
            },
          }),
      }),
      "the snapshot does not have the pin",
    ],
  ])("fails with %s", async (_, drill, words) => {
    const outcome = await box.run(drill);
    expect(outcome.state).toBe("failed");
    expect(outcome.summary).toContain(words);
    expect(outcome.todo).not.toBeNull();
    expectNothingLeft();
  });

  test("fails if the pin comes back with other options, and its own pin expires in an hour", async () => {
    const endsMs: number[] = [];
    const drill = createSnapshotDrill({
      ...PARTS,
      restore: async (options) => {
        const result = await restoreSnapshot(options);
        for (const pin of cluster.pins.values()) {
          if (!String(pin["name"]).startsWith("fula-drill-")) continue;
          endsMs.push(Date.parse(String(pin["expire_at"])) - box.deps.host.clock.now().getTime());
          cluster.pins.set(pin.cid, { ...pin, replication_factor_min: 2, replication_factor_max: 3 });
        }
        return result;
      },
    });
    expect(await box.run(drill)).toMatchObject({
      state: "failed",
      summary: "the pin came back with other options than it had",
    });
    expect(endsMs).toHaveLength(1);
    expect(endsMs[0]).toBeGreaterThan(3_500_000);
    expect(endsMs[0]).toBeLessThanOrEqual(3_600_000);
    expectNothingLeft();
  });

  test("fails if the public key that is given away is another one", async () => {
    const other = parseSigningKey(generateSigningKeyPem(), "other").publicPem;
    await writeFile(box.master.layout.verifyingKey, other);
    const outcome = await box.run(snapshotDrill);
    expect(outcome).toMatchObject({ state: "failed" });
    expect(outcome.summary).toMatch(
      /the snapshot that was just taken was refused: The signature does not match/,
    );
    expect(outcome.todo).toContain(box.master.layout.verifyingKey);
    expectNothingLeft();
  });

  test("does not begin without space, and says how much it needs", async () => {
    const { files } = box.deps.host;
    const space = () => Promise.resolve({ freeBytes: 1000, totalBytes: 2000, freeInodes: 1, totalInodes: 1 });
    const deps = { ...box.deps, host: { ...box.deps.host, files: { ...files, space } } };
    await expect(box.run(snapshotDrill, deps)).rejects.toThrow(
      /has 1.0 kB free, and the drill needs 256.0 MB/,
    );
    expectNothingLeft();
  });

  test("a list that breaks off fails it, and the clean-up too: it is not taken for an empty one", async () => {
    cluster.faults.allocations = { kind: "cut", afterLines: 1, how: "fin" };
    await expect(box.run(snapshotDrill)).rejects.toThrow(/is not complete/);
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    await expect(snapshotDrill.cleanUp(box.deps, context)).rejects.toThrow(/is not complete/);
  });
});

describe("D7, sweep", () => {
  test("the pool is clean, a pin with one copy is found and alarms, and is healthy with two", async () => {
    const outcome = await box.run(sweepDrill);
    expect(outcome).toMatchObject({ state: "passed" });
    expect(outcome.summary).toMatch(
      /^the pool is clean \(3 pins\); a pin with 1 of 2 copies was found in .*, the alarm was written, and .* later it had 2$/,
    );
    expectNothingLeft();
    const { sweepHeartbeat, alertLog, knownNodes } = box.master.layout;
    for (const path of [sweepHeartbeat, alertLog, knownNodes])
      expect(await box.deps.host.files.stat(path)).toBeNull();
  });

  test("a pin of the pool with too few copies fails it, without an alarm and without a recover", async () => {
    const [pin] = PINS;
    await knowNodes();
    cluster.peers[1]?.statuses.set(pin?.cid ?? "", "pin_error");
    box.settings["ALERT_COMMAND"] = "/bin/false";
    const outcome = await box.run(sweepDrill, { ...box.deps, rehearsesAlarm: true });
    expect(outcome).toMatchObject({
      state: "failed",
      todo: "see the pins and their nodes: fula-node sweep --json",
    });
    expect(outcome.summary).toMatch(/^1 of 3 pins have too few copies: /);
    expect(cluster.requests.filter((line) => line.endsWith("/recover"))).toEqual([]);
    expect(await box.deps.host.files.stat(box.master.layout.alertLog)).toBeNull();
    expectNothingLeft();
  });

  test.each([
    ["of another master of the pool is set apart", "another", "passed"],
    ["of nobody fails it, and is not waited for", "nobody", "failed"],
  ])("the pin of a drill %s", async (_, id, state) => {
    await knowNodes();
    const cid = cidOf("another drill");
    const { host } = box.deps;
    const seconds = new Date(host.clock.now().getTime() + 600_000).toISOString().slice(0, 19);
    cluster.pins.set(cid, {
      cid,
      name: "fula-drill-sweep-0123456789abcdef",
      metadata: { "fula-node-drill": drillMark(id, cid) },
      expire_at: `${seconds}Z`,
      replication_factor_min: 1,
      replication_factor_max: 1,
      allocations: ["12D3KooWPeer1"],
    });
    const query = (target: never, sql: string, given: never): Promise<never> =>
      sql.includes("public.masters")
        ? Promise.resolve([{ id: "another" }] as never)
        : (host.postgres.query(target, sql, given) as Promise<never>);
    const startMs = host.clock.monotonicMs();
    const outcome = await box.run(sweepDrill, {
      ...box.deps,
      host: { ...host, postgres: { query } } as unknown as typeof host,
    });
    expect(outcome.state).toBe(state);
    expect(host.clock.monotonicMs() - startMs).toBeLessThan(20_000);
    if (state === "passed") expect(outcome.evidence["the pool"]).toContain("1 pin of a drill set apart");
    else expect(outcome.summary).toContain("1 of 4 pins have too few copies");
    expect(cluster.pins.has(cid)).toBe(true);
  });

  test("the list of nodes is read, and stays as it is", async () => {
    await knowNodes();
    const before = await readFile(box.master.layout.knownNodes, "utf8");
    expect(await box.run(sweepDrill)).toMatchObject({ state: "passed" });
    expect(await readFile(box.master.layout.knownNodes, "utf8")).toBe(before);
  });

  test("with too few nodes for the pins it says what to add; without pins the rest is skipped", async () => {
    box.registered = [];
    cluster.peers.splice(1);
    const lacking = await box.run(sweepDrill);
    expect(lacking).toMatchObject({ state: "failed" });
    expect(lacking.todo).toBe("add storage nodes, or lower REPL_MIN (2): the pool has 1 node");
    box.settings["REPL_MIN"] = "1";
    const alone = await box.run(sweepDrill);
    expect(alone).toMatchObject({ state: "skipped" });
    expect(alone.summary).toContain(
      "the pool is clean (3 pins); the alarm was not rehearsed: the pool has 1 node",
    );
    cluster.pins.clear();
    expect((await box.run(sweepDrill)).summary).toContain(
      "the pool is clean (0 pins); the alarm was not rehearsed",
    );
  });

  test("with REPL_MIN=1, a copy is missing where the drill asks for two", async () => {
    box.settings["REPL_MIN"] = "1";
    expect(await box.run(sweepDrill)).toMatchObject({ state: "passed" });
  });

  test("a node that is away makes it fail, not skip", async () => {
    cluster.pins.clear();
    for (const peer of cluster.peers.slice(1)) peer.present = false;
    const outcome = await box.run(sweepDrill);
    expect(outcome).toMatchObject({
      state: "failed",
      summary: "1 node of 3 can be reached, and the drill needs 2",
    });
  });

  test("ALERT_COMMAND is run only if asked for, with an alarm that says that it is a drill", async () => {
    const command = "/usr/local/sbin/fula-drill-test-alarm";
    const heard = join(box.base, "heard");
    await writeFile(command, `#!/bin/sh\ncat >>${heard}\n`);
    await chmod(command, 0o755);
    try {
      box.settings["ALERT_COMMAND"] = command;
      expect(await box.run(sweepDrill)).toMatchObject({ state: "passed" });
      expect(await box.deps.host.files.stat(heard)).toBeNull();
      const outcome = await box.run(sweepDrill, { ...box.deps, rehearsesAlarm: true });
      expect(outcome.summary).toContain("the alarm was written and ALERT_COMMAND was run");
      const [line, ...more] = (await readFile(heard, "utf8")).trim().split("\n");
      expect(more).toEqual([]);
      const alarm = JSON.parse(line ?? "") as { kind: string; summary: string };
      expect(alarm).toMatchObject({ kind: "drill", counts: { pins: 1, below: 1 } });
      expect(alarm.summary).toMatch(/^This is a drill of fula-node: there is nothing to do\. 1 pin/);
      await writeFile(command, "#!/bin/sh\necho no network; exit 3\n");
      const failed = await box.run(sweepDrill, { ...box.deps, rehearsesAlarm: true });
      expect(failed).toMatchObject({ state: "failed", todo: "repair ALERT_COMMAND" });
      expect(failed.summary).toContain("ALERT_COMMAND failed: it ended with exit code 3: no network");
      await chmod(command, 0o644);
      const unusable = await box.run(sweepDrill);
      expect(unusable.summary).toContain("is not executable");
    } finally {
      await box.deps.host.files.remove(command);
    }
    expectNothingLeft();
  });

  test.each([
    [
      "a sweep with a floor of 0",
      createSweepDrill((options) => sweep({ ...options, floor: 0 })),
      "the sweep did not see that the drill's pin has 1 of 2 copies",
    ],
    [
      "a sweep whose alarm goes nowhere",
      createSweepDrill((options) =>
        sweep({
          ...options,
          channels: { ...options.channels, log: { path: "/dev/null", append: async () => {} } },
        }),
      ),
      "wrote no alarm",
    ],
  ])("fails with %s", async (_, drill, words) => {
    const outcome = await box.run(drill);
    expect(outcome.state).toBe("failed");
    expect(outcome.summary).toContain(words);
    expectNothingLeft();
  });

  test("fails if the alarm log can't be written", async () => {
    const openChannels: typeof box.deps.openChannels = async (given) => {
      const channels = await box.deps.openChannels(given);
      return { ...channels, log: { path: given.log, append: () => Promise.reject(new Error("disk full")) } };
    };
    await expect(box.run(sweepDrill, { ...box.deps, openChannels })).rejects.toThrow("disk full");
  });

  test("fails if the sweep does not see that all is well again", async () => {
    let sweeps = 0;
    const drill = createSweepDrill((options) => {
      sweeps += 1;
      return sweep({ ...options, floor: sweeps > 2 ? 4 : options.floor });
    });
    const { host } = box.deps;
    const clock = { ...host.clock, monotonicMs: () => host.clock.monotonicMs() * 40 };
    const outcome = await box.run(drill, { ...box.deps, host: { ...host, clock } });
    expect(outcome).toMatchObject({ state: "failed" });
    expect(outcome.summary).toMatch(
      /^the drill's pin has 2 copies again, but the sweep says: 1 pin; 0 healthy; 1 under/,
    );
    expectNothingLeft();
  });

  test("a sweep that runs now is waited for", async () => {
    let refusals = 3;
    const takeLock: typeof box.deps.takeLock = (...given) => {
      refusals -= 1;
      if (refusals < 0) return box.deps.takeLock(...given);
      return Promise.reject(new OperatorError({ exit: "locked", what: "It is locked." }));
    };
    expect(await box.run(sweepDrill, { ...box.deps, takeLock })).toMatchObject({ state: "passed" });
    expect(box.lines).toContain("waiting until the sweep that runs now has ended");
  });

  test.each([
    ["D7", "the sweeps of other masters begin", "2026-11-27T06:29:45", "2026-11-27T06:30:30", true],
    ["D7", "cron takes a snapshot", "2026-11-27T11:59:45", "2026-11-27T12:00:30", false],
    ["D6", "cron takes a snapshot", "2026-11-27T12:00:05", "2026-11-27T12:00:30", false],
    ["D7", "only its own sweep begins", "2026-11-27T06:29:45", "2026-11-27T06:29:45", false],
  ])("%s pins nothing while %s", async (id, _, from, earliest, hasOthers) => {
    if (hasOthers) box.settings["MASTER_CLUSTER_PEERIDS"] = cluster.peers[1]?.id ?? "";
    const { host } = box.deps;
    let nowMs = new Date(from).getTime();
    const clock = {
      ...host.clock,
      now: () => new Date(nowMs),
      wait: (ms: number) => {
        nowMs += ms;
        return Promise.resolve();
      },
    };
    const pinnedAt: number[] = [];
    cluster.gate = (method) => {
      if (method === "POST") pinnedAt.push(nowMs);
      return Promise.resolve("apply");
    };
    const deps = { ...box.deps, host: { ...host, clock } };
    const outcome = id === "D6" ? await box.run(snapshotDrill, deps) : await box.run(sweepDrill, deps);
    expect(outcome).toMatchObject({ state: "passed" });
    expect(pinnedAt).toHaveLength(2);
    const sinceMs = (pinnedAt[0] ?? 0) - new Date(earliest).getTime();
    expect(sinceMs).toBeGreaterThanOrEqual(0);
    expect(sinceMs).toBeLessThan(1_000);
  });
});

describe("what a drill may remove", () => {
  const cleanUp = (): Promise<readonly string[]> => {
    const report = (line: string) => void box.lines.push(line);
    return sweepDrill.cleanUp(box.deps, { master: box.master, report });
  };
  const name = "fula-drill-sweep-0123456789abcdef";
  const markOf = (cid: string, id = box.settings["MASTER_ID"]): string => drillMark(id ?? "", cid);

  test("a pin with its mark, also if its directory is gone", async () => {
    const cid = cidOf("left");
    cluster.pins.set(cid, { cid, name, metadata: { "fula-node-drill": markOf(cid) } });
    expect(await cleanUp()).toEqual([`${name}: its pin`]);
    expectNothingLeft();
  });

  test("nothing that only has the name, the mark of another content, or that of another master", async () => {
    const others = [
      { cid: cidOf("named"), name },
      { cid: cidOf("copied"), name, metadata: { "fula-node-drill": markOf(cidOf("left")) } },
      { cid: cidOf("master"), name, metadata: { "fula-node-drill": markOf(cidOf("master"), "another") } },
      { cid: cidOf("renamed"), name: "mine", metadata: { "fula-node-drill": markOf(cidOf("renamed")) } },
    ];
    for (const pin of others) cluster.pins.set(pin.cid, pin);
    expect(await cleanUp()).toEqual([]);
    for (const pin of others) expect(cluster.pins.has(pin.cid)).toBe(true);
  });

  test("a pin whose request came only after the clean-up is found by the next one", async () => {
    cluster.gate = (method) => Promise.resolve(method === "POST" ? 3_000 : "apply");
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    await expect(sweepDrill.run(box.deps, context)).rejects.toThrow("did not answer");
    expect(await cleanUp()).toEqual([expect.stringMatching(/: its block, its directory$/)]);
    await eventually("the pin came", () => Promise.resolve(cluster.pins.size === PINS.length + 1));
    expect(await cleanUp()).toEqual([expect.stringMatching(/: its pin$/)]);
    expectNothingLeft();
  });

  test("of the directory only what is large, as long as kubo does not answer, and it is named", async () => {
    const drill = createSnapshotDrill({
      ...PARTS,
      verify: () => {
        kubo.answers = false;
        return Promise.reject(new Error("killed"));
      },
    });
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    await expect(drill.run(box.deps, context)).rejects.toThrow("killed");
    const directory = join(box.base, box.left()[0] ?? "");
    expect(await readdir(directory)).toContain("snapshots");
    await expect(snapshotDrill.cleanUp(box.deps, context)).rejects.toThrow(
      `kubo does not answer, so the block of a drill may still be there; ${directory} remembers it, and goes with the next run.`,
    );
    expect(await readdir(directory)).toEqual(["content.json"]);
    kubo.answers = true;
    expect(await cleanUp()).toEqual([expect.stringMatching(/its block, its directory$/)]);
    expectNothingLeft();
  });

  test("a kubo that does not answer at the start fails a drill, in a sentence without a full stop", async () => {
    const place = {
      ...box.deps,
      openKubo: () => box.deps.openKubo("http://127.0.0.1:1", { connections: 1, timeoutMs: 500 }),
    };
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    const outcome = await snapshotDrill.run(place, context);
    expect(outcome).toMatchObject({ state: "failed" });
    expect(outcome.summary).toMatch(/^kubo did not store a block: .*[^.]$/);
    expect(outcome.todo).toContain("fula-node status");
    await cleanUp();
    expectNothingLeft();
  });

  test("nor a temporary directory that is not there: the drill says to make it", async () => {
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    await rm(join(box.base, "tmp"), { recursive: true });
    const thrown = await snapshotDrill.run(box.deps, context).catch((error: unknown) => error);
    expect(thrown).toMatchObject({
      remedy: `Make that directory (mkdir -p ${join(box.base, "tmp")}), or set TMPDIR to another directory, then run this again.`,
    });
    await cleanUp();
    expectNothingLeft();
  });

  test.each(["{", "", "null", '{"cid":"x"}'])("a directory whose note is damaged: %j", async (text) => {
    const directory = join(box.base, name);
    await mkdir(directory, { mode: 0o700 });
    await writeFile(join(directory, "content.json"), text);
    expect(await cleanUp()).toEqual([
      `${name}: its directory (its content.json is damaged, so a block of a few bytes may stay in kubo)`,
    ]);
    expectNothingLeft();
  });

  test("with a damaged note, the pin and the block too, by the mark", async () => {
    const cid = cidOf("left");
    const directory = join(box.base, name);
    await mkdir(directory, { mode: 0o700 });
    await mkdir(join(directory, "content.json"));
    cluster.pins.set(cid, { cid, name, metadata: { "fula-node-drill": markOf(cid) } });
    kubo.blocks.add(cid);
    expect(await cleanUp()).toEqual([`${name}: its pin, its block, its directory`]);
    expectNothingLeft();
  });

  test("nothing of that name that is not a directory of root's: it is named, and does not block", async () => {
    const elsewhere = join(box.base, "elsewhere");
    const note = JSON.stringify({ cid: cidOf("one") });
    const names = ["1", "2", "3"].map((digit) => `fula-drill-sweep-${digit.repeat(16)}`);
    const [link = "", other = "", file = ""] = names.map((one) => join(box.base, one));
    await mkdir(elsewhere);
    await symlink(elsewhere, link);
    await mkdir(other);
    await writeFile(join(other, "content.json"), note);
    await chown(other, 1234, 1234);
    await writeFile(file, note);
    expect(await cleanUp()).toEqual([]);
    expect(box.left()).toEqual(names);
    expect(box.lines).toEqual(
      [link, other, file].map((path) => expect.stringContaining(`left ${path} alone`)),
    );
    expect(await box.run(sweepDrill)).toMatchObject({ state: "passed" });
  });

  test("not the directory, as long as kubo does not answer", async () => {
    const drill = createSweepDrill(() => Promise.reject(new Error("killed")));
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    await expect(drill.run(box.deps, context)).rejects.toThrow("killed");
    kubo.answers = false;
    await expect(cleanUp()).rejects.toThrow(
      "kubo does not answer, so the block of a drill may still be there",
    );
    expect(box.left()).toHaveLength(1);
    kubo.answers = true;
    expect(await cleanUp()).toEqual([expect.stringMatching(/: its block, its directory$/)]);
    expectNothingLeft();
  });
});
