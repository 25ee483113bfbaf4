import { describe, expect, it } from "vitest";
import { OWNER_LABEL } from "../../../src/settings/layout.ts";
import { HOSTNAME, leaveOn, leavingMaster, PURGE_ALL } from "../../support/leave-boxes.ts";
import { type FakeStorage, storageBoxBefore } from "../../support/storage-fake.ts";

/** How often a leave asked for each list of the whole box. */
interface Count {
  containers: number;
  volumes: number;
  images: number;
  lists: number;
}

/** Counts from now on. A listing counts once for each directory. */
function count(host: FakeStorage, directories: readonly string[]): Count {
  const counted: Count = { containers: 0, volumes: 0, images: 0, lists: 0 };
  const { docker, files } = host;
  const containers = docker.containers.bind(docker);
  const volumes = docker.listVolumes.bind(docker);
  const images = docker.listImages.bind(docker);
  docker.containers = () => {
    counted.containers += 1;
    return containers();
  };
  docker.listVolumes = () => {
    counted.volumes += 1;
    return volumes();
  };
  docker.listImages = () => {
    counted.images += 1;
    return images();
  };
  const list = files.list.bind(files);
  const times = new Map<string, number>();
  files.list = (path) => {
    if (directories.includes(path)) times.set(path, (times.get(path) ?? 0) + 1);
    counted.lists = Math.max(0, ...times.values());
    return list(path);
  };
  return counted;
}

/** More of everything that a leave removes. */
function crowd(host: FakeStorage, project: string, baseDir: string, size: number): FakeStorage {
  const labels = { [OWNER_LABEL.key]: OWNER_LABEL.value, "com.docker.compose.project": project };
  const ours = { ...labels, "com.docker.compose.project.config_files": `${baseDir}/docker-compose.yml` };
  for (let index = 0; index < size; index += 1) {
    host.docker.putContainer(`more-${index}`, { labels: ours });
    host.docker.putVolume(`more-${index}`, labels);
    host.docker.networks.set(`more-${index}`, labels);
    host.docker.putImage(`fula-node:0.0.${index}`, labels);
    host.files.put(`${baseDir}/journal.ndjson.${index}`, "{}\n");
  }
  return host;
}

const master = async () => (await leavingMaster()).copy();
const storage = async () => (await storageBoxBefore(null)).copy();

describe.each([
  ["a master", master, "fula-master", "/opt/fula-master"],
  ["a storage node", storage, "fula-storage", "/opt/fula-storage"],
] as const)(
  "%s that leaves surveys the whole box a few times, however much it removes",
  (_name, make, project, baseDir) => {
    it.each([0, 40])("with %d more things of each kind", async (size) => {
      const host = crowd(await make(), project, baseDir, size);
      const counted = count(host, [baseDir, "/opt/fula-writer"]);
      const removed = () => host.writes.filter((write) => /remove/.test(write)).length;
      await leaveOn(host, PURGE_ALL);
      expect(removed()).toBeGreaterThan(5 * size + 5);
      // To find the node, to plan under the lock, and at the end.
      expect(counted).toMatchObject({ containers: 3, volumes: 3, images: 2 });
      // Before a directory is removed, its content is looked at again.
      expect(counted.lists).toBeLessThanOrEqual(10);
    });

    it("a dry run finds and plans", async () => {
      const host = await make();
      const counted = count(host, [baseDir]);
      await leaveOn(host, { dryRun: true });
      expect(counted).toMatchObject({ containers: 2, volumes: 2, images: 1 });
    });
  },
);

describe("the box changes while a leave waits for its confirmation", () => {
  const PROJECT = "com.docker.compose.project";
  const BASE = "/opt/fula-master";
  /** A leave of everything, whose question is answered after this change of the box. */
  const leaveAfter = (host: FakeStorage, change: () => void) => {
    const text = () => {
      change();
      return Promise.resolve(HOSTNAME);
    };
    const questions = { text, confirm: () => Promise.resolve(true) };
    return leaveOn(host, { purge: ["all"] }, { questions });
  };

  it("what is not ours any more stays", async () => {
    const host = await leavingMaster();
    const { docker, files } = host;
    const theirs = { [PROJECT]: "fula-master" };
    const cron = "/etc/cron.d/fula-pinset-snapshot";
    await leaveAfter(host, () => {
      docker.putContainer("fula-pinning-api", { labels: theirs });
      docker.putVolume("fula-master_pgdata", theirs);
      docker.networks.set("fula-master_default", theirs);
      docker.putImage("fula-node:0.1.0");
      files.put(cron, "# theirs\n");
      files.put(`${BASE}/docker-compose.yml`, "# theirs\n");
      files.drop(`${BASE}/snapshots`);
      files.putLink("/mnt/theirs", `${BASE}/snapshots`);
      files.put("/opt/fula-writer/notes.txt", "theirs\n");
    });
    const after = host.snapshot();
    expect(Object.keys(after.containers)).toEqual(["fula-pinning-api"]);
    expect(Object.keys(after.volumes)).toEqual(["fula-master_pgdata"]);
    expect(Object.keys(after.networks)).toEqual(["fula-master_default"]);
    expect(Object.keys(after.images)).toContain("fula-node:0.1.0");
    const left = [cron, `${BASE}/docker-compose.yml`, `${BASE}/snapshots`, "/opt/fula-writer/notes.txt"];
    expect(Object.keys(after.files)).toEqual(expect.arrayContaining(left));
  });

  it.each([
    [
      "volume",
      (host: FakeStorage) =>
        void host.docker.putContainer("stranger", {
          mounts: [{ type: "volume", name: "fula-master_pgdata", source: "/x", destination: "/data" }],
        }),
      "fula-master_pgdata",
    ],
    [
      "network",
      (host: FakeStorage) => {
        host.docker.putContainer("stranger", { networkMode: "bridge" });
        host.docker.connected.set("stranger", "fula-master_default");
      },
      "fula-master_default",
    ],
  ])("a %s that somebody begins to use stays, and is listed", async (kind, use, name) => {
    const host = await leavingMaster();
    const { exit, data, lines } = await leaveAfter(host, () => use(host));
    expect(exit).toBe("ok");
    const { volumes, networks } = host.snapshot();
    expect(Object.keys(kind === "volume" ? volumes : networks)).toEqual([name]);
    expect(data["others"]).toContainEqual(expect.stringContaining(`remove the ${kind} ${name}`));
    expect(lines.join("\n")).toContain("Planned, but not removed");
  });

  it("what came up in between is named by the last survey, and one more run removes it", async () => {
    const host = await leavingMaster();
    const labels = { [OWNER_LABEL.key]: OWNER_LABEL.value, [PROJECT]: "fula-master" };
    const log = `${BASE}/snapshot.log.1`;
    await expect(
      leaveAfter(host, () => {
        host.docker.putVolume("late", labels);
        host.files.put(log, "rotated\n");
      }),
    ).rejects.toMatchObject({ exit: "unhealthy", what: `Still here: late, ${log}.` });
    await leaveOn(host, PURGE_ALL);
    expect(host.snapshot().volumes).toEqual({});
    expect(Object.keys(host.snapshot().files)).not.toContain(BASE);
  });
});
