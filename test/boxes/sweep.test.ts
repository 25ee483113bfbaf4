import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { visible } from "../../src/units.ts";
import { AS_OPERATOR, FIRST_JOIN, fulaNode, installArtifact } from "../support/artifact.ts";
import { Box, type ExecResult } from "../support/box.ts";
import { eventually } from "../support/cluster-real.ts";
import { bootFollower, type Follower, openKubo } from "../support/follower-box.ts";
import { expectExit, rejoin, skipped, stderrOf } from "../support/master-box.ts";

const HOME = "/opt/fula-master";
const ALERTS = `${HOME}/replication-alerts.log`;
const HEARTBEAT = `${HOME}/heartbeats/sweep.json`;
const COMMAND = "/usr/local/sbin/on-alarm";
/** A name that clears the screen, and turns the rest of the line around. */
const EVIL = "evil\u001b[2J\u202enode";
const PINS = 6;

describe.skipIf(skipped !== undefined)("what the sweep says of a pool that a stranger joins", () => {
  let network: string;
  let box: Box;
  let stranger: Follower;
  let strangerId: string;
  const cids: string[] = [];

  const fula = (...args: string[]): Promise<ExecResult> => fulaNode(box, args);
  const alerts = async (): Promise<string> => (await box.exec(["cat", ALERTS])).stdout;
  const sweep = async (...args: string[]) => {
    const result = await fula("sweep", "--json", ...args);
    return { ...result, data: JSON.parse(result.stdout) as Record<string, never> };
  };
  const nodeList = async () => {
    const result = await fula("node", "list", "--json");
    expectExit(result, 0);
    return JSON.parse(result.stdout) as {
      nodes: { id: string }[];
      strangers: { id: string; name: string }[];
    };
  };

  beforeAll(async () => {
    network = await Box.network();
    box = await Box.boot({ name: "master", image: "docker", network });
    await installArtifact(box);
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    for (let index = 0; index < PINS; index++) {
      const add = `echo "content ${index}" | docker exec -i ipfs_host ipfs add -q --pin=false --cid-version=1`;
      const cid = (await box.run(add)).stdout.trim();
      await box.run(`curl -sf ${AS_OPERATOR} -X POST http://127.0.0.1:9094/pins/${cid}`);
      cids.push(cid);
    }
    await eventually("the master has its pins", async () => {
      const { stdout } = await box.run("docker exec ipfs_host ipfs pin ls --type=recursive -q");
      return cids.every((cid) => stdout.includes(cid));
    });
  });
  afterAll(async () => {
    await Promise.all([stranger?.box.destroy(), box?.destroy()]);
    if (network !== undefined) await Box.removeNetwork(network);
  });

  test("a lone copy is not healthy, and one alarm says so by the operator's command", async () => {
    const refused = await rejoin(box, ["--set", `ALERT_COMMAND=${COMMAND}`]);
    expectExit(refused, 21);
    expect(stderrOf(refused)).toContain(`${COMMAND} does not exist`);
    await box.writeFile(COMMAND, "#!/bin/sh\ncat >>/root/alarms\n", 0o755);
    expectExit(await rejoin(box, ["--set", `ALERT_COMMAND=${COMMAND}`]), 0);
    const { exitCode, data } = await sweep("--strict");
    expect(exitCode).toBe(20);
    expect(data).toMatchObject({ pins: PINS, counts: { healthy: 0 }, lackingNodes: PINS, alerts: 1 });
    expect(await alerts()).toMatch(/^\S+Z too-few-nodes nodes=1 pins=6$/);
    const alarm = JSON.parse(await box.readFile("/root/alarms")) as unknown;
    expect(alarm).toMatchObject({ kind: "under-replicated", counts: { pins: PINS, below: PINS } });
  });

  test("with one copy enough all is well, and a typing error records no failed run", async () => {
    expectExit(await rejoin(box, ["--set", "REPL_MIN=1"]), 0);
    expect(await sweep("--strict")).toMatchObject({
      exitCode: 0,
      data: { counts: { healthy: PINS }, alerts: 0 },
    });
    const before = await box.readFile(HEARTBEAT);
    expectExit(await fula("sweep", "--forget", "no-such-node"), 2);
    expect(await box.readFile(HEARTBEAT)).toBe(before);
    expectExit(await fula("status"), 0);
  });

  test("what an account asks for and nobody has is no alarm; once no request waits, it is", async () => {
    const [cid = ""] = cids;
    const psql = (text: string) =>
      box.exec([
        "docker",
        "exec",
        "postgres-pinning",
        "psql",
        "-U",
        "pinning_user",
        "-d",
        "pinning_service",
        "-c",
        text,
      ]);
    const request = `INSERT INTO pins (requestid, user_id, cid, status) VALUES ('r', 'u', '${cid}', 'pinning')`;
    expectExit(await psql(request), 0);
    const work = `INSERT INTO pin_work (requestid, account, cid, action, due_at, deadline_at, sent_at)
      VALUES ('r', 'u', '${cid}', 'pin', now() + interval '1 hour', now() + interval '2 hours', now())`;
    expectExit(await psql(work), 0);
    await box.run(`docker exec ipfs_host ipfs pin rm ${cid}`);
    const before = await alerts();
    const searching = await sweep("--strict");
    expect(searching).toMatchObject({
      exitCode: 0,
      data: { counts: { healthy: PINS - 1, "searched-for": 1 }, alerts: 0, recovered: 0, queueFault: null },
    });
    expect(await alerts()).toBe(before);
    const status = await fula("status");
    expectExit(status, 0);
    expect(status.stdout).toContain("1 still searched for by the pinning API");
    expectExit(await psql("DELETE FROM pin_work"), 0);
    expectExit(await psql("DELETE FROM pins"), 0);
    const lost = await sweep();
    expect(lost.data).toMatchObject({ counts: { failed: 1, "searched-for": 0 }, alerts: 1, recovered: 1 });
    await eventually("the pin is back", async () => (await sweep("--strict")).exitCode === 0);
    expectExit(await fula("status"), 0);
  });

  test.each([
    ["five days old", { last_good_at: "-5 days", at: "-5 days" }, "5 days ago"],
    ["in the future", { last_good_at: "+2 days", at: "+2 days" }, "in the future"],
    [
      "of a failed run",
      { outcome: "unavailable", summary: "the cluster does not answer" },
      "the cluster does not answer",
    ],
  ])("a heartbeat %s needs attention", async (_, change, words) => {
    const good = await box.readFile(HEARTBEAT);
    const moved = await Promise.all(
      Object.entries(change).map(async ([key, value]) => {
        if (!/^[+-]/.test(value)) return [key, value];
        const { stdout } = await box.run(["date", "-u", "-d", value, "+%Y-%m-%dT%H:%M:%SZ"]);
        return [key, stdout.trim()];
      }),
    );
    const text = JSON.stringify({ ...(JSON.parse(good) as object), ...Object.fromEntries(moved) });
    try {
      await box.writeFile(HEARTBEAT, text, 0o644);
      const status = await fula("status");
      expectExit(status, 20);
      expect(status.stdout.replaceAll(/\s+/g, " ")).toContain(words);
    } finally {
      await box.writeFile(HEARTBEAT, good, 0o644);
    }
  });

  test("the stranger makes no alarm, is printed once, and its name harms no terminal", async () => {
    // A sweep of cron could see the stranger first.
    await box.run("systemctl stop cron");
    const masterKubo = await openKubo(box);
    stranger = await bootFollower(box, { name: "stranger", network, masterKubo, peername: EVIL });
    strangerId = (
      JSON.parse((await stranger.box.run(`curl -sf ${AS_OPERATOR} http://127.0.0.1:9094/id`)).stdout) as {
        id: string;
      }
    ).id;
    const before = await alerts();
    const first = await eventually("the sweep sees the stranger", async () => {
      const result = await fula("sweep", "--strict");
      return result.stdout.includes(strangerId) && result;
    });
    expectExit(first, 0);
    expect(first.stdout).toContain("evil\\u001b[2J\\u202enode");
    const { stdout: second } = await fula("sweep");
    expect(second).not.toContain(strangerId);
    const list = await fula("node", "list");
    const status = await fula("status");
    for (const { stdout, stderr } of [first, list, status])
      expect(visible(stdout + stderr)).toBe(stdout + stderr);
    expect(list.stdout).toContain(strangerId);
    expect(await alerts()).toBe(before);
    const { nodes, strangers } = await nodeList();
    expect(nodes).toHaveLength(1);
    expect(strangers.map(({ id }) => id)).toEqual([strangerId]);
    const kept = await box.readFile(`${HOME}/known-nodes.json`);
    expect(visible(kept)).toBe(kept);
  });

  test("its copies do not count until it is kept, and forgotten it is not listed any more", async () => {
    const cid = cids[0] as string;
    await eventually("the stranger has the content", async () => (await stranger.pins()).has(cid), 120_000);
    expect((await sweep()).data).toMatchObject({ histogram: { "1": PINS } });
    expectExit(await fula("node", "keep", "evil"), 2);
    expectExit(await fula("node", "keep", strangerId, "--name", "friend"), 0);
    await eventually("its copies count", async () => {
      const { data } = await sweep("--strict");
      return JSON.stringify(data["histogram"]) === JSON.stringify({ "2": PINS });
    });
    expectExit(await fula("sweep", "--forget", "friend"), 0);
    expect(await nodeList()).toMatchObject({ nodes: [{ name: "master" }], strangers: [] });
    expect((await sweep("--strict")).data).toMatchObject({
      exit: "ok",
      histogram: { "1": PINS },
      strangers: [],
    });
  });

  test("with the database away, the last known names are used, and the result says so", async () => {
    await box.run("docker stop postgres-pinning");
    const { exitCode, data } = await sweep();
    expect(exitCode).toBe(0);
    expect(data["namesFault"]).not.toBeNull();
    expect(data["summary"]).toContain("the last known names are used");
    await box.run(`mv ${HOME}/known-nodes.json /root/`);
    const without = await fula("sweep");
    expectExit(without, 29);
    await box.run(`mv /root/known-nodes.json ${HOME}/ && docker start postgres-pinning`);
  });
});
