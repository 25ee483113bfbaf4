import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDocker } from "../../src/docker/engine-writer.ts";
import type { Docker } from "../../src/docker/engine.ts";
import { OperatorError } from "../../src/errors.ts";
import { FakeHost } from "../support/fake-host.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const PREFIX = `fula-node-contract-${process.pid}`;
const IMAGE = `${PREFIX}/tiny:1`;
const NAMES = {
  busy: `${PREFIX}-busy`,
  done: `${PREFIX}-done`,
  made: `${PREFIX}-made`,
  volume: `${PREFIX}-data`,
};
const PORT = 20_000 + (process.pid % 10_000);
const engine = isEngineThere();
const directory = mkdtempSync(join(tmpdir(), "fula-node-docker-"));

if (!engine && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

function arrangeFake(): Docker {
  const host = new FakeHost();
  host.docker.putImage(IMAGE, { "land.fx.test": "image" });
  host.docker.putVolume(NAMES.volume, { "land.fx.test": "volume" });
  host.docker.putContainer(NAMES.busy, {
    image: IMAGE,
    labels: { "land.fx.test": "container" },
    env: { SOME_KEY: "a=b" },
    health: "healthy",
    networkMode: "bridge",
    publishedPorts: [PORT],
    boundPorts: [PORT],
    mounts: [
      {
        type: "volume",
        name: NAMES.volume,
        source: `/var/lib/docker/volumes/${NAMES.volume}/_data`,
        destination: "/data",
      },
    ],
  });
  host.docker.putContainer(NAMES.done, {
    image: IMAGE,
    status: "exited",
    exitCode: 3,
    pid: 0,
    networkMode: "none",
  });
  host.docker.putContainer(NAMES.made, { image: IMAGE, status: "created", health: "starting", pid: 0 });
  host.docker.logTexts.set(NAMES.done, "zero\none\ntwo\nthree");
  return host.docker;
}

function arrangeReal(): Docker {
  makeTinyImage(IMAGE, ["LABEL land.fx.test=image"]);
  docker("volume", "create", "--label", "land.fx.test=volume", NAMES.volume);
  const health = ["--health-cmd", "cat /data/../bin/sh > /dev/null", "--health-interval", "1s"];
  const data = ["--volume", `${NAMES.volume}:/data`, "--publish", `127.0.0.1:${PORT}:80`];
  const marks = ["--label", "land.fx.test=container", "--env", "SOME_KEY=a=b"];
  const loop = "trap 'exit 0' TERM; while :; do sleep 1; done";
  docker("run", "--detach", "--name", NAMES.busy, ...marks, ...data, ...health, IMAGE, "/bin/sh", "-c", loop);
  docker("create", "--name", NAMES.made, "--network", "host", ...health, IMAGE, "/bin/sh");
  const say = "echo zero; echo one; echo two >&2; echo three; exit 3";
  try {
    docker("run", "--name", NAMES.done, "--network", "none", IMAGE, "/bin/sh", "-c", say);
  } catch {
    // It is meant to end with exit code 3.
  }
  return createDocker({ ...process.env });
}

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
  if (!engine) return;
  docker("rm", "--force", "--volumes", NAMES.busy, NAMES.done, NAMES.made);
  docker("volume", "rm", "--force", NAMES.volume);
  docker("image", "rm", "--force", IMAGE);
});

/** Asks again until the answer is the desired one; throws after 30 s. */
async function until<T>(ask: () => Promise<T>, isRight: (answer: T) => boolean): Promise<T> {
  for (const deadline = Date.now() + 30_000; ;) {
    const answer = await ask();
    if (isRight(answer)) return answer;
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe.each([
  ["the fake", true, arrangeFake],
  ["the real one", engine, arrangeReal],
] as const)("docker, looking: %s", (name, isThere, arrange) => {
  describe.runIf(isThere)(isThere ? "an engine is there" : "skipped: no engine answers", () => {
    let subject: Docker;
    beforeAll(() => {
      subject = arrange();
    });

    it("reports its version", async () => {
      const version = await subject.version();
      expect(version?.apiVersion).toMatch(/^1\.\d+$/);
      expect(version?.minApiVersion).toMatch(/^1\.\d+$/);
      expect(version?.version).toMatch(/^\d+\.\d+/);
      expect(version?.rootDirectory).toMatch(/^\//);
      expect(version?.rootless).toBe(false);
      expect(await subject.unreachable()).toBeNull();
    });

    it("finds nothing if there is nothing", async () => {
      expect(await subject.container(`${PREFIX}-none`)).toBeNull();
      expect(await subject.image(`${PREFIX}/none:1`)).toBeNull();
      expect(await subject.volume(`${PREFIX}-none`)).toBeNull();
      expect(await subject.logs(`${PREFIX}-none`, 5)).toBe("");
    });

    it("describes a running container", async () => {
      const busy = await until(
        () => subject.container(NAMES.busy),
        (container) => container?.health !== "starting",
      );
      expect(busy).toMatchObject({
        name: NAMES.busy,
        image: IMAGE,
        status: "running",
        health: "healthy",
        labels: { "land.fx.test": "container" },
        env: { SOME_KEY: "a=b" },
        exitCode: 0,
        restartCount: 0,
        publishedPorts: [PORT],
        boundPorts: [PORT],
        mounts: [{ type: "volume", name: NAMES.volume, destination: "/data" }],
      });
      expect(busy?.id).toMatch(/^[0-9a-f]{64}$/);
      expect(busy?.imageId).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(busy?.pid).toBeGreaterThan(1);
      expect(Date.parse(busy?.startedAt ?? "")).toBeGreaterThan(0);
      expect(["bridge", "default"]).toContain(busy?.networkMode);
    });

    it("describes one that has ended, and one that was never started", async () => {
      expect(await subject.container(NAMES.done)).toMatchObject({
        status: "exited",
        exitCode: 3,
        pid: 0,
        health: null,
        networkMode: "none",
        publishedPorts: [],
      });
      expect(await subject.container(NAMES.made)).toMatchObject({
        status: "created",
        health: "starting",
        pid: 0,
        networkMode: "host",
      });
    });

    it("lists all of them, as each is described alone", async () => {
      const listed = await subject.containers();
      for (const one of Object.values(NAMES).slice(0, 3)) {
        expect(listed.find(({ name: found }) => found === one)).toEqual(await subject.container(one));
      }
    });

    it("reports the subnets of its bridge networks", async () => {
      const subnets = await subject.bridgeSubnets();
      expect(subnets.length).toBeGreaterThan(0);
      for (const subnet of subnets) expect(subnet).toMatch(/^[0-9a-f.:]+\/\d+$/);
      if (name !== "the real one") return;
      const format = "{{(index .IPAM.Config 0).Subnet}}";
      expect(subnets).toContain(docker("network", "inspect", "bridge", "--format", format).trim());
    });

    it("describes an image and a volume by their labels", async () => {
      expect(await subject.image(IMAGE)).toEqual({
        id: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
        labels: { "land.fx.test": "image" },
        sizeBytes: expect.any(Number) as number,
        env: expect.any(Object),
        architecture: expect.stringMatching(/^(?:amd64|arm64)$/),
        layers: expect.any(Array),
      });
      expect(await subject.volume(NAMES.volume)).toEqual({
        name: NAMES.volume,
        labels: { "land.fx.test": "volume" },
        mountpoint: expect.stringContaining(NAMES.volume),
        isPlain: true,
      });
    });

    it("gives the last lines of a log, both streams", async () => {
      const whole = await subject.logs(NAMES.done, 10);
      expect(whole.split("\n").sort()).toEqual(["one", "three", "two", "zero"]);
      expect(await subject.logs(NAMES.done, 2)).toBe(whole.split("\n").slice(-2).join("\n"));
    });

    it("restarts a container", async () => {
      const before = await subject.container(NAMES.busy);
      await subject.restart(NAMES.busy);
      const after = await subject.container(NAMES.busy);
      expect(after).toMatchObject({ id: before?.id, status: "running" });
      expect(after?.pid).not.toBe(before?.pid);
      await expect(subject.restart(`${PREFIX}-none`)).rejects.toBeInstanceOf(OperatorError);
    });

    it("changes the restart policy of a container, which goes on", async () => {
      const before = await subject.container(NAMES.busy);
      for (const restartPolicy of ["no", "on-failure:3", "always", "unless-stopped"]) {
        await subject.setRestartPolicy(NAMES.busy, restartPolicy);
        expect(await subject.container(NAMES.busy)).toMatchObject({
          id: before?.id,
          pid: before?.pid,
          status: "running",
          restartPolicy,
        });
        expect((await subject.definition(NAMES.busy))?.restart).toBe(restartPolicy);
      }
      await expect(subject.setRestartPolicy(`${PREFIX}-none`, "no")).rejects.toBeInstanceOf(OperatorError);
    });

    it("stops a container, which stays, and does nothing where there is none", async () => {
      await subject.stop(NAMES.busy);
      expect(await subject.container(NAMES.busy)).toMatchObject({ status: "exited" });
      await subject.stop(`${PREFIX}-none`);
      await subject.restart(NAMES.busy);
      expect(await subject.container(NAMES.busy)).toMatchObject({ status: "running" });
    });

    it.runIf(name === "the real one")("loads an archive, and refuses what is none", async () => {
      const archive = join(directory, "images.tar");
      docker("save", "--output", archive, IMAGE);
      const before = await subject.image(IMAGE);
      const lines: string[] = [];
      await subject.load(archive, (line) => lines.push(line));
      expect(lines).toContainEqual(expect.stringContaining(IMAGE));
      expect(lines).toContain(`${archive}: 100 % read`);
      expect(await subject.image(IMAGE)).toEqual(before);

      const garbage = join(directory, "garbage.tar");
      writeFileSync(garbage, "this is no archive");
      for (const path of [garbage, join(directory, "none.tar"), directory]) {
        await expect(subject.load(path, () => {})).rejects.toBeInstanceOf(OperatorError);
      }
    });

    it("says why an image can't be pulled", async () => {
      await expect(subject.pull(`127.0.0.1:1/${PREFIX}:1`, () => {})).rejects.toMatchObject({
        exit: "unavailable",
        what: expect.stringContaining(`127.0.0.1:1/${PREFIX}:1`),
        why: expect.stringMatching(/./),
      });
    });
  });
});

describe.each([
  [
    "the fake",
    () => {
      const host = new FakeHost();
      host.docker.engine = null;
      host.docker.whyUnreachable = `no ${directory}/none.sock`;
      return host.docker;
    },
  ],
  ["the real one", () => createDocker({ DOCKER_HOST: `unix://${directory}/none.sock` })],
] as const)("docker, where no engine is: %s", (_name, make) => {
  it("finds nothing, says why, and can't write", async () => {
    const subject = make();
    expect(await subject.version()).toBeNull();
    expect(await subject.unreachable()).toBe(`no ${directory}/none.sock`);
    expect(await subject.containers()).toEqual([]);
    expect(await subject.container("x")).toBeNull();
    expect(await subject.image("x")).toBeNull();
    expect(await subject.volume("x")).toBeNull();
    expect(await subject.logs("x", 3)).toBe("");
    for (const write of [subject.pull("x", () => {}), subject.restart("x")]) {
      await expect(write).rejects.toMatchObject({ exit: "unavailable" });
    }
  });
});
