import { describe, expect, it } from "vitest";
import type { Finding } from "../../../src/engine/step.ts";
import { parseEnvFile } from "../../../src/settings/env-file.ts";
import { STORAGE_NAMES } from "../../../src/settings/layout.ts";
import { STORAGE_SETTINGS } from "../../../src/settings/storage.ts";
import type { FakeHost } from "../../support/fake-host.ts";
import { lookAt } from "../../support/master-boxes.ts";
import { stepLaws } from "../../support/step-laws.ts";
import {
  API,
  LAYOUT,
  MASTER_ID,
  OWN,
  storageBoxBefore,
  storageStepOn,
  storageStepsOn,
} from "../../support/storage-fake.ts";

function change(host: FakeHost, name: string, fields: object): void {
  const container = host.docker.boxes.get(name);
  if (container === undefined) throw new Error(`no container ${name}`);
  host.docker.boxes.set(name, { ...container, ...fields });
}

const kuboBefore = await storageBoxBefore("kubo");
const kubo = await storageStepOn(kuboBefore, "kubo");

const KUBO_DATA = `/var/lib/docker/volumes/${STORAGE_NAMES.kuboVolume}/_data`;

describe("the data of a storage node", () => {
  it("belongs to the containers before the first one starts", async () => {
    const host = kuboBefore.copy();
    const { changes } = await lookAt(kubo, host);
    for (const one of changes) await kubo.apply(one, host, () => {});
    const order = host.writes.map((write) => write.split(" ")[0]);
    expect(order.slice(-3)).toEqual(["docker.composeCreate", "files.giveTree", "docker.composeUp"]);
    expect(await host.files.stat(KUBO_DATA)).toMatchObject({ uid: 61_077, mode: 0o700 });
  });

  it("is given away only while its container is stopped", async () => {
    const host = kuboBefore.copy();
    for (const one of (await lookAt(kubo, host)).changes) await kubo.apply(one, host, () => {});
    host.files.putDirectory(KUBO_DATA, 0o755, 1000);
    const { changes } = await lookAt(kubo, host);
    expect(changes.map(({ kind }) => kind)).toEqual(["close-data", "up"]);
    const give = host.files.giveTree.bind(host.files);
    const states: (string | undefined)[] = [];
    host.files.giveTree = async (path, owner) => {
      states.push(host.docker.boxes.get(STORAGE_NAMES.kubo)?.status);
      await give(path, owner);
    };
    for (const one of changes) await kubo.apply(one, host, () => {});
    expect(states).toEqual(["exited"]);
    expect(host.docker.boxes.get(STORAGE_NAMES.kubo)?.status).toBe("running");
  });

  it("is not judged where Docker shows it only to a container: another driver, NFS, a device", async () => {
    const host = kuboBefore.copy();
    for (const one of (await lookAt(kubo, host)).changes) await kubo.apply(one, host, () => {});
    host.files.putDirectory(KUBO_DATA, 0o755, 0);
    const volume = host.docker.volumes.get(STORAGE_NAMES.kuboVolume);
    if (volume === undefined) throw new Error("no volume");
    host.docker.volumes.set(STORAGE_NAMES.kuboVolume, { ...volume, isPlain: false });
    expect((await lookAt(kubo, host)).changes).toEqual([]);
  });

  it("with another file system in it stops the run, which names the command", async () => {
    const host = kuboBefore.copy();
    for (const one of (await lookAt(kubo, host)).changes) await kubo.apply(one, host, () => {});
    host.files.mount(`${KUBO_DATA}/blocks`);
    expect((await lookAt(kubo, host)).finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining(`${KUBO_DATA}/blocks is mounted inside the data`),
      remedy: expect.stringContaining(`chown -R 61077:61077 ${KUBO_DATA}/blocks`),
    });
    host.files.putDirectory(`${KUBO_DATA}/blocks`, 0o755, 61_077);
    expect((await lookAt(kubo, host)).finding).toMatchObject({ state: "ours" });
  });
});

stepLaws("kubo", {
  makeStep: () => kubo,
  makeHost: () => kuboBefore.copy(),
  absent: () => {},
  drifts: [
    {
      name: "its data belongs to the image's user, as an older version left it",
      arrange: (host) => {
        host.files.putDirectory(KUBO_DATA, 0o755, 1000);
        for (const name of ["blocks/A", "blocks/B", "config"])
          host.files.put(`${KUBO_DATA}/${name}`, name, 0o600, 1000);
      },
      names: /owner of .*fula-storage_kubo-data\/_data 1000 -> 61077 \(restart\)/,
    },
    {
      name: "it was stopped",
      arrange: (host) => change(host, STORAGE_NAMES.kubo, { status: "exited", pid: 0 }),
      names: /ipfs_host: its status is exited/,
    },
    {
      name: "it is unhealthy",
      arrange: (host) => change(host, STORAGE_NAMES.kubo, { health: "unhealthy" }),
      names: /its healthcheck fails/,
    },
    {
      name: "it was created with other settings",
      arrange: (host) => {
        const { labels } = host.docker.boxes.get(STORAGE_NAMES.kubo) ?? { labels: {} };
        change(host, STORAGE_NAMES.kubo, {
          labels: { ...labels, "com.docker.compose.config-hash": "other" },
        });
      },
      names: /created with other settings/,
    },
  ],
  foreign: [
    {
      name: "a container of that name is somebody else's",
      arrange: (host) => void host.docker.putContainer(STORAGE_NAMES.kubo, { image: "ipfs/kubo:release" }),
      why: /fula-node did not create the container ipfs_host/,
    },
    {
      name: "upstream's installer made it, in a project of the same name",
      arrange: (host) =>
        void host.docker.putContainer(STORAGE_NAMES.kubo, {
          image: "ipfs/kubo:release",
          labels: { "com.docker.compose.project": "fula-storage", "com.docker.compose.service": "kubo" },
        }),
      // Only one that the run examined before its plan (test/unit/join/adopt-storage.test.ts).
      why: /no fula-node label/,
    },
    {
      name: "it is a master's",
      arrange: (host) =>
        void host.docker.putContainer(STORAGE_NAMES.kubo, {
          labels: {
            "land.fx.fula-node.owner": "fula-node",
            "com.docker.compose.project": "fula-writer",
            "com.docker.compose.service": "kubo",
          },
        }),
      why: /another kind of node/,
    },
    {
      name: "its volume is somebody else's",
      arrange: (host) => host.docker.putVolume(STORAGE_NAMES.kuboVolume),
      why: /fula-storage_kubo-data exists without a fula-node label/,
      adoptable: true,
    },
    {
      name: "a unit runs kubo",
      arrange: (host) => host.system.putUnit("ipfs.service"),
      why: /ipfs\.service/,
    },
  ],
});

describe("kubo", () => {
  it("does not work while it has a different limit than the desired one", async () => {
    const host = await storageBoxBefore(null);
    const url = "http://127.0.0.1:5001/api/v0/repo/stat?size-only=true";
    host.http.routes.set(url, { status: 200, body: { StorageMax: 1 } });
    await expect((await storageStepOn(host, "kubo")).verify(host)).rejects.toMatchObject({
      exit: "unhealthy",
      what: expect.stringContaining("its limit is 1 bytes, but the settings say 10000000000"),
    });
  });
});

const followerBefore = await storageBoxBefore("cluster-follower");
const follower = await storageStepOn(followerBefore, "cluster-follower");

stepLaws("cluster-follower", {
  makeStep: () => follower,
  makeHost: () => followerBefore.copy(),
  absent: () => {},
  drifts: [
    {
      name: "it was stopped",
      arrange: (host) => change(host, STORAGE_NAMES.cluster, { status: "exited", pid: 0 }),
      names: /ipfs_cluster: its status is exited/,
    },
  ],
  foreign: [
    {
      name: "a container of that name is somebody else's",
      arrange: (host) => void host.docker.putContainer(STORAGE_NAMES.cluster),
      why: /fula-node did not create the container ipfs_cluster/,
    },
  ],
});

describe("cluster-follower", () => {
  const changesAt = async (kuboPeers: number, upMs: number) => {
    const host = await storageBoxBefore(null);
    host.kuboPeers = kuboPeers;
    await host.clock.wait(upMs);
    return (await lookAt(await storageStepOn(host, "cluster-follower"), host)).changes;
  };

  it("is restarted if kubo has no peers, and only then", async () => {
    expect(await changesAt(0, 61_000)).toEqual([
      { kind: "restart", summary: "restart ipfs_cluster", container: "ipfs_cluster" },
    ]);
    expect(await changesAt(1, 61_000)).toEqual([]);
    expect(await changesAt(0, 50_000)).toEqual([]);
  });

  it("is created again, not restarted, if its settings changed while kubo is alone", async () => {
    const host = await storageBoxBefore(null);
    host.kuboPeers = 0;
    await host.clock.wait(61_000);
    const { labels } = host.docker.boxes.get(STORAGE_NAMES.cluster) ?? { labels: {} };
    change(host, STORAGE_NAMES.cluster, { labels: { ...labels, "com.docker.compose.config-hash": "other" } });
    expect((await lookAt(await storageStepOn(host, "cluster-follower"), host)).changes).toEqual([
      { kind: "up", summary: "create ipfs_cluster again", services: ["ipfs-cluster"] },
    ]);
  });
});

const ingestBefore = await storageBoxBefore("ingest");
const ingest = await storageStepOn(ingestBefore, "ingest");

stepLaws("ingest", {
  makeStep: () => ingest,
  makeHost: () => ingestBefore.copy(),
  absent: () => {},
  drifts: [
    {
      name: "it was created from an older image",
      arrange: (host) => change(host, STORAGE_NAMES.ingest, { imageId: "sha256:older" }),
      names: /older image/,
    },
  ],
  foreign: [],
});

const nameBefore = await storageBoxBefore("node-name");
const nodeName = await storageStepOn(nameBefore, "node-name");

describe("node-name", () => {
  it("is reserved with the master, once", async () => {
    const host = nameBefore.copy();
    const step = await storageStepOn(host, "node-name");
    const { finding, changes } = await lookAt(step, host);
    expect(finding.state).toBe("absent");
    expect(changes).toEqual([
      { kind: "announce-name", summary: "announce this node as node in pool", pool: "pool", name: "node" },
    ]);
    for (const one of changes) await step.apply(one, host, () => {});
    await step.verify(host);
    expect(host.names?.get("node")).toEqual({
      peerId: OWN.peerId,
      addresses: [`/ip4/192.0.2.7/tcp/9096/p2p/${OWN.peerId}`],
    });
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });

  it("shows the invite that .env keeps to the master, and to nobody else", async () => {
    const invite = `${"0a".repeat(16)}.${"s".repeat(86)}`;
    const host = await storageBoxBefore("node-name", { set: { NODE_INVITE: invite } });
    expect(host.files.textOf(LAYOUT.envFile)).toContain(`NODE_INVITE=${invite}\n`);
    const step = await storageStepOn(host, "node-name");
    const { finding, changes } = await lookAt(step, host);
    for (const one of changes) await step.apply(one, host, () => {});
    expect(host.shown).toEqual([`Fula-Invite ${invite}`]);
    expect(JSON.stringify([finding, changes, host.printed])).not.toContain(invite);
    for (const { env } of host.docker.boxes.values()) expect(JSON.stringify(env)).not.toContain(invite);
  });

  it("is announced again when its addresses have changed", async () => {
    const host = nameBefore.copy();
    const step = await storageStepOn(host, "node-name");
    host.names?.set("node", { peerId: OWN.peerId, addresses: [`/ip4/192.0.2.8/tcp/9096/p2p/${OWN.peerId}`] });
    const { finding, changes } = await lookAt(step, host);
    expect(finding).toMatchObject({ state: "drifted" });
    expect(changes).toHaveLength(1);
  });

  it("is announced again through another address or with another CA of its master, and after an upgrade, each once", async () => {
    const host = await storageBoxBefore(null);
    const announce = async (set: Readonly<Record<string, string>>, drift: RegExp) => {
      const step = await storageStepOn(host, "node-name", { set });
      const { finding, changes } = await lookAt(step, host);
      expect(finding).toMatchObject({ state: "drifted", drift: [expect.stringMatching(drift)] });
      const shown = host.shown.length;
      for (const one of changes) await step.apply(one, host, () => {});
      expect(host.shown).toHaveLength(shown + 1);
      expect((await lookAt(step, host)).finding.state).toBe("ours");
    };
    const json = host.http.json.bind(host.http);
    host.http.json = (url, options) => json(url.replace("https://new.example", API), options);
    const moved = { STORAGE_API_URL: "https://new.example" };
    await announce(
      moved,
      /^this node announced itself through https:\/\/master\.example, and uses https:\/\/new\.example now$/,
    );
    await announce({ ...moved, STORAGE_API_CA: `MI${"A".repeat(200)}` }, /another CA/);
    await announce({ ...moved, STORAGE_API_CA: `MI${"B".repeat(200)}` }, /another CA/);
    await announce(moved, /another CA/);
    host.files.drop(LAYOUT.announced);
    await announce(
      moved,
      /^it is not recorded that this node announced itself through https:\/\/new\.example$/,
    );
  });

  it("is announced again when its invite is a new one, so that the master sees it", async () => {
    const invite = `${"0b".repeat(16)}.${"s".repeat(86)}`;
    const host = await storageBoxBefore("node-name", { set: { NODE_INVITE: invite } });
    const addresses = [`/ip4/192.0.2.7/tcp/9096/p2p/${OWN.peerId}`];
    host.names?.set("node", { peerId: OWN.peerId, addresses });
    host.files.put(LAYOUT.announced, JSON.stringify({ url: API, ca: null }));
    host.unusedInvite = `Fula-Invite ${invite}`;
    const step = await storageStepOn(host, "node-name");
    const { finding, changes } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "drifted",
      drift: ["the master does not know yet that this node has its new invite"],
    });
    for (const one of changes) await step.apply(one, host, () => {});
    expect(host.shown.at(-1)).toBe(`Fula-Invite ${invite}`);
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    expect(JSON.stringify([finding, changes, host.printed])).not.toContain(invite);
  });

  it("says whom the node trusts, again after each change; an older master does not ask", async () => {
    const host = nameBefore.copy();
    host.asksForTrust = true;
    const step = await storageStepOn(host, "node-name");
    const announce = async () => {
      for (const one of (await lookAt(step, host)).changes) await step.apply(one, host, () => {});
    };
    await announce();
    expect(host.names?.get("node")).toMatchObject({ trusts: [MASTER_ID] });
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    const held = host.names?.get("node");
    if (held === undefined) throw new Error("not announced");
    host.names?.set("node", { ...held, trusts: ["12D3KooWother"] });
    expect((await lookAt(step, host)).finding).toMatchObject({
      state: "drifted",
      drift: ["the master does not know which masters this node trusts"],
    });
    await announce();
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    host.asksForTrust = false;
    host.names?.set("node", { peerId: held.peerId, addresses: held.addresses });
    expect((await lookAt(step, host)).finding.state).toBe("ours");
  });

  it("stops if another key holds it, and names others", async () => {
    const host = nameBefore.copy();
    const step = await storageStepOn(host, "node-name");
    host.names?.set("node", { peerId: MASTER_ID, addresses: [] });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: "The name node belongs to another node of pool pool.",
      remedy: expect.stringContaining("node-2, node-3, node-4"),
    });
  });

  it("needs the master, unless registration is off", async () => {
    const host = nameBefore.copy();
    host.names = null;
    await expect((await storageStepOn(host, "node-name")).probe(host)).rejects.toMatchObject({
      exit: "unavailable",
      remedy: expect.stringContaining("--no-register"),
    });
    const step = await storageStepOn(host, "node-name", { register: false });
    expect((await lookAt(step, host)).finding.state).toBe("ours");
    await step.verify(host);
  });

  it("never prints the private key", async () => {
    const host = nameBefore.copy();
    const finding = await nodeName.probe(host);
    const key = (JSON.parse(OWN.text) as { private_key: string }).private_key;
    expect(JSON.stringify([finding, host.printed])).not.toContain(key);
  });
});

describe("pool", () => {
  it("stops if the node would trust itself", async () => {
    const host = await storageBoxBefore(null);
    const step = await storageStepOn(host, "pool", { set: { MASTER_CLUSTER_PEERIDS: OWN.peerId } });
    const { finding } = await lookAt(step, host);
    expect(finding).toMatchObject({
      state: "foreign",
      why: expect.stringContaining("lists this node itself"),
    });
  });
});

describe("a storage node", () => {
  it("loses nothing with its .env: what containers know is recovered", async () => {
    const host = await storageBoxBefore(null);
    const before = host.files.textOf(LAYOUT.envFile);
    host.files.drop(LAYOUT.envFile);
    const { readContainerEnv } = await import("../../../src/settings/context.ts");
    const { STORAGE_RECOVERABLE } = await import("../../../src/settings/secrets.ts");
    const file = parseEnvFile("");
    if (!file.ok) throw new Error("an empty file is valid");
    const all = { recoverable: STORAGE_RECOVERABLE, specs: STORAGE_SETTINGS, saved: file };
    const found = await readContainerEnv(host, all);
    for (const key of ["CLUSTERNAME", "CLUSTER_SECRET", "MASTER_CLUSTER_PEERIDS", "STORAGE_API_URL"])
      expect(before).toContain(`${key}=${found.get(key)?.value ?? "lost"}`);
  });

  it("is wholly ours after its steps have run", async () => {
    const host = await storageBoxBefore(null);
    const findings: Finding<unknown>[] = [];
    for (const one of await storageStepsOn(host)) findings.push((await one.probe(host)) as Finding<unknown>);
    expect(findings.filter(({ state }) => state !== "ours")).toEqual([]);
  });
});
