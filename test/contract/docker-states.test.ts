import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Container, Docker } from "../../src/docker/engine.ts";
import { createDocker } from "../../src/docker/engine-writer.ts";
import { FakeHost } from "../support/fake-host.ts";
import { docker, isEngineThere, makeTinyImage } from "../support/tiny-image.ts";

const PREFIX = `fula-node-states-${process.pid}`;
const IMAGE = `${PREFIX}/tiny:1`;
const BUSY = `${PREFIX}-busy`;
const LOOP = `${PREFIX}-loop`;
const GREEDY = `${PREFIX}-greedy`;
const VOLUME = `${PREFIX}-data`;
const NETWORK = `${PREFIX}-net`;
const engine = isEngineThere();

if (!engine && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

function arrangeFake(): Docker {
  const { docker: fake } = new FakeHost();
  fake.putImage(IMAGE);
  fake.putVolume(VOLUME);
  fake.networks.set(NETWORK, {});
  const mount = {
    type: "volume",
    name: VOLUME,
    source: `/var/lib/docker/volumes/${VOLUME}/_data`,
    destination: "/data",
  };
  const imageId = fake.images.get(IMAGE)?.id ?? "";
  fake.putContainer(BUSY, {
    image: IMAGE,
    imageId,
    env: { A: "b=$c" },
    networkMode: NETWORK,
    mounts: [mount],
  });
  fake.definitions.set(BUSY, { networks: [NETWORK], command: ["/bin/sh", "-c", "sleep 1000"] });
  fake.putContainer(LOOP, { status: "restarting", restartCount: 4, exitCode: 3 });
  fake.putContainer(GREEDY, { status: "exited", exitCode: 137, oomKilled: true });
  return fake;
}

function arrangeReal(): Docker {
  makeTinyImage(IMAGE, ["ENV OF_IMAGE=1"]);
  docker("network", "create", NETWORK);
  const run = (name: string, ...rest: string[]) => docker("run", "--detach", "--name", name, ...rest);
  const options = ["--env", "A=b=$c", "--network", NETWORK, "--volume", `${VOLUME}:/data`];
  run(BUSY, ...options, "--restart", "unless-stopped", IMAGE, "/bin/sh", "-c", "sleep 1000");
  run(LOOP, "--restart", "always", IMAGE, "/bin/sh", "-c", "echo why it ends; exit 3");
  // Many variables of one MiB: one that doubles asks at some time for more than there is, and gets an error.
  const eat =
    'a=xxxxxxxxxxxxxxxx; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do a=$a$a; done; n=0; while :; do n=$((n+1)); eval "v$n=\\$a"; done';
  run(GREEDY, "--memory", "16m", "--memory-swap", "16m", IMAGE, "/bin/sh", "-c", eat);
  return createDocker({ ...process.env });
}

afterAll(() => {
  if (!engine) return;
  docker("rm", "--force", "--volumes", BUSY, LOOP, GREEDY);
  docker("volume", "rm", "--force", VOLUME);
  docker("network", "rm", NETWORK);
  docker("image", "rm", "--force", IMAGE);
});

async function until(
  subject: Docker,
  name: string,
  isRight: (container: Container) => boolean,
): Promise<Container> {
  for (const deadline = Date.now() + 60_000; ;) {
    const container = await subject.container(name);
    if (container !== null && isRight(container)) return container;
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(container)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe.each([
  ["the fake", true, arrangeFake],
  ["the real one", engine, arrangeReal],
] as const)("docker, states of containers: %s", (_name, isThere, arrange) => {
  describe.runIf(isThere)(isThere ? "an engine is there" : "skipped: no engine answers", () => {
    let subject: Docker;
    beforeAll(() => {
      subject = arrange();
    });

    it("one that ends again and again has a count, its exit code and its log", async () => {
      const loop = await until(
        subject,
        LOOP,
        ({ status, restartCount }) => status === "restarting" && restartCount >= 3,
      );
      expect(loop).toMatchObject({ exitCode: 3, oomKilled: false });
    });

    it("one that memory ran out for says so", async () => {
      // The engine notes it a moment after the end.
      const greedy = await until(subject, GREEDY, ({ oomKilled }) => oomKilled);
      expect(greedy).toMatchObject({ status: "exited", exitCode: 137, oomKilled: true });
    });

    it("says how a container was created, without what its image says", async () => {
      expect(await subject.definition(BUSY)).toMatchObject({
        image: IMAGE,
        environment: { A: "b=$c" },
        command: ["/bin/sh", "-c", "sleep 1000"],
        networkMode: NETWORK,
        networks: [NETWORK],
        restart: "unless-stopped",
        mounts: [{ type: "volume", source: VOLUME, target: "/data", readOnly: false }],
        privileged: false,
      });
      expect(Object.keys((await subject.definition(BUSY))?.environment ?? {})).toEqual(["A"]);
      expect(await subject.definition(`${PREFIX}-none`)).toBeNull();
    });

    it("finds who uses a volume, a network or an image", async () => {
      const id = (await subject.image(IMAGE))?.id ?? "";
      for (const [kind, name] of [
        ["volume", VOLUME],
        ["network", NETWORK],
        ["image", id],
      ] as const) {
        expect((await subject.usersOf(kind, name)).map((user) => user.name)).toContain(BUSY);
      }
      expect(await subject.usersOf("volume", `${PREFIX}-none`)).toEqual([]);
    });

    it("unpauses a paused one, and starts a stopped one as it was", async () => {
      const before = await subject.container(BUSY);
      if (subject instanceof Object && "boxes" in subject) {
        const { boxes } = subject as unknown as FakeHost["docker"];
        boxes.set(BUSY, { ...(before as Container), status: "paused" });
      } else docker("pause", BUSY);
      expect((await subject.container(BUSY))?.status).toBe("paused");
      await subject.unpause(BUSY);
      expect(await subject.container(BUSY)).toMatchObject({
        id: before?.id,
        pid: before?.pid,
        status: "running",
      });
      await expect(subject.unpause(BUSY)).rejects.toMatchObject({ exit: "unavailable" });
    });
  });
});
