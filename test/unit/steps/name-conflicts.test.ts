import { describe, expect, it } from "vitest";
import type { FakeMaster } from "../../support/fake-master.ts";
import { boxBefore, join, joinedBox, LAYOUT } from "../../support/master-boxes.ts";

const PROJECT = "com.docker.compose.project";
const NETWORK = "fula-master_default";
const STATE = "fula-master_fula-gateway-state";

const THINGS: readonly (readonly [string, (host: FakeMaster) => void, string, RegExp])[] = [
  [
    "a network that Compose did not make",
    (host) => void host.docker.networks.set(NETWORK, {}),
    "postgres",
    /The network fula-master_default exists/,
  ],
  [
    "a network of another project",
    (host) => void host.docker.networks.set(NETWORK, { [PROJECT]: "other" }),
    "postgres",
    /The network fula-master_default exists/,
  ],
  [
    "a volume that Compose did not make",
    (host) => {
      host.docker.putImage("fula-gateway:latest");
      host.docker.putVolume(STATE);
    },
    "services",
    /The volume fula-master_fula-gateway-state exists/,
  ],
  [
    "an image with our tag",
    (host) => host.docker.putImage("fula-node:0.1.0"),
    "service-image",
    /did not build it/,
  ],
  [
    "a cron file",
    (host) => host.files.put("/etc/cron.d/fula-pinset-snapshot", "0 * * * * root true\n"),
    "snapshot-cron",
    /fula-pinset-snapshot/,
  ],
  [
    "a compose file in the writer's directory",
    (host) => host.files.put("/opt/fula-writer/docker-compose.yml", "services: {}\n"),
    "writer",
    /not written by fula-node/,
  ],
  [
    "a writer's unit",
    (host) => host.system.putUnit("ipfs.service", { active: false }),
    "writer",
    /does not work/,
  ],
];

describe("something else has a name that a master needs", () => {
  it.each(THINGS)("%s: halts before the first write", async (_name, arrange, step, what) => {
    const host = await boxBefore("cli");
    arrange(host);
    host.revive();
    const before = host.snapshot();
    await expect(join(host)).rejects.toMatchObject({
      exit: "foreign",
      problems: [{ subject: step, what: expect.stringMatching(what), remedy: expect.stringMatching(/\./) }],
    });
    expect(host.writes).toEqual([]);
    expect(host.snapshot()).toEqual(before);
    expect(host.files.tree.has(LAYOUT.envFile)).toBe(false);
  });

  it("a stranger's container on a box without anything of a master is named, and no secret is called lost", async () => {
    const host = await boxBefore("cli");
    host.docker.putContainer("postgres-pinning", { image: "postgres:16" });
    await expect(join(host)).rejects.toMatchObject({
      exit: "foreign",
      problems: [{ subject: "postgres", what: expect.stringContaining("the container postgres-pinning") }],
    });
    expect(host.writes).toEqual([]);
  });

  it("says how to remove a network", async () => {
    const host = await boxBefore("cli");
    host.docker.networks.set(NETWORK, {});
    await expect(join(host)).rejects.toMatchObject({
      problems: [{ remedy: expect.stringContaining(`docker network rm ${NETWORK}`) }],
    });
  });

  it("does not matter while nothing has to be created", async () => {
    const host = await joinedBox();
    host.docker.networks.set(NETWORK, { [PROJECT]: "fula-master" });
    await join(host);
    expect(host.writes.filter((write) => write.startsWith("docker."))).toEqual([]);
  });
});
