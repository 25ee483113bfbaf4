import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, readEnv, skipped } from "../support/master-box.ts";
import {
  bootFederation,
  bootNode,
  by,
  invite,
  join,
  members,
  peerId,
  pinContent,
  PRIVATE_NETWORK,
  untilStored,
} from "../support/storage-boxes.ts";

/** A compose file in the way of the bash scripts: the images' own user and commands, no password, no label of ours. */
const theirCompose = (secret: string, master: string): string => `
services:
  kubo:
    image: ipfs/kubo:v0.42.0
    container_name: ipfs_host
    network_mode: host
    restart: unless-stopped
    environment: { IPFS_TELEMETRY: "off", TUNED: "yes" }
    volumes: ["kubo-data:/data/ipfs"]
  ipfs-cluster:
    image: ipfs/ipfs-cluster:v1.1.6
    container_name: ipfs_cluster
    network_mode: host
    restart: unless-stopped
    environment:
      CLUSTERNAME: test-pool
      CLUSTER_SECRET: "${secret}"
      CLUSTER_PEERNAME: one
      CLUSTER_CRDT_TRUSTEDPEERS: ${master.split("/").at(-1)}
      CLUSTER_PEERADDRESSES: ${master}
      CLUSTER_FOLLOWERMODE: "true"
      CLUSTER_MONITORPINGINTERVAL: 2s
    volumes: ["cluster-data:/data/ipfs-cluster"]
volumes:
  kubo-data:
  cluster-data:
`;

describe.skipIf(skipped !== undefined)("a storage node of the bash scripts", () => {
  let network: string;
  let master: Box;
  let node: Box;

  const containers = async (): Promise<string> =>
    (
      await node.run(
        "docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.Config.Image}} {{json .Config.Env}} {{json .Config.Labels}}' ipfs_host ipfs_cluster",
      )
    ).stdout;

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
    const { CLUSTER_SECRET = "" } = await readEnv(master);
    const address = `/ip4/${await master.address()}/tcp/9096/p2p/${await peerId(master)}`;
    await node.writeFile("/opt/fula-storage/docker-compose.yml", theirCompose(CLUSTER_SECRET, address));
    await node.run("cd /opt/fula-storage && docker compose -p fula-storage up -d --quiet-pull");
    await eventually("the node is a member", async () => (await members(master)).includes("one"), 120_000);
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("is adopted with its containers, peers and data as they are, and then there is nothing to do", async () => {
    const before = [await containers(), await peerId(node)];
    const given = [...by(await invite(master, "one")), ...PRIVATE_NETWORK, "--set", "KUBO_STORAGE_MAX=1GB"];
    expectExit(await join(node, given), 23);
    expect([await containers(), await peerId(node)]).toEqual(before);
    const adopt = ["kubo", "cluster-follower", "compose-file"].flatMap((step) => ["--adopt", step]);
    expectExit(await join(node, [...given, ...adopt]), 0);
    expect([await containers(), await peerId(node)]).toEqual(before);
    expect(await node.readFile("/opt/fula-storage/.env")).toMatch(/^KUBO_IMAGE=ipfs\/kubo:v0\.42\.0$/m);
    const again = await join(node, []);
    expectExit(again, 0);
    expect(again.stdout).toContain("Nothing to do");
    await node.run("docker exec ipfs_host ipfs config --json Swarm.AddrFilters '[]'");
    await untilStored([node], [await pinContent(master)]);
  });

  test("gets its kubo again as it was, if the container is lost", async () => {
    const id = async () => (await node.run("docker exec ipfs_host ipfs id -f '<id>'")).stdout;
    const before = await id();
    await node.run("docker rm -f ipfs_host");
    expectExit(await join(node, []), 0);
    expect(await id()).toBe(before);
    const { stdout } = await node.run("docker exec ipfs_host printenv TUNED");
    expect(stdout).toBe("yes");
  });
});
