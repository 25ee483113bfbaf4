import { beforeEach, describe, expect, it } from "vitest";
import { imagesSave, type SaveFlags } from "../../../src/commands/images.ts";
import { OR_FROM_ARCHIVE } from "../../../src/docker/whole-images.ts";
import { OperatorError } from "../../../src/errors.ts";
import { table, wrap } from "../../../src/ui/text.ts";
import type { Result } from "../../../src/ui/reporter.ts";
import type { World } from "../../../src/world.ts";
import { FakeMaster, VERSION } from "../../support/fake-master.ts";
import { joinedBox, LAYOUT } from "../../support/master-boxes.ts";

const FILE = "/mnt/usb/images.tar";
const STORAGE = ["node:26-trixie-slim", "ipfs/kubo:v0.42.0", "ipfs/ipfs-cluster:v1.1.6"];
const MASTER = ["postgres:16-alpine", ...STORAGE, "caddy:2.11.9-alpine"];

let host: FakeMaster;
let locks: string[];
beforeEach(() => {
  host = machine();
  locks = [];
});

/** A machine with Docker and a mounted disk, which is no node. */
function machine(): FakeMaster {
  const made = new FakeMaster();
  made.files.putDirectory("/mnt/usb");
  return made;
}

async function save(flags: Partial<SaveFlags> = {}, file = FILE): Promise<Result> {
  const results: Result[] = [];
  const world = {
    host,
    version: VERSION,
    pid: 7,
    reporter: {
      table,
      wrap,
      progress: () => {},
      close: () => Promise.resolve(),
      result: (result: Result) => void results.push(result),
    },
    takeLock: (name: string) => {
      locks.push(name);
      return Promise.resolve({ release: () => Promise.resolve(void locks.push("released")) });
    },
  } as unknown as World;
  expect(await imagesSave(file, { image: [], force: false, ...flags }, world)).toBe("ok");
  return results[0] as Result;
}

const pulls = () => host.writes.filter((write) => write.startsWith("docker.pull"));

describe("images save, on a machine that is no node", () => {
  it("pulls and saves what a master needs by the default settings, and says so", async () => {
    const { data, lines } = await save();
    expect(host.docker.archives.get(FILE)).toEqual(MASTER);
    expect(data).toMatchObject({ kind: "master", architecture: "amd64", images: MASTER, pulled: MASTER });
    expect(lines.join("\n")).toContain(`Saved 5 images of a master for amd64: ${FILE}`);
    expect(lines.join("\n")).toContain(
      `npx --yes --offline ./fula-node-${VERSION}.tgz join-as-master --provision-writer --set CLUSTERNAME=NAME --images images.tar`,
    );
    expect(locks).toEqual([]);
  });

  it("pulls only what is not here", async () => {
    for (const image of MASTER.slice(1)) host.docker.putImage(image);
    await save();
    expect(pulls()).toEqual(["docker.pull postgres:16-alpine"]);
  });

  it("saves less for a storage node, and more images if they are named, each once", async () => {
    host.docker.putImage("theirs:1");
    await save({ for: "storage-node", image: ["theirs:1", "ipfs/kubo:v0.42.0"] });
    expect(host.docker.archives.get(FILE)).toEqual([...STORAGE, "theirs:1"]);
  });

  it("says how a storage node joins with them: it needs an invite", async () => {
    expect((await save({ for: "storage-node" })).lines.join("\n")).toContain(
      `npx --yes --offline ./fula-node-${VERSION}.tgz join-as-storage-node --invite @invite.txt --fingerprint FINGERPRINT --images images.tar`,
    );
  });

  it("does not offer a flag that it lacks if an image can't be pulled", async () => {
    host.docker.pull = (reference) =>
      Promise.reject(
        new OperatorError({
          exit: "unavailable",
          what: `The image ${reference} could not be pulled.`,
          remedy: `Check the network and the image's name. Or pull it by hand${OR_FROM_ARCHIVE}. Then run again.`,
        }),
      );
    await expect(save({ image: ["wrong"] })).rejects.toMatchObject({
      exit: "unavailable",
      remedy: "Check the network and the image's name. Or pull it by hand. Then run again.",
    });
  });

  it("pulls images of another architecture if none of that name is here", async () => {
    expect((await save({ arch: "arm64" })).data).toMatchObject({ architecture: "arm64" });
    expect(host.docker.images.get("postgres:16-alpine")?.architecture).toBe("arm64");
  });
});

describe("images save, on a node", () => {
  beforeEach(async () => {
    host = await joinedBox({ set: { POSTGRES_IMAGE: "postgres:17-alpine", AUTO_UPDATE: "true" } });
    host.files.putDirectory("/mnt/usb");
  });

  it("saves the images that its settings name; it pulls under the node's lock, and with its mark", async () => {
    host.docker.images.delete("caddy:2.11.9-alpine");
    host.docker.putImage("nickfedor/watchtower:1.21.0");
    const { data } = await save();
    const expected = ["postgres:17-alpine", ...MASTER.slice(1), "nickfedor/watchtower:1.21.0"];
    expect(data).toMatchObject({
      images: expected,
      settings: LAYOUT.envFile,
      pulled: ["caddy:2.11.9-alpine"],
    });
    expect(host.docker.archives.get(FILE)).toEqual(expected);
    expect(locks).toEqual([LAYOUT.baseDir, "released"]);
    expect(host.writes.filter((write) => write.includes(LAYOUT.unfinishedImages))).toHaveLength(2);
  });

  it("takes the default settings for the other kind of node", async () => {
    const { data } = await save({ for: "storage-node" });
    expect(data).toMatchObject({ kind: "storage-node", images: STORAGE, settings: null });
  });

  it("pulls an image that a power cut interrupted again", async () => {
    for (const image of ["caddy:2.11.9-alpine", "nickfedor/watchtower:1.21.0"]) host.docker.putImage(image);
    host.files.put(LAYOUT.unfinishedImages, "caddy:2.11.9-alpine\tb/17\n");
    await save();
    expect(pulls()).toEqual(["docker.pull caddy:2.11.9-alpine", "docker.pull caddy:2.11.9-alpine"]);
  });
});

describe("what it refuses before it writes anything", () => {
  const cases: readonly (readonly [
    name: string,
    arrange: () => void,
    flags: Partial<SaveFlags>,
    file: string,
    exit: string,
    what: RegExp,
  ])[] = [
    ["a file that is there", () => host.files.put(FILE, "x"), {}, FILE, "usage", /exists already/],
    ["a directory", () => host.files.putDirectory(FILE), { force: true }, FILE, "usage", /is a directory/],
    ["a directory that is not there", () => {}, {}, "/mnt/none/a.tar", "usage", /not a directory/],
    ["the output", () => {}, {}, "-", "usage", /does not write to standard output/],
    ["no name", () => {}, {}, "/mnt/usb/", "usage", /does not name a file/],
    ["no engine", () => (host.docker.engine = null), {}, FILE, "unavailable", /does not answer/],
    ["a digest", () => {}, { image: ["a@sha256:00"] }, FILE, "settings", /a@sha256:00 can't be saved/],
    [
      "another architecture, of which a name is taken",
      () => host.docker.putImage("postgres:16-alpine"),
      { arch: "arm64" },
      FILE,
      "preflight",
      /has postgres:16-alpine for another architecture than arm64/,
    ],
  ];
  it.each(cases)("%s", async (_name, arrange, flags, file, exit, what) => {
    arrange();
    await expect(save(flags, file)).rejects.toMatchObject({
      exit,
      what: expect.stringMatching(what) as string,
    });
    expect(host.writes).toEqual([]);
  });

  it("another architecture on a node, whose images would lose their names", async () => {
    host = await joinedBox();
    host.files.putDirectory("/mnt/usb");
    await expect(save({ arch: "arm64", for: "storage-node" })).rejects.toMatchObject({ exit: "preflight" });
    expect(host.writes).toEqual([]);
  });

  it("too little space: how much is needed; what was pulled stays, and is named", async () => {
    host.files.freeBytes = 900_000_000;
    await expect(save()).rejects.toMatchObject({
      exit: "preflight",
      what: "/mnt/usb has 900 MB free, and the archive needs up to 1135 MB.",
      changed: expect.stringContaining("pulled postgres:16-alpine, ") as string,
    });
    expect(host.docker.archives.has(FILE)).toBe(false);
  });
});

it("too little space on another disk than that of Docker: nothing is said of Docker's disk", async () => {
  const space = { totalBytes: 2e12, freeInodes: 1e6, totalInodes: 1e6 };
  const [small, large] = [1e8, 1e12];
  host.files.space = async (path?: string) =>
    path === "/mnt/usb" ? { ...space, freeBytes: small } : { ...space, freeBytes: large, totalBytes: 4e12 };
  await expect(save()).rejects.toMatchObject({
    what: expect.stringMatching(/^\/mnt\/usb has 100 MB free/) as string,
    why: undefined,
    remedy: "Free some space, or give a file on another disk, then run again.",
  });
  host.files.space = async (path?: string) =>
    path === "/mnt/usb" ? { ...space, freeBytes: large } : { ...space, freeBytes: small, totalBytes: 4e12 };
  await expect(save()).rejects.toMatchObject({
    what: expect.stringMatching(/^\/var\/lib\/docker has 100 MB free/) as string,
    why: "Docker writes all images to its own disk before it sends them.",
    remedy: "Free some space, then run again.",
  });
});

it("says what is there instead of a file", async () => {
  const stat = host.files.stat.bind(host.files);
  host.files.stat = async (path) => {
    const found = await stat(path);
    return path === FILE
      ? { kind: "other", mode: 0o666, sizeBytes: 0, uid: 0, modifiedAt: new Date(0) }
      : found;
  };
  await expect(save({ force: true })).rejects.toMatchObject({
    exit: "usage",
    what: `${FILE} is a device, pipe or socket, not a file.`,
  });
});

it("replaces a file only with --force", async () => {
  host.files.put(FILE, "x");
  await save({ force: true });
  expect(host.docker.archives.get(FILE)).toEqual(MASTER);
});
