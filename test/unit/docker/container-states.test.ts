import { describe, expect, it } from "vitest";
import { remedyForNetwork } from "../../../src/docker/engine-answers.ts";
import type { Container } from "../../../src/docker/engine.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import type { FakeMaster } from "../../support/fake-master.ts";
import { join, joinedBox } from "../../support/master-boxes.ts";

const API = NAMES.pinningApi;

function put(host: FakeMaster, name: string, fields: Partial<Container>): void {
  const container = host.docker.boxes.get(name);
  if (container === undefined) throw new Error(`no container ${name}`);
  host.docker.boxes.set(name, { ...container, ...fields });
}

/** Every state that Docker knows, what a join does about it, and how its plan calls it. */
const STATES: readonly (readonly [string, Partial<Container>, readonly string[], RegExp])[] = [
  ["created", { status: "created" }, ["up"], /its status is created: it was never started/],
  ["exited with 0", { status: "exited", exitCode: 0 }, ["up"], /its status is exited \(exit code 0\)$/m],
  ["exited with 1", { status: "exited", exitCode: 1 }, ["up"], /its status is exited \(exit code 1\)$/m],
  [
    "killed for lack of memory",
    { status: "exited", exitCode: 137, oomKilled: true },
    ["up"],
    /exit code 137.*memory ran out/,
  ],
  ["paused", { status: "paused" }, ["unpause"], /it is paused/],
  [
    "restarting",
    { status: "restarting", restartCount: 9, exitCode: 3 },
    ["restart"],
    /ends again and again: 9 restarts, exit code 3/,
  ],
  ["dead", { status: "dead" }, ["remove-container", "up"], /its removal did not finish \(status dead\)/],
  ["removing", { status: "removing" }, ["remove-container", "up"], /status removing/],
  [
    "running, and not started again by the engine",
    { restartPolicy: "no" },
    ["set-restart-policy"],
    /restart policy no -> unless-stopped/,
  ],
  [
    "exited, and not started again by the engine",
    { status: "exited", restartPolicy: "no" },
    ["set-restart-policy", "up"],
    /its status is exited[^]*restart policy no -> unless-stopped/,
  ],
  ["running, but unhealthy", { health: "unhealthy" }, ["restart"], /its healthcheck fails/],
];

describe("a container that is not as it should be", () => {
  for (const name of [API, NAMES.postgres, NAMES.cluster]) {
    it.each(STATES)(`${name}: %s`, async (_state, fields, kinds, drift) => {
      const host = await joinedBox();
      put(host, name, fields);
      const { changes, plan } = await join(host);
      expect(changes.map(({ change }) => change.kind)).toEqual(kinds);
      expect(plan.flatMap((item) => item.drift).join("\n")).toMatch(drift);
      expect(host.docker.boxes.get(name)).toMatchObject({
        status: "running",
        oomKilled: false,
        restartPolicy: "unless-stopped",
      });
      host.revive();
      await join(host);
      expect(host.writes).toEqual([]);
    });
  }

  it("paused and with other settings: it is unpaused before it is created again", async () => {
    const host = await joinedBox();
    put(host, NAMES.webui, { status: "paused" });
    const { changes } = await join(host, { set: { FREE_TIER_BYTES: "1" } });
    expect(changes.slice(1).map(({ change }) => change.kind)).toEqual(["unpause", "up"]);
  });

  it("one that ends again and again is named with its log after a few restarts, not after the deadline", async () => {
    const host = await joinedBox();
    host.docker.boxes.delete(API);
    let restarts = 0;
    host.docker.onStart = (container) =>
      container.name === API ? { ...container, status: "restarting", exitCode: 3 } : container;
    host.clock.onWait = () => {
      restarts += 1;
      const container = host.docker.boxes.get(API);
      if (container !== undefined) host.docker.boxes.set(API, { ...container, restartCount: restarts });
    };
    host.docker.logTexts.set(API, "port 6000 is in use");
    const before = host.clock.now().getTime();
    await expect(join(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringMatching(
        /^fula-pinning-api does not work: its status is restarting.*restarted \d+ times/,
      ),
      why: expect.stringContaining("port 6000 is in use"),
    });
    expect(host.clock.now().getTime() - before).toBeLessThan(10_000);
  });

  it("Compose's missing hash does not count as unchanged", async () => {
    const host = await joinedBox();
    const hashes = host.docker.composeHashes.bind(host.docker);
    host.docker.composeHashes = async (document) => {
      const { webui: _webui, ...rest } = await hashes(document);
      return rest;
    };
    await expect(join(host)).rejects.toMatchObject({
      exit: "unavailable",
      what: expect.stringContaining("no hash for the service webui"),
    });
  });
});

describe("what the engine says of its network that a restart repairs", () => {
  it.each([
    "failed to create network x: Error response from daemon: Failed to Setup IP tables: Unable to enable SKIP DNAT rule:  (iptables failed: iptables --wait -t nat -I DOCKER -i br-1 -j RETURN: iptables: No chain/target/match by that name.",
    "driver failed programming external connectivity on endpoint postgres-pinning: (iptables failed: iptables --wait -t nat -A DOCKER -p tcp -d 127.0.0.1: iptables v1.8.11 (nf_tables): Chain 'DOCKER' does not exist",
  ])("%s", (words) => {
    expect(remedyForNetwork(words)).toContain("systemctl restart docker");
  });

  it("a port that it holds although no container has it", () => {
    const words =
      "driver failed programming external connectivity on endpoint postgres-pinning (5a): Bind for 127.0.0.1:5432 failed: port is already allocated";
    expect(remedyForNetwork(words)).toMatch(/docker ps.*loss of power\. Restart Docker/);
  });

  it.each(["no space left on device", "address already in use", ""])("%j is something else", (words) => {
    expect(remedyForNetwork(words)).toBeNull();
  });
});
