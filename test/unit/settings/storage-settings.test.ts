import { describe, expect, it } from "vitest";
import {
  type Fragments,
  parseFragment,
  renderStorage,
  requiredKeys,
  STORAGE_FRAGMENTS,
  namedKeys,
} from "../../../src/docker/compose-render.ts";
import { findStorageConflicts } from "../../../src/settings/conflicts.ts";
import { resolveSettings } from "../../../src/settings/settings.ts";
import { parseEnvFile } from "../../../src/settings/env-file.ts";
import { parseSize } from "../../../src/settings/rules.ts";
import {
  nodeNameOf,
  offeredSize,
  STORAGE_REQUIRED,
  STORAGE_SETTINGS,
} from "../../../src/settings/storage.ts";
import { readShipped, servicesOf, sha256 } from "../docker/compose-fragments.ts";

const fragments = Object.fromEntries(
  STORAGE_FRAGMENTS.map((name) => [name, parseFragment(readShipped(`${name}.yml`))]),
) as Fragments<(typeof STORAGE_FRAGMENTS)[number]>;
const render = (external: Readonly<Record<string, string>> = {}) =>
  renderStorage(fragments, {
    version: "1.2.3",
    hash: sha256,
    startInterval: true,
    scripts: { kubo: "a", "ipfs-cluster": "b" },
    external,
  });

describe("ports", () => {
  const saved = parseEnvFile("");
  if (!saved.ok) throw new Error(saved.what);
  const conflicts = (flags: Readonly<Record<string, string>>) =>
    findStorageConflicts(
      resolveSettings(STORAGE_SETTINGS, {
        flags: new Map(Object.entries(flags)),
        environment: {},
        adoptsEnvironment: true,
        version: "1.2.3",
        saved,
      }).settings,
    );

  it("are all different by default", () => {
    expect(conflicts({})).toEqual([]);
  });

  it.each([
    [{ INGEST_METRICS_PORT: "3601" }, "INGEST_METRICS_PORT and INGEST_PORT are both 3601."],
    [{ INGEST_PORT: "13601" }, "INGEST_METRICS_PORT and INGEST_PORT are both 13601."],
    [{ INGEST_PORT: "9096" }, "INGEST_PORT is 9096, the port of ipfs-cluster's swarm."],
    [{ INGEST_METRICS_PORT: "8080" }, "INGEST_METRICS_PORT is 8080, the port of kubo's HTTP gateway."],
  ])("that two services would use are refused by name: %j", (flags, what) => {
    const [first, ...others] = conflicts(flags);
    expect([first?.what, others]).toEqual([what, []]);
    expect(first?.remedy).toBe(`Give each its own port: --set ${first?.subject ?? ""}=PORT.`);
  });
});

describe("sizes", () => {
  it.each([
    ["10GB", 10e9],
    ["1GiB", 1024 ** 3],
    ["2TB", 2e12],
    ["0GB", null],
    ["10", null],
    ["10 GB", null],
    ["10gb", null],
    ["-1GB", null],
    ["1.5TB", null],
  ])("%s is %j bytes", (text, bytes) => expect(parseSize(text)).toBe(bytes));

  it("offers four fifths of the free disk, never more", () => {
    for (const free of [1, 3e6, 5e8, 3e9, 1e11, 7.7e13]) {
      const offered = parseSize(offeredSize(free)) ?? Number.NaN;
      expect(offered).toBeLessThanOrEqual(Math.max(free * 0.8, 1e6));
    }
    expect(offeredSize(100e9)).toBe("80GB");
  });
});

describe("a node's name from a machine's", () => {
  it.each([
    ["Box.example", "box-example"],
    ["-x-", "x"],
    ["a__b", "a-b"],
    ["x".repeat(80), "x".repeat(64)],
    ["жук", null],
    ["", null],
  ])("%j gives %j", (hostname, name) => expect(nodeNameOf(hostname)).toBe(name));
});

describe("the storage node's compose file", () => {
  it("gives the ingest, and nothing else, the proxies that .env has", () => {
    const { ingest, ...others } = servicesOf(render());
    const names = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];
    for (const name of names) expect(ingest).toMatchObject({ environment: { [name]: null } });
    expect(JSON.stringify(others)).not.toContain("_PROXY");
    const { document } = render();
    expect(namedKeys(document)).toEqual(expect.arrayContaining(names));
  });

  it("can't start without anything that has no default", () => {
    const known = new Set(STORAGE_SETTINGS.map(({ key }) => key));
    const required = requiredKeys(render().document);
    expect(required).toEqual(expect.arrayContaining([...STORAGE_REQUIRED]));
    expect(required.filter((key) => !known.has(key))).toEqual(["FULA_NODE_VERSION"]);
  });

  it("has a follower that trusts the masters, and nothing open beyond loopback", () => {
    const { "ipfs-cluster": cluster } = servicesOf(render());
    expect(cluster?.["environment"]).toMatchObject({
      CLUSTER_FOLLOWERMODE: "true",
      CLUSTER_CRDT_TRUSTEDPEERS: expect.stringContaining("${MASTER_CLUSTER_PEERIDS:?"),
      CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS: "/ip4/127.0.0.1/tcp/9094",
    });
    expect(cluster?.["command"]).toEqual(["closed-daemon"]);
  });

  it("keeps data on volumes of ours, and on those that were there before us", () => {
    const volumes = render().document["volumes"];
    expect(volumes).toMatchObject({
      "kubo-data": { labels: { "land.fx.fula-node.owner": "fula-node" } },
      "cluster-data": { labels: { "land.fx.fula-node.owner": "fula-node" } },
    });
    const adopted = render({ "kubo-data": "fula-storage_kubo-data" }).document["volumes"];
    expect(adopted).toMatchObject({ "kubo-data": { external: true, name: "fula-storage_kubo-data" } });
  });
});
