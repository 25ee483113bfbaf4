import { describe, expect, it } from "vitest";
import {
  cleanupOf,
  masterPolicy,
  mountPointsOf,
  parsePurge,
  storagePolicy,
  wasEmptiedByLeave,
  writerPolicy,
} from "../../../src/leave/policy.ts";
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
});
