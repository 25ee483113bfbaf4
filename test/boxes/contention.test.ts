import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIRST_JOIN, fulaNode, installArtifact, PROGRAM, SERVICE_IMAGE } from "../support/artifact.ts";
import { openTerminal } from "../support/box-terminal.ts";
import { Box } from "../support/box.ts";
import {
  ALL_HEALTHY,
  expectExit,
  health,
  journaledChanges,
  readEnv,
  rejoin,
  skipped,
  stderrOf,
} from "../support/master-box.ts";

const EVERYTHING = ["/opt", "/etc", "/var/lib/docker/volumes", "/root"] as const;
const NOWHERE = "/srv/package/bin/fula-node.js";

describe.skipIf(skipped !== undefined)("two runs at once", () => {
  let box: Box;

  beforeAll(async () => {
    box = await Box.boot({ name: "contention", image: "docker" });
    await installArtifact(box);
  });
  afterAll(() => box?.destroy());

  async function attempts(): Promise<ReadonlySet<string>> {
    const lines = (await box.readFile("/opt/fula-master/journal.ndjson")).trim().split("\n");
    return new Set(lines.map((line) => (JSON.parse(line) as { attempt: string }).attempt));
  }

  test("one makes the master, the other exits 25 and names it", async () => {
    const results = await Promise.all([fulaNode(box, FIRST_JOIN), fulaNode(box, FIRST_JOIN)]);
    const [winner, loser] = results.sort((a, b) => a.exitCode - b.exitCode);
    if (winner === undefined || loser === undefined) throw new Error("two runs, fewer results");
    expectExit(winner, 0);
    expectExit(loser, 25);
    const [attempt = "", ...others] = await attempts();
    expect(others).toEqual([]);
    expect(stderrOf(loser)).toContain(`join-as-master, process ${/\d+$/.exec(attempt)?.[0] ?? "?"}, since `);
    expect(stderrOf(loser)).toContain("Changed: nothing");
  });

  test("nothing was made twice", async () => {
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect((await box.run("docker volume ls -q")).stdout).toBe("fula-master_pgdata");
    expect((await box.run("ls /opt/fula-master/snapshots/*.manifest.json | wc -l")).stdout).toBe("1");
    const changes = (await journaledChanges(box)).map((change) => JSON.stringify(change));
    expect(changes.length).toBeGreaterThan(10);
    expect(new Set(changes).size).toBe(changes.length);
    expectExit(await rejoin(box, ["--dry-run"]), 0);
  });

  test("the lock of a killed run is free at once; a dry run and status never need it", async () => {
    const env = await readEnv(box);
    await box.run(
      `docker rm -f $(docker ps -aq) && docker image rm -f ${SERVICE_IMAGE} && rm -r /opt/fula-master/cli`,
    );
    const holder = fulaNode(box, FIRST_JOIN);
    // Its first change: it has the lock, and another run can't take it before it.
    await expect
      .poll(async () => (await box.exec("test -e /opt/fula-master/cli/current")).exitCode, {
        timeout: 30_000,
        interval: 50,
      })
      .toBe(0);
    const refused = await fulaNode(box, ["join-as-master", "--json"]);
    expectExit(refused, 25);
    const pid = /process (\d+)/.exec(refused.stderr)?.[1] ?? "";
    const { stdout } = await box.run("pgrep -f 'fula-node.js join-as-master --yes --provision'");
    expect(stdout.split("\n")).toContain(pid);
    expectExit(await fulaNode(box, ["status"]), 27);
    expectExit(await rejoin(box, ["--dry-run"]), 20);
    await box.run(["kill", "-9", pid]);
    expect((await holder).exitCode).toBe(137);
    expectExit(await fulaNode(box, FIRST_JOIN), 0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect(await readEnv(box)).toEqual(env);
  });
});

describe.skipIf(skipped !== undefined)("bad input: everything wrong is named, and nothing is written", () => {
  let box: Box;
  let untouched: unknown;

  beforeAll(async () => {
    box = await Box.boot({ name: "input", image: "docker" });
    await installArtifact(box);
    await box.run("cp -r /root/package /srv/package && chmod -R a+rX /srv/package");
    untouched = await box.snapshot(EVERYTHING);
  });
  afterAll(async () => {
    try {
      expect(await box.snapshot(EVERYTHING)).toEqual(untouched);
    } finally {
      await box?.destroy();
    }
  });

  async function expectRefusal(
    args: readonly string[],
    exitCode: number,
    words: readonly string[],
  ): Promise<string> {
    const result = await fulaNode(box, args);
    expectExit(result, exitCode);
    for (const word of words) expect(stderrOf(result)).toContain(word);
    return stderrOf(result);
  }

  test("not root, no terminal, missing settings: one list of all, exit 22", async () => {
    const args = [
      "join-as-master",
      "--yes",
      "--provision-writer",
      "--set",
      "POSTGRES_HOST=db.example.org",
      "--set",
      "WEBUI_PORT=70000",
      "--set",
      "CLUSTERNAM=x",
    ];
    const result = await box.exec(["node", NOWHERE, ...args], { user: "nobody" });
    expectExit(result, 22);
    for (const word of [
      "not as root",
      "CLUSTERNAME is missing",
      "POSTGRES_PASSWORD is missing",
      "WEBUI_PORT given by flag",
      "CLUSTERNAM is not a setting",
      "Did you mean CLUSTERNAME?",
    ]) {
      expect(stderrOf(result)).toContain(word);
    }
    expect(stderrOf(result)).toContain("Changed: nothing");
  });

  test("root, no terminal: nothing is asked, and all that is missing or wrong is named, exit 21", async () => {
    await expectRefusal(
      [
        "join-as-master",
        "--yes",
        "--provision-writer",
        "--set",
        "PINNING_API_PORT=6000x",
        "--set",
        "NO_SUCH=1",
      ],
      21,
      ["CLUSTERNAME is missing", "PINNING_API_PORT", '"6000x"', "NO_SUCH is not a setting", "3 problems"],
    );
  });

  test("root, no terminal, no consent: what needs a word is named, exit 22", async () => {
    await expectRefusal(["join-as-master"], 22, ["--provision-writer", "no terminal"]);
  });

  const PEER = "12D3KooWJ2em6q5krNUKLc5UaXhWuRpR3D2ZGjDWACpqsUNaTsh5";
  test.each([
    ["a port of zero", "POSTGRES_PORT=0"],
    ["a port that two services want", "WEBUI_PORT=6000"],
    ["a multiaddr without transport", "IPFS_API_ADDR=/ip4/127.0.0.1"],
    ["a multiaddr with a bad address", "IPFS_CLUSTER_API_ADDR=/ip4/300.0.0.1/tcp/9094"],
    ["a bootstrap without its peer", "MASTER_CLUSTER_BOOTSTRAP=/ip4/10.0.0.7/tcp/9096"],
    [
      "a bootstrap whose peer id is cut off",
      `MASTER_CLUSTER_BOOTSTRAP=/ip4/10.0.0.7/tcp/9096/p2p/${PEER.slice(0, 40)}`,
    ],
    ["trusted peers with a letter that base58 lacks", `MASTER_CLUSTER_PEERIDS=${PEER.replace("J", "0")}`],
    ["everybody as a trusted peer", "MASTER_CLUSTER_PEERIDS=*"],
    ["a system key that opens to everybody", "SYSTEM_KEY=disabled"],
    ["an empty value", "CLUSTERNAME="],
    ["a line break", "CLUSTERNAME=a\nb"],
  ])("%s: exit 21, the key and the rule", async (_name, assignment) => {
    const key = assignment.slice(0, assignment.indexOf("="));
    const args = ["join-as-master", "--yes", "--set", assignment];
    const says = await expectRefusal(args, 21, [key, "Do:", "Changed: nothing"]);
    if (key === "SYSTEM_KEY") expect(says).toContain("not shown");
  });

  test.each([
    ["an unknown flag", ["--provision"], "Unknown option"],
    ["an unknown step", ["--adopt", "kubo"], "no step kubo"],
    ["a check that can't be ignored", ["--ignore", "root"], "can't be ignored"],
    ["a --set without a value", ["--set", "CLUSTERNAME"], "KEY=VALUE"],
    ["two values for one key", ["--set", "CLUSTERNAME=a", "--set", "CLUSTERNAME=b"], "two different values"],
    ["a base directory that cron can't name", ["--base-dir", "/opt/my node"], "--base-dir"],
  ])("%s: exit 2", async (_name, flags, word) => {
    await expectRefusal(["join-as-master", "--yes", ...flags], 2, [word]);
  });
});

describe.skipIf(skipped !== undefined)("a person at a terminal", () => {
  let box: Box;
  const join = `node ${PROGRAM} join-as-master`;
  const ASK_WRITER = "Create them on this box? [Y/n] ";
  const ASK_POOL = "Name of the pool";
  const ASK_GO = /Make these \d+ changes\? \[Y\/n\] /;

  beforeAll(async () => {
    box = await Box.boot({ name: "person", image: "docker" });
    await installArtifact(box);
  });
  afterAll(() => box?.destroy());

  test("no to the writer: exit 22 with both ways out, nothing changed", async () => {
    const before = await box.snapshot(EVERYTHING);
    const terminal = openTerminal(box, join);
    await terminal.see(ASK_WRITER);
    terminal.type("n\n");
    expect(await terminal.ended()).toBe(22);
    const text = terminal.shown().replaceAll(/\s+/g, " ");
    expect(text).toContain("You answered no");
    expect(text).toContain("--provision-writer");
    expect(text).toContain("IPFS_CLUSTER_API_ADDR");
    expect(text).toContain("Changed: nothing");
    expect(await box.snapshot(EVERYTHING)).toEqual(before);
  });

  test("defaults by Enter, the plan, and no to its changes: exit 20, nothing changed", async () => {
    const before = await box.snapshot(EVERYTHING);
    const terminal = openTerminal(box, join);
    await terminal.see(ASK_WRITER);
    terminal.type("\n");
    await terminal.see(ASK_POOL);
    terminal.type("\n");
    await terminal.see("first snapshot");
    await terminal.see(ASK_GO);
    terminal.type("n\n");
    expect(await terminal.ended()).toBe(20);
    expect(terminal.shown().replaceAll(/\s+/g, " ")).toContain(
      "You answered no. Stopped before the first change",
    );
    expect(await box.snapshot(EVERYTHING)).toEqual(before);
  });

  test.each([
    ["ctrl-C at a question", "\x03", 130],
    ["the input's end at a question", "\x04", 20],
  ])("%s: nothing changed", async (_name, key, exitCode) => {
    const before = await box.snapshot(EVERYTHING);
    const terminal = openTerminal(box, `${join} --provision-writer --set CLUSTERNAME=person-pool`);
    await terminal.see(ASK_GO);
    terminal.type(key);
    expect(await terminal.ended()).toBe(exitCode);
    expect(await box.snapshot(EVERYTHING)).toEqual(before);
  });

  test("ctrl-C in the middle: exit 130 and a word on what that means; another run ends the work", async () => {
    const terminal = openTerminal(box, join);
    await terminal.see(ASK_WRITER);
    terminal.type("y\n");
    await terminal.see(ASK_POOL);
    terminal.type("person-pool\n");
    await terminal.see(ASK_GO);
    terminal.type("y\n");
    await expect
      .poll(async () => (await box.exec("docker ps --format '{{.Names}}'")).stdout, {
        timeout: 60_000,
        interval: 50,
      })
      .toContain("ipfs_host");
    terminal.type("\x03");
    expect(await terminal.ended()).toBe(130);
    expect(terminal.shown()).toMatch(/Stopped by SIGINT.*running again is safe/s);
    expect((await box.exec("pgrep -f '[f]ula-node.js'")).stdout).toBe("");
    expect((await box.exec("ls /opt/fula-master/docker-compose.yml")).exitCode).toBe(2);
    const secrets = await readEnv(box);

    const again = openTerminal(box, join);
    await again.see(ASK_GO);
    again.type("\n");
    expect(await again.ended(), again.shown()).toBe(0);
    expect(await health(box)).toEqual(ALL_HEALTHY);
    expect(await readEnv(box)).toEqual(secrets);
    expect(secrets["CLUSTERNAME"]).toBe("person-pool");
    expectExit(await rejoin(box, ["--dry-run"]), 0);
  });

  test("with nothing to change, nothing is asked", async () => {
    const terminal = openTerminal(box, join);
    expect(await terminal.ended()).toBe(0);
    expect(terminal.shown()).toContain("Nothing to do");
    expect(terminal.shown()).not.toContain("[Y/n]");
  });
});
