import { describe, expect, it } from "vitest";
import { status } from "../../../src/commands/status.ts";
import { OperatorError } from "../../../src/errors.ts";
import { refuseOtherKind } from "../../../src/join/installed-node.ts";
import { resolveMaster } from "../../../src/join/resolve-master.ts";
import { resolveStorageNode } from "../../../src/join/resolve-storage.ts";
import { masterLayout, OWNER_LABEL } from "../../../src/settings/layout.ts";
import { leaveOn, leavingMaster } from "../../support/leave-boxes.ts";
import { FakeStorage, LAYOUT, storageBoxBefore, worldOf } from "../../support/storage-fake.ts";

const MASTER = "/opt/fula-master";
const STORAGE = "/opt/fula-storage";
const PROJECT = "com.docker.compose.project";
const FILES = "com.docker.compose.project.config_files";
const OURS = { [OWNER_LABEL.key]: OWNER_LABEL.value };

const wholeMaster = await leavingMaster();
const wholeStorage = await storageBoxBefore(null);

interface Answers {
  readonly status: string;
  readonly leave: string;
  readonly join: string;
}

/** Runs the detection of `leave` on a copy, and returns the node that it found. */
async function askLeave(host: FakeStorage, baseDir: string | undefined): Promise<string> {
  try {
    const given = baseDir === undefined ? {} : { baseDir };
    const { data } = await leaveOn(host, { dryRun: true, release: false, ...given });
    return `${String(data["kind"])} ${String(data["baseDir"])}`;
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    if (thrown.what.includes("two nodes")) return "both";
    const home = /^Run again with --base-dir (\S+)\.$/.exec(thrown.remedy ?? "")?.[1];
    if (home !== undefined) return `elsewhere ${home}`;
    return thrown.exit === "settings" ? "nothing of ours" : thrown.what;
  }
}

async function askStatus(host: FakeStorage, baseDir: string | undefined): Promise<string> {
  const ended: { data: Readonly<Record<string, unknown>> } = { data: {} };
  const world = worldOf(host);
  const reporter = { ...world.reporter, result: (result: typeof ended) => void Object.assign(ended, result) };
  try {
    await status(baseDir === undefined ? {} : { baseDir }, { ...world, reporter });
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    if (thrown.what.includes("two nodes")) return "both";
    return thrown.what;
  }
  const seen = ended.data as {
    readonly kind: string | null;
    readonly baseDir: string;
    readonly left?: { readonly kind: string; readonly baseDir: string } | null;
  };
  const { kind, left } = seen;
  if (kind !== null) return `${kind} ${seen.baseDir}`;
  return left == null ? "none" : `left: ${left.kind} ${left.baseDir}`;
}

/** The error of join-as-storage-node if this box is a master. */
async function askJoin(host: FakeStorage): Promise<string> {
  const flags = { dryRun: true, yes: true, set: [], adopt: [], ignore: [] };
  const more = { acceptPoolChange: false, allowHttp: false, register: false };
  const thrown: unknown = await resolveStorageNode({ ...flags, ...more }, LAYOUT, worldOf(host)).catch(
    (error: unknown) => error,
  );
  return thrown instanceof OperatorError && thrown.exit === "foreign" ? "refused" : "free";
}

/** The same of join-as-master. */
async function askJoinAsMaster(host: FakeStorage): Promise<string> {
  const flags = {
    dryRun: true,
    yes: true,
    set: [],
    adopt: [],
    replace: [],
    ignore: [],
    provisionWriter: true,
  };
  const thrown: unknown = await resolveMaster(flags, masterLayout(MASTER), worldOf(host)).catch(
    (error: unknown) => error,
  );
  return thrown instanceof OperatorError && thrown.what.includes("can't also be a master")
    ? "refused"
    : "free";
}

function copyOf(whole: FakeStorage, change: (host: FakeStorage) => void = () => {}): FakeStorage {
  const host = whole.copy();
  change(host);
  return host;
}

/** Moves a base directory, and changes the labels of its containers to match. */
function moveHome(host: FakeStorage, from: string, to: string, project: string): void {
  for (const [path, entry] of [...host.files.tree].filter(([name]) => name.startsWith(`${from}/`)))
    if (entry.kind === "file") host.files.put(path.replace(from, to), entry.text, entry.mode);
  host.files.drop(from);
  for (const [name, box] of host.docker.boxes) {
    if (box.labels[PROJECT] !== project) continue;
    const labels = { ...box.labels, [FILES]: `${to}/docker-compose.yml` };
    host.docker.boxes.set(name, { ...box, labels });
  }
}

function dropContainers(host: FakeStorage): void {
  host.docker.boxes.clear();
  host.docker.networks.clear();
}

type Case = readonly [name: string, box: () => FakeStorage, expected: Answers, baseDir?: string];

const CASES: readonly Case[] = [
  ["an empty box: none", () => new FakeStorage(), { status: "none", leave: "nothing of ours", join: "free" }],
  [
    "a master",
    () => copyOf(wholeMaster),
    { status: `master ${MASTER}`, leave: `master ${MASTER}`, join: "refused" },
  ],
  [
    "a storage node",
    () => copyOf(wholeStorage),
    { status: `storage-node ${STORAGE}`, leave: `storage-node ${STORAGE}`, join: "free" },
  ],
  [
    "a master of the bash scripts: nothing of ours to remove",
    () =>
      copyOf(new FakeStorage(), (host) => {
        host.files.put(`${MASTER}/.env`, "CLUSTERNAME=pool\nPOSTGRES_PASSWORD=theirs-x\n", 0o600);
        host.files.put(`${MASTER}/docker-compose.yml`, "services: {}\n");
        host.docker.putContainer("postgres-pinning");
      }),
    { status: `master ${MASTER}`, leave: "nothing of ours", join: "refused" },
  ],
  [
    "a storage node that left a directory of its own: its settings are kept there",
    () =>
      copyOf(wholeStorage, (host) => {
        moveHome(host, STORAGE, "/data/node", "fula-storage");
        host.files.drop("/data/node/docker-compose.yml");
        dropContainers(host);
      }),
    { status: "storage-node /data/node", leave: "storage-node /data/node", join: "free" },
    "/data/node",
  ],
  [
    "a master in a directory of its own",
    () => copyOf(wholeMaster, (host) => moveHome(host, MASTER, "/data/master", "fula-master")),
    { status: "master /data/master", leave: "elsewhere /data/master", join: "refused" },
  ],
  [
    "a storage node in a directory of its own",
    () => copyOf(wholeStorage, (host) => moveHome(host, STORAGE, "/data/node", "fula-storage")),
    { status: "storage-node /data/node", leave: "elsewhere /data/node", join: "free" },
  ],
  [
    "a storage node in the default directory of a master",
    () => copyOf(wholeStorage, (host) => moveHome(host, STORAGE, MASTER, "fula-storage")),
    { status: `storage-node ${MASTER}`, leave: `elsewhere ${MASTER}`, join: "free" },
  ],
  [
    "a storage node that left the default directory of a master",
    () =>
      copyOf(wholeStorage, (host) => {
        moveHome(host, STORAGE, MASTER, "fula-storage");
        host.files.drop(`${MASTER}/docker-compose.yml`);
        dropContainers(host);
      }),
    { status: `storage-node ${MASTER}`, leave: `storage-node ${MASTER}`, join: "free" },
  ],
  [
    "a storage node beside settings of a master that somebody put there",
    () =>
      copyOf(wholeStorage, (host) => {
        host.files.put(`${MASTER}/.env`, "POSTGRES_PASSWORD=theirs\n", 0o600);
      }),
    { status: `storage-node ${STORAGE}`, leave: `storage-node ${STORAGE}`, join: "free" },
  ],
  [
    "a storage node beside a master of somebody else: a contradiction",
    () =>
      copyOf(wholeStorage, (host) => {
        host.files.put(`${MASTER}/docker-compose.yml`, "services: {}\n");
        host.docker.putContainer("postgres-pinning");
      }),
    { status: "both", leave: "both", join: "refused" },
  ],
  [
    "two nodes of ours: a contradiction",
    () =>
      copyOf(wholeMaster, (host) => {
        for (const path of [".env", "docker-compose.yml"])
          host.files.put(`${STORAGE}/${path}`, wholeStorage.files.textOf(`${STORAGE}/${path}`), 0o600);
      }),
    { status: "both", leave: "both", join: "refused" },
  ],
  [
    "a master whose files are lost, where a storage node left its settings: the master runs, and leave asks which",
    () =>
      copyOf(wholeMaster, (host) => {
        host.files.drop(MASTER);
        host.files.put(`${STORAGE}/.env`, wholeStorage.files.textOf(`${STORAGE}/.env`), 0o600);
      }),
    { status: `master ${MASTER}`, leave: "both", join: "refused" },
  ],
  [
    "a master beside files of a storage node that somebody put there",
    () =>
      copyOf(wholeMaster, (host) => {
        host.files.put(`${STORAGE}/docker-compose.yml`, "services: {}\n");
      }),
    { status: `master ${MASTER}`, leave: `master ${MASTER}`, join: "refused" },
  ],
  [
    "a storage node that left, its settings purged, its volumes kept",
    () =>
      copyOf(wholeStorage, (host) => {
        dropContainers(host);
        host.files.drop(STORAGE);
      }),
    { status: `left: storage-node ${STORAGE}`, leave: `storage-node ${STORAGE}`, join: "free" },
  ],
  [
    "a master that left, its settings purged, its database kept",
    () =>
      copyOf(wholeMaster, (host) => {
        dropContainers(host);
        host.files.drop(MASTER);
        host.files.drop("/opt/fula-writer");
        for (const name of ["fula-pinset-snapshot", "fula-replication-sweep"])
          host.files.drop(`/etc/cron.d/${name}`);
      }),
    { status: `left: master ${MASTER}`, leave: `master ${MASTER}`, join: "free" },
  ],
  [
    "a storage node of the bash scripts",
    () =>
      copyOf(new FakeStorage(), (host) => {
        const labels = { [PROJECT]: "fula-storage" };
        host.files.put(`${STORAGE}/.env`, wholeStorage.files.textOf(`${STORAGE}/.env`), 0o600);
        const env = host.files.textOf(`${STORAGE}/.env`).replace(/^FULA_NODE_VERSION=.*\n/m, "");
        host.files.put(`${STORAGE}/.env`, env, 0o600);
        host.docker.putContainer("ipfs_host", { labels });
      }),
    { status: `storage-node ${STORAGE}`, leave: "nothing of ours", join: "free" },
  ],
  [
    "a container with our label and no project is of no kind",
    () => copyOf(new FakeStorage(), (host) => void host.docker.putContainer("x", { labels: OURS })),
    { status: "none", leave: "nothing of ours", join: "free" },
  ],
];

describe("status, leave and join agree on which node this is", () => {
  it.each(CASES.map((one) => [one[0], one] as const))("%s", async (_name, [, box, expected, baseDir]) => {
    expect({
      status: await askStatus(box(), baseDir),
      leave: await askLeave(box(), baseDir),
      join: await askJoin(box()),
    }).toEqual(expected);
    // What status calls a storage node can't become a master, unless only data is left of it.
    const isStorage = /^(?:storage-node \/|both)/.test(expected.status) && baseDir === undefined;
    expect(await askJoinAsMaster(box())).toBe(isStorage ? "refused" : "free");
  });
});

/** What a join as a master is told to do on this machine. */
async function remedyOn(host: FakeStorage): Promise<string> {
  const thrown: unknown = await refuseOtherKind(host, "master").catch((error: unknown) => error);
  return thrown instanceof OperatorError ? (thrown.remedy ?? "") : "not refused";
}

describe("the way out of a machine of the other kind", () => {
  it("is to leave, and never to remove by hand what may be the only copy", async () => {
    expect(await remedyOn(copyOf(wholeStorage))).toMatch(/fula-node leave\..*move these to a safe place/);
    const left = copyOf(wholeStorage, (host) => {
      dropContainers(host);
      for (const path of ["docker-compose.yml", "cli"]) host.files.drop(`${STORAGE}/${path}`);
    });
    expect(await remedyOn(left)).toMatch(/move what is listed to a safe place/);
    for (const host of [copyOf(wholeStorage), left]) expect(await remedyOn(host)).not.toMatch(/remove/);
  });
});
