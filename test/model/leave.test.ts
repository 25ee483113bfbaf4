import { describe, expect, it } from "vitest";
import { fateOf, masterFates, parsePurge, storageFates, writerFates } from "../../src/model/leave.ts";
import { masterLayout } from "../../src/model/master-layout.ts";
import { storageLayout } from "../../src/model/storage-layout.ts";

const master = masterFates(masterLayout("/opt/fula-master"));
const storage = storageFates(storageLayout("/opt/fula-storage"));

describe("what becomes of an entry of a base directory", () => {
  it.each([
    [".env", "settings"],
    ["docker-compose.yml", "marked"],
    ["docker-compose.yml.0123456789ab.old", "marked"],
    ["docker-compose.yml.bak", null],
    ["cli", "goes"],
    ["heartbeats", "goes"],
    ["journal.ndjson", "logs"],
    ["journal.ndjson.1", "logs"],
    ["replication-alerts.log.5", "logs"],
    ["snapshot.log.2.gz", "logs"],
    ["snapshot.log.mine", null],
    ["snapshots", "snapshots"],
    ["snapshots.1", null],
    ["snapshot-ed25519.pem", "keys"],
    ["known-nodes.json", "data"],
    ["..env.fula-node-tmp.7.abc", "goes"],
    [".env.backup", null],
    ["constructor", null],
    ["kubo-init.sh", null],
  ])("of a master: %s is %s", (name, fate) => {
    expect(fateOf(name, master)).toBe(fate);
  });

  it("of a storage node: its scripts go, and there are no snapshots", () => {
    expect(fateOf("kubo-init.sh", storage)).toBe("goes");
    expect(fateOf("snapshots", storage)).toBeNull();
  });

  it("of a writer: its data is data, unless it was taken over", () => {
    expect(fateOf("kubo", writerFates(false))).toBe("data");
    for (const name of ["kubo", "ipfs-cluster", "taken-over.txt"])
      expect(fateOf(name, writerFates(true))).toBeNull();
  });
});

describe("what --purge takes", () => {
  it.each([
    [[], []],
    [["data"], ["data"]],
    [
      ["logs, data", "keys"],
      ["data", "keys", "logs"],
    ],
    [["all"], ["data", "settings", "keys", "snapshots", "logs"]],
  ])("%j", (given, parts) => {
    expect(parsePurge(given)).toEqual({ parts: new Set(parts) });
  });

  it.each([[["everything"]], [[""]], [["data,,keys"]], [["toString"]]])("refuses %j", (given) => {
    expect(parsePurge(given)).toHaveProperty("unknown");
  });
});
