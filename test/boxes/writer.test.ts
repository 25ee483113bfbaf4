import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, installArtifact } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { expectExit, health, rejoin, skipped, stderrOf, watch } from "../support/master-box.ts";
import {
  FULA_WRITER,
  pinThroughWriter,
  startWriterContainers,
  startWriterUnits,
  UNIONDRIVE,
  untilWriterAnswers,
  writerState,
} from "../support/upstream-writer.ts";

const JOIN = ["join-as-master", "--yes"] as const;
const PROVISION = ["--provision-writer", "--set", "CLUSTERNAME=plain-writer-pool"] as const;
/** What a halt may not touch. */
const EVERYTHING = ["/opt", "/etc/cron.d", "/etc/systemd/system", "/uniondrive", "/home"] as const;
const OURS = {
  "postgres-pinning": "running healthy",
  "fula-pinning-api": "running healthy",
  "fula-pinning-webui": "running healthy",
};

/** One thing as `status --json` and a dry run have it. */
interface Item {
  readonly step: string;
  readonly state: string;
  readonly evidence: Readonly<Record<string, string>>;
  readonly changes: readonly unknown[];
}

async function writerItem(box: Box): Promise<Item | undefined> {
  const { stdout } = await fulaNode(box, ["status", "--json"]);
  const { items } = JSON.parse(stdout) as { items: readonly Item[] };
  return items.find(({ step }) => step === "writer");
}

describe.skipIf(skipped !== undefined)("a box with upstream's writer as systemd units", () => {
  let box: Box;
  let before: Readonly<Record<string, string>>;

  beforeAll(async () => {
    box = await Box.boot({ name: "units", image: "docker" });
    await installArtifact(box);
    await startWriterUnits(box, UNIONDRIVE);
    await pinThroughWriter(box, 5);
    before = await writerState(box, UNIONDRIVE);
  });
  afterAll(() => box?.destroy());

  test("stopped units halt a run, which names the command that starts them", async () => {
    await box.run("systemctl stop ipfscluster.service ipfs.service");
    const untouched = await box.snapshot(EVERYTHING);
    for (const consent of [[], PROVISION]) {
      const result = await fulaNode(box, [...JOIN, ...consent]);
      expectExit(result, 23);
      expect(stderrOf(result)).toContain("systemctl start ipfs.service ipfscluster.service");
      expect(stderrOf(result)).toContain("Changed: nothing");
    }
    expect(await box.snapshot(EVERYTHING)).toEqual(untouched);
    expect((await box.exec("systemctl is-active ipfs.service ipfscluster.service")).stdout).toBe(
      "inactive\ninactive",
    );
  });

  test("only kubo's unit is started: the halt says which half does not answer", async () => {
    await box.run("systemctl start ipfs.service");
    await expect
      .poll(async () => (await box.exec("curl -sf -X POST http://127.0.0.1:5001/api/v0/id")).exitCode, {
        timeout: 60_000,
      })
      .toBe(0);
    const untouched = await box.snapshot(["/opt", "/etc/cron.d", "/etc/systemd/system"]);
    const result = await fulaNode(box, [...JOIN, ...PROVISION]);
    expectExit(result, 23);
    expect(stderrOf(result)).toContain("ipfs-cluster does not answer at /ip4/127.0.0.1/tcp/9094");
    expect(stderrOf(result)).toContain("systemctl start");
    expect(await box.snapshot(["/opt", "/etc/cron.d", "/etc/systemd/system"])).toEqual(untouched);
    await box.run("systemctl start ipfscluster.service");
    await untilWriterAnswers(box);
  });

  test("it is adopted: the master works, and the writer is as it was", async () => {
    before = await writerState(box, UNIONDRIVE);
    expectExit(await fulaNode(box, JOIN), 0);
    expect(await health(box)).toMatchObject(OURS);
    expect(await writerState(box, UNIONDRIVE)).toEqual(before);
    expect((await box.exec("ls -d /opt/fula-writer")).exitCode).toBe(2);
    const snapshots = await box.run("ls /opt/fula-master/snapshots/*.manifest.json | wc -l");
    expect(snapshots.stdout).toBe("1");
  });

  test("again, and with every consent given: nothing to do, and the writer is as it was", async () => {
    const master = await watch(box);
    for (const consent of [[], ["--provision-writer"]]) {
      const result = await rejoin(box, consent);
      expectExit(result, 0);
      expect(result.stdout).toContain("Nothing to do");
    }
    expect(await watch(box)).toEqual(master);
    expect(await writerState(box, UNIONDRIVE)).toEqual(before);
  });

  test("status tells by what it was known: peer ids, versions, data paths, pins", async () => {
    const item = await writerItem(box);
    expect(item).toMatchObject({ state: "ours", changes: [] });
    expect(item?.evidence).toMatchObject({
      found:
        "container ipfs_host (running), container ipfs_cluster (running), unit ipfs.service (active), unit ipfscluster.service (active)",
      kubo: expect.stringMatching(new RegExp(`^${before["kubo"] ?? ""}, kubo/0\\.42\\.0`)) as string,
      "ipfs-cluster": expect.stringMatching(new RegExp(`^${before["cluster"] ?? ""}, 1\\.1\\.6`)) as string,
      pinset: "5 pins",
    });
    expect(item?.evidence["data"]).toContain("/uniondrive on /uniondrive");
    const verbose = await fulaNode(box, ["status", "--verbose"]);
    const stdout = verbose.stdout.replaceAll(/\s+/g, " ");
    expect(stdout).toContain(before["kubo"]);
    expect(stdout).toContain(before["cluster"]);
    expect(stdout).toContain("5 pins");
  });

  test("a writer that stops later halts the next run, and nothing of the master is touched", async () => {
    await box.run("systemctl stop ipfscluster.service");
    const master = await watch(box);
    const result = await rejoin(box);
    expectExit(result, 23);
    expect(stderrOf(result)).toContain("systemctl start ipfs.service ipfscluster.service");
    expect(await watch(box)).toEqual(master);
    await box.run("systemctl start ipfscluster.service");
    await untilWriterAnswers(box);
    expectExit(await rejoin(box), 0);
    expect(await writerState(box, UNIONDRIVE), "a restart is seen").not.toEqual(before);
  });
});

describe.skipIf(skipped !== undefined)(
  "a box with a writer in plain containers, where ours would lie",
  () => {
    let box: Box;

    beforeAll(async () => {
      box = await Box.boot({ name: "plain-writer", image: "docker" });
      await installArtifact(box);
    });
    afterAll(() => box?.destroy());
    afterEach(async () => {
      await box.exec(
        "docker rm -f $(docker ps -aq); docker volume rm $(docker volume ls -q); rm -rf /opt/fula-master /opt/fula-writer /etc/cron.d/fula-*",
      );
    });

    test("it is adopted without units, and again nothing is to be done", async () => {
      await startWriterContainers(box, FULA_WRITER);
      await pinThroughWriter(box, 3);
      const before = await writerState(box, FULA_WRITER);
      expectExit(await fulaNode(box, JOIN), 0);
      expect(await writerState(box, FULA_WRITER)).toEqual(before);
      expect((await rejoin(box, ["--provision-writer"])).stdout).toContain("Nothing to do");
      expect(await writerState(box, FULA_WRITER)).toEqual(before);
      expect((await box.run("ls /opt/fula-writer")).stdout).toBe("ipfs-cluster\nkubo");
      expect((await writerItem(box))?.evidence["pinset"]).toBe("3 pins");
    });

    test.each([
      ["kubo", "curl -sf -X POST http://127.0.0.1:5001/api/v0/id", "ipfs-cluster does not answer"],
      ["cluster", "curl -sf http://127.0.0.1:9094/id", "kubo does not answer"],
    ] as const)("only its %s is here: the run halts and names the other", async (half, asks, says) => {
      await startWriterContainers(box, FULA_WRITER, [half]);
      await expect.poll(async () => (await box.exec(asks)).exitCode, { timeout: 60_000 }).toBe(0);
      const untouched = await box.snapshot(["/opt/fula-master", "/etc/cron.d"]);
      const result = await fulaNode(box, [...JOIN, ...PROVISION]);
      expectExit(result, 23);
      expect(stderrOf(result)).toContain(says);
      expect(await box.snapshot(["/opt/fula-master", "/etc/cron.d"])).toEqual(untouched);
    });

    test("data of a removed writer halts a run that may make one; --adopt goes on as that writer", async () => {
      await startWriterContainers(box, FULA_WRITER);
      await pinThroughWriter(box, 2);
      const before = await writerState(box, FULA_WRITER);
      await box.run("docker stop -t 60 ipfs_cluster ipfs_host && docker rm ipfs_cluster ipfs_host");
      const untouched = await box.snapshot(["/opt"]);
      const result = await fulaNode(box, [...JOIN, ...PROVISION]);
      expectExit(result, 23);
      expect(stderrOf(result)).toContain("/opt/fula-writer/ipfs-cluster/identity.json");
      expect(stderrOf(result)).toContain("--adopt writer");
      expect(await box.snapshot(["/opt"])).toEqual(untouched);
      expectExit(await fulaNode(box, [...JOIN, ...PROVISION, "--adopt", "writer"]), 0);
      const { kubo, cluster, pinset } = await writerState(box, FULA_WRITER);
      expect({ kubo, cluster, pinset }).toEqual({
        kubo: before["kubo"],
        cluster: before["cluster"],
        pinset: before["pinset"],
      });
      expect((await rejoin(box)).stdout).toContain("Nothing to do");
    });
  },
);

describe.skipIf(skipped !== undefined)("a writer on another box", () => {
  let network: string;
  let far: Box;
  let box: Box;

  beforeAll(async () => {
    network = await Box.network();
    far = await Box.boot({ name: "far-writer", image: "docker", network });
    await startWriterContainers(far, FULA_WRITER);
    box = await Box.boot({ name: "near-master", image: "docker", network });
    await installArtifact(box);
  });
  afterAll(async () => {
    await box?.destroy();
    await far?.destroy();
    await Box.removeNetwork(network);
  });

  const named = [
    "--set",
    "IPFS_API_ADDR=/dns4/far-writer/tcp/5001",
    "--set",
    "IPFS_CLUSTER_API_ADDR=/dns4/far-writer/tcp/9094",
  ];

  test("its REST API is not open: the run halts and says which does not answer", async () => {
    const untouched = await box.snapshot(["/opt", "/etc/cron.d"]);
    const result = await fulaNode(box, [...JOIN, ...named]);
    expectExit(result, 23);
    expect(stderrOf(result)).toContain("/dns4/far-writer/tcp/9094");
    expect(await box.snapshot(["/opt", "/etc/cron.d"])).toEqual(untouched);
  });

  test("named by its endpoints, it is used as it is, and no writer is made here", async () => {
    await far.run(
      "docker rm -f ipfs_cluster && docker run -d -u root --name ipfs_cluster --network host" +
        " -e CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS=/ip4/0.0.0.0/tcp/9094 -e CLUSTER_SECRET=$(printf far-pool | sha256sum | cut -d' ' -f1) -v /opt/fula-writer/ipfs-cluster:/data/ipfs-cluster" +
        " ipfs/ipfs-cluster:v1.1.6",
    );
    await untilWriterAnswers(far);
    const before = await writerState(far, FULA_WRITER);
    expectExit(await fulaNode(box, [...JOIN, ...named]), 0);
    expect(await health(box)).toEqual(OURS);
    expect((await writerItem(box))?.evidence).toMatchObject({
      found: "no container, no unit",
      "ipfs-cluster": expect.stringContaining(before["cluster"] ?? "none") as string,
    });
    expect((await rejoin(box)).stdout).toContain("Nothing to do");
    expect(await writerState(far, FULA_WRITER)).toEqual(before);
  });

  test("while it can't be reached the run halts, named or saved, and the master stays", async () => {
    await far.disconnect(network);
    const master = await watch(box);
    const result = await rejoin(box);
    expectExit(result, 23);
    expect(stderrOf(result)).toContain("does not answer at /dns4/far-writer/tcp/9094");
    expect(await watch(box)).toEqual(master);
    await far.connect(network);
    await expect.poll(async () => (await rejoin(box)).exitCode, { timeout: 120_000, interval: 1000 }).toBe(0);
  });
});
