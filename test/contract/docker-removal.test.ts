import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDocker } from "../../src/docker/engine-writer.ts";
import type { Docker } from "../../src/docker/engine.ts";
import { FakeHost } from "../support/fake-host.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const PREFIX = `fula-node-removal-${process.pid}`;
const IMAGE = `${PREFIX}/tiny:1`;
const OTHER_TAG = `${PREFIX}/tiny:2`;
const NAMES = { busy: `${PREFIX}-busy`, volume: `${PREFIX}-data`, network: `${PREFIX}-net` };
const LABELS = { "land.fx.test": PREFIX };
const engine = isEngineThere();

if (!engine && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

function arrangeFake(): Docker {
  const { docker: subject } = new FakeHost();
  subject.putImage(IMAGE, LABELS);
  const image = subject.images.get(IMAGE);
  if (image !== undefined) subject.images.set(OTHER_TAG, image);
  subject.putVolume(NAMES.volume, LABELS);
  subject.networks.set(NAMES.network, LABELS);
  subject.putContainer(NAMES.busy, {
    image: IMAGE,
    imageId: image?.id ?? "",
    networkMode: NAMES.network,
    mounts: [{ type: "volume", name: NAMES.volume, source: "", destination: "/data" }],
  });
  return subject;
}

function arrangeReal(): Docker {
  const label = ["--label", `land.fx.test=${PREFIX}`];
  makeTinyImage(IMAGE, [`LABEL land.fx.test=${PREFIX}`]);
  docker("tag", IMAGE, OTHER_TAG);
  docker("volume", "create", ...label, NAMES.volume);
  docker("network", "create", ...label, NAMES.network);
  // It writes down on its volume that it was asked to stop, and not killed.
  const loop = "trap 'echo asked > /data/end; exit 0' TERM; while :; do sleep 1; done";
  const where = ["--network", NAMES.network, "--volume", `${NAMES.volume}:/data`];
  docker("run", "--detach", "--name", NAMES.busy, ...where, IMAGE, "/bin/sh", "-c", loop);
  return createDocker({ ...process.env });
}

afterAll(() => {
  if (!engine) return;
  for (const command of [
    ["rm", "--force", NAMES.busy],
    ["volume", "rm", "--force", NAMES.volume],
    ["network", "rm", NAMES.network],
    ["image", "rm", "--force", IMAGE, OTHER_TAG],
  ]) {
    try {
      docker(...command);
    } catch {
      // The suite has removed it.
    }
  }
});

describe.each([
  ["the fake", true, arrangeFake],
  ["the real one", engine, arrangeReal],
] as const)("docker, removing: %s", (name, isThere, arrange) => {
  describe.runIf(isThere)(isThere ? "an engine is there" : "skipped: no engine answers", () => {
    let subject: Docker;
    beforeAll(() => {
      subject = arrange();
    });

    it("lists volumes, networks and images with their labels", async () => {
      const labelled = <T extends { readonly labels: Readonly<Record<string, string>> }>(
        some: readonly T[],
      ) => some.filter(({ labels }) => labels["land.fx.test"] === PREFIX);
      expect(labelled(await subject.listVolumes())).toEqual([{ name: NAMES.volume, labels: LABELS }]);
      expect(labelled(await subject.listNetworks())).toEqual([{ name: NAMES.network, labels: LABELS }]);
      const images = labelled(await subject.listImages());
      expect(images).toEqual([
        { id: (await subject.image(IMAGE))?.id, tags: expect.anything() as unknown, labels: LABELS },
      ]);
      expect(images[0]?.tags.toSorted()).toEqual([IMAGE, OTHER_TAG]);
    });

    it("refuses to remove what a container uses", async () => {
      for (const attempt of [
        () => subject.removeVolume(NAMES.volume),
        () => subject.removeNetwork(NAMES.network),
      ])
        await expect(attempt()).rejects.toMatchObject({ exit: "unavailable" });
      expect(await subject.volume(NAMES.volume)).not.toBeNull();
    });

    it("stops a container before it removes it, and its volume stays", async () => {
      await subject.removeContainer(NAMES.busy);
      expect(await subject.container(NAMES.busy)).toBeNull();
      expect(await subject.volume(NAMES.volume)).not.toBeNull();
      if (name !== "the real one") return;
      const said = docker("run", "--rm", "--volume", `${NAMES.volume}:/data`, IMAGE, "/bin/cat", "/data/end");
      expect(said).toBe("asked");
    });

    it("removes a tag, and with its last one the image", async () => {
      await subject.removeImage(IMAGE);
      expect(await subject.image(IMAGE)).toBeNull();
      expect(await subject.image(OTHER_TAG)).not.toBeNull();
      await subject.removeImage(OTHER_TAG);
      expect(await subject.image(OTHER_TAG)).toBeNull();
    });

    it("removes what nothing uses, and takes what is not there for removed", async () => {
      for (const round of [1, 2]) {
        await subject.removeContainer(NAMES.busy);
        await subject.removeVolume(NAMES.volume);
        await subject.removeNetwork(NAMES.network);
        await subject.removeImage(OTHER_TAG);
        expect(await subject.volume(NAMES.volume), `round ${round}`).toBeNull();
      }
      const networks = await subject.listNetworks();
      expect(networks.map((network) => network.name)).not.toContain(NAMES.network);
    });
  });
});

describe.each([
  [
    "the fake",
    () => {
      const host = new FakeHost();
      host.docker.engine = null;
      return host.docker;
    },
  ],
  ["the real one", () => createDocker({ DOCKER_HOST: "unix:///nowhere/none.sock" })],
] as const)("docker, where no engine is: %s", (_name, make) => {
  it("lists nothing, and can't remove", async () => {
    const subject = make();
    for (const list of [subject.listVolumes(), subject.listNetworks(), subject.listImages()])
      expect(await list).toEqual([]);
    for (const removal of [
      () => subject.removeContainer("x"),
      () => subject.removeNetwork("x"),
      () => subject.removeVolume("x"),
      () => subject.removeImage("x"),
    ])
      await expect(removal()).rejects.toMatchObject({ exit: "unavailable" });
  });
});
