import { describe, expect, it } from "vitest";
import { NAMES } from "../../../src/settings/master-layout.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { CLUSTER_ID, FakeMaster, KUBO_ID } from "../../support/fake-master.ts";
import { BOTH, putTheirs } from "../../support/foreign-writer.ts";
import { boxBefore, join, LAYOUT, lookAt, prepare, stepOn } from "../../support/master-boxes.ts";

const before = await boxBefore("writer");
const UNITS = [NAMES.kuboUnit, NAMES.clusterUnit];
const ELSEWHERE = {
  IPFS_API_ADDR: "/ip4/10.0.0.7/tcp/5001",
  IPFS_CLUSTER_API_ADDR: "/ip4/10.0.0.7/tcp/9094",
};

function answerElsewhere(host: FakeHost): void {
  host.http.routes.set("http://10.0.0.7:5001/api/v0/id", {
    status: 200,
    body: { ID: KUBO_ID, AgentVersion: "kubo/0.39.0/" },
  });
  host.http.routes.set("http://10.0.0.7:9094/id", {
    status: 200,
    body: { id: CLUSTER_ID, version: "1.1.5", ipfs: { id: KUBO_ID, error: "" } },
  });
  host.http.streams.set("http://10.0.0.7:9094/allocations?filter=all", 12_345);
}

const FORMS = [
  [
    "upstream's units",
    (host: FakeHost) => putTheirs(host, { units: UNITS }),
    {},
    /unit ipfs\.service \(active\)/,
  ],
  ["containers", (host: FakeHost) => putTheirs(host, {}), {}, /container ipfs_host \(running\)/],
  ["REST endpoints", answerElsewhere, ELSEWHERE, /no container, no unit/],
] as const;

describe.each(FORMS)("a writer of somebody else: %s", (_name, arrange, set, found) => {
  it("is adopted by its answers, with what it is as evidence", async () => {
    const host = before.copy();
    arrange(host);
    for (const provisionWriter of [false, true]) {
      const step = await stepOn(host, "writer", { set, provisionWriter });
      const { finding, changes } = await lookAt(step, host);
      expect(finding.state).toBe("ours");
      expect(changes).toEqual([]);
      expect(finding.evidence).toMatchObject({
        found: expect.stringMatching(found),
        kubo: expect.stringContaining(KUBO_ID),
        "ipfs-cluster": expect.stringContaining(CLUSTER_ID),
        adopted: "yes: never restarted, rewritten or upgraded",
        pinset: expect.stringMatching(/^\d+ pins$/),
      });
      await step.verify(host);
    }
  });

  it("is never written to by a whole run, nor by the next one", async () => {
    const host = new FakeMaster();
    arrange(host);
    const theirs = () => {
      const { containers, units } = host.snapshot();
      return [BOTH.map((name) => containers[name]), UNITS.map((name) => units[name])];
    };
    const standing = theirs();
    await join(host, { set, provisionWriter: false });
    expect(theirs()).toEqual(standing);
    expect(host.writes.filter((write) => /ipfs|kubo|fula-writer/.test(write))).toEqual([]);
    host.revive();
    await join(host, { provisionWriter: false });
    expect(host.writes).toEqual([]);
    expect(theirs()).toEqual(standing);
  });

  it("halts the run when it stops working, and is not started", async () => {
    const host = new FakeMaster();
    arrange(host);
    await join(host, { set, provisionWriter: false });
    host.revive();
    for (const name of BOTH.filter((one) => host.docker.boxes.has(one))) {
      const container = host.docker.boxes.get(name);
      if (container !== undefined) host.docker.boxes.set(name, { ...container, status: "exited" });
    }
    host.http.routes.delete("http://10.0.0.7:9094/id");
    const standing = host.snapshot();
    await expect(join(host, { provisionWriter: false })).rejects.toMatchObject({
      exit: "foreign",
      changed: undefined,
      problems: [{ subject: "writer" }],
    });
    expect(host.snapshot()).toEqual(standing);
  });
});

describe("a writer named in the settings", () => {
  it("that does not answer is no reason to make another one", async () => {
    const host = before.copy();
    const step = await stepOn(host, "writer", { set: ELSEWHERE, provisionWriter: false });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("named in the settings"),
    });
  });

  it("that does not answer is none with --provision-writer, either", async () => {
    const host = before.copy();
    const step = await stepOn(host, "writer", { set: ELSEWHERE });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("named in the settings"),
    });
  });

  it("keeps its password out of sight", async () => {
    const set = { ...ELSEWHERE, CLUSTER_BASIC_AUTH: "admin:very-secret-word" };
    const host = before.copy();
    answerElsewhere(host);
    const { context } = await prepare(host, { set });
    expect(context.settings.get("CLUSTER_BASIC_AUTH")?.value).toContain("very-secret-word");
    const { finding } = await lookAt(await stepOn(host, "writer", { set }), host);
    expect(JSON.stringify(finding)).not.toContain("very-secret-word");
    expect(host.files.tree.has(LAYOUT.envFile)).toBe(true);
  });
});
