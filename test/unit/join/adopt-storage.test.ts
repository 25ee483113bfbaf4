import { beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { joinAsStorageNode } from "../../../src/commands/join-as-storage-node.ts";
import type { StorageFlags } from "../../../src/join/join-run.ts";
import { parseEnvFile } from "../../../src/settings/env-file.ts";
import { STORAGE_NAMES } from "../../../src/settings/layout.ts";
import { API, FakeStorage, LAYOUT, MASTER_ID, OWN, worldOf } from "../../support/storage-fake.ts";

const SECRET = "ab".repeat(32);
const BOOTSTRAP = `/dns4/master.example/tcp/9096/p2p/${MASTER_ID}`;
const ADOPT = ["kubo", "cluster-follower", "compose-file"];
const KUBO_DATA = "/var/lib/docker/volumes/fula-storage_kubo-data/_data";
const CLUSTER_DATA = "/srv/cluster";

const labels = (service: string) => ({
  "com.docker.compose.project": "fula-storage",
  "com.docker.compose.service": service,
});

/** A storage node of the bash scripts: two containers of its compose project, their data, and no `.env` of ours. */
function upstreamNode(): FakeStorage {
  const host = new FakeStorage();
  for (const image of ["ipfs/kubo:release", "ipfs/ipfs-cluster:stable"]) host.docker.putImage(image);
  host.docker.putVolume(STORAGE_NAMES.kuboVolume);
  host.files.putDirectory(KUBO_DATA, 0o755, 1000);
  host.files.put(`${CLUSTER_DATA}/identity.json`, OWN.text, 0o600, 1000);
  host.files.put(LAYOUT.composeFile, "services: {}\n");
  host.docker.putContainer(STORAGE_NAMES.kubo, {
    image: "ipfs/kubo:release",
    labels: labels("kubo"),
    env: { IPFS_PROFILE: "server", TUNED: "yes" },
    mounts: [
      { type: "volume", name: STORAGE_NAMES.kuboVolume, source: KUBO_DATA, destination: "/data/ipfs" },
    ],
  });
  host.docker.putContainer(STORAGE_NAMES.cluster, {
    image: "ipfs/ipfs-cluster:stable",
    labels: labels("ipfs-cluster"),
    env: {
      CLUSTERNAME: "pool",
      CLUSTER_SECRET: SECRET,
      CLUSTER_PEERNAME: "theirs",
      CLUSTER_CRDT_TRUSTEDPEERS: MASTER_ID,
      CLUSTER_PEERADDRESSES: BOOTSTRAP,
      CLUSTER_FOLLOWERMODE: "true",
    },
    mounts: [{ type: "bind", name: "", source: CLUSTER_DATA, destination: "/data/ipfs-cluster" }],
  });
  // What its kubo has in its own configuration.
  host.http.routes.set("http://127.0.0.1:5001/api/v0/repo/stat?size-only=true", {
    status: 200,
    body: { RepoSize: 1, StorageMax: 5_000_000_000 },
  });
  host.http.routes.set("http://127.0.0.1:9094/id", { status: 200, body: { id: OWN.peerId } });
  host.revive();
  return host;
}

const join = (host: FakeStorage, flags: Partial<StorageFlags> = {}) =>
  joinAsStorageNode(
    {
      dryRun: false,
      yes: true,
      set: [`STORAGE_API_URL=${API}`],
      adopt: [],
      ignore: ["clock"],
      acceptPoolChange: false,
      allowHttp: false,
      register: true,
      ...flags,
    },
    worldOf(host, { pid: 7, takeLock: () => Promise.resolve({ release: () => Promise.resolve() }) }),
  );
const theirs = (host: FakeStorage) =>
  [STORAGE_NAMES.kubo, STORAGE_NAMES.cluster].map((name) => host.docker.boxes.get(name));
const savedOf = (host: FakeStorage): Readonly<Record<string, string>> => {
  const file = parseEnvFile(host.files.textOf(LAYOUT.envFile));
  if (!file.ok) throw new Error(".env is not valid");
  return Object.fromEntries(
    file.entries.flatMap(({ key, value }) => ("text" in value ? [[key, value.text]] : [])),
  );
};

describe("adopting kubo and ipfs-cluster of a working storage node", () => {
  let host: FakeStorage;
  beforeEach(() => void (host = upstreamNode()));

  it("keeps both containers and their data as they are, and saves images and settings", async () => {
    const before = theirs(host);
    expect(await join(host, { adopt: ADOPT })).toBe("ok");
    expect(theirs(host)).toEqual(before);
    expect((await host.files.stat(KUBO_DATA))?.uid).toBe(1000);
    const saved = savedOf(host);
    expect(saved).toMatchObject({
      KUBO_IMAGE: "ipfs/kubo:release",
      CLUSTER_IMAGE: "ipfs/ipfs-cluster:stable",
      CLUSTERNAME: "pool",
      CLUSTER_SECRET: SECRET,
      CLUSTER_PEERNAME: "theirs",
      MASTER_CLUSTER_PEERIDS: MASTER_ID,
      MASTER_CLUSTER_BOOTSTRAP: BOOTSTRAP,
    });
    // A password that ipfs-cluster does not ask for would look like protection.
    expect(saved).not.toHaveProperty("CLUSTER_BASIC_AUTH");
    expect(host.docker.boxes.get(STORAGE_NAMES.ingest)?.status).toBe("running");
    expect([...(host.names ?? [])].map(([name, { peerId }]) => [name, peerId])).toEqual([
      ["theirs", OWN.peerId],
    ]);
    expect(host.printed.join("\n")).toContain("The adopted kubo has a limit of its own, 5000000000 bytes");
    host.revive();
    expect(await join(host, { set: [] })).toBe("ok");
    expect(host.writes).toEqual([]);
    expect(theirs(host)).toEqual(before);
  });

  it("creates them again as they were, if they are gone later", async () => {
    await join(host, { adopt: ADOPT });
    host.docker.boxes.delete(STORAGE_NAMES.kubo);
    host.revive();
    expect(await join(host, { set: [] })).toBe("ok");
    expect(host.docker.boxes.get(STORAGE_NAMES.kubo)).toMatchObject({
      image: "ipfs/kubo:release",
      status: "running",
    });
    const { services } = parse(host.files.textOf(LAYOUT.composeFile)) as {
      services: { kubo: Record<string, unknown> };
    };
    expect(services.kubo).toMatchObject({
      env_file: [`${LAYOUT.adoptedDir}/kubo.env`],
      volumes: [{ type: "volume", source: STORAGE_NAMES.kuboVolume, target: "/data/ipfs" }],
    });
    expect(services.kubo).not.toHaveProperty("user");
    expect(host.files.textOf(`${LAYOUT.adoptedDir}/kubo.env`)).toBe("IPFS_PROFILE=server\nTUNED=yes\n");
  });

  it("halts without --adopt, and names what can be adopted", async () => {
    const set = [
      `STORAGE_API_URL=${API}`,
      "CLUSTERNAME=pool",
      `MASTER_CLUSTER_PEERIDS=${MASTER_ID}`,
      `MASTER_CLUSTER_BOOTSTRAP=${BOOTSTRAP}`,
    ];
    await expect(join(host, { set })).rejects.toMatchObject({
      exit: "foreign",
      problems: expect.arrayContaining([
        expect.objectContaining({ subject: "kubo", remedy: expect.stringContaining("--adopt kubo") }),
        expect.objectContaining({ subject: "cluster-follower" }),
      ]),
    });
    expect(host.writes).toEqual([]);
  });

  it.each([
    ["another secret", `CLUSTER_SECRET=${"cd".repeat(32)}`, "CLUSTER_SECRET"],
    ["other masters", `MASTER_CLUSTER_PEERIDS=${OWN.peerId}`, "MASTER_CLUSTER_PEERIDS"],
  ])("is refused with %s than the container has, since that stays", async (_name, set, subject) => {
    const flags = { adopt: ADOPT, set: [`STORAGE_API_URL=${API}`, set] };
    await expect(join(host, flags)).rejects.toMatchObject({
      exit: "settings",
      problems: [{ subject, what: expect.stringContaining("to be adopted as it runs") }],
    });
    expect(host.writes).toEqual([]);
  });

  it("an ingest of others can't be adopted: ours would replace it", async () => {
    host.docker.putContainer(STORAGE_NAMES.ingest, { image: "theirs:1", labels: labels("ingest") });
    await expect(join(host, { adopt: [...ADOPT, "ingest"] })).rejects.toMatchObject({ exit: "foreign" });
    expect(host.writes).toEqual([]);
  });
});
