import { describe, expect, it } from "vitest";
import {
  cleanupOf,
  contentsOf,
  masterPolicy,
  parsePurge,
  storagePolicy,
  wasEmptiedByLeave,
  wasNameReleased,
  writerPolicy,
} from "../../../src/leave/policy.ts";
import { mountPointsOf } from "../../../src/machine/file-reader.ts";
import { masterLayout, storageLayout } from "../../../src/settings/layout.ts";

const master = masterPolicy(masterLayout("/opt/fula-master"));
const storage = storagePolicy(storageLayout("/opt/fula-storage"));

describe("the cleanup of an entry of a base directory", () => {
  it.each([
    [".env", "settings"],
    ["docker-compose.yml", "remove-if-marked"],
    ["docker-compose.yml.0123456789ab.old", "remove-if-marked"],
    ["docker-compose.yml.bak", null],
    ["cli", "remove"],
    ["heartbeats", "remove"],
    ["journal.ndjson", "logs"],
    ["journal.ndjson.1", "logs"],
    ["replication-alerts.log.5", "logs"],
    ["snapshot.log.2.gz", "logs"],
    ["snapshot.log.mine", null],
    ["snapshots", "snapshots"],
    ["snapshots.1", null],
    ["snapshot-ed25519.pem", "keys"],
    ["known-nodes.json", "data"],
    ["..env.fula-node-tmp.7.abc", "remove"],
    [".env.backup", null],
    ["constructor", null],
    ["kubo-init.sh", null],
  ])("of a master: %s is %s", (name, cleanup) => {
    expect(cleanupOf(name, master)).toBe(cleanup);
  });

  it("of a storage node: its scripts are removed, and it has no snapshots", () => {
    expect(cleanupOf("kubo-init.sh", storage)).toBe("remove");
    expect(cleanupOf("snapshots", storage)).toBeNull();
  });

  it("of a writer: its data is data, unless it was taken over", () => {
    expect(cleanupOf("kubo", writerPolicy(["kubo"]))).toBe("data");
    for (const name of ["kubo", "ipfs-cluster", "taken-over.txt"])
      expect(cleanupOf(name, writerPolicy(["kubo", "taken-over.txt"]))).toBeNull();
  });
});

describe("the content of a directory of ours", () => {
  /** As kubo 0.42 and ipfs-cluster 1.1.6 leave them, running and stopped. */
  const KUBO =
    "api autoconf blocks config datastore datastore_spec gateway keystore provider-keystore repo.lock version";
  const CLUSTER = "badger3 cluster.lock identity.json peerstore service.json";

  it.each([
    ["/opt/fula-writer/kubo", KUBO.split(" ")],
    ["/opt/fula-writer/ipfs-cluster", CLUSTER.split(" ")],
    ["/opt/fula-master/cli", ["current", "0.1.0", "0.2.0-rc.1"]],
    ["/opt/fula-master/cli/0.2.0", ["bin", "dist", "package.json", "README.md"]],
    [
      "/opt/fula-master/snapshots",
      ["pinset-20260101T000000Z.ndjson.gz", "pinset-20260101T000000Z.manifest.sig"],
    ],
    ["/opt/fula-master/heartbeats", ["snapshot.json", "sweep.json"]],
    ["/opt/fula-master/restore", ["pinset-20260101T000000Z.failed.ndjson"]],
    ["/opt/fula-master/adopted", ["pinning-api.json", "webui.env"]],
  ])("of %s is known", (path, names) => {
    const rule = contentsOf(path);
    expect(names.filter((name) => rule?.test(name) !== true)).toEqual([]);
    for (const name of ["notes.txt", "backup", "identity.json.bak", "../x"])
      expect(rule?.test(name)).toBe(false);
  });

  it("of any other directory has no rule", () => {
    expect(contentsOf("/opt/fula-writer/kubo/blocks")).toBeNull();
    expect(contentsOf("/opt/fula-master/constructor")).toBeNull();
  });
});

describe("the values of --purge", () => {
  it.each([
    [[], []],
    [["data"], ["data"]],
    [
      ["logs, data", "keys"],
      ["data", "keys", "logs"],
    ],
    [["all"], ["data", "settings", "keys", "snapshots", "logs"]],
  ])("%j", (given, parts) => {
    expect(parsePurge(given)).toMatchObject({ parts: new Set(parts) });
  });

  it("separates what was named from what `all` includes", () => {
    expect(parsePurge(["all"])).toMatchObject({ named: new Set() });
    expect(parsePurge(["all,keys"])).toMatchObject({ named: new Set(["keys"]) });
  });

  it.each([[["everything"]], [[""]], [["data,,keys"]], [["toString"]]])("refuses %j", (given) => {
    expect(() => parsePurge(given)).toThrow(expect.objectContaining({ exit: "usage" }) as Error);
  });
});

describe("what the files of a box say", () => {
  it("about its mount points, also with spaces", () => {
    const text =
      "36 35 98:0 / /mnt/a\\040b rw - ext4 /dev/sda rw\n37 35 98:1 /x /opt rw - ext4 /dev/sdb rw\n";
    expect([...mountPointsOf(text)]).toEqual(["/mnt/a b", "/opt"]);
    expect([...mountPointsOf("")]).toEqual([]);
  });

  const line = (kind: string, name: string) => JSON.stringify({ change: { kind, summary: "s", name } });
  it.each([
    ["nothing", [], false],
    ["a leave that took the last thing out", [line("remove-path", "/w/x"), line("remove-image", "i")], true],
    ["a leave, cut short in its last line", [line("remove-path", "/w/x"), '{"change":{"ki'], true],
    ["a leave of another directory", [line("remove-path", "/w2/x")], false],
    ["a join after that leave", [line("remove-path", "/w/x"), line("up", "x")], false],
  ] as const)("of what emptied a directory: %s", (_name, lines, isOurDoing) => {
    expect(wasEmptiedByLeave(lines.join("\n"), "/w")).toBe(isOurDoing);
  });

  const release = (phase: string) => JSON.stringify({ phase, change: { kind: "release-name" } });
  it.each([
    ["nothing", [], false],
    ["a leave that released it", [line("up", "x"), release("intent"), release("done")], true],
    ["a leave that failed to", [line("up", "x"), release("intent"), release("failed")], false],
    ["a join after that leave", [release("done"), line("up", "x")], false],
    ["a later leave that kept it", [release("done"), line("up", "x"), line("remove-path", "/x")], false],
  ] as const)("of the node's name: %s", (_name, lines, isReleased) => {
    expect(wasNameReleased(lines.join("\n"))).toBe(isReleased);
  });
});
