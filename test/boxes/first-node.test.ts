import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { expectExit, rejoin, skipped } from "../support/master-box.ts";
import {
  bootFederation,
  bootNode,
  invite,
  join,
  members,
  pinContent,
  stored,
} from "../support/storage-boxes.ts";

describe.skipIf(skipped !== undefined)("the first storage node of an empty pool", () => {
  let network: string;
  let master: Box;
  let node: Box;

  const joinAndMeasure = async (): Promise<string> => {
    const { token, fingerprint } = await invite(master, "one");
    await node.writeFile("/root/token", token);
    const args = [
      "--invite",
      "@/root/token",
      "--fingerprint",
      fingerprint,
      "--set",
      "KUBO_PRIVATE_NETWORK=true",
    ];
    const result = await join(node, args);
    expectExit(result, 0);
    return result.stdout;
  };
  const leave = async (): Promise<void> =>
    expectExit(await fulaNode(node, ["leave", "--yes", "--purge", "all", "--confirm", "one"]), 0);

  beforeAll(async () => {
    network = await Box.network();
    [master, node] = await Promise.all([bootFederation(network), bootNode("one", network)]);
  });
  afterAll(async () => {
    await Promise.all([master?.destroy(), node?.destroy()]);
    await Box.removeNetwork(network);
  });

  test("does not wait for an update that cannot come, and says each wait once", async () => {
    const out = await joinAndMeasure();
    expect(out).toContain("No pins known here, and none on the master");
    expect(out).not.toContain("waiting for the first update");
    const waits = out.split("\n").filter((line) => /^waiting|: waiting/.test(line));
    expect(new Set(waits.map((line) => line.replace(/ \(up to .*/, ""))).size).toBe(waits.length);
    if (process.env["SHOW_TIMES"] !== undefined) {
      console.log(out);
      for (let run = 0; run < 2; run += 1) {
        await leave();
        console.log(await joinAndMeasure());
      }
    }
  });

  test("joins over IPv6 alone, with an invite that has no other address", async () => {
    await leave();
    const give = async (box: Box, address: string): Promise<void> => {
      await box.run(
        `sysctl -w net.ipv6.conf.eth0.disable_ipv6=0 && ip -6 addr add ${address}/64 dev eth0 nodad`,
      );
      await box.run(
        "ip -4 addr flush dev eth0 && printf 'fd00:fed::1 master\\nfd00:fed::2 one\\n' >>/etc/hosts",
      );
    };
    await give(master, "fd00:fed::1");
    await give(node, "fd00:fed::2");
    await master.run("sed -i '/^[0-9].*\\smaster$/d' /etc/hosts || true");
    await master.run("docker restart ipfs_host ipfs_cluster");
    expectExit(await rejoin(master), 0);
    await joinAndMeasure();
    const env = await node.readFile("/opt/fula-storage/.env");
    expect(env).toMatch(/^MASTER_CLUSTER_BOOTSTRAP=\/ip6\/fd00:fed::1\/tcp\/9096\/p2p\/\w+$/m);
    expect(await members(master)).toEqual(["master", "one"]);
    const cid = await pinContent(master);
    await expect
      .poll(async () => (await stored(node)).has(cid), { timeout: 120_000, interval: 500 })
      .toBe(true);
    const { stdout } = await node.run(
      "curl -s -o /dev/null -w '%{http_code}' 'http://[fd00:fed::2]:3601/health'",
    );
    expect(stdout).toBe("200");
  });
});
