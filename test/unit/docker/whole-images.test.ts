import { beforeEach, describe, expect, it } from "vitest";
import { findMissingImages, pullImage, wholeImage, writeImages } from "../../../src/docker/whole-images.ts";
import { PACKAGE_ENTRIES } from "../../../src/settings/layout.ts";
import { FakeMaster, PACKAGE_DIR } from "../../support/fake-master.ts";
import { boxBefore, LAYOUT, lookAt, stepOn } from "../../support/master-boxes.ts";

const [ONE, OTHER] = ["postgres:16-alpine", "ipfs/kubo:v0.42.0"];
const PLACE = { layout: LAYOUT };
const MARK = LAYOUT.unfinishedImages;
const quiet = (): void => {};

/** A start of the machine, or of a container with a Docker of its own. */
function boot(host: FakeMaster, id: string, first = "17"): void {
  host.files.put("/proc/sys/kernel/random/boot_id", `${id}\n`);
  host.files.put("/proc/1/stat", `1 (a name) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 ${first} 22 33\n`);
}

/** Cuts a run off after Docker has registered the image. */
async function cutOff(host: FakeMaster, references: readonly string[]): Promise<void> {
  const cut = writeImages(host, PLACE, references, async () => {
    for (const reference of references) host.docker.putImage(reference);
    throw new Error("cut off");
  });
  await expect(cut).rejects.toThrow("cut off");
}

/** What was done with Docker's images since. */
function imageWrites(host: FakeMaster, from = 0): readonly string[] {
  return host.writes.slice(from).filter((write) => /^docker\.(pull|load|build|removeImage)/.test(write));
}

let host: FakeMaster;
beforeEach(() => {
  host = new FakeMaster();
  host.files.putDirectory(LAYOUT.baseDir);
  boot(host, "a");
});

describe("an image that is being written", () => {
  it("is named in a file meanwhile, and only meanwhile", async () => {
    await writeImages(host, PLACE, [ONE], async (cut) => {
      expect(await host.files.readText(MARK)).toBe(`${ONE}\ta/17\n`);
      expect(cut).toEqual([]);
    });
    expect(await host.files.readText(MARK)).toBeNull();
  });

  it("counts as missing once its run was cut off, although Docker has it", async () => {
    await cutOff(host, [ONE]);
    host.docker.putImage(OTHER);
    expect(await findMissingImages(host, PLACE, [ONE, OTHER])).toEqual([ONE]);
    expect(await wholeImage(host, PLACE, ONE)).toBeNull();
    expect(await wholeImage(host, PLACE, OTHER)).not.toBeNull();
  });

  it("is pulled again to its end after a kill: Docker and the machine's memory still have what came", async () => {
    await cutOff(host, [ONE]);
    await pullImage(host, PLACE, ONE, quiet);
    expect(imageWrites(host)).toEqual([`docker.pull ${ONE}`]);
    expect(await findMissingImages(host, PLACE, [ONE])).toEqual([]);
  });

  it.each([
    ["another boot", "b", "17"],
    ["another start of a container", "a", "18"],
  ])("is removed and pulled anew after %s, and the operator is told", async (_what, id, first) => {
    await cutOff(host, [ONE]);
    boot(host, id, first);
    const lines: string[] = [];
    await pullImage(host, PLACE, ONE, (line) => void lines.push(line));
    expect(imageWrites(host)).toEqual([
      `docker.pull ${ONE}`,
      `docker.removeImage ${ONE}`,
      `docker.pull ${ONE}`,
    ]);
    expect(lines.join("\n")).toContain("the power was cut while it was pulled");
    expect(await host.files.readText(MARK)).toBeNull();
  });

  it("stays cut until it was repaired, also if the repair is killed, and its neighbour's mark stays", async () => {
    await cutOff(host, [ONE, OTHER]);
    boot(host, "b");
    await cutOff(host, [ONE]);
    await pullImage(host, PLACE, ONE, quiet);
    expect(imageWrites(host)).toHaveLength(3);
    expect(await host.files.readText(MARK)).toBe(`${OTHER}\ta/17\n`);
  });
});

describe("after a power cut", () => {
  it("an archive is loaded, its images are removed, and it is loaded again", async () => {
    host.files.put("/root/images.tar", "layers");
    host.docker.archives.set("/root/images.tar", [ONE, OTHER]);
    await cutOff(host, [ONE]);
    boot(host, "b");
    const set = { NODE_BASE_IMAGE: OTHER };
    const step = await stepOn(new FakeMaster(), "images", {
      imagesArchive: "/root/images.tar",
      provisionWriter: false,
      set,
    });
    const { finding, changes } = await lookAt(step, host);
    expect(finding.evidence["not on this machine"]).toBe(`${ONE}, ${OTHER}`);
    for (const change of changes) await step.apply(change, host, quiet);
    expect(imageWrites(host)).toEqual([
      "docker.load /root/images.tar",
      `docker.removeImage ${ONE}`,
      "docker.load /root/images.tar",
    ]);
    await step.verify(host);
  });

  it("the image of the services is built again, without a layer of the build that was cut", async () => {
    const built = await boxBefore("service-image");
    boot(built, "a");
    const step = await stepOn(built, "service-image");
    await cutOff(built, ["fula-node:0.1.0"]);
    built.docker.putImage("fula-node:0.1.0", {
      "land.fx.fula-node.package": (await built.files.hashTree(PACKAGE_DIR, PACKAGE_ENTRIES)) ?? "",
      "land.fx.fula-node.base": "node:26-trixie-slim",
    });
    boot(built, "b");
    const { finding, changes } = await lookAt(step, built);
    expect(finding.state).toBe("absent");
    const from = built.writes.length;
    for (const change of changes) await step.apply(change, built, quiet);
    expect(imageWrites(built, from)).toEqual([
      "docker.pull node:26-trixie-slim",
      "docker.removeImage fula-node:0.1.0",
      "docker.build fula-node:0.1.0 without its cache",
    ]);
    expect((await lookAt(step, built)).finding.state).toBe("ours");
  });
});
