import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { fulaNode, installArtifact, PROGRAM } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { withoutData } from "../support/box-snapshot.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootMaster, expectExit, health, psql, rejoin, skipped, stderrOf } from "../support/master-box.ts";

const HOME = "/opt/fula-master";
const CRON = "/etc/cron.d/fula-drill";
const RECORD = `${HOME}/state/drills.json`;
const LOG = `${HOME}/drill.log`;
const ALERTS = `${HOME}/replication-alerts.log`;
/** What drills may change for good: their record, what a run of theirs is logged in, and what snapshots and sweeps keep. */
const KEPT =
  /^\/opt\/fula-master(?:$|\/(?:state|heartbeats|snapshots)(?:\/|$)|\/(?:drill|snapshot|sweep|replication-alerts)\.log|\/known-nodes\.json$)/;

interface Ran {
  readonly drills: readonly {
    readonly id: string;
    readonly state: string;
    readonly summary: string;
    readonly todo: string | null;
    readonly leftovers: readonly string[];
  }[];
  readonly counts: Readonly<Record<string, number>>;
  readonly durationMs: number;
}

describe.skipIf(skipped !== undefined)("drills on a master of its own", () => {
  let box: Box;

  const drill = (...args: readonly string[]): Promise<ExecResult> => fulaNode(box, ["drill", ...args]);
  const ranJson = async (exitCode: number, ...names: readonly string[]): Promise<Ran> => {
    const result = await drill("--json", ...names);
    expectExit(result, exitCode);
    return JSON.parse(result.stdout) as Ran;
  };

  /** Everything that a drill could leave on the box and in the database. Not when a directory last changed. */
  const traces = async () => {
    const { files, docker } = withoutData(
      await box.snapshot(["/opt", "/etc/cron.d", "/var/tmp", "/run/fula-node"]),
    );
    const kept = Object.entries(files).filter(
      ([path]) => !KEPT.test(path) && !path.includes("systemd-private"),
    );
    return {
      files: Object.fromEntries(kept.map(([path, facts]) => [path, facts.replace(/ \d+\.\d+(?= |$)/, "")])),
      docker,
      elsewhere: (await box.exec("find / -xdev -name '*fula[-_]drill[-_]*' -not -path '/proc/*'")).stdout,
      databases: await psql(box, "SELECT datname FROM pg_database ORDER BY 1"),
      relations: await psql(
        box,
        "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
      ),
    };
  };

  /** Starts the drills in the background, and waits until one of them runs. */
  const start = async (...args: readonly string[]): Promise<string> => {
    const command = ["node", PROGRAM, "drill", ...args].join(" ");
    const { stdout } = await box.run(
      `rm -f /root/drill.*; (setsid ${command} >/root/drill.out 2>/root/drill.err; echo $? >/root/drill.code) 2>/dev/null & sleep 0; echo started`,
    );
    expect(stdout).toContain("started");
    await eventually("a drill runs", async () => (await read("/root/drill.out")).includes(" ..."));
    return (await box.run(["pgrep", "-fx", command])).stdout.trim();
  };
  const read = async (path: string): Promise<string> => (await box.exec(["cat", path])).stdout;
  const ended = async (): Promise<{
    readonly exitCode: number;
    readonly stdout: string;
    readonly stderr: string;
  }> => {
    await eventually("it has ended", async () => (await read("/root/drill.code")) !== "");
    return {
      exitCode: Number(await read("/root/drill.code")),
      stdout: await read("/root/drill.out"),
      stderr: await read("/root/drill.err"),
    };
  };
  /** A database that takes connections and says nothing: what asks it hangs. */
  const hang = () => box.run("docker pause postgres-pinning");
  const wake = () => box.exec("docker unpause postgres-pinning");

  /** Docker calls a container that was paused unhealthy until its next check. */
  const untilHealthy = () =>
    eventually("every container is healthy", async () =>
      Object.values(await health(box)).every((state) => state === "running healthy"),
    );

  beforeAll(async () => {
    box = await bootMaster("master");
  });
  afterEach(wake);
  afterAll(() => box?.destroy());

  test("the whole list runs, leaves nothing, and status says when", async () => {
    const before = await traces();
    const result = await drill();
    expectExit(result, 0);
    for (const line of result.stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
    expect(result.stdout).toMatch(/^ {2}passed {3}D1 {3}stack health: all \d+ parts work/m);
    expect(result.stdout).toMatch(/^ {2}passed {3}D2 {3}migrations: \d+ migrations applied/m);
    expect(result.stdout).toMatch(/passed[^.]* in .*\(exit 0\)\.$/);
    expect(await traces()).toEqual(before);
    expect((await box.run(["stat", "-c", "%a %U", RECORD])).stdout.trim()).toBe("600 root");
    const status = await fulaNode(box, ["status"]);
    expect(status.stdout).toMatch(/ok +drills +(?:all 10|\d of 10) passed.*; last ran \d+ s ago/);
    const again = await ranJson(0);
    expect(again.counts["failed"]).toBe(0);
    expect(await traces()).toEqual(before);
  });

  test("TAP has its plan, a point for each drill and YAML, and nothing else", async () => {
    const { stdout, exitCode } = await drill("--tap");
    expect(exitCode).toBe(0);
    const [version, plan, ...rest] = stdout.split("\n");
    expect(version).toBe("TAP version 14");
    const count = Number(/^1\.\.(\d+)$/.exec(plan ?? "")?.[1]);
    const points = rest.filter((line) => /^(?:not )?ok \d+ - D\d+ [a-z -]+(?: # SKIP .+)?$/.test(line));
    expect(points).toHaveLength(count);
    const blocks = stdout
      .split(/^ {2}---$/m)
      .slice(1)
      .map((text) => text.split(/^ {2}\.\.\.$/m)[0] ?? "");
    expect(blocks).toHaveLength(count);
    for (const block of blocks) expect(parse(block)).toMatchObject({ proves: expect.any(String) as string });
    const others = rest.filter((line) => !points.includes(line) && !/^(?: {2}|# )/.test(line));
    expect(others.filter((line) => line !== "")).toEqual([]);
  });

  test("two at once: the second is told so; SIGINT stops the first, which cleans up", async () => {
    const before = await traces();
    await hang();
    // Each of them ends by itself after some seconds without an answer; all of them together go on for longer.
    const pid = await start("D1", "D2", "D3", "D4", "D5", "D9");
    // It stands still, however long the second one takes to start: else its own limits could end it first.
    await box.run(["kill", "-STOP", pid]);
    const second = await drill("D2");
    expectExit(second, 25);
    expect(stderrOf(second)).toMatch(/drill, process \d+/);
    await box.run(["kill", "-INT", pid]);
    await box.run(["kill", "-CONT", pid]);
    const first = await ended();
    await wake();
    expect(first).toMatchObject({ exitCode: 26 });
    expect(first.stderr).toContain("Stopped by SIGINT");
    expect(first.stdout).toMatch(/Stopped in D\d .*nothing of it is left\.$/);
    await untilHealthy();
    expect(await traces()).toEqual(before);
  });

  test("SIGHUP without a terminal in the middle of a drill: it cleans up", async () => {
    const before = await traces();
    const command = `node ${PROGRAM} drill D4`;
    await box.run(
      `rm -f /root/hup.code; (setsid ${command} >/dev/full 2>&1; echo $? >/root/hup.code) & sleep 0`,
    );
    await eventually("its database is there", async () =>
      (await psql(box, "SELECT datname FROM pg_database")).includes("fula_drill_"),
    );
    await box.run(`pkill -HUP -fx '${command}'`);
    await eventually("it has ended", async () => (await read("/root/hup.code")).trim() === "26");
    expect(await traces()).toEqual(before);
  });

  test("what a killed drill left is removed by a run of another one", async () => {
    const before = await traces();
    await box.run(
      "docker create --name fula-drill-left --label land.fx.fula-node.drill=D9 --entrypoint true $(docker images -q | head -n 1)",
    );
    const { drills } = await ranJson(0, "D2");
    expect(drills).toHaveLength(1);
    expect(await traces()).toEqual(before);
  });

  test("killed with -9 in a drill: the next run does the rest", async () => {
    const before = await traces();
    await hang();
    const pid = await start("D1", "D2");
    await box.run(["kill", "-KILL", pid]);
    expect(await ended()).toMatchObject({ exitCode: 137 });
    await wake();
    await untilHealthy();
    expect((await ranJson(0)).counts["failed"]).toBe(0);
    expect(await traces()).toEqual(before);
  });

  test.each([1, 2, 3, 5, 8])(
    "killed with -9 after %d s of the whole list: the next run leaves nothing",
    async (seconds) => {
      const before = await traces();
      const command = `timeout --signal=KILL ${seconds} node ${PROGRAM} drill`;
      expect([0, 124, 137]).toContain((await box.exec(command)).exitCode);
      expect((await ranJson(0)).counts["failed"]).toBe(0);
      expect(await traces()).toEqual(before);
    },
  );

  test("D1 fails when a service is stopped, and says which", async () => {
    await box.run("docker stop -t 1 fula-pinning-webui");
    const { drills } = await ranJson(27, "D1");
    expect(drills[0]).toMatchObject({
      id: "D1",
      state: "failed",
      summary: expect.stringContaining("storage API") as string,
    });
    const status = await fulaNode(box, ["status"]);
    expect(status.stdout).toMatch(/attention +drills +D1 stack health failed/);
    await box.run("docker start fula-pinning-webui");
    await eventually("it passes", async () => (await drill("stack-health")).exitCode === 0);
  });

  test("D2 fails for an INVALID index, one that is gone, and a row that the ledger lacks", async () => {
    const mark = (valid: boolean) =>
      psql(
        box,
        `UPDATE pg_index SET indisvalid = ${valid} WHERE indexrelid = 'idx_credit_history_hourly_dedup'::regclass`,
      );
    await mark(false);
    expect((await ranJson(27, "D2")).drills[0]?.summary).toContain("idx_credit_history_hourly_dedup");
    await mark(true);
    await psql(box, "DROP INDEX idx_pin_work_places");
    expect((await ranJson(27, "D2")).drills[0]?.summary).toContain("idx_pin_work_places");
    await psql(
      box,
      "CREATE INDEX idx_pin_work_places ON pin_work (phase) WHERE deadline_at < 'infinity' AND (phase = 'look' OR claim IS NOT NULL)",
    );
    const row = await psql(
      box,
      "DELETE FROM fula_node.migrations WHERE version = (SELECT max(version) FROM fula_node.migrations) RETURNING version",
    );
    const lacking = await ranJson(27, "D2");
    expect(lacking.drills[0]).toMatchObject({
      summary: expect.stringContaining(`0${row.trim()}`) as string,
      todo: expect.stringContaining("fula-node migrate up") as string,
    });
    expectExit(await fulaNode(box, ["migrate", "up"]), 0);
    expect((await ranJson(0, "D2")).drills[0]?.state).toBe("passed");
  });

  test("a database that is down fails D2 with clear words, and never passes", async () => {
    await box.run("docker stop -t 5 postgres-pinning");
    const { drills } = await ranJson(27, "D2");
    expect(drills[0]).toMatchObject({
      state: "failed",
      summary: expect.stringContaining("PostgreSQL") as string,
    });
    expect(drills[0]?.todo).not.toBeNull();
    await box.run("docker start postgres-pinning");
    await eventually("it passes", async () => (await drill("D1", "D2")).exitCode === 0);
  });

  test("a full disk: no drill that writes begins, no half file is left, and the words say why", async () => {
    await box.run(
      `cp -a ${HOME} /root/copy && mount -t tmpfs -o size=200m none ${HOME} && cp -a /root/copy/. ${HOME}/ && rm -r /root/copy`,
    );
    try {
      const scarce = await drill("D1", "D2", "D3");
      expectExit(scarce, 27);
      expect(scarce.stdout.replaceAll(/\s+/g, " ")).toContain(
        `free on the disk of ${HOME}, and a drill that writes needs 256.0 MB`,
      );
      await box.run(
        `dd if=/dev/zero of=${HOME}/fill bs=64k 2>/dev/null; dd if=/dev/zero of=${HOME}/fill2 bs=1 count=4096 2>/dev/null; true`,
      );
      const before = await read(RECORD);
      const full = await drill("D3");
      expectExit(full, 27);
      expect(stderrOf(full)).toMatch(/Warning: .*drills\.json/);
      expect(await read(RECORD)).toBe(before);
      expect((await box.run(`find ${HOME} -name '*fula-node-tmp*'`)).stdout).toBe("");
    } finally {
      await box.run(`umount ${HOME}`);
    }
  });

  test("cron: --schedule writes its line once, a join keeps it right, and a foreign file is left alone", async () => {
    await box.writeFile(CRON, "# mine\n");
    for (const flag of ["--schedule", "--unschedule"]) {
      const refused = await drill(flag);
      expectExit(refused, 23);
      expect(stderrOf(refused)).toContain(`${CRON} was not written by fula-node`);
    }
    expectExit(await rejoin(box), 0);
    expect(await read(CRON)).toBe("# mine");
    await box.run(["rm", CRON]);
    expectExit(await drill("--schedule"), 0);
    const written = await box.readFile(CRON);
    expect(written).toMatch(
      /^\d+ [1-4] \* \* 0 root \/\S+ \/opt\/fula-master\/cli\/current\/bin\/fula-node\.js drill --scheduled --base-dir \/opt\/fula-master >> \/opt\/fula-master\/drill\.log 2>&1$/m,
    );
    const again = await drill("--schedule");
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
    await box.run(`sed -i 's/drill --scheduled/drill/' ${CRON}`);
    expectExit(await rejoin(box), 0);
    expect(await box.readFile(CRON)).toBe(written);
    const idle = await rejoin(box);
    expect(idle.stdout).toContain("Nothing to do");
  });

  test("cron: what it starts logs a line for each drill, and raises an alarm when one fails", async () => {
    const line = /root (.*)$/m.exec(await box.readFile(CRON))?.[1] ?? "";
    await box.run(line);
    const log = await read(LOG);
    expect(log).toMatch(/^\d{4}-\S+Z passed D1 stack health: /m);
    expect(log).toMatch(/passed.*\(exit 0\)\.$/m);
    expect(await read(ALERTS)).not.toContain("drill-failed");
    await box.run("docker stop -t 1 fula-pinning-webui");
    expect((await box.exec(line)).exitCode).toBe(27);
    expect(await read(ALERTS)).toMatch(/^\S+Z drill-failed drill=D1 title=stack-health$/m);
    await box.run("docker start fula-pinning-webui");
    await eventually("it passes", async () => (await drill("D1")).exitCode === 0);
  });

  test("cron: --unschedule removes it once, and a leave removes it too", async () => {
    expectExit(await drill("--unschedule"), 0);
    expect((await box.exec(["test", "-e", CRON])).exitCode).toBe(1);
    expect((await drill("--unschedule")).stdout).toContain("Nothing to do");
    expectExit(await drill("--schedule"), 0);
    const left = await fulaNode(box, ["leave", "--yes"]);
    expectExit(left, 0);
    expect((await box.run("ls /etc/cron.d")).stdout).not.toContain("fula");
    expectExit(await drill("D2"), 27);
  });
});

describe.skipIf(skipped !== undefined)("drills on other machines", () => {
  let box: Box;
  beforeAll(async () => {
    box = await Box.boot({ name: "other", image: "plain" });
    await installArtifact(box);
  });
  afterAll(() => box?.destroy());

  test("a storage node and an empty machine are refused, and nothing is written", async () => {
    const before = await box.snapshot(["/opt", "/etc/cron.d", "/run/fula-node"]);
    const empty = await fulaNode(box, ["drill"]);
    expectExit(empty, 21);
    expect(stderrOf(empty)).toContain("no master is installed there");
    expect(await box.snapshot(["/opt", "/etc/cron.d", "/run/fula-node"])).toEqual(before);
    await box.writeFile("/opt/fula-storage/.env", "CLUSTERNAME=pool\n", 0o600);
    for (const args of [[], ["D1"], ["--schedule"], ["--tap"]]) {
      const refused = await fulaNode(box, ["drill", ...args]);
      expectExit(refused, 21);
      expect(refused.stdout).toMatch(args.includes("--tap") ? /^TAP version 14\nBail out! \S/ : /^$/);
      expect(stderrOf(refused)).toContain(
        "This machine is a storage node. Do: Run this command on a master of its pool.",
      );
    }
    expectExit(await fulaNode(box, ["drill", "--list"]), 0);
  });
});
