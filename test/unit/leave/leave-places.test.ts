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
  it.each([`${WRITER}/kubo`, WRITER, BASE])("empties %s and keeps it", async (place) => {
    const host = await leavingMaster();
    host.files.mount(place);
    const { exit, data } = await leaveOn(host, PURGE_ALL);
    expect(exit).toBe("ok");
    expect(filesOf(host)).toEqual([]);
    expect(below(host, place)).toEqual([place]);
    expect(data["others"]).toContain(`${place} (only the empty directory): a file system is mounted there`);
    await expect(leaveOn(host, PURGE_ALL)).rejects.toMatchObject({ exit: "settings" });
  });

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
