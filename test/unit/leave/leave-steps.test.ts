import { describe, expect, it } from "vitest";
import type { PlanItem } from "../../../src/engine/events.ts";
import { OperatorError } from "../../../src/errors.ts";
import { OWNER_LABEL } from "../../../src/settings/layout.ts";
import { Killed } from "../../support/fake-host.ts";
import {
  filesOf,
  HOSTNAME,
  leaveOn,
  leavingMaster,
  masterElsewhere,
  PURGE_ALL,
} from "../../support/leave-boxes.ts";
import { join, LAYOUT, savedValues } from "../../support/master-boxes.ts";
import { masterOf } from "../../support/masters.ts";
import { FakeStorage } from "../../support/storage-fake.ts";

const BASE = "/opt/fula-master";
const WRITER = "/opt/fula-writer";
const KEPT = [
  `${BASE}/.env`,
  `${BASE}/journal.ndjson`,
  `${BASE}/snapshot-ed25519.pem`,
  `${BASE}/snapshot-ed25519.pub.pem`,
  `${BASE}/snapshots/pinset-20260101T000000Z.manifest.json`,
  `${BASE}/snapshots/pinset-20260101T000000Z.manifest.sig`,
  `${BASE}/snapshots/pinset-20260101T000000Z.ndjson.gz`,
  `${WRITER}/cluster-start.sh`,
  `${WRITER}/ipfs-cluster/identity.json`,
  `${WRITER}/kubo-init.sh`,
  `${WRITER}/kubo/config`,
];

describe("a master that leaves", () => {
  it("is removed, except for its data, its settings and its logs", async () => {
    const host = await leavingMaster();
    const volumes = { ...host.snapshot().volumes };
    const { exit, data } = await leaveOn(host);
    expect(exit).toBe("ok");
    const after = host.snapshot();
    expect(after.containers).toEqual({});
    expect(after.networks).toEqual({});
    expect(after.volumes).toEqual(volumes);
    expect(Object.keys(after.images).filter((name) => name.startsWith("fula-node"))).toEqual([]);
    expect(filesOf(host)).toEqual(KEPT);
    expect((data["kept"] as { name: string }[]).map(({ name }) => name)).toContain("fula-master_pgdata");
    const again = await leaveOn(host);
    expect(again.lines).toEqual(["It left earlier. Nothing was changed."]);
  });

  it("stops services before it removes their data, and its journal is complete", async () => {
    const host = await leavingMaster();
    await leaveOn(host);
    const order = host.writes.filter((write) => !write.startsWith("files.append"));
    const at = (pattern: RegExp) => order.findIndex((write) => pattern.test(write));
    expect(at(/cron\.d/)).toBeLessThan(at(/removeContainer/));
    expect(at(/removeContainer fula-pinning-api/)).toBeLessThan(at(/removeContainer postgres-pinning/));
    expect(at(/removeContainer postgres-pinning/)).toBeLessThan(at(/docker-compose\.yml/));
    const lines = host.files.textOf(LAYOUT.journal).trim().split("\n");
    const { phase } = JSON.parse(lines.at(-1) ?? "") as { phase: string };
    expect(phase).toBe("done");
  });

  it("joins again with what was kept: the same secrets, and no question", async () => {
    const host = await leavingMaster();
    const before = savedValues(host);
    await leaveOn(host);
    await join(host);
    expect(savedValues(host)).toEqual(before);
    host.revive();
    expect((await join(host, { provisionWriter: false })).changes).toEqual([]);
  });

  it("leaves nothing if everything is purged", async () => {
    const bare = new FakeStorage();
    const host = await leavingMaster();
    await leaveOn(host, PURGE_ALL);
    const [after, before] = [host.snapshot(), bare.snapshot()];
    expect(filesOf(host)).toEqual([]);
    expect(Object.keys(after.files).filter((path) => path.startsWith("/opt/fula"))).toEqual([]);
    const { containers, volumes, networks } = before;
    expect(after).toMatchObject({ containers, volumes, networks });
    expect([containers, volumes, networks]).toEqual([{}, {}, {}]);
    expect(Object.keys(after.images).filter((name) => name.startsWith("fula-node"))).toEqual([]);
  });

  it("can be purged after it has left", async () => {
    const host = await leavingMaster();
    await leaveOn(host);
    await leaveOn(host, { purge: ["data,snapshots", "keys"], confirm: HOSTNAME });
    expect(filesOf(host)).toEqual([`${BASE}/.env`, `${BASE}/journal.ndjson`]);
    expect(host.snapshot().volumes).toEqual({});
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([]);
  });

  it("removes half-written files of killed runs, and keeps those of others", async () => {
    const host = await leavingMaster();
    const own = [`${BASE}/..env.fula-node-tmp.77.abc`, "/etc/cron.d/.fula-pinset-snapshot.fula-node-tmp.7.x"];
    for (const path of own) host.files.put(path, "POSTGRES_PASSWORD=half");
    host.files.put(`${BASE}/docker-compose.yml.0123456789ab.old`, "# the operator's own\nservices: {}\n");
    host.files.put(`${BASE}/notes.txt`, "mine");
    host.files.put("/etc/cron.d/backup", "mine");
    const { data } = await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([
      "/etc/cron.d/backup",
      `${BASE}/docker-compose.yml.0123456789ab.old`,
      `${BASE}/notes.txt`,
    ]);
    expect(data["others"]).toContain(`${BASE}/notes.txt`);
  });

  it("keeps an adopted writer, wherever its data is", async () => {
    const host = new FakeStorage();
    for (const name of ["ipfs_host", "ipfs_cluster"])
      host.docker.putContainer(name, { image: "ipfs/kubo:v0.42.0" });
    for (const path of [`${WRITER}/kubo/config`, `${WRITER}/ipfs-cluster/identity.json`])
      host.files.put(path, "theirs", 0o600);
    const before = host.snapshot();
    await join(host, { provisionWriter: false });
    const { data } = await leaveOn(host, PURGE_ALL);
    const after = host.snapshot();
    expect(after.containers).toEqual(before.containers);
    expect(after.volumes).toEqual(before.volumes);
    expect(filesOf(host)).toEqual([`${WRITER}/ipfs-cluster/identity.json`, `${WRITER}/kubo/config`]);
    expect(data["others"]).toEqual(["container ipfs_host", "container ipfs_cluster", WRITER]);
  });

  it("never removes the data of a writer that was taken over", async () => {
    const host = new FakeStorage();
    host.files.put(`${WRITER}/ipfs-cluster/identity.json`, "theirs", 0o600);
    await join(host, { adopt: ["writer"] });
    await leaveOn(host);
    expect(filesOf(host)).toContain(`${WRITER}/taken-over.txt`);
    await join(host);
    await leaveOn(host, PURGE_ALL);
    expect(filesOf(host)).toEqual([`${WRITER}/ipfs-cluster/identity.json`, `${WRITER}/taken-over.txt`]);
  });

  it("never removes a database that was there before", async () => {
    const host = await leavingMaster();
    host.docker.putVolume("fula-master_pgdata");
    const { data } = await leaveOn(host, PURGE_ALL);
    expect(Object.keys(host.snapshot().volumes)).toEqual(["fula-master_pgdata"]);
    expect(data["others"]).toContain("volume fula-master_pgdata");
  });

  it("keeps what somebody else's container uses, and says so", async () => {
    const host = await leavingMaster();
    const image = host.docker.images.get("fula-node:0.1.0");
    host.docker.putContainer("theirs", {
      imageId: image?.id ?? "",
      labels: { [OWNER_LABEL.key]: OWNER_LABEL.value },
      networkMode: "fula-master_default",
      mounts: [{ type: "volume", name: "fula-master_pgdata", source: "", destination: "/x" }],
    });
    const { data } = await leaveOn(host, PURGE_ALL);
    expect(Object.keys(host.snapshot().containers)).toEqual(["theirs"]);
    expect(data["others"]).toEqual(
      expect.arrayContaining([
        "network fula-master_default, which container theirs uses",
        "volume fula-master_pgdata, which container theirs uses",
        "image fula-node:0.1.0, which container theirs uses",
      ]),
    );
  });

  it("keeps containers, volumes and cron files that only look like its own", async () => {
    const host = await leavingMaster();
    const labels = { "com.docker.compose.project": "fula-master" };
    host.docker.putContainer("upstream", { labels });
    host.docker.putVolume("fula-master_upstream", labels);
    host.docker.networks.set("fula-master_upstream", labels);
    const sweep = "/etc/cron.d/fula-replication-sweep";
    host.files.put(sweep, host.files.textOf(sweep).replaceAll(BASE, "/opt/other"));
    const { data } = await leaveOn(host, PURGE_ALL);
    const { containers, volumes, networks } = host.snapshot();
    expect([containers, volumes, networks].map((some) => Object.keys(some))).toEqual([
      ["upstream"],
      ["fula-master_upstream"],
      ["fula-master_upstream"],
    ]);
    expect(filesOf(host)).toEqual([sweep]);
    expect(data["others"]).toContain(`${sweep} (not written for ${BASE})`);
  });

  it("writes a new journal if it was lost, and keeps it", async () => {
    const host = await leavingMaster();
    host.files.drop(LAYOUT.journal);
    const { data } = await leaveOn(host, {
      purge: ["data", "settings", "keys", "snapshots"],
      confirm: HOSTNAME,
    });
    expect(filesOf(host)).toEqual([LAYOUT.journal]);
    const planned = (data["plan"] as PlanItem[]).flatMap(({ changes }) => changes);
    const directories = planned.filter(({ kind }) => kind === "remove-directory");
    expect(directories.map(({ summary }) => summary)).toEqual([`remove the empty directory ${WRITER}`]);
  });

  it("removes its flags from a database on another machine, if that answers", async () => {
    const host = await masterElsewhere();
    expect([...host.migrations.masters.values()].flatMap(({ flags }) => flags)).not.toEqual([]);
    const twin = new FakeStorage();
    await join(twin, { set: {} });
    const { data, lines } = await leaveOn(host);
    expect([...host.migrations.masters.values()]).toEqual([]);
    expect(data["others"]).toEqual(["the database at db.example:5432"]);
    // While our services run, no other master may revert a migration that they need.
    const at = (word: string) => host.writes.findLastIndex((write) => write.includes(word));
    expect(at("migrations.forgetMaster")).toBeGreaterThan(at("removeContainer"));
    expect(lines.join("\n")).not.toContain("trust add");
    await leaveOn(twin);
    expect([...twin.migrations.masters.values()]).not.toEqual([]);
  });
});

describe("leave of a master of several", () => {
  it("says what the others must do, now and before it comes back", async () => {
    const host = await masterElsewhere();
    const other = {
      ...masterOf("berlin-1"),
      version: "0",
      heartbeatAt: "2026-01-01T00:00:00Z",
      heartbeatAgeMs: 0,
    };
    host.migrations.masters.set(other.id, other);
    const { lines } = await leaveOn(host);
    expect(host.printed.join("\n")).toMatch(
      /The other masters \(berlin-1\) .*on each of these masters: fula-node trust remove box\./,
    );
    expect(lines.join("\n")).toMatch(
      /on another master of the pool.*\n {2}fula-node trust add box\nTo join again with what was kept: npx fula-node join-as-master/,
    );
  });
});

describe("leave checks before it changes anything", () => {
  const expectRefusal = async (host: FakeStorage, flags: Parameters<typeof leaveOn>[1], exit: string) => {
    const before = host.snapshot();
    const thrown: unknown = await leaveOn(host, flags).catch((error: unknown) => error);
    expect(thrown).toMatchObject({ exit });
    expect(host.snapshot()).toEqual(before);
    return JSON.stringify(thrown);
  };

  it("refuses a box without a node, and upstream's own master", async () => {
    const bare = new FakeStorage();
    await expectRefusal(bare, {}, "settings");
    bare.files.put(`${BASE}/.env`, "POSTGRES_PASSWORD=theirs\n");
    bare.files.put(`${BASE}/docker-compose.yml`, "services: {}\n");
    bare.docker.putContainer("postgres-pinning");
    await expectRefusal(bare, PURGE_ALL, "settings");
  });

  it("asks which one, if there are things of two nodes", async () => {
    const host = await leavingMaster();
    host.files.put("/opt/fula-storage/.env", "FULA_NODE_VERSION=0.1.0\nINGEST_PORT=3601\n");
    expect(await expectRefusal(host, {}, "preflight")).toContain("--base-dir");
    await leaveOn(host, {
      baseDir: "/opt/fula-storage",
      purge: ["settings"],
      confirm: HOSTNAME,
      release: false,
    });
    expect(host.files.tree.has("/opt/fula-storage/.env")).toBe(false);
    expect(Object.keys(host.snapshot().containers)).not.toEqual([]);
  });

  it("names the directory that the containers belong to", async () => {
    const host = await leavingMaster();
    host.files.put("/opt/other/.env", "FULA_NODE_VERSION=0.1.0\nPINNING_API_PORT=6000\n");
    const said = await expectRefusal(host, { baseDir: "/opt/other" }, "foreign");
    expect(said).toContain(`--base-dir ${BASE}`);
  });

  it("refuses to run without root, and with an engine that does not answer", async () => {
    const host = await leavingMaster();
    host.system.facts.uid = 1000;
    await expectRefusal(host, {}, "preflight");
    host.system.facts.uid = 0;
    host.stopEngine();
    await expectRefusal(host, {}, "unavailable");
  });

  it("requires a confirmation, and for a purge the machine's name", async () => {
    const host = await leavingMaster();
    await expectRefusal(host, { yes: false }, "preflight");
    await expectRefusal(host, { purge: ["data"] }, "preflight");
    await expectRefusal(host, { purge: ["data"], confirm: "Other.example" }, "preflight");
    expect(await expectRefusal(host, { purge: ["everything"] }, "usage")).toContain("snapshots, logs");
    const answering = (typed: string, sure: boolean) => ({
      questions: { text: () => Promise.resolve(typed), confirm: () => Promise.resolve(sure) },
    });
    const before = host.snapshot();
    for (const [flags, parts] of [
      [{ yes: false }, answering("", false)],
      [{ purge: ["data"] }, answering("", true)],
    ] as const) {
      await expect(leaveOn(host, flags, parts)).rejects.toThrow();
      expect(host.snapshot()).toEqual(before);
    }
    await leaveOn(host, { yes: false, purge: ["data"] }, answering(HOSTNAME, false));
    expect(host.snapshot().volumes).toEqual({});
  });

  it("does not ask again for what the machine's name confirmed, after a killed purge", async () => {
    const straight = await leavingMaster();
    const flags = { ...PURGE_ALL, yes: false };
    await leaveOn(straight, flags);
    const last = straight.writes.length;
    const host = await leavingMaster();
    host.killAt(last, "before");
    await expect(leaveOn(host, flags)).rejects.toBeInstanceOf(Killed);
    host.revive();
    expect(host.snapshot().volumes).toEqual({});
    await expectRefusal(host, { ...flags, confirm: "Other.example" }, "preflight");
    expect(await leaveOn(host, flags)).toMatchObject({ exit: "ok" });
    expect(host.snapshot()).toEqual(straight.snapshot());
  });

  it("a dry run lists everything, says which confirmation is required, asks nothing and changes nothing", async () => {
    const host = await leavingMaster();
    const before = host.snapshot();
    const { exit, data, lines } = await leaveOn(host, { dryRun: true, yes: false, purge: ["all"] });
    expect(exit).toBe("pending");
    expect(host.snapshot()).toEqual(before);
    expect(data["kept"]).toEqual([]);
    expect(lines.slice(1).join(" ")).toContain("--confirm Box.example");
    const output = host.printed.join("\n");
    for (const word of [
      "postgres-pinning",
      "fula-master_pgdata",
      `${BASE}/.env`,
      "trust this master's peer id",
    ])
      expect(output).toContain(word);
  });

  it.each([
    [{ yes: false }, /Confirmation required: .*--yes/],
    [{ yes: false, confirm: "Other.example" }, /--yes/],
    [{ yes: false, confirm: HOSTNAME }, null],
    [{}, null],
    [{ purge: ["data"] }, /--confirm Box\.example/],
    [{ purge: ["data"], confirm: "Other.example" }, /--confirm Box\.example/],
    [PURGE_ALL, null],
  ] as const)("a dry run with %j says what the real run still requires", async (flags, required) => {
    const { lines } = await leaveOn(await leavingMaster(), { dryRun: true, ...flags });
    const said = lines.slice(1).join(" ").replaceAll(/ +/g, " ");
    if (required === null) expect(said).toBe("");
    else expect(said).toMatch(required);
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(80);
  });

  it("where there is no node, it removes the files of locks that nobody holds, and says that there is none", async () => {
    const given: string[] = [];
    const takeLock = async (name: string) => {
      if (name.endsWith("/sweep")) throw new OperatorError({ exit: "locked", what: "a sweep runs" });
      return { release: async () => void given.push(name) };
    };
    const nothing = { exit: "settings", what: expect.stringContaining("There is no node") };
    await expect(leaveOn(new FakeStorage(), { dryRun: true }, { takeLock })).rejects.toMatchObject(nothing);
    expect(given).toEqual([]);
    await expect(leaveOn(new FakeStorage(), {}, { takeLock })).rejects.toMatchObject(nothing);
    const names = (base: string) => [base, "this machine", `${base}/snapshot`, `${base}/restore`];
    expect(given).toEqual([...names("/opt/fula-master"), ...names("/opt/fula-storage")]);
  });

  it("takes every lock of the node, and releases those that it got", async () => {
    const host = await leavingMaster();
    const held: string[] = [];
    const given: string[] = [];
    const takeLock = async (name: string) => {
      if (name.endsWith("/sweep")) throw new Error("a sweep runs");
      held.push(name);
      return { release: async () => void given.push(name) };
    };
    await expect(leaveOn(host, {}, { takeLock })).rejects.toThrow("a sweep runs");
    expect(held).toEqual([BASE, "this machine", `${BASE}/snapshot`]);
    expect(given).toEqual(held.toReversed());
    expect(host.writes).toEqual([]);
  });
});
