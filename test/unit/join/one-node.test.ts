import { describe, expect, it } from "vitest";
import { joinAsMaster } from "../../../src/commands/join-as-master.ts";
import { joinAsStorageNode } from "../../../src/commands/join-as-storage-node.ts";
import { secretRotate } from "../../../src/commands/secret.ts";
import { OperatorError } from "../../../src/errors.ts";
import { STORAGE_NAMES } from "../../../src/settings/layout.ts";
import type { World } from "../../../src/world.ts";
import { leaveOn, leavingMaster } from "../../support/leave-boxes.ts";
import { lookAt, stepOn } from "../../support/master-boxes.ts";
import { API, FakeStorage, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";

const MASTER = "/opt/fula-master";
const STORAGE = "/opt/fula-storage";
const SECOND = "/opt/second";
const FILES = "com.docker.compose.project.config_files";
const FLAGS = { dryRun: false, yes: true, set: [], adopt: [], ignore: ["clock"], baseDir: SECOND };
const freeLock: World["takeLock"] = () => Promise.resolve({ release: () => Promise.resolve() });

const master = await leavingMaster();
const storage = await storageBoxBefore(null);

type Locks = Pick<World, "takeLock">;
const asStorage = (host: FakeStorage, flags: object = {}, locks: Locks = { takeLock: freeLock }) =>
  joinAsStorageNode(
    {
      ...FLAGS,
      set: [`STORAGE_API_URL=${API}`],
      acceptPoolChange: false,
      allowHttp: false,
      register: true,
      ...flags,
    },
    worldOf(host, { pid: 7, ...locks }),
  );
const asMaster = (host: FakeStorage, flags: object = {}, locks: Locks = { takeLock: freeLock }) =>
  joinAsMaster(
    { ...FLAGS, set: ["CLUSTERNAME=pool"], replace: [], provisionWriter: true, ...flags },
    worldOf(host, { pid: 7, ...locks }),
  );
const rotate = (host: FakeStorage, flags: object = {}, locks: Locks = { takeLock: freeLock }) =>
  secretRotate(
    "system-key",
    { dryRun: false, yes: true, baseDir: SECOND, ...flags },
    worldOf(host, { pid: 7, ...locks }),
  );

/** Copies or moves the files of a base directory. */
function place(host: FakeStorage, from: string, to: string, how: "copy" | "move"): void {
  for (const [path, entry] of [...host.files.tree].filter(([name]) => name.startsWith(`${from}/`)))
    if (entry.kind === "file") host.files.put(path.replace(from, to), entry.text, entry.mode);
    else if (entry.kind === "symlink") host.files.putLink(entry.text, path.replace(from, to));
  if (how === "move") host.files.drop(from);
}

async function refusalOf(run: Promise<unknown>): Promise<OperatorError> {
  const thrown: unknown = await run.then(
    () => null,
    (error: unknown) => error,
  );
  if (thrown instanceof OperatorError) return thrown;
  throw new Error("it was not refused", { cause: thrown });
}

describe("a second base directory for the node that runs", () => {
  it.each([
    ["join-as-storage-node", storage, STORAGE, asStorage],
    [
      "join-as-storage-node --dry-run",
      storage,
      STORAGE,
      (host: FakeStorage) => asStorage(host, { dryRun: true }),
    ],
    [
      "join-as-storage-node --adopt",
      storage,
      STORAGE,
      (host: FakeStorage) => asStorage(host, { adopt: ["kubo"] }),
    ],
    ["join-as-master", master, MASTER, asMaster],
    ["join-as-master --dry-run", master, MASTER, (host: FakeStorage) => asMaster(host, { dryRun: true })],
  ] as const)("%s is refused before the first write, and names the node", async (_verb, whole, home, run) => {
    const host = whole.copy();
    const before = host.snapshot();
    expect(await refusalOf(run(host))).toMatchObject({
      exit: "foreign",
      what: expect.stringMatching(new RegExp(`belong to the node in ${home}, not to ${SECOND}\\.$`)),
      remedy: `Run again with --base-dir ${home}.`,
    });
    expect(host.snapshot()).toEqual(before);
    expect(host.writes).toEqual([]);
  });

  it.each([
    ["leave", (host: FakeStorage) => leaveOn(host, { baseDir: SECOND })],
    ["secret rotate", rotate],
    ["secret rotate --dry-run", (host: FakeStorage) => rotate(host, { dryRun: true })],
  ] as const)("%s too, with a copy of the whole directory", async (_verb, run) => {
    const host = master.copy();
    place(host, MASTER, SECOND, "copy");
    host.revive();
    expect(await refusalOf(run(host))).toMatchObject({
      exit: "foreign",
      remedy: `Run again with --base-dir ${MASTER}.`,
    });
    expect(host.writes).toEqual([]);
  });

  it("one container of another directory is enough, and is named", async () => {
    const host = storage.copy();
    const ingest = host.docker.boxes.get(STORAGE_NAMES.ingest);
    if (ingest === undefined) throw new Error("no ingest");
    host.docker.putContainer(ingest.name, {
      ...ingest,
      labels: { ...ingest.labels, [FILES]: `${SECOND}/x.yml` },
    });
    host.files.put(`${SECOND}/.env`, "");
    expect(await refusalOf(asStorage(host, { baseDir: STORAGE }))).toMatchObject({
      exit: "foreign",
      what: `The container ${ingest.name} belongs to the node in ${SECOND}, not to ${STORAGE}.`,
    });
  });

  it("a directory that was moved: the error says how to go on, and that works", async () => {
    const host = storage.copy();
    place(host, STORAGE, SECOND, "move");
    const refused = await refusalOf(asStorage(host));
    expect(refused.exit).toBe("foreign");
    const [, names = ""] =
      /docker stop [^&]+ && docker rm ([^(]+) \(volumes stay\)/.exec(refused.remedy ?? "") ?? [];
    expect(names.split(" ").toSorted()).toEqual(
      [STORAGE_NAMES.kubo, STORAGE_NAMES.cluster, STORAGE_NAMES.ingest].toSorted(),
    );
    for (const name of names.split(" ")) host.docker.boxes.delete(name);
    const secrets = /^CLUSTER_SECRET=.*$/m.exec(host.files.textOf(`${SECOND}/.env`));
    expect(await asStorage(host)).toBe("ok");
    expect(/^CLUSTER_SECRET=.*$/m.exec(host.files.textOf(`${SECOND}/.env`))?.[0]).toBe(secrets?.[0]);
    host.revive();
    expect(await asStorage(host)).toBe("ok");
    expect(host.writes).toEqual([]);
  });

  it("cron lines of another directory, when its containers are gone", async () => {
    const host = master.copy();
    host.docker.boxes.clear();
    expect(await refusalOf(asMaster(host))).toMatchObject({
      exit: "foreign",
      what: expect.stringContaining("The cron file /etc/cron.d/fula-pinset-snapshot belongs to the node in"),
    });
    host.files.drop(MASTER);
    // Nothing of that node is left but its data, which needs its secrets.
    expect((await refusalOf(asMaster(host))).what).toContain("are missing, but data that needs them exists");
  });

  it("a link to the directory of the node is that directory, also in the label of an older version", async () => {
    const host = storage.copy();
    host.files.putLink(STORAGE, "/srv/link");
    for (const [name, box] of host.docker.boxes)
      host.docker.boxes.set(name, {
        ...box,
        labels: { ...box.labels, [FILES]: "/srv/link/docker-compose.yml" },
      });
    host.revive();
    expect(await asStorage(host, { baseDir: "/srv/link" })).toBe("ok");
    expect(host.writes).toEqual([]);
  });

  it("a step finds such a container foreign, so status says it too", async () => {
    const host = master.copy();
    for (const [name, box] of host.docker.boxes)
      host.docker.boxes.set(name, {
        ...box,
        labels: { ...box.labels, [FILES]: `${SECOND}/docker-compose.yml` },
      });
    const { finding } = await lookAt(await stepOn(host, "services"), host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(`belongs to the node in ${SECOND}.`),
      remedy: `Use that node: --base-dir ${SECOND}.`,
    });
  });
});

describe("runs in two base directories at once", () => {
  it.each([
    ["join-as-storage-node", storage, asStorage],
    ["join-as-master", master, asMaster],
    [
      "secret rotate",
      master,
      (host: FakeStorage, flags: object, locks: Locks) => rotate(host, { ...flags, baseDir: MASTER }, locks),
    ],
    ["leave", master, (host: FakeStorage, _flags: object, locks: Locks) => leaveOn(host, {}, locks)],
  ] as const)(
    "%s takes a lock that is the same for every directory, and gives it back",
    async (_verb, whole, run) => {
      const host = whole.copy();
      const held = new Set<string>();
      const seen: string[] = [];
      const takeLock: World["takeLock"] = async (name) => {
        seen.push(name);
        held.add(name);
        return { release: async () => void held.delete(name) };
      };
      await run(host, {}, { takeLock }).catch((thrown: unknown) => {
        if (!(thrown instanceof OperatorError)) throw thrown;
      });
      expect(seen.slice(0, 2)).toEqual([expect.stringMatching(/^\/opt\//), "this machine"]);
      expect([...held]).toEqual([]);
    },
  );

  it("the second one is locked, and leaves the lock of its own directory", async () => {
    const held: string[] = [];
    const takeLock: World["takeLock"] = async (name) => {
      if (name === "this machine") throw new OperatorError({ exit: "locked", what: "a join runs" });
      held.push(name);
      return { release: async () => void held.pop() };
    };
    expect(await refusalOf(asStorage(new FakeStorage(), {}, { takeLock }))).toMatchObject({ exit: "locked" });
    expect(held).toEqual([]);
  });
});
