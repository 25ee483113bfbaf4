import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fulaNode, PROGRAM } from "../support/artifact.ts";
import { Box } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { expectExit, rejoin, skipped, stderrOf, watch } from "../support/master-box.ts";
import {
  askCluster,
  bootFederation,
  bootNode,
  by,
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
  readonly verdict: string;
  readonly exitCode: number;
  readonly parts: readonly {
    readonly name: string;
    readonly state: string;
    readonly summary: string;
    readonly durationMs: number;
  }[];
  readonly report: readonly { readonly about: string; readonly state: string; readonly sentence: string }[];
}

describe.skipIf(skipped !== undefined)("how a storage node and its master stand", () => {
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
    const { kind, pending, report, ...whole } = JSON.parse(result.stdout) as Status;
    expect({ kind, pending, exitCode: whole.exitCode }).toEqual({
      kind: "storage-node",
      pending: exitCode !== 0,
      exitCode,
    });
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
    const invited = await invite(master, "alpha");
    const before = await node.snapshot(["/opt"]);
    for (const args of [by(invited), []]) {
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
    const invited = await invite(master, "alpha");
    const result = await join(node, [...by(invited), ...PRIVATE_NETWORK]);
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
      ingest: "ok: [::]:3601, blocks of up to 2097152 bytes, mode strict",
      "quota gate": "ok: http://master:8301 answers",
      name: "ok: alpha, announced to the master",
      storage: expect.stringMatching(/^ok: [0-9.]+ [kM]B of [0-9.]+ GB used/) as string,
    });
    const { stdout } = await fulaNode(node, ["status"]);
    expect(stdout).toMatch(/^fula-node \S+ · storage node alpha of pool test-pool\n/);
    expect(stdout).toMatch(/\nEverything works \(exit 0\)\.$/);
    expect(Math.max(...stdout.split("\n").map(({ length }) => length))).toBeLessThanOrEqual(80);
  });

  test("doctor finds nothing that must be done, and names what is broken", async () => {
    const diagnose = async () => {
      const result = await fulaNode(node, ["doctor", "--json"]);
      const { findings } = JSON.parse(result.stdout) as {
        findings: readonly { id: string; severity: string; what: string; remedy: string | null }[];
      };
      const isBad = ({ severity }: { severity: string }) => severity === "error" || severity === "warning";
      // Nothing keeps the clock of a box.
      const bad = findings.filter((one) => isBad(one) && one.id !== "preflight-clock");
      return { exitCode: result.exitCode, bad };
    };
    expect(await diagnose()).toEqual({ exitCode: 20, bad: [] });
    await node.run("docker stop fula-ingest");
    const broken = await diagnose();
    expect(broken.exitCode).toBe(27);
    expect(JSON.stringify(broken.bad)).toContain("fula-ingest");
    expectExit(await fulaNode(node, ["doctor", "--fix", "--yes"]), 20);
    await eventually("all is well again", async () => (await diagnose()).exitCode === 20);
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
    const report = await status(27);
    expect(report.get("member")).toMatch(/^unknown: of test-pool, trusts /);
    expect(report.get("pins")).toMatch(/^unknown: /);
    const { stdout } = await fulaNode(node, ["status"]);
    expect(stdout).toMatch(/down +member +the container ipfs_cluster is stopped/);
    expect(stdout).toMatch(/ok +settings +nothing else to repair/);
    expectExit(await join(node, []), 0);
  });

  const masterStatus = async (exitCode: number): Promise<ReadonlyMap<string, string>> => {
    const result = await fulaNode(master, ["status", "--json"], { timeoutMs: 30_000 });
    expectExit(result, exitCode);
    const { kind, parts } = JSON.parse(result.stdout) as Status;
    expect(kind).toBe("master");
    return new Map(parts.map(({ name, state, summary }) => [name, `${state}: ${summary}`]));
  };

  /** The node's peer was started again: for a while the master lists it by its last ping from before, then not, then again. */
  const hasPingedAgain = async (): Promise<boolean> => {
    const { stdout } = await node.run("docker inspect --format '{{.State.StartedAt}}' ipfs_cluster");
    const [id, { body }] = await Promise.all([
      peerId(node),
      askCluster(master, "GET", "/monitor/metrics/ping"),
    ]);
    const pings = JSON.parse(body) as readonly { readonly peer: string; readonly received_at: number }[];
    return pings.some(({ peer, received_at: atNs }) => peer === id && atNs / 1e6 > Date.parse(stdout.trim()));
  };

  test("right after a join every part of a master works, and its screen fits 80 columns", async () => {
    await eventually("the master lists the node again", hasPingedAgain);
    // An earlier one may be of a time when the node was still fetching.
    expectExit(await fulaNode(master, ["sweep"]), 0);
    const before = await watch(master);
    const { stdout, exitCode } = await fulaNode(master, ["status"]);
    expect(exitCode, stdout).toBe(0);
    expect(stdout).toMatch(/^fula-node \S+ · master master of pool test-pool\n/);
    expect(stdout).toMatch(/^ {2}ok +writer +kubo [\d.]+, ipfs-cluster [\d.]+, 2 peers$/m);
    expect(stdout).toMatch(/^ {2}ok +database +16\.\d+, schema \d{3}, [\d.]+ MB$/m);
    expect(stdout).toMatch(/^ {2}Pins +3: 3 complete; found \d+ s ago$/m);
    expect(stdout).toMatch(/^ {2}Nodes +master \(here\), alpha$/m);
    expect(stdout).not.toMatch(/[0-9a-f]{12}|sha256|API version/);
    expect(Math.max(...stdout.split("\n").map(({ length }) => length))).toBeLessThanOrEqual(80);
    const verbose = await fulaNode(master, ["status", "--verbose"]);
    expect(verbose.stdout).toMatch(/API version: 1\.\d+/);
    expect(await watch(master)).toEqual(before);
  });

  test("a container that is paused or killed is down, and every other part is still judged", async () => {
    await master.run("docker pause fula-pinning-api && docker kill postgres-pinning");
    const parts = await masterStatus(27);
    expect(parts.get("pinning API")).toBe("down: the container fula-pinning-api is paused");
    expect(parts.get("database")).toMatch(/^down: the container postgres-pinning is stopped/);
    expect(parts.get("storage API")).toMatch(/^down: 127\.0\.0\.1:3001 does not work: postgres: /);
    expect(parts.get("writer")).toMatch(/^ok: /);
    expect(parts.get("settings")).toBe("ok: nothing else to repair");
    await master.run("docker unpause fula-pinning-api");
    expectExit(await rejoin(master), 0);
    expect((await masterStatus(0)).get("database")).toMatch(/^ok: /);
  });

  test("a database whose packets are dropped is unknown within its deadline", async () => {
    const env = "/opt/fula-master/.env";
    await master.run(
      `cp -p ${env} /root/env && sed -i 's/^POSTGRES_HOST=.*/POSTGRES_HOST=192.0.2.1/' ${env} && iptables -I OUTPUT -d 192.0.2.1 -j DROP`,
    );
    const begin = performance.now();
    const parts = await masterStatus(20);
    expect(performance.now() - begin).toBeLessThan(15_000);
    expect(parts.get("database")).toBe("unknown: 192.0.2.1:5432 did not answer in time");
    expect(parts.get("writer")).toMatch(/^ok: /);
    expect(parts.get("pinning API")).toMatch(/^ok: /);
    await master.run(`cp -p /root/env ${env} && iptables -D OUTPUT -d 192.0.2.1 -j DROP`);
    await masterStatus(0);
  });

  test("an engine that hangs is unknown, one that is stopped is down; what does not need it is judged", async () => {
    await master.run("pkill -STOP -x dockerd");
    const hanging = await masterStatus(29);
    await master.run("pkill -CONT -x dockerd");
    expect(hanging.get("Docker")).toBe("unknown: the engine did not answer in time");
    expect(hanging.get("database")).toMatch(/^ok: /);
    expect(hanging.get("settings")).toMatch(/^unknown: not checked: every step/);
    expect(hanging.get("snapshots")).toMatch(/^ok: /);

    await master.run("systemctl stop docker.socket docker");
    const stopped = await masterStatus(27);
    expect(stopped.get("Docker")).toMatch(/^down: does not run: /);
    expect(stopped.get("writer")).toBe("unknown: not checked: Docker does not run");
    expect(stopped.get("settings")).toMatch(/^unknown: not checked: .*\(Docker does not run\)/);
    const planned = await fulaNode(master, ["join-as-master", "--dry-run"]);
    expectExit(planned, 20);
    expect(planned.stdout).toMatch(/1 change\. Nothing has been changed yet\./);
    expect(planned.stdout).not.toMatch(/create|migrate/);
    expect(stopped.get("cron")).toMatch(/^ok: /);
    await master.run("systemctl start docker");
    expectExit(await rejoin(master), 0);
    // The writer has just started: it lists a node from its next ping on. A run of cron may have met the stopped engine.
    await eventually("the master lists the node again", hasPingedAgain);
    for (const run of [["sweep"], ["snapshot", "take"]]) expectExit(await fulaNode(master, run), 0);
    await masterStatus(0);
  });

  test("a machine without a node says so", async () => {
    await node.run("mkdir /srv/none");
    const result = await fulaNode(node, ["status", "--base-dir", "/srv/none"]);
    expectExit(result, 20);
    expect(result.stdout).toContain("No fula-node node is installed in /srv/none.");
  });

  test("a master lets one key hold as many names as NODE_NAMES_PER_OWNER says", async () => {
    expectExit(await rejoin(master, ["--set", "NODE_NAMES_PER_OWNER=0"]), 21);
    expectExit(await rejoin(master, ["--set", "NODE_NAMES_PER_OWNER=1"]), 0);
    const result = await join(node, by(await invite(master, "beta")));
    expectExit(result, 21);
    expect(stderrOf(result)).toContain("already has the maximum number of names");
  });
});
