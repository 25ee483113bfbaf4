import { describe, expect, it } from "vitest";
import { filesOf, leaveOn, PURGE_ALL } from "../../support/leave-boxes.ts";
import {
  CLUSTER_DATA,
  type FakeStorage,
  OWN,
  storageBoxBefore,
  storageStepsOn,
} from "../../support/storage-fake.ts";

const BASE = "/opt/fula-storage";
const whole = await storageBoxBefore(null);
const node = (): FakeStorage => {
  const host = whole.copy();
  host.files.put(`${BASE}/journal.ndjson`, "{}\n", 0o600);
  return host;
};

describe("a storage node that leaves", () => {
  it("releases its name first, and keeps what it needs to join again", async () => {
    const host = node();
    expect([...(host.names ?? [])]).toHaveLength(1);
    const volumes = { ...host.snapshot().volumes };
    const { exit } = await leaveOn(host);
    expect(exit).toBe("ok");
    expect(host.writes.find((write) => !write.startsWith("files.append"))).toBe("release node");
    expect([...(host.names ?? [])]).toEqual([]);
    expect(host.snapshot()).toMatchObject({ containers: {}, networks: {} });
    expect(host.snapshot().volumes).toEqual(volumes);
    expect(filesOf(host)).toEqual([`${BASE}/.env`, `${BASE}/journal.ndjson`]);
    host.revive();
    for (const step of await storageStepsOn(host)) {
      const finding = await step.probe(host);
      expect(finding.state, step.id).not.toBe("foreign");
      for (const change of step.plan(finding as never)) await step.apply(change, host, () => {});
      await step.verify(host);
    }
    expect(host.names?.get("node")?.peerId).toBe(OWN.peerId);
  });

  it("does not release a name that another key has by now", async () => {
    const host = node();
    host.names?.set("node", { peerId: "12D3KooWother", addresses: [] });
    await leaveOn(host);
    expect([...(host.names ?? []).keys()]).toEqual(["node"]);
  });

  it("changes nothing while the master does not answer, unless --no-release is given", async () => {
    const host = node();
    const names = host.names;
    host.names = null;
    const before = host.snapshot();
    await expect(leaveOn(host)).rejects.toMatchObject({
      exit: "unavailable",
      remedy: expect.stringContaining("--no-release") as string,
    });
    expect(host.snapshot()).toEqual(before);
    await leaveOn(host, { release: false });
    host.names = names;
    expect(host.snapshot().containers).toEqual({});
    expect([...(host.names ?? []).keys()]).toEqual(["node"]);
  });

  it("leaves nothing if everything is purged, and releases its name", async () => {
    const host = node();
    await leaveOn(host, PURGE_ALL);
    expect(host.snapshot()).toMatchObject({ containers: {}, volumes: {}, networks: {} });
    expect(Object.keys(host.snapshot().files).filter((path) => path.startsWith(BASE))).toEqual([]);
    expect([...(host.names ?? [])]).toEqual([]);
  });

  it("says that its name stays reserved only if it does, and if it is not known, says that", async () => {
    const said = async (
      host: FakeStorage,
      flags: Parameters<typeof leaveOn>[1],
    ): Promise<"reserved" | "unknown" | null> => {
      host.printed.splice(0);
      await leaveOn(host, flags);
      const text = host.printed.join("\n");
      expect(text).toContain("The pool forgets this peer");
      if (text.includes("Its name stays reserved")) return "reserved";
      return text.includes("still reserved is not known") ? "unknown" : null;
    };
    const left = node();
    expect(await said(left, {})).toBe(null);
    const offline = left.copy();
    offline.names = null;
    expect(await said(left, PURGE_ALL)).toBe(null);
    expect(await said(offline, { ...PURGE_ALL, release: false })).toBe(null);
    expect(await said(node(), { release: false })).toBe("reserved");
    const taken = node();
    taken.names?.set("node", { peerId: "12D3KooWother", addresses: [] });
    expect(await said(taken, {})).toBe(null);
    const unnamed = node();
    unnamed.files.drop(`${CLUSTER_DATA}/identity.json`);
    expect(await said(unnamed, {})).toBe("unknown");
    const blind = node();
    blind.files.drop(`${BASE}/.env`);
    expect(await said(blind, {})).toBe("unknown");
  });

  it("is found in another directory by what is there", async () => {
    const host = node();
    const { files } = host;
    for (const [path, entry] of [...files.tree].filter(([name]) => name.startsWith(`${BASE}/`)))
      if (entry.kind === "file") files.put(path.replace(BASE, "/data/node"), entry.text, entry.mode);
    files.drop(BASE);
    for (const [name, box] of host.docker.boxes) {
      const labels = {
        ...box.labels,
        "com.docker.compose.project.config_files": "/data/node/docker-compose.yml",
      };
      host.docker.boxes.set(name, { ...box, labels });
    }
    await expect(leaveOn(host)).rejects.toMatchObject({ remedy: "Run again with --base-dir /data/node." });
    const { data } = await leaveOn(host, { baseDir: "/data/node" });
    expect(data).toMatchObject({ kind: "storage-node", baseDir: "/data/node" });
    expect(host.snapshot().containers).toEqual({});
  });
});
