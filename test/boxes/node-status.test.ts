import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, PROGRAM } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { expectExit, rejoin, skipped, stderrOf } from "../support/master-box.ts";
import {
  askCluster,
  bootFederation,
  bootNode,
  closeStorageApi,
  invite,
  join,
  openStorageApi,
  peerId,
  pinContent,
  PRIVATE_NETWORK,
  untilStored,
  watchNode,
} from "../support/storage-boxes.ts";

interface Status {
  readonly kind: string;
  readonly pending: boolean;
  readonly report: readonly { readonly about: string; readonly state: string; readonly sentence: string }[];
}

describe.skipIf(skipped !== undefined)("how a storage node stands", () => {
  let network: string;
  let master: Box;
  let node: Box;
  const cids: string[] = [];

  const pinOnMaster = async (): Promise<void> => {
    cids.push(await pinContent(master));
  };
  const status = async (exitCode: number): Promise<ReadonlyMap<string, string>> => {
    const before = await watchNode(node);
    const result = await fulaNode(node, ["status", "--json"]);
    expectExit(result, exitCode);
    expect(await watchNode(node)).toEqual(before);
    const { kind, pending, report } = JSON.parse(result.stdout) as Status;
    expect({ kind, pending }).toEqual({ kind: "storage-node", pending: exitCode === 20 });
    return new Map(report.map(({ about, state, sentence }) => [about, `${state}: ${sentence}`]));
  };

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("alpha", network)]);
    for (let pin = 0; pin < 3; pin += 1) await pinOnMaster();
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("an invite holds the master's address on the network, and none of its own bridges", async () => {
    const { token } = await invite(master, "alpha");
    const { stdout } = await fulaNode(node, ["invite", "show", "--json", token]);
    const { bootstrap } = JSON.parse(stdout) as { bootstrap: readonly string[] };
    const { addresses } = JSON.parse((await askCluster(master, "GET", "/id")).body) as {
      addresses: readonly string[];
    };
    expect(addresses.length).toBeGreaterThan(2);
    expect(bootstrap).toEqual([`/ip4/${await master.address()}/tcp/9096/p2p/${await peerId(master)}`]);
  });

  test("without root nothing is done, and all that is missing is named", async () => {
    await node.run(`chmod 755 /root && cp -r ${PROGRAM.replace("/bin/fula-node.js", "")} /srv/package`);
    const { token } = await invite(master, "alpha");
    const before = await node.snapshot(["/opt"]);
    for (const args of [["--invite", token], []]) {
      const command = ["node", "/srv/package/bin/fula-node.js", "join-as-storage-node", "--yes", ...args];
      const result = await node.exec(command, { user: "nobody" });
      expectExit(result, 22);
      expect(stderrOf(result)).toMatch(
        /root: fula-node runs as user \d+, not as root.*engine: This user has no permission to open/,
      );
    }
    expect(await node.snapshot(["/opt"])).toEqual(before);
  });

  test("a join waits until as many pins are known as the master has, and says so", async () => {
    const { token } = await invite(master, "alpha");
    const result = await join(node, ["--invite", token, ...PRIVATE_NETWORK]);
    expectExit(result, 0);
    expect(result.stdout).toMatch(/^3 of 3 pins known here$/m);
  });

  test("status reports which masters it trusts, who sees it, what it stores and under which name", async () => {
    await untilStored([node], cids);
    const report = await status(0);
    expect(Object.fromEntries(report)).toEqual({
      member: `ok: of test-pool, trusts ${await peerId(master)} (master, sees this node)`,
      kubo: "ok: connected to 1 other node",
      pins: "ok: 3 of 3 known here; 3 pinned",
      ingest: "ok: 0.0.0.0:3601, blocks of up to 2097152 bytes, mode strict",
      "quota gate": "ok: http://master:8301 answers",
      name: "ok: alpha, announced to the master",
      storage: expect.stringMatching(/^ok: [0-9.]+ [kM]B of [0-9.]+ GB used/) as string,
    });
    const { stdout } = await fulaNode(node, ["status"]);
    expect(stdout).toContain("storage node in /opt/fula-storage");
    expect(stdout).toContain("Everything is up to date.");
  });

  test("status tells the rest while the master's API is away, and that the ingest refuses all", async () => {
    await closeStorageApi(master);
    const report = await status(20);
    expect(report.get("quota gate")).toMatch(
      /^attention: .*does not answer, so the ingest refuses every upload/,
    );
    expect(report.get("pins")).toMatch(
      /^unknown: 3 known here \(the master's count is unknown: .*; 3 pinned$/,
    );
    expect(report.get("name")).toMatch(/^unknown: alpha/);
    expect(report.get("member")).toMatch(/^ok: /);
    await openStorageApi(master);
    expect((await status(0)).get("name")).toMatch(/^ok: /);
  });

  test("status names what stands still", async () => {
    await node.run("docker stop ipfs_cluster");
    const report = await status(20);
    expect(report.get("member")).toMatch(/^unknown: of test-pool, trusts /);
    expect(report.get("pins")).toMatch(/^unknown: /);
    const { stdout } = await fulaNode(node, ["status"]);
    expect(stdout).toMatch(/drifted +cluster-follower +ipfs_cluster: its status is exited/);
    expect(stdout).toContain("Run join-as-storage-node.");
    expectExit(await join(node, []), 0);
  });

  test("a master lets one key hold as many names as NODE_NAMES_PER_OWNER says", async () => {
    expectExit(await rejoin(master, ["--set", "NODE_NAMES_PER_OWNER=0"]), 21);
    expectExit(await rejoin(master, ["--set", "NODE_NAMES_PER_OWNER=1"]), 0);
    const result = await join(node, ["--set", "CLUSTER_PEERNAME=beta"]);
    expectExit(result, 21);
    expect(stderrOf(result)).toContain("already has the maximum number of names");
  });
});
