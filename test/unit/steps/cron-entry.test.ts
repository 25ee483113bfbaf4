import { describe, expect, it } from "vitest";
import type { AnyStep } from "../../../src/engine/step.ts";
import { renderCron } from "../../../src/machine/crontab.ts";
import { backupCron, newDrillCron } from "../../../src/steps/master/cron-entry.ts";
import { FakeMaster, NODE_PATH, sha256 } from "../../support/fake-master.ts";
import { boxBefore, joinedBox, LAYOUT, lookAt, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

await cronEntryLaws({
  id: "snapshot-cron",
  path: "/etc/cron.d/fula-pinset-snapshot",
  schedule: "0 */6 * * *",
  verb: "snapshot take",
});

await cronEntryLaws({
  id: "sweep-cron",
  path: "/etc/cron.d/fula-replication-sweep",
  schedule: "*/30 * * * *",
  verb: "sweep",
});

/** What both of our cron files have in common. */
async function cronEntryLaws(options: {
  readonly id: "snapshot-cron" | "sweep-cron";
  readonly path: string;
  readonly schedule: string;
  readonly verb: string;
}): Promise<void> {
  const { id, path, schedule, verb } = options;
  const before = await boxBefore(id);
  const step = await stepOn(before, id);
  const program = `${LAYOUT.cliCurrent}/bin/fula-node.js`;
  const runs = `${NODE_PATH} ${program} ${verb} --base-dir ${LAYOUT.baseDir}`;
  const write = { kind: "write-cron-entry", summary: `write ${path} (${schedule})`, path, runs };

  stepLaws(id, {
    makeStep: () => step,
    makeHost: () => before.copy(),
    absent: () => {},
    drifts: [
      {
        name: "it was edited by hand",
        arrange: (host) => host.files.put(path, host.files.textOf(path).replace("root", "nobody")),
        names: /was edited by hand/,
      },
      {
        name: "a line was added to it",
        arrange: (host) => host.files.put(path, `${host.files.textOf(path)}* * * * * root true\n`),
        names: /was edited by hand/,
      },
      {
        name: "another version wrote it, for another path",
        arrange: (host) =>
          host.files.put(
            path,
            renderCron({ schedule, argv: ["/old/node"], log: "/old/log", about: "Older." }, sha256),
          ),
        names: /was written by another version or for other paths/,
      },
      {
        name: "cron would refuse its mode",
        arrange: (host) => host.files.put(path, host.files.textOf(path), 0o666),
        names: /has mode 666, not 644/,
      },
      {
        name: "cron would refuse its owner",
        arrange: (host) => host.files.own(path, 1000),
        names: /belongs to user 1000, so cron ignores it/,
      },
      {
        name: "it is a link to a file of another user's",
        arrange: (host) => {
          const text = host.files.textOf(path);
          host.files.drop(path);
          host.files.put("/home/me/entry", text);
          host.files.putLink("/home/me/entry", path);
        },
        names: /is a symlink, not a regular file/,
      },
    ],
    foreign: [
      {
        name: "the bash installer's file",
        arrange: (host) => host.files.put(path, `${schedule} root /opt/fula-master/old.sh\n`),
        why: /was not written by fula-node/,
        adoptable: true,
      },
      {
        name: "an empty file",
        arrange: (host) => host.files.put(path, ""),
        why: /was not written by fula-node/,
        adoptable: true,
      },
    ],
  });

  describe(id, () => {
    it("calls the installed CLI by absolute paths, as root, and keeps what it says", async () => {
      const host = before.copy();
      expect((await lookAt(step, host)).changes).toEqual([write]);
      await step.apply(write, host, () => {});
      expect(host.writes).toEqual([`files.writeAtomic ${path} 644`]);
      const lines = host.files.textOf(path).trimEnd().split("\n");
      expect(lines.at(-1)).toMatch(
        new RegExp(`^${escape(`${schedule} root ${runs}`)} >> ${LAYOUT.baseDir}/\\w+\\.log 2>&1$`),
      );
      expect(lines.filter((line) => /^[A-Z]+=/.test(line)).map((line) => line.split("=")[0])).toEqual([
        "SHELL",
        "PATH",
      ]);
    });

    it("does not verify a line whose program is missing", async () => {
      const host = await joinedBox();
      host.files.drop(program);
      await expect(step.verify(host)).rejects.toMatchObject({
        exit: "unhealthy",
        what: `${path} calls ${program}, which is missing.`,
      });
    });

    it("is the same on every run", async () => {
      const host = await joinedBox();
      expect((await lookAt(await stepOn(new FakeMaster(), id), host)).finding.state).toBe("ours");
    });
  });
}

describe("drill-cron", () => {
  const path = "/etc/cron.d/fula-drill";
  const wanted = (name = "box") => newDrillCron({ layout: LAYOUT, nodePath: NODE_PATH, hash: sha256, name });
  const scheduled = async () => {
    const host = await joinedBox();
    const step: AnyStep = wanted();
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    await step.verify(host);
    host.revive();
    return host;
  };

  it("is not written by a join, and no file of somebody else's is touched", async () => {
    const host = await joinedBox();
    const step = await stepOn(host, "drill-cron");
    expect(host.files.tree.has(path)).toBe(false);
    expect((await lookAt(step, host)).changes).toEqual([]);
    host.files.put(path, "# mine\n");
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    await step.verify(host);
    expect(host.files.textOf(path)).toBe("# mine\n");
  });

  it("stays as `drill --schedule` wrote it", async () => {
    const host = await scheduled();
    expect((await lookAt(await stepOn(host, "drill-cron"), host)).finding.state).toBe("ours");
    expect(host.files.textOf(path)).toMatch(
      /^\d{1,2} [1-4] \* \* 0 root \S+ \S+ drill --scheduled --base-dir \/opt\/fula-master >> \/opt\/fula-master\/drill\.log 2>&1$/m,
    );
  });

  it.each([
    ["edited by hand", (text: string) => text.replace("root", "nobody"), /edited by hand/],
    [
      "of another version",
      () => renderCron({ schedule: "0 1 * * 0", argv: ["/old/node"], log: "/old", about: "Older." }, sha256),
      /by another version or for other paths/,
    ],
  ])("%s: a join writes it again", async (_, change, words) => {
    const host = await scheduled();
    const good = host.files.textOf(path);
    host.files.put(path, change(good));
    const step = await stepOn(host, "drill-cron");
    const { finding, changes } = await lookAt(step, host);
    expect(finding).toMatchObject({ state: "drifted", drift: [expect.stringMatching(words)] });
    for (const one of changes) await step.apply(one, host, () => {});
    expect(host.files.textOf(path)).toBe(good);
  });

  it("masters with other names begin at other times, in the hours after midnight", () => {
    const times = ["a", "b", "c", "d", "e"].map(
      async (name) => (await lookAt(wanted(name), new FakeMaster())).changes[0]?.summary,
    );
    return Promise.all(times).then((all) => expect(new Set(all).size).toBe(5));
  });
});

function escape(text: string): string {
  return text.replaceAll(/[*./]/g, "\\$&");
}

describe("backup-cron", () => {
  const path = "/etc/cron.d/fula-backup";
  const stepWith = (given: Readonly<Record<string, string>>, name = "box") => {
    const all = Object.entries({ ...given, CLUSTER_PEERNAME: name });
    const settings = new Map(all.map(([key, value]) => [key, { value, origin: "saved" as const }]));
    return backupCron({ layout: LAYOUT, nodePath: NODE_PATH, hash: sha256, settings });
  };
  const SET_UP = { BACKUP_DIR: "/mnt/backup", BACKUP_RECIPIENT: "age1qqqqqqqqqqqqqqqqqqqqqqqq" };

  it("is written only with a directory and a recipient, and removed without one of them", async () => {
    const host = await joinedBox();
    expect(host.files.tree.has(path)).toBe(false);
    expect((await lookAt(stepWith({ BACKUP_DIR: "/mnt/backup" }), host)).changes).toEqual([]);
    const step: AnyStep = stepWith(SET_UP);
    for (const change of (await lookAt(step, host)).changes) await step.apply(change, host, () => {});
    await step.verify(host, () => {});
    expect(host.files.textOf(path)).toMatch(
      /^\d{1,2} 0 \* \* \* root \S+ \S+ backup create --scheduled --base-dir \/opt\/fula-master >> \/opt\/fula-master\/backup\.log 2>&1$/m,
    );
    expect((await lookAt(step, host)).changes).toEqual([]);
    const without: AnyStep = stepWith({ BACKUP_RECIPIENT: SET_UP.BACKUP_RECIPIENT });
    const { finding, changes } = await lookAt(without, host);
    expect(finding.state).toBe("drifted");
    await expect(Promise.resolve(without.verify(host, () => {}))).rejects.toThrow();
    for (const change of changes) await without.apply(change, host, () => {});
    await without.verify(host, () => {});
    expect(host.files.tree.has(path)).toBe(false);
  });

  it("touches no file of somebody else's, and begins at no minute of a snapshot or a sweep", async () => {
    const host = await joinedBox();
    host.files.put(path, "# mine\n");
    expect((await lookAt(stepWith({}), host)).changes).toEqual([]);
    expect((await lookAt(stepWith(SET_UP), host)).finding.state).toBe("foreign");
    for (const name of ["a", "b", "c", "d", "e", "f", "g"]) {
      const { changes } = await lookAt(stepWith(SET_UP, name), new FakeMaster());
      expect(Number(/\((\d+) 0 /.exec(changes[0]?.summary ?? "")?.[1]) % 30).toBeGreaterThanOrEqual(5);
    }
  });
});
