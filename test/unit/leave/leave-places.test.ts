import { describe, expect, it } from "vitest";
import { filesOf, HOSTNAME, leaveOn, leavingMaster, PURGE_ALL } from "../../support/leave-boxes.ts";
import type { FakeStorage } from "../../support/storage-fake.ts";

const BASE = "/opt/fula-master";
const WRITER = "/opt/fula-writer";

/** Moves a path of a box, and puts a link to it in its place. */
async function linkAway(host: FakeStorage, path: string, target: string): Promise<void> {
  host.files.putDirectory(target.slice(0, target.lastIndexOf("/")));
  await host.files.rename(path, target);
  host.files.putLink(target, path);
}

const below = (host: FakeStorage, place: string) =>
  Object.keys(host.snapshot().files).filter((path) => path === place || path.startsWith(`${place}/`));

describe("a leave and what is mounted", () => {
  it.each([WRITER, BASE])("empties its own directory %s and keeps it", async (place) => {
    const host = await leavingMaster();
    host.files.mount(place);
    const { exit, data } = await leaveOn(host, PURGE_ALL);
    expect(exit).toBe("ok");
    expect(filesOf(host)).toEqual([]);
    expect(below(host, place)).toEqual([place]);
    expect(data["others"]).toContain(`${place} (only the empty directory): a file system is mounted there`);
    await expect(leaveOn(host, PURGE_ALL)).rejects.toMatchObject({ exit: "settings" });
  });

  it.each([`${WRITER}/kubo`, `${WRITER}/kubo/blocks`, `${WRITER}/kubo/blocks/X/deep`])(
    "never crosses into %s",
    async (place) => {
      const host = await leavingMaster();
      host.files.mount(place);
      host.files.put(`${place}/theirs.txt`, "theirs\n");
      const { exit, data } = await leaveOn(host, PURGE_ALL);
      expect(exit).toBe("ok");
      expect(filesOf(host)).toEqual([
        ...(place === `${WRITER}/kubo` ? [`${WRITER}/kubo/config`] : []),
        `${place}/theirs.txt`,
      ]);
      expect(data["others"]).toContain(`${place}: a file system is mounted there`);
    },
  );

  it("never removes an empty directory that it did not empty", async () => {
    const host = await leavingMaster();
    host.files.drop(WRITER);
    host.files.putDirectory(WRITER);
    const { exit } = await leaveOn(host);
    expect(exit).toBe("ok");
    expect(below(host, WRITER)).toEqual([WRITER]);
  });
});

describe("a leave and the names of a base directory", () => {
  it.each([`${BASE}/`, "/opt//fula-master", "/root/link", "/root/link/"])(
    "finds the node by %s",
    async (given) => {
      const host = await leavingMaster();
      host.files.putLink(BASE, "/root/link");
      const { data } = await leaveOn(host, { baseDir: given, dryRun: true });
      expect(data).toMatchObject({ kind: "master", baseDir: BASE });
    },
  );

  it("finds the containers that were made by another name of it", async () => {
    const host = await leavingMaster();
    host.files.putLink(BASE, "/root/link");
    for (const [name, container] of host.docker.boxes) {
      const labels = Object.entries(container.labels).map(([key, value]) => [
        key,
        value.replace(BASE, "/root/link"),
      ]);
      host.docker.boxes.set(name, {
        ...container,
        labels: Object.fromEntries(labels) as Record<string, string>,
      });
    }
    expect((await leaveOn(host, { dryRun: true })).data).toMatchObject({ baseDir: BASE });
    expect((await leaveOn(host, { baseDir: "/root/link", dryRun: true })).data).toMatchObject({
      baseDir: BASE,
    });
  });
});

describe("a leave and what others put into our directories", () => {
  const THEIRS = [
    `${BASE}/notes.txt`,
    `${BASE}/cli/notes.txt`,
    `${BASE}/cli/0.1.0/notes.txt`,
    `${BASE}/snapshots/pinset-20260620T120000Z.json`,
    `${BASE}/snapshots/older/pinset.tar`,
    `${BASE}/heartbeats/README`,
    `${WRITER}/kubo/notes.txt`,
    `${WRITER}/ipfs-cluster/backup/identity.json`,
  ];

  it("removes only what is ours, by name, and lists the rest", async () => {
    const host = await leavingMaster();
    for (const path of THEIRS) host.files.put(path, "theirs\n");
    host.files.put(`${BASE}/snapshots/pinset-20260101T000000Z.ndjson.gz`, "ours");
    const { exit, data } = await leaveOn(host, PURGE_ALL);
    expect(exit).toBe("ok");
    expect(filesOf(host)).toEqual(THEIRS.toSorted());
    const listed = data["others"] as readonly string[];
    for (const path of [`${BASE}/cli/notes.txt`, `${BASE}/snapshots/older`, `${WRITER}/kubo/notes.txt`])
      expect(listed).toContain(path);
  });

  it("keeps the same files if it is run again", async () => {
    const host = await leavingMaster();
    for (const path of THEIRS) host.files.put(path, "theirs\n");
    await leaveOn(host, PURGE_ALL);
    await leaveOn(host, PURGE_ALL).catch(() => {});
    expect(filesOf(host)).toEqual(THEIRS.toSorted());
  });

  it("removes a link that is not ours no further than itself", async () => {
    const host = await leavingMaster();
    host.files.put("/srv/theirs/big.bin", "theirs");
    host.files.putLink("/srv/theirs", `${WRITER}/kubo/blocks`);
    const { data } = await leaveOn(host, PURGE_ALL);
    expect(host.files.tree.has("/srv/theirs/big.bin")).toBe(true);
    expect(data["others"]).toContain(
      `${WRITER}/kubo/blocks is a link to /srv/theirs: remove its target by hand`,
    );
  });
});

describe("a leave and what others use", () => {
  it("keeps a network that a stranger's container was connected to, and names that container", async () => {
    const host = await leavingMaster();
    host.docker.putContainer("stranger", { networkMode: "bridge" });
    host.docker.connected.set("stranger", "fula-master_default");
    const { exit, data } = await leaveOn(host, PURGE_ALL);
    expect(exit).toBe("ok");
    expect(data["others"]).toContain("network fula-master_default, which container stranger uses");
    expect([...host.docker.boxes.keys()]).toEqual(["stranger"]);
  });

  it.each([{}, PURGE_ALL, { purge: ["data"], confirm: HOSTNAME }, { purge: ["logs"], confirm: HOSTNAME }])(
    "does as many changes as it has planned, with %j",
    async (flags) => {
      const host = await leavingMaster();
      const { data } = await leaveOn(host, flags);
      const plan = data["plan"] as readonly { readonly changes: readonly unknown[] }[];
      expect(plan.flatMap(({ changes }) => changes)).toHaveLength((data["changes"] as unknown[]).length);
    },
  );
});

describe("a leave and links", () => {
  it("keeps a link with everything behind it, and says so", async () => {
    const host = await leavingMaster();
    await linkAway(host, `${WRITER}/kubo`, "/mnt/big/kubo");
    await leaveOn(host);
    expect(filesOf(host)).toContain(`${WRITER}/kubo-init.sh`);
    const { exit, data } = await leaveOn(host, PURGE_ALL);
    expect(exit).toBe("ok");
    expect(below(host, "/mnt/big/kubo")).toEqual(["/mnt/big/kubo", "/mnt/big/kubo/config"]);
    expect(below(host, WRITER)).toEqual([WRITER, `${WRITER}/kubo`]);
    expect(data["others"]).toContain(`${WRITER}/kubo is a link to /mnt/big/kubo: remove its target by hand`);
  });

  it.each([WRITER, BASE])("keeps the link that %s is, and finishes", async (place) => {
    const host = await leavingMaster();
    await linkAway(host, place, "/mnt/big/node");
    const { exit, data } = await leaveOn(host, PURGE_ALL);
    expect(exit).toBe("ok");
    expect(below(host, "/mnt/big/node")).toEqual(["/mnt/big/node"]);
    expect(below(host, place)).toEqual([place]);
    expect(data["others"]).toContain(`${place} is a link to /mnt/big/node: remove its target by hand`);
    await expect(leaveOn(host, { purge: ["all"], confirm: HOSTNAME })).rejects.toMatchObject({
      exit: "settings",
    });
  });
});
