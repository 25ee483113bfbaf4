import { describe, expect, it } from "vitest";
import type { Change } from "../../../src/engine/step.ts";
import { NAMES } from "../../../src/settings/layout.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { CLUSTER_ID, FakeMaster, KUBO_ID } from "../../support/fake-master.ts";
import { BOTH, putTheirs } from "../../support/foreign-writer.ts";
import { boxBefore, join, LAYOUT, lookAt, prepare, secretsOf, stepOn } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";

const FILE = "/opt/fula-writer/docker-compose.yml";

const before = await boxBefore("writer");
const made = await stepOn(before, "writer");
const shy = await stepOn(before, "writer", { provisionWriter: false });

function change(host: FakeHost, name: string, fields: object): void {
  const container = host.docker.boxes.get(name);
  if (container === undefined) throw new Error(`no container ${name}`);
  host.docker.boxes.set(name, { ...container, ...fields });
}

/** The data of a writer, with some files, as another user's. */
function giveData(host: FakeHost, uid: number, mode: number): void {
  for (const name of ["kubo", "ipfs-cluster"]) {
    const directory = `/opt/fula-writer/${name}`;
    host.files.putDirectory(directory, mode, uid);
    for (const file of ["blocks/A/1.data", "blocks/B/2.data", "identity.json"])
      host.files.put(`${directory}/${file}`, file, 0o600, uid);
  }
}

stepLaws("writer made here", {
  makeStep: () => made,
  makeHost: () => before.copy(),
  absent: () => {},
  drifts: [
    {
      name: "its compose file is missing",
      arrange: (host) => host.files.drop(FILE),
      names: /docker-compose\.yml: absent/,
    },
    {
      name: "its compose file was edited",
      arrange: (host) => host.files.put(FILE, host.files.textOf(FILE).replace("unless-stopped", "always")),
      names: /docker-compose\.yml: differs/,
    },
    {
      name: "a script was edited",
      arrange: (host) => host.files.put("/opt/fula-writer/kubo-init.sh", "#!/bin/sh\n", 0o755),
      names: /kubo-init\.sh is missing or differs/,
    },
    {
      name: "a script is missing",
      arrange: (host) => host.files.drop("/opt/fula-writer/cluster-start.sh"),
      names: /cluster-start\.sh is missing or differs/,
    },
    {
      name: "a container was removed",
      arrange: (host) => void host.docker.boxes.delete(NAMES.cluster),
      names: /ipfs_cluster: no such container/,
    },
    {
      name: "both containers were removed",
      arrange: (host) => host.docker.boxes.clear(),
      names: /ipfs_host: no such container/,
    },
    {
      name: "a container was stopped",
      arrange: (host) => change(host, NAMES.kubo, { status: "exited", pid: 0 }),
      names: /ipfs_host: its status is exited/,
    },
    {
      name: "its data belongs to the image's user, as an older version left it",
      arrange: (host) => giveData(host, 1000, 0o755),
      names: /owner of \/opt\/fula-writer\/kubo 1000 -> 61077 \(restart\)\n.*ipfs-cluster 1000 -> 61077/,
    },
    {
      name: "a killed run has changed the owner of half of the data",
      arrange: async (host) => {
        giveData(host, 1000, 0o755);
        host.killAt(1, "during");
        await host.files.giveTree("/opt/fula-writer/kubo", { uid: 61_077 }).catch(() => {});
        host.revive();
      },
      names: /owner of \/opt\/fula-writer\/kubo 1000 -> 61077/,
    },
    {
      name: "other users can enter its data",
      arrange: (host) => host.files.putDirectory("/opt/fula-writer/ipfs-cluster", 0o755, 61_077),
      names: /mode of \/opt\/fula-writer\/ipfs-cluster 755 -> 700/,
    },
    {
      name: "a container is unhealthy",
      arrange: (host) => change(host, NAMES.kubo, { health: "unhealthy" }),
      names: /ipfs_host: its healthcheck fails/,
    },
    {
      name: "a container was created with other settings",
      arrange: (host) => {
        const { labels } = host.docker.boxes.get(NAMES.cluster) ?? { labels: {} };
        change(host, NAMES.cluster, { labels: { ...labels, "com.docker.compose.config-hash": "other" } });
      },
      names: /ipfs_cluster: it was created with other settings/,
    },
  ],
  foreign: [
    {
      name: "a compose file of somebody else is in the place of ours",
      arrange: (host) => host.files.put(FILE, "services: {}\n"),
      why: /docker-compose\.yml was not written by fula-node/,
    },
    {
      name: "kubo alone is there, and runs",
      arrange: (host) => putTheirs(host, { containers: [NAMES.kubo] }),
      why: /ipfs-cluster does not answer/,
    },
    {
      name: "ipfs-cluster alone is there, and runs",
      arrange: (host) => putTheirs(host, { containers: [NAMES.cluster] }),
      why: /kubo does not answer/,
    },
    {
      name: "both are there, and one is stopped",
      arrange: (host) => putTheirs(host, { stopped: [NAMES.cluster] }),
      why: /This box has a writer, but it does not work/,
    },
    {
      name: "both are there, and both are stopped",
      arrange: (host) => putTheirs(host, { stopped: BOTH }),
      why: /This box has a writer, but it does not work/,
    },
    {
      name: "upstream's units are there, and not started",
      arrange: (host) =>
        putTheirs(host, { containers: [], units: [NAMES.kuboUnit, NAMES.clusterUnit], active: false }),
      why: /This box has a writer, but it does not work/,
    },
    {
      name: "something answers in kubo's place without a container",
      arrange: (host) =>
        void host.http.routes.set("http://127.0.0.1:5001/api/v0/id", { status: 200, body: { ID: KUBO_ID } }),
      why: /This box has a writer, but it does not work: ipfs-cluster does not answer/,
    },
    {
      name: "the cluster peer cannot reach its kubo",
      arrange: (host) => {
        putTheirs(host, {});
        const body = { id: CLUSTER_ID, ipfs: { error: "connection refused" } };
        host.http.routes.set("http://127.0.0.1:9094/id", { status: 200, body });
      },
      why: /cannot reach its kubo: connection refused/,
    },
    {
      name: "ipfs-cluster requires a password",
      arrange: (host) => {
        putTheirs(host, {});
        host.http.routes.set("http://127.0.0.1:9094/id", { status: 401, body: null });
      },
      why: /requires a password \(set CLUSTER_BASIC_AUTH\)/,
    },
    {
      name: "one of the two is ours, the other is not",
      arrange: async (host) => {
        for (const one of (await lookAt(made, host)).changes) await made.apply(one, host, () => {});
        host.docker.putContainer(NAMES.cluster, { image: "ipfs/ipfs-cluster:stable" });
      },
      why: /fula-node did not create the container ipfs_cluster/,
    },
    {
      name: "one of the two is ours, the other of the same compose project without our label",
      arrange: async (host) => {
        for (const one of (await lookAt(made, host)).changes) await made.apply(one, host, () => {});
        host.docker.putContainer(NAMES.cluster, {
          image: "ipfs/ipfs-cluster:stable",
          labels: {
            "com.docker.compose.project": "fula-writer",
            "com.docker.compose.service": "ipfs-cluster",
          },
        });
      },
      why: /fula-node did not create the container ipfs_cluster/,
    },
  ],
  secrets: secretsOf,
});

describe("a writer made here", () => {
  it("is pulled, written and brought up, in this order", async () => {
    expect((await lookAt(made, before.copy())).changes).toEqual([
      { kind: "pull-image", summary: "pull ipfs/kubo:v0.42.0", image: "ipfs/kubo:v0.42.0" },
      { kind: "pull-image", summary: "pull ipfs/ipfs-cluster:v1.1.6", image: "ipfs/ipfs-cluster:v1.1.6" },
      {
        kind: "write-compose",
        summary: `write /opt/fula-writer/kubo-init.sh, /opt/fula-writer/cluster-start.sh, ${FILE}`,
        path: FILE,
        keep: null,
      },
      {
        kind: "up",
        summary: "start kubo, ipfs-cluster, data in /opt/fula-writer",
        services: ["kubo", "ipfs-cluster"],
      },
    ]);
  });

  it("needs the operator's word, which --yes is not, and says both ways out", async () => {
    const { finding } = await lookAt(shy, before.copy());
    expect(finding).toMatchObject({
      state: "absent",
      consent: {
        flag: "--provision-writer",
        explicit: true,
        remedy: expect.stringMatching(
          /--provision-writer.*--set IPFS_API_ADDR=.*--set IPFS_CLUSTER_API_ADDR=/,
        ),
      },
    });
    const host = before.copy();
    const standing = host.snapshot();
    await expect(join(host, { provisionWriter: false })).rejects.toMatchObject({
      exit: "preflight",
      changed: undefined,
      problems: [{ subject: "--provision-writer" }],
    });
    expect(host.snapshot()).toEqual(standing);
  });

  it("keeps its data where upstream has it, in the master's own words", async () => {
    const host = before.copy();
    for (const one of (await lookAt(made, host)).changes) await made.apply(one, host, () => {});
    const mounts = BOTH.flatMap((name) => host.docker.boxes.get(name)?.mounts ?? []);
    expect(mounts.map(({ source, destination }) => `${source} ${destination}`)).toEqual(
      expect.arrayContaining([
        "/opt/fula-writer/kubo /data/ipfs",
        "/opt/fula-writer/ipfs-cluster /data/ipfs-cluster",
      ]),
    );
    const env: Readonly<Record<string, string>> = host.docker.boxes.get(NAMES.cluster)?.env ?? {};
    expect(env).not.toHaveProperty("CLUSTER_LEAVEONSHUTDOWN");
    expect(env["CLUSTER_CRDT_TRUSTEDPEERS"]).not.toContain("*");
    expect(env["CLUSTER_SECRET"]).toMatch(/^[0-9a-f]{64}$/);
  });

  it("restarts only what is unhealthy, and brings up only what is missing", async () => {
    const host = before.copy();
    for (const one of (await lookAt(made, host)).changes) await made.apply(one, host, () => {});
    change(host, NAMES.kubo, { health: "unhealthy" });
    host.docker.boxes.delete(NAMES.cluster);
    expect((await lookAt(made, host)).changes).toEqual([
      {
        kind: "up",
        summary: "start ipfs-cluster, data in /opt/fula-writer",
        services: ["ipfs-cluster"],
      },
      { kind: "restart", summary: "restart ipfs_host", container: "ipfs_host" },
    ]);
  });

  it("is repaired without --provision-writer, too", async () => {
    const host = before.copy();
    for (const one of (await lookAt(made, host)).changes) await made.apply(one, host, () => {});
    host.docker.boxes.clear();
    const { finding, changes } = await lookAt(await stepOn(host, "writer", { provisionWriter: false }), host);
    expect(finding.state).toBe("drifted");
    expect(changes).toHaveLength(1);
  });

  it("is not named elsewhere by the defaults that a first run has saved", async () => {
    const { finding } = await lookAt(shy, before.copy());
    expect(finding.state).toBe("absent");
  });
});

const LEFT = "/opt/fula-writer/ipfs-cluster/identity.json";

describe("data of a writer that nobody runs", () => {
  it("halts, names what lies there, and can be adopted by name", async () => {
    const host = await boxBefore("writer");
    host.files.put(LEFT, "{}", 0o600);
    const { finding, changes } = await lookAt(await stepOn(host, "writer"), host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(LEFT) as string,
      claim: { state: "drifted" },
    });
    expect(changes).toEqual([]);
    const claim = finding.state === "foreign" ? finding.claim : undefined;
    const adopted = claim === undefined ? [] : (made.plan(claim) as readonly Change[]);
    expect(adopted.map(({ kind }) => kind)).toEqual([
      "pull-image",
      "pull-image",
      "mark-taken-over",
      "write-compose",
      "up",
    ]);
  });

  it("is ours if one of our scripts lies next to it", async () => {
    const host = await boxBefore("writer");
    host.files.put(LEFT, "{}", 0o600);
    host.files.put("/opt/fula-writer/kubo-init.sh", "#!/bin/sh\n", 0o755);
    const { finding } = await lookAt(await stepOn(host, "writer"), host);
    expect(finding.state).toBe("absent");
  });
});

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
        adopted: "yes: fula-node never restarts, changes or upgrades it",
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

  it("stops the run when it stops working, and is not started", async () => {
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
  it("that does not answer does not cause a new one to be created", async () => {
    const host = before.copy();
    const step = await stepOn(host, "writer", { set: ELSEWHERE, provisionWriter: false });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("The settings name a writer"),
    });
  });

  it("that does not answer is none with --provision-writer, either", async () => {
    const host = before.copy();
    const step = await stepOn(host, "writer", { set: ELSEWHERE });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("The settings name a writer"),
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

describe("an adopted writer whose data belongs to uid 1000", () => {
  it("stays as it is, and the evidence says who can read its private key", async () => {
    const host = before.copy();
    const directory = "/uniondrive/ipfs-cluster";
    putTheirs(host, {});
    const theirs = host.docker.boxes.get(NAMES.cluster);
    if (theirs === undefined) throw new Error("no container");
    const mounts = [{ type: "bind", name: "", source: directory, destination: "/data/ipfs-cluster" }];
    host.docker.boxes.set(NAMES.cluster, { ...theirs, mounts });
    host.files.putDirectory(directory, 0o755, 1000);
    host.files.put(`${directory}/identity.json`, "{}", 0o600, 1000);
    const { finding, changes } = await lookAt(made, host);
    expect(changes).toEqual([]);
    expect(finding.evidence["uid 1000 can read"]).toBe(`${directory}/identity.json`);
    host.files.putDirectory(directory, 0o700, 0);
    expect((await lookAt(made, host)).finding.evidence).not.toHaveProperty("uid 1000 can read");
  });
});
