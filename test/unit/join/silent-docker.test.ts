import { beforeAll, describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { joinAsStorageNode } from "../../../src/commands/join-as-storage-node.ts";
import type { PlanItem } from "../../../src/engine/events.ts";
import type { JoinFlags, StorageFlags } from "../../../src/join/join-run.ts";
import { startDocker } from "../../../src/join/silent-docker.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import { createLines } from "../../../src/ui/lines.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import { join, LAYOUT } from "../../support/master-boxes.ts";
import { FakeStorage, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";
import type { World } from "../../../src/world.ts";

const FLAGS: JoinFlags = {
  dryRun: true,
  yes: true,
  set: [],
  adopt: [],
  replace: [],
  ignore: ["clock"],
  provisionWriter: false,
};
const STORAGE_FLAGS: StorageFlags = { ...FLAGS, acceptPoolChange: false, allowHttp: false, register: true };

let master: FakeStorage;
beforeAll(async () => {
  master = new FakeStorage();
  await join(master);
  master.revive();
});

/** Runs a join, and returns its exit, its plan, and everything that was printed. */
async function run(host: FakeStorage, verb: (world: World) => Promise<string>, parts: Partial<World> = {}) {
  const lines: string[] = [];
  const results: Result[] = [];
  const write = (line: string) => void lines.push(line);
  const shown = createLines({ out: write, err: write }, () => 0);
  const reporter = {
    ...shown,
    result: (result: Result) => {
      results.push(result);
      shown.result(result);
    },
  };
  const takeLock = () => Promise.resolve({ release: () => Promise.resolve() });
  const exit = await verb(worldOf(host, { pid: 7, hostname: "box", takeLock, reporter, ...parts }));
  const data = results[0]?.data as { plan: PlanItem[]; changes: { step: string }[] };
  return { exit, text: lines.join("\n"), ...data };
}

const changing = (plan: readonly PlanItem[]) =>
  plan.filter(({ changes }) => changes.length > 0).map(({ step }) => step);

describe("a join where Docker is installed and does not run", () => {
  it("plans only to start Docker, since what is in Docker can't be judged", async () => {
    const host = master.copy();
    host.stopEngine();
    const { exit, plan, text } = await run(host, (world) => joinAsMaster(FLAGS, world));
    expect(changing(plan)).toEqual(["docker"]);
    expect(text).toMatch(/1 change\. Nothing has been changed yet\./);
    expect(text).toMatch(/starts Docker, then looks again/);
    expect(exit).toBe("pending");
    expect(host.writes).toEqual([]);
  });

  it("starts Docker and then finds everything as it was", async () => {
    const host = master.copy();
    host.stopEngine();
    const { exit, plan, changes } = await run(host, (world) =>
      joinAsMaster({ ...FLAGS, dryRun: false }, world),
    );
    expect(changes.map(({ step }) => step)).toEqual(["docker"]);
    expect(changing(plan)).toEqual([]);
    expect(exit).toBe("ok");
  });

  it("asks again for what it finds only then, and stops without an answer", async () => {
    const host = master.copy();
    host.docker.boxes.delete(NAMES.pinningApi);
    // Its writer does not answer while Docker does not run, and is there all the same.
    host.http.routes.clear();
    host.stopEngine();
    const asked: string[] = [];
    const questions = {
      confirm: (question: string) => Promise.resolve(asked.push(question) === 1),
      text: () => Promise.resolve(""),
    };
    await expect(
      run(host, (world) => joinAsMaster({ ...FLAGS, dryRun: false, yes: false }, world), { questions }),
    ).rejects.toMatchObject({ exit: "pending" });
    expect(asked).toEqual(["Make this change?", expect.stringMatching(/^Make /)]);
    expect(host.docker.boxes.has(NAMES.pinningApi)).toBe(false);
  });

  it("asks about a new writer only when Docker runs, and then creates it", async () => {
    const host = new FakeStorage();
    host.stopEngine();
    const asked: string[] = [];
    const questions = {
      confirm: (question: string) => Promise.resolve(asked.push(question) > 0),
      text: () => Promise.resolve("pool"),
    };
    await run(host, (world) => joinAsMaster({ ...FLAGS, dryRun: false, yes: false }, world), { questions });
    expect(asked[0]).toBe("Make this change?");
    expect(host.docker.boxes.has(NAMES.cluster)).toBe(true);
  });

  it("waits for containers that come back with Docker, before it looks at them", async () => {
    const host = master.copy();
    const container = host.docker.boxes.get(NAMES.pinningApi);
    if (container === undefined) throw new Error("no container");
    host.docker.boxes.set(NAMES.pinningApi, { ...container, health: "starting" });
    host.stopEngine();
    let waits = 0;
    host.clock.onWait = () => {
      waits += 1;
      if (waits === 5) host.docker.boxes.set(NAMES.pinningApi, container);
    };
    const { changes } = await startDocker(
      { host, pid: 7, version: "0.1.0" },
      { listen: () => {}, ask: null, dryRun: false, yes: true, journal: LAYOUT.journal, since: "now" },
    );
    expect(changes.map(({ step }) => step)).toEqual(["docker"]);
    expect(waits).toBe(5);
  });

  it("recovers a lost .env from the containers, instead of new secrets", async () => {
    const host = master.copy();
    const before = /^POSTGRES_PASSWORD=.*$/m.exec(host.files.textOf(LAYOUT.envFile))?.[0];
    host.files.tree.delete(LAYOUT.envFile);
    host.stopEngine();
    await run(host, (world) => joinAsMaster({ ...FLAGS, dryRun: false }, world));
    expect(host.files.textOf(LAYOUT.envFile)).toContain(before);
  });

  it("a storage node: the same, also if its .env is lost", async () => {
    const host = await storageBoxBefore(null);
    host.files.tree.delete("/opt/fula-storage/.env");
    host.stopEngine();
    const planned = await run(host, (world) => joinAsStorageNode(STORAGE_FLAGS, world));
    expect(changing(planned.plan)).toEqual(["docker"]);
    const done = await run(host, (world) => joinAsStorageNode({ ...STORAGE_FLAGS, dryRun: false }, world));
    expect(done.changes.map(({ step }) => step)).toContain("env-file");
    expect(done.exit).toBe("ok");
  });

  it("a machine without Docker has no containers: a first join plans everything", async () => {
    const host = new FakeStorage();
    host.strip();
    const flags = { ...FLAGS, set: ["CLUSTERNAME=pool"], provisionWriter: true };
    const { plan } = await run(host, (world) => joinAsMaster(flags, world));
    expect(changing(plan)).toEqual(expect.arrayContaining(["docker", "env-file", "writer", "services"]));
  });
});
