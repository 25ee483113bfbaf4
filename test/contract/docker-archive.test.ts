import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDocker } from "../../src/docker/engine-writer.ts";
import { ociArchive } from "../support/image-archives.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const PREFIX = `fula-node-archive-${process.pid}`;
const IMAGES = [`${PREFIX}/one:1`, `${PREFIX}/two:2`];
const engine = isEngineThere();
const isRoot = process.getuid?.() === 0;
const directory = mkdtempSync(join(tmpdir(), "fula-node-archive-"));
const quiet = (): void => {};

if (!engine && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

afterAll(() => {
  if (engine) docker("image", "rm", "--force", ...IMAGES);
  rmSync(directory, { recursive: true, force: true });
});

describe.skipIf(!engine)("a real engine", () => {
  const real = createDocker({ ...process.env });
  const archive = join(directory, "images.tar");
  let architecture = "";

  beforeAll(async () => {
    for (const image of IMAGES) makeTinyImage(image, [`LABEL land.fx.test=${image}`]);
    architecture = (await real.version())?.architecture ?? "";
  });

  it("saves images to a file that everybody may read, and says how far it is", async () => {
    const lines: string[] = [];
    await real.save({ references: IMAGES, architecture }, archive, (line) => void lines.push(line));
    expect(lines).toContain(`${archive}: reading it back`);
    expect(statSync(archive).mode & 0o777).toBe(0o644);
    expect(readdirSync(directory)).toEqual(["images.tar"]);
    const images = await real.readArchive(archive);
    for (const reference of IMAGES) expect(images).toContainEqual({ reference, architecture, lacks: [] });
  });

  it("loads what it saved", async () => {
    docker("image", "rm", "--force", ...IMAGES);
    await real.load(archive, quiet);
    for (const image of IMAGES) expect((await real.image(image))?.labels).toEqual({ "land.fx.test": image });
  });

  it("knows how large an image is", async () => {
    const [bytes = 0] = [(await real.image(IMAGES[0] ?? ""))?.sizeBytes];
    expect(bytes).toBeGreaterThan(100_000);
    expect(bytes).toBeLessThan(100_000_000);
  });

  it.each([
    ["an image that is not here", [...IMAGES, `${PREFIX}/none:1`], undefined, "unavailable"],
    ["images of another architecture", IMAGES, "riscv64", "integrity"],
  ])("%s: no archive, and the one that was there stays", async (_name, references, arch, exit) => {
    const before = readFileSync(archive);
    await expect(
      real.save({ references, architecture: arch ?? architecture }, archive, quiet),
    ).rejects.toMatchObject({ exit });
    expect(readdirSync(directory)).toEqual(["images.tar"]);
    expect(readFileSync(archive).equals(before)).toBe(true);
  });

  it.skipIf(!isRoot)(
    "a disk that gets full in the middle: the reason, and nothing is left behind",
    async () => {
      const small = join(directory, "small");
      mkdirSync(small);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "none", small]);
      try {
        await expect(
          real.save({ references: IMAGES, architecture }, join(small, "images.tar"), quiet),
        ).rejects.toMatchObject({
          exit: "unavailable",
          why: "no space is left on the device",
          what: `Cannot write ${join(small, "images.tar")}.`,
        });
        expect(readdirSync(small)).toEqual([]);
      } finally {
        execFileSync("umount", [small]);
        rmSync(small, { recursive: true });
      }
    },
  );
});

describe("an engine that does not keep its word", () => {
  const place = join(directory, "double");
  const servers: Server[] = [];
  beforeAll(() => mkdirSync(place));
  afterAll(() => {
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  });

  /** It answers a save with these bytes, and then ends the answer or breaks the connection. */
  async function save(content: Buffer, isBroken: boolean, asked: string[] = []): Promise<void> {
    const socket = join(directory, `${servers.length}.sock`);
    const server = createServer((request, answer) => {
      const url = request.url ?? "";
      asked.push(url);
      if (url === "/version") {
        answer.setHeader("content-type", "application/json");
        answer.end(JSON.stringify({ Version: "26.1.5", ApiVersion: "1.45", MinAPIVersion: "1.24" }));
        return;
      }
      answer.setHeader("content-type", "application/x-tar");
      answer.write(content, () => (isBroken ? answer.destroy() : answer.end()));
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const wanted = { references: ["one:1", "two:2"], architecture: "amd64" };
    await createDocker({ DOCKER_HOST: `unix://${socket}` }).save(wanted, join(place, "images.tar"), quiet);
  }
  const whole = ociArchive([{ reference: "one:1" }, { reference: "two:2" }]);

  it("is asked for all images at once", async () => {
    const asked: string[] = [];
    await save(await whole, false, asked);
    expect(asked).toContain("/v1.44/images/get?names=one%3A1&names=two%3A2");
    rmSync(join(place, "images.tar"));
  });

  it.each([
    ["the connection breaks", async () => (await whole).subarray(0, 2048), true, "unavailable", "saved|save"],
    ["the answer is cut off", async () => (await whole).subarray(0, 3000), false, "integrity", "not made"],
    ["an image is missing in it", () => ociArchive([{ reference: "one:1" }]), false, "integrity", "not made"],
    [
      "a layer is not what it was: a power cut spoiled it",
      () =>
        ociArchive([{ reference: "one:1" }, { reference: "two:2" }], (_, content) =>
          content.toString() === "layer" ? Buffer.from("\0\0\0\0\0") : content,
        ),
      false,
      "integrity",
      "not made",
    ],
  ])("%s: nothing is left, and an error says so", async (_name, content, isBroken, exit, what) => {
    await expect(save(await content(), isBroken)).rejects.toMatchObject({
      exit,
      what: expect.stringMatching(what) as string,
    });
    expect(readdirSync(place)).toEqual([]);
  });

  it("what a killed run left is removed by the next one", async () => {
    writeFileSync(join(place, ".images.tar.fula-node-tmp.999999999.abc"), "half");
    await save(await whole, false);
    expect(readdirSync(place)).toEqual(["images.tar"]);
  });
});
