import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AS_OPERATOR, fulaNode, PROGRAM } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, skipped } from "../support/master-box.ts";
import { bringSecond } from "../support/second-master.ts";
import {
  askCluster,
  bootFederation,
  bootNode,
  by,
  invite,
  join,
  pinContent,
  PRIVATE_NETWORK,
  untilStored,
} from "../support/storage-boxes.ts";

const HOME = "/opt/fula-master";
const COMMAND = "/usr/local/sbin/on-alarm";

interface Result {
  readonly id: string;
  readonly state: string;
  readonly summary: string;
  readonly durationMs: number;
  readonly leftovers: readonly string[];
  readonly cleaned: readonly string[];
}

describe.skipIf(skipped !== undefined)("the drills of a pool with two masters and two storage nodes", () => {
  let network: string;
  let master: Box;
  let second: Box;
  const nodes: Box[] = [];

  const drill = (...args: string[]) => drillOn(master, ...args);
  const drillOn = async (box: Box, ...args: string[]) => {
    const result = await fulaNode(box, ["drill", "--json", ...args]);
    const { drills } = JSON.parse(result.stdout) as { readonly drills: readonly Result[] };
    return { ...result, drills, of: (id: string) => drills.find((one) => one.id === id) };
  };
  /** What a drill may leave: its pins, its blocks, its directories. */
  const left = async () => {
    const { body } = await askCluster(master, "GET", "/allocations");
    const { stdout } = await master.run(
      `ls -A ${HOME}; docker exec ipfs_host ipfs repo stat --size-only=false`,
    );
    return {
      pins: body.split("\n").filter((line) => line.includes("fula-drill-")),
      directories: stdout.split("\n").filter((line) => line.startsWith("fula-drill-")),
      blocks: /NumObjects: *(\d+)/.exec(stdout)?.[1],
    };
  };
  /** What is the operator's, and a drill does not touch. */
  const kept = async (): Promise<string> => {
    const paths =
      "snapshots state/snapshot-chain.json heartbeats replication-alerts.log known-nodes.json restore";
    const sums = `cd ${HOME} && find ${paths} -type f -exec sha256sum {} + 2>/dev/null | sort`;
    return (await master.exec(sums)).stdout;
  };

  beforeAll(async () => {
    network = await Box.network();
    const [first, other, ...others] = await Promise.all([
      bootFederation(network),
      ...["second", "one", "two"].map((name) => bootNode(name, network)),
    ]);
    [master, second] = [first, other!];
    nodes.push(...others);
    await bringSecond(master, second);
    expectExit(await fulaNode(master, ["trust", "add", "second", "--yes"]), 0);
    for (const box of [master, second]) await box.run("systemctl stop cron");
    const pins = await Promise.all([1, 2, 3].map(() => pinContent(master)));
    for (const [index, node] of nodes.entries())
      expectExit(
        await join(node, [...by(await invite(master, ["one", "two"][index] ?? "")), ...PRIVATE_NETWORK]),
        0,
      );
    await untilStored(nodes, pins);
    await eventually(
      "the sweep is clean",
      async () => (await fulaNode(master, ["sweep", "--strict"])).exitCode === 0,
    );
  });
  afterAll(async () => {
    await Promise.all([master, second, ...nodes].map((box) => box?.destroy()));
    if (network !== undefined) await Box.removeNetwork(network);
  });

  test.each([
    ["the master with the database", () => master],
    ["the second master, whose database is on the first one", () => second],
  ])("every drill passes on %s", async (_which, box) => {
    await box().run("systemctl start cron");
    const began = performance.now();
    const result = await drillOn(box());
    await box().run("systemctl stop cron");
    const seconds = Math.round((performance.now() - began) / 1000);
    console.log(
      `${seconds} s on ${box().name}\n`,
      result.drills.map(({ id, durationMs, summary }) => `${id} ${durationMs} ms: ${summary}`).join("\n"),
    );
    expectExit(result, 0);
    expect(result.drills.map(({ id, state }) => `${id} ${state}`)).toEqual(
      Array.from({ length: 10 }, (_, index) => `D${index + 1} passed`),
    );
    expect(result.drills.flatMap(({ leftovers }) => leftovers)).toEqual([]);
  });

  test("D6 and D7 pass, leave nothing, and touch nothing of the operator's", async () => {
    const before = { left: await left(), kept: await kept() };
    const result = await drill("D6", "D7");
    console.log(
      result.drills.map(({ id, durationMs, summary }) => `${id} ${durationMs} ms: ${summary}`).join("\n"),
    );
    expectExit(result, 0);
    expect(result.of("D6")).toMatchObject({
      state: "passed",
      leftovers: [],
      cleaned: [expect.stringContaining("its pin, its block, its directory")],
    });
    expect(result.of("D7")).toMatchObject({
      state: "passed",
      leftovers: [],
      cleaned: [expect.stringContaining("its pin, its block, its directory")],
    });
    expect({ left: await left(), kept: await kept() }).toEqual(before);
    expect(before.left).toMatchObject({ pins: [], directories: [] });
  });

  test("stopped in the middle, it cleans up; killed there, the next one does", async () => {
    const before = await left();
    for (const id of ["D6", "D7"]) {
      const listed = `curl -s ${AS_OPERATOR} http://127.0.0.1:9094/allocations`;
      const begin = `node ${PROGRAM} drill ${id} >/dev/null 2>&1 & pid=$!`;
      const untilPinned = `until ${listed} | grep -q fula-drill-; do kill -0 $pid || exit 3; done`;
      const stopped = `kill -TERM $pid; wait $pid; echo $?`;
      expect((await master.run(`${begin}; ${untilPinned}; ${stopped}`)).stdout.trim()).toBe("26");
      expect(await left()).toEqual(before);
      await master.run(`${begin}; ${untilPinned}; kill -9 $pid`);
      expect((await left()).pins).toHaveLength(1);
      const result = await drill(id);
      expectExit(result, 0);
      expect(result.of(id)?.leftovers).toEqual([expect.stringMatching(/its pin, its block, its directory$/)]);
      expect(await left()).toEqual(before);
    }
  });

  test("D7 by its name runs ALERT_COMMAND with a marked alarm; all drills together do not", async () => {
    await master.writeFile(COMMAND, "#!/bin/sh\ncat >>/root/alarms\n", 0o755);
    expectExit(await fulaNode(master, ["join-as-master", "--yes", "--set", `ALERT_COMMAND=${COMMAND}`]), 0);
    const all = await drill();
    expect(all.of("D7")).toMatchObject({ state: "passed" });
    expect((await master.exec("cat /root/alarms")).stdout).toBe("");
    expectExit(await drill("sweep"), 0);
    expect(JSON.parse(await master.readFile("/root/alarms"))).toMatchObject({ kind: "drill" });
  });

  test("D6 fails if the public key is another one", async () => {
    const key = `${HOME}/snapshot-ed25519.pub.pem`;
    await master.run(`mv ${key} /root/ && openssl genpkey -algorithm ed25519 | openssl pkey -pubout >${key}`);
    const result = await drill("D6");
    expectExit(result, 27);
    expect(result.of("D6")?.summary).toContain("the snapshot that was just taken was refused");
    await master.run(`mv /root/snapshot-ed25519.pub.pem ${key}`);
  });

  test("a pin that really has too few copies fails D7, and D6 goes on", async () => {
    const lost = await pinContent(master);
    await untilStored(nodes, [lost]);
    await master.run(`docker exec ipfs_host ipfs pin rm ${lost}`);
    const result = await drill("D6", "D7");
    expectExit(result, 27);
    expect(result.of("D6")).toMatchObject({ state: "passed" });
    expect(result.of("D7")).toMatchObject({
      state: "failed",
      summary: expect.stringMatching(/^1 of 4 pins have too few copies/) as string,
    });
    expectExit(await fulaNode(master, ["sweep"]), 0);
    await eventually("the sweep has healed it", async () => (await drill("D7")).exitCode === 0, 120_000);
  });
});
