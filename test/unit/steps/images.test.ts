import { describe, expect, it } from "vitest";
import { PACKAGE_ENTRIES } from "../../../src/settings/layout.ts";
import type { AnyStep } from "../../../src/engine/step.ts";
import { FakeMaster, PACKAGE_DIR } from "../../support/fake-master.ts";
import { joinedBox, lookAt, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const ARCHIVE = "/root/images.tar";
const WRITER_IMAGES = ["ipfs/kubo:v0.42.0", "ipfs/ipfs-cluster:v1.1.6"];
const ALL = ["postgres:16-alpine", "node:26-trixie-slim", ...WRITER_IMAGES];
const LOAD = { kind: "load-images", summary: `load images from ${ARCHIVE}`, archive: ARCHIVE };

function withArchive(holds: readonly string[] = ALL): FakeMaster {
  const host = new FakeMaster();
  host.files.put(ARCHIVE, "layers");
  host.docker.archives.set(ARCHIVE, holds);
  return host;
}

const makeStep = (wishes = {}): Promise<AnyStep> =>
  stepOn(new FakeMaster(), "images", { imagesArchive: ARCHIVE, ...wishes });
const step = await makeStep();

stepLaws("images", {
  makeStep: () => step,
  makeHost: () => withArchive(),
  absent: () => {},
  drifts: [],
  foreign: [],
  refusals: [
    {
      name: "the archive does not exist",
      arrange: (host) => host.files.drop(ARCHIVE),
      exit: "usage",
      what: /The file \/root\/images\.tar does not exist/,
    },
    {
      name: "the archive is a directory",
      arrange: (host) => {
        host.files.drop(ARCHIVE);
        host.files.putDirectory(ARCHIVE);
      },
      exit: "usage",
      what: /is a directory, not a file/,
    },
    {
      name: "the archive is a link to nothing",
      arrange: (host) => {
        host.files.drop(ARCHIVE);
        host.files.putLink("/root/none.tar", ARCHIVE);
      },
      exit: "usage",
      what: /The file \/root\/images\.tar does not exist/,
    },
    {
      name: "the archive is another file",
      arrange: (host) => void host.docker.archives.delete(ARCHIVE),
      exit: "usage",
      what: /is not an archive of images/,
    },
    {
      name: "the archive lacks images",
      arrange: (host) => void host.docker.archives.set(ARCHIVE, ALL.slice(2)),
      exit: "unavailable",
      what: /does not contain postgres:16-alpine, node:26-trixie-slim\./,
    },
    {
      name: "the archive lacks parts of images",
      arrange: (host) => void (host.docker.archived = { architecture: "amd64", lacks: ["blobs/sha256/00"] }),
      exit: "integrity",
      what: /is not complete: parts of postgres:16-alpine/,
    },
    {
      name: "the archive is for another architecture",
      arrange: (host) => void (host.docker.archived = { architecture: "arm64", lacks: [] }),
      exit: "usage",
      what: /has postgres:16-alpine, .* for arm64, and this machine is amd64\./,
    },
  ],
});

describe("images", () => {
  it("takes an archive by a link to it", async () => {
    const host = withArchive();
    host.files.drop(ARCHIVE);
    host.files.put("/mnt/usb/images.tar", "layers");
    host.files.putLink("/mnt/usb/images.tar", ARCHIVE);
    expect((await lookAt(step, host)).changes).toEqual([LOAD]);
  });

  it("loads the archive once, and names what is lacking as evidence", async () => {
    const host = withArchive();
    host.docker.putImage("postgres:16-alpine");
    const { finding, changes } = await lookAt(step, host);
    expect(finding.evidence["not on this machine"]).toBe(ALL.slice(1).join(", "));
    expect(changes).toEqual([LOAD]);
  });

  it("wants the base image only for a service image that is still to be built", async () => {
    const host = withArchive();
    for (const image of ["postgres:16-alpine", ...WRITER_IMAGES]) host.docker.putImage(image);
    const built = {
      "land.fx.fula-node.package": (await host.files.hashTree(PACKAGE_DIR, PACKAGE_ENTRIES)) ?? "",
      "land.fx.fula-node.base": "node:26-trixie-slim",
    };
    host.docker.putImage("fula-node:0.1.0", built);
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    host.docker.putImage("fula-node:0.1.0", { ...built, "land.fx.fula-node.base": "node:24" });
    expect((await lookAt(step, host)).finding.evidence["not on this machine"]).toBe("node:26-trixie-slim");
  });

  it("wants the writer's images on a repair without --provision-writer, which then pulls nothing", async () => {
    const options = { provisionWriter: false, imagesArchive: ARCHIVE };
    const host = await joinedBox();
    host.docker.archives.set(ARCHIVE, ALL);
    host.files.put(ARCHIVE, "an archive");
    for (const name of ["ipfs_host", "ipfs_cluster"]) host.docker.boxes.delete(name);
    for (const image of WRITER_IMAGES) host.docker.images.delete(image);
    const plan = await Promise.all(
      ["images", "writer"].map(async (id) => (await lookAt(await stepOn(host, id, options), host)).changes),
    );
    expect(plan.map((changes) => changes.map(({ kind }) => kind))).toEqual([["load-images"], ["up"]]);
  });

  it("wants the writer's images only for a writer made here, the updater's only with AUTO_UPDATE", async () => {
    const lean = await makeStep({
      provisionWriter: false,
      set: { AUTO_UPDATE: "true", WEBUI_IMAGE: "theirs:1" },
    });
    const updater = "nickfedor/watchtower:1.21.0";
    const { finding } = await lookAt(lean, withArchive([...ALL, "theirs:1", updater]));
    expect(finding.evidence["not on this machine"]).toBe(
      `postgres:16-alpine, node:26-trixie-slim, theirs:1, ${updater}`,
    );
    await expect(lookAt(lean, withArchive())).rejects.toMatchObject({
      what: `${ARCHIVE} does not contain theirs:1, ${updater}.`,
      remedy: expect.stringContaining(`--for master --image theirs:1 --image ${updater}.`) as string,
    });
  });

  it("wants no Postgres image for a database elsewhere", async () => {
    const elsewhere = { POSTGRES_HOST: "10.0.0.9", POSTGRES_PASSWORD: "long enough" };
    const { finding } = await lookAt(await makeStep({ set: elsewhere }), withArchive());
    expect(finding.evidence["not on this machine"]).not.toContain("postgres");
  });

  it("names the images that the archive lacks, and verifies nothing away", async () => {
    const host = withArchive(["postgres:16-alpine"]);
    await expect(step.apply(LOAD, host, () => {})).rejects.toMatchObject({
      exit: "unavailable",
      what: `${ARCHIVE} does not contain ${ALL.slice(1).join(", ")}.`,
    });
    await expect(step.verify(host)).rejects.toMatchObject({ exit: "unhealthy" });
  });

  it("does nothing without an archive", async () => {
    const without = await stepOn(new FakeMaster(), "images");
    const host = new FakeMaster();
    expect((await lookAt(without, host)).finding.state).toBe("ours");
    await without.verify(host);
  });
});
