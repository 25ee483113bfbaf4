import { beforeAll, describe, expect, it } from "vitest";
import { drill, type DrillFlags } from "../../../src/commands/drill.ts";
import { OperatorError } from "../../../src/errors.ts";
import type { AlarmChannels } from "../../../src/pinset/alerts.ts";
import { CATALOGUE } from "../../../src/drills/catalogue.ts";
import { clearLeftovers, TRACES } from "../../../src/drills/run/clear-leftovers.ts";
import { CRON_FILES, DRILL_LABEL } from "../../../src/settings/layout.ts";
import { serialiseRotation } from "../../../src/settings/rotation.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import type { World } from "../../../src/world.ts";
import { join, LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

let whole: FakeStorage;
beforeAll(async () => {
  whole = new FakeStorage();
  await join(whole);
  whole.revive();
});

/** A joined master, and what its database has of it among the removed ones. */
function masterThat(wasRemoved: readonly Record<string, unknown>[]): FakeStorage {
  const host = whole.copy();
  const { onQuery } = host.postgres;
  host.postgres.onQuery = (target, sql, values) => {
    if (sql.includes("removed_masters")) return wasRemoved;
    if (/ AS name FROM pg_database|DROP DATABASE/.test(sql)) return onQuery(target, sql, values);
    // Its role may make no scratch database.
    if (sql.startsWith("CREATE DATABASE"))
      throw Object.assign(new Error("permission denied"), { severity: "ERROR", code: "42501" });
    return /fula_drill|clock_timestamp|set_config|pg_get_viewdef|pg_database/.test(sql)
      ? []
      : onQuery(target, sql, values);
  };
  return host;
}

const FLAGS: DrillFlags = {
  list: false,
  tap: false,
  verbose: false,
  schedule: false,
  unschedule: false,
  scheduled: false,
};

/** Runs `drill` on a joined master, and gives what it printed, logged, sent and wrote. */
async function drillOn(
  host: FakeStorage,
  flags: Partial<DrillFlags> = {},
  {
    names = ["D2"],
    ...parts
  }: Partial<World> & { readonly names?: readonly string[]; readonly command?: string | null } = {},
) {
  const results: Result[] = [];
  const locks: string[] = [];
  const logged: string[] = [];
  const rotated: string[] = [];
  const world = worldOf(host, {
    stop: new AbortController().signal,
    takeLock: async (name) => {
      locks.push(name);
      return { release: async () => void locks.push(`released ${name}`) };
    },
    rotateLog: async (path) => void rotated.push(path),
    openChannels: async ({ log }): Promise<AlarmChannels> => ({
      log: { path: log, append: async (lines) => void logged.push(...lines) },
      command:
        parts.command === undefined ? null : { path: "/on-alarm", run: async () => parts.command ?? null },
      source: { host: "box", pool: "pool" },
    }),
    ...parts,
  });
  const reporter = { ...world.reporter, result: (result: Result) => void results.push(result) };
  const before = host.writes.length;
  const exit = await drill(names, { ...FLAGS, ...flags }, { ...world, reporter }).catch((thrown: unknown) => {
    if (thrown instanceof OperatorError) return thrown;
    throw thrown;
  });
  const [result] = results;
  return {
    exit,
    result,
    locks,
    logged,
    rotated,
    writes: host.writes.slice(before),
    printed: host.printed.join("\n"),
  };
}

const broken = (): FakeStorage => {
  const host = masterThat([]);
  host.migrations.leftBehind = {
    ...host.migrations.leftBehind,
    invalidIndexes: [{ name: "idx_x", table: "table_x" }],
  };
  return host;
};

describe("drill", () => {
  it("writes nothing but its record, under the lock of the node, and says how it ended", async () => {
    const host = masterThat([]);
    const { exit, result, locks, logged, writes, printed } = await drillOn(host);
    expect(exit).toBe("ok");
    expect(locks).toEqual([LAYOUT.baseDir, `released ${LAYOUT.baseDir}`]);
    expect(writes).toEqual([`files.writeAtomic ${LAYOUT.drillRecord} 600`]);
    expect(logged).toEqual([]);
    expect(printed).toContain("passed   D2   migrations: ");
    expect(result?.data).toMatchObject({
      counts: { passed: 1, failed: 0 },
      exit: "ok",
      exitCode: 0,
      stopped: null,
    });
    expect(result?.lines).toEqual([expect.stringMatching(/^The drill passed in .* \(exit 0\)\.$/)]);
  });

  it("ends with 27 for a drill that failed, with what to do; only cron's run raises the alarm", async () => {
    const byHand = await drillOn(broken());
    expect(byHand).toMatchObject({ exit: "unhealthy", logged: [], rotated: [] });
    expect(byHand.printed).toMatch(/failed {3}D2 {3}migrations: .*idx_x on table_x/);
    expect(byHand.printed).toContain("Do: find out who changed it");
    const byCron = await drillOn(broken(), { scheduled: true }, { names: [] });
    expect(byCron.exit).toBe("unhealthy");
    expect(byCron.rotated).toEqual([LAYOUT.drillLog]);
    expect(byCron.logged).toContainEqual(
      expect.stringMatching(/^\S+Z drill-failed drill=D2 title=migrations$/),
    );
    expect(byCron.result?.data).toMatchObject({ alarm: { kind: "drill-failed", command: "none" } });
  });

  it("an ALERT_COMMAND that fails is said beside what the drills found", async () => {
    const { exit, printed } = await drillOn(
      broken(),
      { scheduled: true },
      { names: [], command: "exit code 1" },
    );
    expect(exit).toBe("unhealthy");
    expect(printed).toContain("ALERT_COMMAND did not take the alarm (drill-failed): exit code 1.");
  });

  it("a record that can't be written fails a run that passed, and is a warning beside a drill that failed", async () => {
    const full = (host: FakeStorage): FakeStorage => {
      const { files } = host;
      const write = files.writeAtomic.bind(files);
      files.writeAtomic = async (path, ...rest) => {
        if (path === LAYOUT.drillRecord)
          throw new OperatorError({
            exit: "unavailable",
            what: "Cannot write it.",
            why: "The disk is full.",
          });
        return write(path, ...rest);
      };
      return host;
    };
    const passed = await drillOn(full(masterThat([])));
    expect(passed.result?.data).toMatchObject({ counts: { passed: 1 } });
    expect(passed.exit).toMatchObject({ what: "Cannot write it.", why: "The disk is full." });
    const failed = await drillOn(full(broken()));
    expect(failed.exit).toBe("unhealthy");
    expect(failed.printed).toContain("Cannot write it. The disk is full.");
  });

  it("a signal before the first drill ends with 26, and no drill runs", async () => {
    const stop = new AbortController();
    stop.abort();
    const { exit, result, writes } = await drillOn(masterThat([]), {}, { stop: stop.signal });
    expect({ exit, writes }).toEqual({ exit: "interrupted", writes: [] });
    expect(result?.data).toMatchObject({ drills: [], stopped: { drill: null }, exitCode: 26 });
  });

  it.each([
    [
      "while a change of a secret is not finished",
      (host: FakeStorage) =>
        host.files.put(
          LAYOUT.rotation,
          serialiseRotation({ secret: "jwt-secret", previous: "p".repeat(20), next: "n".repeat(20) }),
          0o600,
        ),
      "preflight",
      "is not finished",
    ],
    ["without root", (host: FakeStorage) => (host.system.uid = () => 1000), "preflight", "needs root"],
    [
      "on a machine that is no master",
      (host: FakeStorage) => {
        host.files.drop(LAYOUT.envFile);
        host.files.put("/opt/fula-storage/.env", "CLUSTERNAME=pool\n", 0o600);
      },
      "settings",
      "no master is installed",
    ],
  ])("is refused %s, and nothing is written", async (_, change, exitName, words) => {
    const host = masterThat([]);
    change(host);
    const { exit, writes, locks, result } = await drillOn(host);
    expect(exit).toMatchObject({ exit: exitName, what: expect.stringContaining(words) as string });
    expect({ writes, result }).toEqual({ writes: [], result: undefined });
    expect(locks.length % 2).toBe(0);
  });

  it("is refused in the directory of a storage node, and TAP bails out", async () => {
    const host = masterThat([]);
    const text =
      "CLUSTERNAME=pool\nCLUSTER_PEERNAME=n1\nSTORAGE_API_URL=https://m.example\nKUBO_STORAGE_MAX=10GB\n";
    host.files.put("/opt/fula-storage/.env", text, 0o600);
    const { exit, writes, printed } = await drillOn(host, { baseDir: "/opt/fula-storage", tap: true });
    const what = "/opt/fula-storage is the directory of a storage node, so no master is installed there.";
    expect(exit).toMatchObject({ exit: "settings", what });
    expect(writes).toEqual([]);
    expect(printed).toContain(`TAP version 14\nBail out! ${what}`);
  });

  it("is refused on a master that was removed", async () => {
    const removedAt = "2026-01-01T00:00:00Z";
    const host = masterThat([{ id: "x", name: "box", peerId: null, removedBy: "other", removedAt }]);
    const { exit, writes } = await drillOn(host);
    expect(exit).toMatchObject({ exit: "foreign", what: expect.stringContaining("was removed") as string });
    expect(writes).toEqual([]);
  });

  it("is refused while another run has the lock", async () => {
    const locked = new OperatorError({ exit: "locked", what: "Another run holds the lock." });
    const { exit, writes } = await drillOn(masterThat([]), {}, { takeLock: () => Promise.reject(locked) });
    expect({ exit, writes }).toEqual({ exit: locked, writes: [] });
  });

  it("waits for the lock up to an hour if cron started it, since its next turn is in a week", async () => {
    const locked = new OperatorError({ exit: "locked", what: "Another run holds the lock." });
    const scheduled = { scheduled: true };
    let asked = 0;
    const freeAfter = (times: number) => ({
      names: [],
      takeLock: () => {
        asked += 1;
        return asked > times ? Promise.resolve({ release: () => Promise.resolve() }) : Promise.reject(locked);
      },
    });
    expect((await drillOn(masterThat([]), scheduled, freeAfter(300))).exit).not.toBe(locked);
    expect(asked).toBe(301);
    asked = 0;
    expect((await drillOn(masterThat([]), scheduled, freeAfter(1_000))).exit).toBe(locked);
    expect(asked).toBe(361);
    const other = new OperatorError({ exit: "unavailable", what: "No lock can be had." });
    const { exit } = await drillOn(masterThat([]), scheduled, {
      names: [],
      takeLock: () => Promise.reject(other),
    });
    expect(exit).toBe(other);
  });
});

describe("what a killed drill left", () => {
  it("is removed by every run, whatever it is named", async () => {
    const host = masterThat([]);
    host.scratches = ["fula_drill_0123456789abcdef01234567"];
    const { result, printed } = await drillOn(host, {}, { names: ["D1"] });
    expect(result?.data["leftovers"]).toEqual(["the scratch database fula_drill_0123456789abcdef01234567"]);
    expect(host.scratches).toEqual([]);
    expect(printed).toContain("Removed what an earlier run had left: the scratch database");
  });

  it("is left to the drills that run, and Docker is asked for more only if it has a mark", async () => {
    const host = masterThat([]);
    const given = {
      deps: worldOf(host),
      master: { layout: LAYOUT, values: (key: string) => (key.startsWith("POSTGRES") ? "x" : undefined) },
      stop: new AbortController().signal,
    };
    const asked: string[] = [];
    const throwaway = {
      removeMarked: async (mark: string) => {
        asked.push(mark);
        return ["the container copy"];
      },
    };
    const clear = (...running: readonly string[]) => clearLeftovers(running, given, throwaway);
    expect(await clear("D3")).toEqual({ removed: [], warnings: [] });
    host.docker.putContainer("copy", { labels: { [DRILL_LABEL]: "D9" } });
    expect(await clear("D3", "D9")).toEqual({ removed: [], warnings: [] });
    expect(asked).toEqual([]);
    expect(await clear("D3")).toEqual({ removed: ["the container copy"], warnings: [] });
    expect(asked).toEqual([DRILL_LABEL]);
  });

  it("is a warning if it can't be looked for and no drill that runs needs it", async () => {
    const host = masterThat([]);
    host.docker.containers = () =>
      Promise.reject(new OperatorError({ exit: "unavailable", what: "Docker does not answer." }));
    const { exit, printed } = await drillOn(host);
    expect(exit).toBe("ok");
    expect(printed).toContain(
      "Not looked for containers and volumes that an earlier drill may have left: Docker does not answer.",
    );
  });

  it("is known for each drill that makes something", () => {
    const makers = TRACES.flatMap((trace) => trace.makers).toSorted();
    expect(makers).toEqual(
      CATALOGUE.map(({ id }) => id)
        .filter((id) => id !== "D1")
        .toSorted(),
    );
  });
});

describe("drill --schedule", () => {
  const path = CRON_FILES.drill;
  const none = { names: [] };

  it("writes the entry once, --unschedule removes it once, and the journal has both", async () => {
    const host = masterThat([]);
    const first = await drillOn(host, { schedule: true }, none);
    expect(first).toMatchObject({ exit: "ok", result: { data: { isScheduled: true, changed: true } } });
    expect(first.writes).toContain(`files.writeAtomic ${path} 644`);
    expect(host.files.textOf(path)).toContain(" drill --scheduled --base-dir /opt/fula-master >> ");
    const again = await drillOn(host, { schedule: true }, none);
    expect(again).toMatchObject({ exit: "ok", writes: [], result: { data: { changed: false } } });
    const ended = await drillOn(host, { unschedule: true }, none);
    expect(ended).toMatchObject({ exit: "ok", result: { data: { isScheduled: false, changed: true } } });
    expect(host.files.tree.has(path)).toBe(false);
    expect(await drillOn(host, { unschedule: true }, none)).toMatchObject({ exit: "ok", writes: [] });
    const journal = host.files.textOf(LAYOUT.journal);
    expect(journal).toMatch(/"kind":"write-cron-entry".*fula-drill/);
    expect(journal).toMatch(
      /"kind":"unschedule-drills".*fula-drill.*"phase":"done"|"phase":"done".*"kind":"unschedule-drills"/,
    );
  });

  it.each(["schedule", "unschedule"] as const)(
    "leaves a file of somebody else's alone: --%s",
    async (flag) => {
      const host = masterThat([]);
      host.files.put(path, "# mine\n");
      const { exit, writes } = await drillOn(host, { [flag]: true }, none);
      expect(exit).toMatchObject({ exit: "foreign", what: `${path} was not written by fula-node.` });
      expect(writes).toEqual([]);
      expect(host.files.textOf(path)).toBe("# mine\n");
    },
  );
});
