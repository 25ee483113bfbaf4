import { beforeEach, describe, expect, it } from "vitest";
import { rollBack as rollBackNode } from "../../../src/commands/rollback.ts";
import { run } from "../../../src/engine/run.ts";
import { openJournal } from "../../../src/engine/journal.ts";
import { EXIT_CODES, OperatorError } from "../../../src/errors.ts";
import {
  findFormer,
  formerCron,
  formerJoin,
  formerProgram,
  keepImages,
  type Rollback,
} from "../../../src/join/rollback/rollback.ts";
import { formerSchema } from "../../../src/join/rollback/former-schema.ts";
import { MASTER_BASE_DIR, storageLayout } from "../../../src/settings/layout.ts";
import { MASTER_SETTINGS } from "../../../src/settings/master.ts";
import type { PostgresTarget } from "../../../src/settings/postgres-target.ts";
import { FakeMaster } from "../../support/fake-master.ts";
import { LAYOUT } from "../../support/master-boxes.ts";
import { FakeMigrator } from "../../support/fake-migrator.ts";
import { FakeStorage, worldOf } from "../../support/storage-fake.ts";

const [FORMER, NOW] = ["0.4.0", "0.5.0"];
const target = { host: "127.0.0.1", port: 5432 } as PostgresTarget;
const JOIN = `/usr/bin/node ${LAYOUT.cliDir}/${FORMER}/bin/fula-node.js join-as-master`;

let host: FakeMaster;
let unlocked: number;

function arrange(): void {
  host = new FakeMaster();
  unlocked = 0;
  for (const version of [FORMER, NOW])
    for (const part of ["bin/fula-node.js", "dist/cli.js"])
      host.files.put(`${LAYOUT.cliDir}/${version}/${part}`, version);
  for (const file of ["001_schema.sql", "018_deductions.sql", "018_deductions.down.sql"])
    host.files.put(`${LAYOUT.cliDir}/${FORMER}/migrations/${file}`, "");
  host.files.putLink(NOW, LAYOUT.cliCurrent);
  for (const name of ["fula-backup", "fula-drill", "fula-replication-sweep"])
    host.files.put(`/etc/cron.d/${name}`, "# fula-node cron sha256=0\n");
  host.migrations.files = [1, 18, 35, 36].map((version) => ({ version, name: `m${version}` }));
  for (const { version } of host.migrations.files) host.migrations.applied.add(version);
  for (const name of ["fula-pinning-api", "fula-pinning-webui"]) host.docker.putContainer(name);
  let works = false;
  // While the newer one is in use, it ends with 30.
  host.system.onTry = (argv, accept) =>
    works || argv.at(-1) === "--help" || accept.includes(EXIT_CODES.newer) ? null : "it has changes to make";
  host.system.onCommand = (argv) => {
    expect(argv.join(" ")).toBe(`${JOIN} --yes`);
    works = true;
  };
}
beforeEach(arrange);

function rollbackOf(given: Partial<Rollback> = {}): Rollback {
  return {
    verb: "join-as-master",
    layout: LAYOUT,
    version: NOW,
    former: FORMER,
    nodePath: "/usr/bin/node",
    usualDir: MASTER_BASE_DIR,
    database: { target, masterId: "own" },
    services: ["fula-pinning-api", "fula-pinning-webui"],
    keep: [],
    unlock: async () => void (unlocked += 1),
    ...given,
  };
}

function rollBack(given: Partial<Rollback> = {}, dryRun = false) {
  const rollback = rollbackOf(given);
  const journal = { files: host.files, path: LAYOUT.journal, attempt: "1", version: NOW };
  return run({
    steps: [formerSchema(rollback), formerCron(rollback), formerProgram(rollback), formerJoin(rollback)],
    host,
    listen: () => {},
    ask: null,
    dryRun,
    yes: true,
    adopted: new Set(),
    consents: new Set(),
    journal: openJournal({ ...journal, now: () => host.clock.now() }),
  });
}

const wrote = () => host.writes.filter((write) => !write.includes("journal"));

describe("a rollback", () => {
  it("stops the services, reverts what the former one does not know, and lets it take over", async () => {
    const { plan } = await rollBack({}, true);
    expect(plan.flatMap(({ changes }) => changes.map(({ summary }) => summary))).toEqual([
      "stop fula-pinning-api and fula-pinning-webui, then revert 2 migrations that 0.4.0 does not know",
      "remove the cron job /etc/cron.d/fula-drill",
      "remove the cron job /etc/cron.d/fula-backup",
      `point the link ${LAYOUT.cliCurrent} to 0.4.0`,
      "run join-as-master of 0.4.0: it makes its services again",
    ]);
    expect(host.writes).toEqual([]);
    await rollBack();
    expect(wrote()).toEqual([
      "docker.stop fula-pinning-api",
      "docker.stop fula-pinning-webui",
      "migrations.down 36, 35",
      "files.remove /etc/cron.d/fula-drill",
      "files.remove /etc/cron.d/fula-backup",
      expect.stringContaining("link"),
      `system.runCommand ${JOIN} --yes`,
    ]);
    expect([...host.migrations.applied]).toEqual([1, 18]);
    expect(unlocked).toBe(1);
    host.revive();
    expect((await rollBack()).changes).toEqual([]);
    expect(host.writes).toEqual([]);
  });

  it("is refused if the former join would end before it does anything, and gets the flags that it needs", async () => {
    const asked: string[] = [];
    const { onTry } = host.system;
    host.system.onTry = (argv, accept) => {
      if (!accept.includes(EXIT_CODES.newer)) return onTry(argv, accept);
      asked.push(argv.join(" "));
      return argv.includes("--ignore") ? null : "This machine has 0.5 GiB of memory";
    };
    for (const dryRun of [true, false])
      await expect(rollBack({}, dryRun)).rejects.toMatchObject({
        exit: "preflight",
        what: "join-as-master of 0.4.0 would end before it does anything: This machine has 0.5 GiB of memory.",
        remedy: expect.stringContaining("--ignore CHECK") as string,
      });
    expect(host.writes).toEqual([]);
    await rollBack({ keep: ["--ignore", "memory"] }, true);
    expect(asked).toEqual([`${JOIN} --dry-run`, `${JOIN} --dry-run`, `${JOIN} --dry-run --ignore memory`]);
  });

  it("is refused while a secret is being changed: the former version would be stopped by that", async () => {
    const box = new FakeStorage();
    const record = { version: 1, secret: "jwt-secret", previous: "a", next: "b" };
    box.files.put(LAYOUT.rotation, JSON.stringify(record), 0o600);
    const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
    const flags = { dryRun: false, yes: true, ignore: [] };
    await expect(rollBackNode("join-as-master", flags, worldOf(box, { takeLock }))).rejects.toMatchObject({
      what: expect.stringContaining("jwt-secret") as string,
    });
    expect(box.writes).toEqual([]);
  });

  it("is not made without a word if nobody can be asked", async () => {
    const box = new FakeStorage();
    const flags = { dryRun: false, yes: false, ignore: [] };
    await expect(rollBackNode("join-as-master", flags, worldOf(box))).rejects.toMatchObject({
      exit: "preflight",
      remedy: expect.stringContaining("--rollback --dry-run") as string,
    });
    expect(box.writes).toEqual([]);
  });

  it("says what is removed with the migrations, before", async () => {
    const { plan } = await rollBack({}, true);
    expect(JSON.stringify(plan)).toContain("036_m36.down.sql removes table m36 (2 rows)");
    expect(JSON.stringify(plan)).toMatch(/repository of kubo, the data of ipfs-cluster[^"]*stay as they are/);
  });

  it("killed before, in or after any of its writes, another run ends it", async () => {
    await rollBack();
    const writes = host.writes.length;
    expect(writes).toBeGreaterThan(5);
    for (let at = 1; at <= writes; at += 1)
      for (const moment of ["before", "during", "after"] as const) {
        arrange();
        host.gate.killAt(at, moment);
        await expect(rollBack()).rejects.toThrow("killed");
        host.revive();
        await rollBack();
        expect(await host.files.readLink(LAYOUT.cliCurrent)).toBe(FORMER);
        expect([...host.migrations.applied]).toEqual([1, 18]);
        expect((await rollBack()).changes).toEqual([]);
      }
  });

  it("leaves a cron job that is somebody else's, and one that the former version has", async () => {
    host.files.put("/etc/cron.d/fula-backup", "0 3 * * * root /root/mine.sh\n");
    await rollBack();
    expect(await host.files.readText("/etc/cron.d/fula-backup")).toContain("mine.sh");
    expect(await host.files.readText("/etc/cron.d/fula-replication-sweep")).not.toBeNull();
    arrange();
    host.files.put(`${LAYOUT.cliDir}/0.5.1/bin/fula-node.js`, "0.5.1");
    host.files.putLink("0.5.1", LAYOUT.cliCurrent);
    const later = { former: "0.5.0", version: "0.5.1", database: null };
    const { plan } = await run({
      steps: [formerCron(rollbackOf(later))],
      host,
      listen: () => {},
      ask: null,
      dryRun: true,
      yes: true,
      adopted: new Set(),
      consents: new Set(),
      journal: openJournal({
        files: host.files,
        path: LAYOUT.journal,
        attempt: "1",
        version: NOW,
        now: () => host.clock.now(),
      }),
    });
    expect(plan.flatMap(({ changes }) => changes)).toEqual([]);
  });

  it("touches no database on a storage node, whose join it runs with its directory", async () => {
    const own = {
      verb: "join-as-storage-node",
      database: null,
      services: [],
      usualDir: "/opt/fula-storage",
    } as const;
    let runs = "";
    host.system.onCommand = (argv) => {
      runs = argv.join(" ");
      host.system.onTry = () => null;
    };
    await rollBack(own);
    expect(runs).toMatch(/join-as-storage-node --yes --base-dir \/opt\/fula-master$/);
    expect(host.migrations.applied.size).toBe(4);
  });

  it("is refused while another master needs the migrations, and nothing is changed", async () => {
    const other = {
      pool: "pool",
      id: "other",
      name: "second",
      flags: [],
      machine: null,
      peer: null,
    } as const;
    await host.migrations.recordMaster(target, { ...other, machine: "m" });
    host.migrations.masters.set("other", {
      ...other,
      version: NOW,
      heartbeatAt: "2026-01-01T00:00:00Z",
      heartbeatAgeMs: 0,
    });
    host.revive();
    await expect(rollBack()).rejects.toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("second (0.5.0)"),
    });
    expect(host.writes).toEqual([]);
    host.migrations.masters.set("other", {
      ...host.migrations.masters.get("other"),
      version: FORMER,
    } as never);
    await rollBack();
    expect([...host.migrations.applied]).toEqual([1, 18]);
  });

  it("does not guess which schema the former one needs", async () => {
    host.files.drop(`${LAYOUT.cliDir}/${FORMER}/migrations`);
    await expect(rollBack()).rejects.toMatchObject({
      exit: "preflight",
      // The join of the former version refuses while this one is in use.
      remedy: expect.stringMatching(
        /without --rollback.*`npm pack fula-node@0\.4\.0 && tar -xzf [^ ]+ .*-C [^ ]+0\.4\.0`$/,
      ),
    });
    expect(wrote()).toEqual([]);
  });
});

describe("a rollback whose migrations can't be reverted", () => {
  const BOTH = ["fula-pinning-api", "fula-pinning-webui"];
  const running = () => BOTH.filter((name) => host.docker.boxes.get(name)?.status === "running");
  const lockTimeout = new OperatorError({
    exit: "unavailable",
    what: "036_m36.down.sql failed: canceling statement due to lock timeout.",
    why: "036_m36.down.sql:3:1",
    remedy: "Another session holds a lock on the table. Run again.",
  });
  const STAY = "Or stay with this version: `fula-node join-as-master`.";

  it.each([true, false])(
    "is refused before the first change, with what each guard says (dry run: %s)",
    async (dry) => {
      host.migrations.guards.set(36, "an invite works");
      await expect(rollBack({}, dry)).rejects.toMatchObject({
        exit: "drift",
        what: "036_m36.down.sql refuses: an invite works.",
        remedy: `End "an invite works" first. ${STAY}`,
        changed: undefined,
      });
      host.migrations.guards.set(35, "a transfer is dismissed");
      await expect(rollBack({}, dry)).rejects.toMatchObject({
        exit: "drift",
        remedy: `Do what is listed for each, then run again. ${STAY}`,
        problems: [
          { remedy: 'End "an invite works" first.' },
          { remedy: 'End "a transfer is dismissed" first.' },
        ],
      });
      expect(host.writes).toEqual([]);
      expect(running()).toEqual(BOTH);
    },
  );

  it("says what an earlier run has stopped, and how it starts again", async () => {
    host.docker.putContainer("fula-pinning-webui", { status: "exited" });
    host.migrations.guards.set(36, "an invite works");
    await expect(rollBack()).rejects.toMatchObject({
      remedy: `End "an invite works" first. ${STAY} It starts fula-pinning-webui again.`,
    });
  });

  it("starts the services again that it stopped, and says so, if the revert fails", async () => {
    host.gate.failOnce(/migrations\.down/, lockTimeout);
    await expect(rollBack()).rejects.toMatchObject({
      exit: "unavailable",
      what: lockTimeout.what,
      why: "036_m36.down.sql:3:1\nNothing was reverted, and our services were started again.",
      remedy: lockTimeout.remedy,
      changed: expect.stringMatching(/^one change was started and did not finish\./),
    });
    expect(wrote()).toEqual([
      "docker.stop fula-pinning-api",
      "docker.stop fula-pinning-webui",
      "docker.restart fula-pinning-api",
      "docker.restart fula-pinning-webui",
    ]);
    expect(running()).toEqual(BOTH);
    await rollBack();
    expect([...host.migrations.applied]).toEqual([1, 18]);
  });

  it("starts again what was stopped if another one can't be stopped", async () => {
    const busy = new OperatorError({ exit: "unavailable", what: "Docker does not answer." });
    host.gate.failOnce(/docker\.stop fula-pinning-webui/, busy);
    await expect(rollBack()).rejects.toMatchObject({
      what: busy.what,
      why: "Nothing was reverted, and our services were started again.",
    });
    expect(running()).toEqual(BOTH);
    expect(wrote()).toEqual(["docker.stop fula-pinning-api", "docker.restart fula-pinning-api"]);
  });

  it("leaves one stopped that was stopped before, and names it", async () => {
    host.docker.putContainer("fula-pinning-api", { status: "exited" });
    host.gate.failOnce(/migrations\.down/, lockTimeout);
    await expect(rollBack()).rejects.toMatchObject({
      why: expect.stringContaining("Nothing was reverted, but fula-pinning-api is stopped."),
      remedy: `${lockTimeout.remedy} Start what is stopped: \`docker start fula-pinning-api\`.`,
    });
    expect(running()).toEqual(["fula-pinning-webui"]);
  });

  it("says what is stopped and what to type if it can't be started again", async () => {
    host.gate.failOnce(/migrations\.down/, lockTimeout);
    const full = new OperatorError({ exit: "unavailable", what: "The disk is full." });
    host.gate.failOnce(/docker\.restart fula-pinning-api/, full);
    await expect(rollBack()).rejects.toMatchObject({
      why: expect.stringContaining(
        "Nothing was reverted, but fula-pinning-api is stopped. fula-pinning-api could not be started again: The disk is full.",
      ),
      remedy: expect.stringContaining("`docker start fula-pinning-api`"),
    });
    expect(running()).toEqual(["fula-pinning-webui"]);
  });

  it("does not say of a service that it runs if Docker does not answer any more", async () => {
    host.migrations.down = async () => {
      host.docker.engine = null;
      throw lockTimeout;
    };
    await expect(rollBack()).rejects.toMatchObject({
      what: lockTimeout.what,
      why: expect.stringMatching(
        /Nothing was reverted, but fula-pinning-api and fula-pinning-webui may be stopped\. fula-pinning-webui could not be started again: Docker does not answer\.$/,
      ),
      remedy: expect.stringContaining("`docker start fula-pinning-api fula-pinning-webui`"),
    });
  });

  it("does not start them on a schema that is the former one, or that nobody can ask for", async () => {
    const lost = new OperatorError({
      exit: "unavailable",
      what: "The connection was lost.",
      remedy: "Run again.",
    });
    const down = host.migrations.down.bind(host.migrations);
    host.migrations.down = async (...given) => {
      await down(...given);
      throw lost;
    };
    await expect(rollBack()).rejects.toMatchObject({
      why: "The migrations are reverted all the same. Until a rollback ends, fula-pinning-api and fula-pinning-webui are stopped.",
      remedy: `Run again. ${STAY} It starts fula-pinning-api and fula-pinning-webui again.`,
    });
    expect(running()).toEqual([]);

    arrange();
    host.migrations.down = async () => {
      host.migrations.status = () => Promise.reject(lost);
      throw lost;
    };
    await expect(rollBack()).rejects.toMatchObject({
      why: "The database can't be asked now whether the migrations are reverted, so fula-pinning-api and fula-pinning-webui are stopped.",
      remedy: `Run again. ${STAY} It starts fula-pinning-api and fula-pinning-webui again.`,
    });
    expect(running()).toEqual([]);
  });

  it("waits until PostgreSQL has ended the session that was lost, before it starts them", async () => {
    const status = () => FakeMigrator.prototype.status.call(host.migrations);
    const session = { pid: 7, application: "fula-node 0.5.0 migrations", address: "127.0.0.1", since: "" };
    let looks = 0;
    host.migrations.down = async () => {
      host.migrations.status = async () => {
        looks += 1;
        return { ...(await status()), running: looks < 5 ? session : null };
      };
      throw lockTimeout;
    };
    await expect(rollBack()).rejects.toMatchObject({
      why: expect.stringContaining("our services were started again"),
    });
    expect(looks).toBe(5);

    arrange();
    host.migrations.down = async () => {
      host.migrations.status = async () => ({ ...(await status()), running: session });
      throw lockTimeout;
    };
    await expect(rollBack()).rejects.toMatchObject({ why: expect.stringContaining("can't be asked now") });
    expect(running()).toEqual([]);

    // Another run has the lock, so this one has sent nothing.
    arrange();
    host.migrations.down = async () => {
      host.migrations.status = async () => ({ ...(await status()), running: session });
      throw new OperatorError({ exit: "locked", what: "The database is being migrated." });
    };
    await expect(rollBack()).rejects.toMatchObject({ exit: "locked" });
    expect(running()).toEqual(BOTH);
  });
});

describe("the version that a rollback goes back to", () => {
  const find = (version = NOW) =>
    findFormer(host, { verb: "join-as-master", layout: LAYOUT, version, nodePath: "/usr/bin/node" });
  const program = `${LAYOUT.cliDir}/${FORMER}`;

  it("is none without an older version: the remedy names the verb", async () => {
    host.files.drop(program);
    await expect(find()).rejects.toMatchObject({
      remedy: "Run fula-node join-as-master without --rollback to repair this version.",
    });
  });

  it("is the newest older one, also when the link is at it already", async () => {
    host.files.put(`${LAYOUT.cliDir}/0.3.0/bin/fula-node.js`, "");
    expect(await find()).toBe(FORMER);
    await host.files.link(FORMER, LAYOUT.cliCurrent);
    expect(await find()).toBe(FORMER);
  });

  it.each([
    [
      "no older version",
      (box: FakeMaster) => box.files.drop(`${LAYOUT.cliDir}/${FORMER}`),
      "preflight",
      /nothing to go back to/,
    ],
    [
      "only one whose containers can't read the data",
      (box: FakeMaster) => {
        box.files.drop(`${LAYOUT.cliDir}/${FORMER}`);
        box.files.put(`${LAYOUT.cliDir}/0.1.0/bin/fula-node.js`, "");
      },
      "preflight",
      /0\.1\.0 can't take this node over/,
    ],
    [
      "a newer version in use",
      (box: FakeMaster) => {
        box.files.drop(LAYOUT.cliCurrent);
        box.files.putLink("0.6.0", LAYOUT.cliCurrent);
      },
      "newer",
      /0\.6\.0 is in use/,
    ],
    [
      "an older version in use",
      (box: FakeMaster) => {
        box.files.drop(LAYOUT.cliCurrent);
        box.files.putLink("0.3.0", LAYOUT.cliCurrent);
      },
      "preflight",
      /0\.3\.0 is in use/,
    ],
    [
      "one whose program is gone",
      (box: FakeMaster) => box.files.drop(`${LAYOUT.cliDir}/${FORMER}/bin`),
      "preflight",
      /0\.4\.0 does not start/,
    ],
  ] as const)("is refused: %s", async (_what, change, exit, what) => {
    change(host);
    await expect(find()).rejects.toMatchObject({ exit, what: expect.stringMatching(what) });
    await expect(find()).rejects.toBeInstanceOf(OperatorError);
  });

  it("is refused if its program does not start, in words and not with the trace of Node.js", async () => {
    const failures = [
      ["node:internal/modules/esm/resolve:283", `${program} has a part that is missing or damaged.`],
      [`${program}/bin/fula-node.js:3`, `${program} has a part that is missing or damaged.`],
      ["fula-node needs Node.js 22", "fula-node needs Node.js 22."],
    ] as const;
    for (const [printed, why] of failures) {
      host.system.onTry = (argv) =>
        argv.join(" ") === `/usr/bin/node ${program}/bin/fula-node.js join-as-master --help` ? printed : null;
      await expect(find()).rejects.toMatchObject({
        exit: "preflight",
        why,
        remedy: expect.stringContaining(`--strip-components=1 -C ${program}`),
      });
    }
    host.files.drop(`${program}/dist`);
    await expect(find()).rejects.toMatchObject({ why: `${program}/dist/cli.js is missing.` });
    expect(host.writes).toEqual([]);
  });

  it("joins a storage node as it was joined: a name that was not registered stays so", async () => {
    const asked = async (flags: { ignore?: string[]; register?: boolean }, isAnnounced: boolean) => {
      const box = new FakeStorage();
      const { cliDir, cliCurrent, announced } = storageLayout("/opt/fula-storage");
      for (const version of [FORMER, NOW])
        for (const part of ["package.json", "bin/fula-node.js", "dist/cli.js"])
          box.files.put(`${cliDir}/${version}/${part}`, "{}");
      box.files.putLink(NOW, cliCurrent);
      if (isAnnounced) box.files.put(announced, "{}");
      let last = "";
      box.system.onTry = (argv) => ((last = argv.join(" ")), null);
      const world = worldOf(box, { version: NOW });
      await rollBackNode("join-as-storage-node", { dryRun: true, yes: true, ignore: [], ...flags }, world);
      return last;
    };
    expect(await asked({}, true)).toMatch(/join-as-storage-node --dry-run$/);
    expect(await asked({}, false)).toMatch(/--dry-run --no-register$/);
    expect(await asked({ register: false, ignore: ["memory"] }, true)).toMatch(
      /--dry-run --no-register --ignore memory$/,
    );
  });

  it("is looked at before a rollback stops or reverts anything, also with --dry-run", async () => {
    const box = new FakeStorage();
    const { cliDir, cliCurrent } = storageLayout("/opt/fula-storage");
    for (const version of [FORMER, NOW]) box.files.put(`${cliDir}/${version}/package.json`, "{}");
    box.files.putLink(NOW, cliCurrent);
    const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
    for (const dryRun of [true, false])
      await expect(
        rollBackNode(
          "join-as-storage-node",
          { dryRun, yes: true, ignore: [] },
          worldOf(box, { takeLock, version: NOW }),
        ),
      ).rejects.toMatchObject({ exit: "preflight", what: expect.stringContaining("does not start") });
    expect(box.writes).toEqual([]);
  });
});

it("an image of data whose default has changed since the first version is kept by name, any other is not", () => {
  const specs = [
    ...MASTER_SETTINGS.filter(({ key }) => key !== "KUBO_IMAGE"),
    { key: "KUBO_IMAGE", byDefault: "ipfs/kubo:v9" },
  ] as unknown as typeof MASTER_SETTINGS;
  const values = (key: string) => `the ${key}`;
  expect(keepImages(specs, values)).toEqual(["--set", "KUBO_IMAGE=the KUBO_IMAGE"]);
  expect(keepImages(MASTER_SETTINGS, values)).toEqual([]);
});
