import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, psql, readEnv, rejoin, skipped, stderrOf } from "../support/master-box.ts";
import { bringSecond, joinSecond } from "../support/second-master.ts";
import {
  addContent,
  askCluster,
  bootFederation,
  bootNode,
  by,
  invite,
  join,
  members,
  peerId,
  pinContent,
  pinset,
  PRIVATE_NETWORK,
  untilStored,
} from "../support/storage-boxes.ts";

describe.skipIf(skipped !== undefined)("two masters and a storage node: who trusts whom", () => {
  let network: string;
  let first: Box;
  let second: Box;
  let node: Box;
  let firstId: string;
  let secondId: string;

  const trust = (box: Box, ...args: readonly string[]): Promise<ExecResult> =>
    fulaNode(box, ["trust", ...args]);
  const partOf = async (box: Box, name: string) => {
    const { stdout } = await fulaNode(box, ["status", "--json"]);
    const { parts } = JSON.parse(stdout) as {
      parts: { name: string; state: string; summary: string; todo: string | null }[];
    };
    return parts.find((part) => part.name === name);
  };

  beforeAll(async () => {
    network = await Box.network();
    [first, second, node] = await Promise.all([
      bootFederation(network),
      bootNode("second", network),
      bootNode("one", network),
    ]);
    firstId = await peerId(first);
    await bringSecond(first, second);
    secondId = await peerId(second);
    expectExit(await join(node, [...by(await invite(first, "one")), ...PRIVATE_NETWORK]), 0);
    await eventually("the masters and the node see each other", async () => {
      const seen = await Promise.all([members(first), members(second)]);
      return seen.every((names) => ["master", "one", "second"].every((name) => names.includes(name)));
    });
  });
  afterAll(async () => {
    await Promise.all([first?.destroy(), second?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("a pin of a peer that is not trusted changes nothing, and status says who does not trust it", async () => {
    const strange = await addContent(second);
    expect((await askCluster(second, "POST", `/pins/${strange}`)).status).toBe(200);
    // A pin of the first master arrives at both others; what the second one sent before it has not.
    const known = await pinContent(first);
    await untilStored([node, second], [known]);
    for (const box of [first, node]) expect((await pinset(box)).has(strange)).toBe(false);

    expect(await partOf(first, "masters")).toMatchObject({
      state: "attention",
      summary: "this writer does not trust the master second",
      todo: "fula-node trust add second",
    });
    const listed = await trust(first, "list", "--json");
    expectExit(listed, 0);
    expect(JSON.parse(listed.stdout)).toMatchObject({
      peerId: firstId,
      peers: [
        {
          peerId: secondId,
          master: "second",
          trusted: false,
          trustsThis: true,
          connected: true,
          removed: false,
        },
      ],
    });
  });

  test("trust add restarts the writer only with consent; then the node accepts the new master by name, and pins arrive", async () => {
    const startedAt = () => first.run("docker inspect -f '{{.State.StartedAt}}' ipfs_cluster");
    const before = await startedAt();
    const unasked = await trust(first, "add", "second");
    expectExit(unasked, 22);
    expect(stderrOf(unasked)).toContain("This restarts ipfs-cluster of this master");
    expectExit(await trust(first, "add", "second", "--dry-run"), 20);
    expect((await startedAt()).stdout).toBe(before.stdout);

    const added = await trust(first, "add", secondId, "--yes");
    expectExit(added, 0);
    expect(added.stdout).toContain(
      "On the storage node one: fula-node join-as-storage-node --accept-pool-change",
    );
    expect((await startedAt()).stdout).not.toBe(before.stdout);
    expect((await readEnv(first))["MASTER_CLUSTER_PEERIDS"]).toBe(secondId);
    expectExit(await trust(first, "add", "second", "--yes"), 0);
    expectExit(await rejoin(first, ["--dry-run"]), 0);

    expect(await partOf(first, "masters")).toMatchObject({
      state: "attention",
      summary: "1 node does not trust every master: one (not second)",
    });
    const token = by(await invite(first, "one"));
    expectExit(await join(node, token), 24);
    expectExit(await join(node, [...token, "--accept-pool-change"]), 0);
    expect(await partOf(first, "masters")).toMatchObject({ state: "ok", summary: "master (here), second" });
    expect(await partOf(second, "masters")).toMatchObject({ state: "ok" });

    const fromSecond = await pinContent(second);
    await untilStored([node, first], [fromSecond]);
    const fromFirst = await pinContent(first);
    await untilStored([node, second], [fromFirst]);
  });

  test("a master that still runs is removed only by an explicit consent, and nobody removes itself", async () => {
    expectExit(await trust(first, "remove", "master", "--yes"), 2);
    const alive = await trust(first, "remove", "second", "--yes");
    expectExit(alive, 22);
    expect(stderrOf(alive)).toContain("again with --still-runs");
    expect(await psql(first, "SELECT count(*) FROM masters")).toBe("2");
  });

  test("a master that was killed is removed: the pool is clean, and its return is refused until it is taken back", async () => {
    await second.run("systemctl stop docker.socket docker");
    await psql(first, "UPDATE masters SET heartbeat_at = now() - interval '1 day' WHERE name = 'second'");
    expect(await partOf(first, "masters")).toMatchObject({
      state: "attention",
      summary: expect.stringMatching(/^the master second was last seen at /),
    });
    const removed = await trust(first, "remove", secondId, "--yes");
    expectExit(removed, 0);
    expect(removed.stdout).toContain("The pool has forgotten second");
    expect(await psql(first, "SELECT name FROM masters")).toBe("master");
    expect(await psql(first, "SELECT name, peer_id FROM removed_masters")).toBe(`second|${secondId}`);
    expect((await readEnv(first))["MASTER_CLUSTER_PEERIDS"]).toBeUndefined();
    expect(await partOf(first, "masters")).toMatchObject({
      state: "attention",
      summary: "still trusted, although removed: second (by one)",
    });
    const token = by(await invite(first, "one"));
    expectExit(await join(node, [...token, "--accept-pool-change"]), 0);
    expect(await partOf(first, "masters")).toMatchObject({ state: "ok", summary: "master (here)" });

    await second.run("systemctl start docker");
    await eventually("its services say why they serve nothing", async () => {
      const { stdout } = await second.run("docker logs fula-pinning-api 2>&1 | tail -n 40");
      return stdout.includes("was removed from its pool by master");
    });
    // Docker starts all containers at the same time: the services can say so before kubo answers.
    await eventually("its kubo answers", async () => {
      const asked = await second.exec("docker exec ipfs_host ipfs --api=/ip4/127.0.0.1/tcp/5001 id");
      return asked.exitCode === 0;
    });
    const back = await joinSecond(second);
    expectExit(back, 23);
    expect(stderrOf(back)).toMatch(
      /The master second was removed from its pool by master.*fula-node trust add second/,
    );
    expectExit(await fulaNode(second, ["snapshot", "take"]), 23);
    const { stdout: logged } = await second.run(
      "docker inspect -f '{{.State.Status}}' fula-pinning-api; docker logs fula-pinning-api 2>&1 | grep -c 'was removed from its pool'",
    );
    expect(logged.trim()).toBe("running\n1");
    expect((await second.exec("curl -fsS -m 5 http://127.0.0.1:6000/health")).exitCode).not.toBe(0);
    expect(await partOf(second, "masters")).toMatchObject({ state: "down" });
    const strange = await addContent(second);
    expect((await askCluster(second, "POST", `/pins/${strange}`)).status).toBe(200);
    const known = await pinContent(first);
    await untilStored([node], [known]);
    for (const box of [first, node]) expect((await pinset(box)).has(strange)).toBe(false);

    expectExit(await trust(first, "add", "second", "--yes"), 0);
    expectExit(await joinSecond(second), 0);
    expect(await psql(first, "SELECT name FROM masters ORDER BY name")).toBe("master\nsecond");
    expect(await psql(first, "SELECT count(*) FROM removed_masters")).toBe("0");
  });
});
