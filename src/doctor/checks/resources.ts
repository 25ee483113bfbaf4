import type { HostReader } from "../../host.ts";
import { MOUNTS } from "../../machine/file-reader.ts";
import { countOf, decimalBytes } from "../../units.ts";
import type { DoctorCheck, Examined } from "../doctor-check.ts";
import type { Observation } from "../finding.ts";

const USUAL_ROOT = "/var/lib/docker";
const GB = 1000 ** 3;
/** Below both the share and the bytes, a disk counts as nearly full. */
const LITTLE = { share: 0.1, bytes: 10 * GB } as const;
/** Below this, Postgres and kubo can stop at any moment. */
const NEARLY_NOTHING = { share: 0.02, bytes: GB } as const;
const FEW_INODES_SHARE = 0.05;

/** The file systems of settings, of snapshots, of the writer's data, of images and volumes, and of backups. */
async function placesOf({ host, layout, master, values, engine }: Examined): Promise<readonly string[]> {
  const root = (await engine())?.rootDirectory ?? USUAL_ROOT;
  const others = [master?.snapshotsDir, values("WRITER_DIR"), values("BACKUP_DIR")].filter(
    (path) => path !== undefined,
  );
  const places = [...new Set([layout.baseDir, root, ...others])];
  const found = await Promise.all(
    places.map(async (path) => ((await host.files.stat(path)) === null ? [] : [path])),
  );
  return found.flat();
}

/** Space and inodes that run out. */
export const space: DoctorCheck = {
  id: "space",
  title: "space and inodes left on the disks of settings, data, images and backups",
  fine: "there is space and there are inodes on every disk that the node uses",

  async look(examined) {
    const places = await placesOf(examined);
    const spaces = await Promise.all(places.map((path) => examined.host.files.space(path)));
    const seen = new Set<string>();
    return places.flatMap((path, index): readonly Observation[] => {
      const found = spaces[index];
      if (found === undefined) return [];
      const { freeBytes, totalBytes, freeInodes, totalInodes } = found;
      // Places on one disk have one fault.
      const key = `${freeBytes}/${totalBytes}/${freeInodes}`;
      if (seen.has(key)) return [];
      seen.add(key);
      const evidence = {
        [path]: `${decimalBytes(freeBytes)} of ${decimalBytes(totalBytes)} free`,
        inodes: totalInodes === 0 ? "no fixed number" : `${freeInodes} of ${totalInodes} free`,
      };
      const isBelow = ({ share, bytes }: { readonly share: number; readonly bytes: number }) =>
        freeBytes < bytes && freeBytes < totalBytes * share;
      const remedy =
        path === examined.values("BACKUP_DIR")
          ? `ls -lht ${path}; to keep fewer, such as 7: fula-node join-as-master --set BACKUP_KEEP=7`
          : `du -xah --max-depth=3 ${path} | sort -h | tail; docker system df; docker image prune`;
      const bytes = isBelow(LITTLE)
        ? [
            {
              severity: isBelow(NEARLY_NOTHING) ? ("error" as const) : ("warning" as const),
              what: `the disk of ${path} is nearly full: ${decimalBytes(freeBytes)} are left`,
              evidence,
              remedy,
            },
          ]
        : [];
      const inodes =
        totalInodes > 0 && freeInodes < totalInodes * FEW_INODES_SHARE
          ? [
              {
                severity: freeInodes < totalInodes / 100 ? ("error" as const) : ("warning" as const),
                what: `the disk of ${path} can take only ${freeInodes} more files: its inodes run out`,
                evidence,
                remedy: `du --inodes -x --max-depth=3 ${path} | sort -n | tail`,
              },
            ]
          : [];
      return [...bytes, ...inodes];
    });
  },
};

/** A file system that the kernel made read-only after an error of the disk. */
export const readOnly: DoctorCheck = {
  id: "read-only",
  title: "disks that can't be written to",
  fine: "every disk that the node uses can be written to",

  async look(examined) {
    const { files } = examined.host;
    const [places, table] = await Promise.all([placesOf(examined), files.readText(MOUNTS)]);
    const mounts = parseMounts(table ?? "");
    const broken = new Map<string, { readonly source: string; readonly paths: readonly string[] }>();
    for (const path of places) {
      const [mount] = mounts
        .filter(({ place }) => place === "/" || path === place || path.startsWith(`${place}/`))
        .toSorted((a, b) => b.place.length - a.place.length);
      if (mount?.isReadOnly !== true) continue;
      const { place, source } = mount;
      broken.set(place, { source, paths: [...(broken.get(place)?.paths ?? []), path] });
    }
    return [...broken].map(([place, { source, paths }]) => ({
      severity: "error" as const,
      what: `${paths.join(" and ")} can't be written to: ${place} is mounted read-only`,
      evidence: { mount: `${source} on ${place}` },
      remedy: `dmesg | grep -iE 'error|remount' | tail; then repair the disk, and mount -o remount,rw ${place}`,
    }));
  },
};

/** The lines of /proc/self/mountinfo (proc(5)). */
function parseMounts(
  text: string,
): readonly { readonly place: string; readonly source: string; readonly isReadOnly: boolean }[] {
  return text.split("\n").flatMap((line) => {
    const [before = "", after = ""] = line.split(" - ");
    const [, , , , place = "", options = ""] = before.split(" ");
    const [, source = "", superOptions = ""] = after.split(" ");
    if (place === "") return [];
    const isReadOnly = [options, superOptions].some((list) => list.split(",").includes("ro"));
    return [{ place, source, isReadOnly }];
  });
}

/** A container's log above this fills a disk sooner or later. */
const LARGE_LOG_BYTES = 500 * 1000 ** 2;
/** Above this, a log of ours was not rotated: that happens at 16 MiB. */
const LARGE_OWN_LOG_BYTES = 64 * 1024 ** 2;

/** Logs that nothing rotates. */
export const largeLogs: DoctorCheck = {
  id: "large-logs",
  title: "logs that grow without end",
  fine: "no log is too large",

  async look({ host, master, containers, engine }) {
    const [known, version] = await Promise.all([containers(), engine()]);
    const root = version?.rootDirectory ?? USUAL_ROOT;
    const own =
      master === null
        ? []
        : [master.snapshotLog, master.sweepLog, master.drillLog, master.backupLog, master.alertLog];
    const logs = [
      ...(known ?? []).map(({ name, id }) => ({
        whose: `the log of the container ${name}`,
        path: `${root}/containers/${id}/${id}-json.log`,
        limit: LARGE_LOG_BYTES,
        remedy: (path: string) =>
          `truncate -s 0 ${path}; then create the container again with a limit (log-opt max-size)`,
      })),
      ...own.map((path) => ({
        whose: path,
        path,
        limit: LARGE_OWN_LOG_BYTES,
        remedy: (log: string) => `truncate -s 0 ${log}`,
      })),
    ];
    const found = await Promise.all(
      logs.map(async (log) => ({ ...log, sizeBytes: await sizeOf(host, log.path) })),
    );
    return found
      .filter(({ sizeBytes, limit }) => sizeBytes > limit)
      .map(({ whose, path, sizeBytes, remedy }) => ({
        severity: "warning" as const,
        what: `${whose} has ${decimalBytes(sizeBytes)}, and nothing makes it shorter`,
        evidence: { [path]: decimalBytes(sizeBytes) },
        remedy: remedy(path),
      }));
  },
};

async function sizeOf({ files }: HostReader, path: string): Promise<number> {
  return (await files.stat(path))?.sizeBytes ?? 0;
}

/** How many restarts are more than an upgrade and a boot explain. */
const MANY_RESTARTS = 5;
/** A container that has run for this long since its last restart has recovered. */
const SETTLED_MS = 3_600_000;
const SMALL_MEMORY_SHARE = 0.05;

/** Memory that runs out, and containers that the kernel ended for it or that end again and again. */
export const memoryLeft: DoctorCheck = {
  id: "memory-left",
  title: "memory that runs out",
  fine: "there is memory left",

  async look({ host }) {
    const text = await host.files.readText("/proc/meminfo");
    if (text === null) return null;
    const bytes = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN) * 1024;
    const [total, available, swap] = [bytes("MemTotal"), bytes("MemAvailable"), bytes("SwapFree")];
    if (!Number.isFinite(total) || !Number.isFinite(available)) return null;
    if (available >= total * SMALL_MEMORY_SHARE) return [];
    return [
      {
        severity: "warning",
        what: `only ${decimalBytes(available)} of memory are left`,
        evidence: {
          memory: `${decimalBytes(available)} of ${decimalBytes(total)} available`,
          swap: `${decimalBytes(Number.isFinite(swap) ? swap : 0)} free`,
        },
        remedy: "docker stats --no-stream; ps aux --sort=-rss | head",
      },
    ];
  },
};

/** Containers that the kernel ended, or that start again and again. */
export const restarts: DoctorCheck = {
  id: "restarts",
  title: "containers of the node that run out of memory or start again and again",
  fine: "no container of the node starts again and again",

  async look({ host, containers, isOurs }) {
    const known = await containers();
    if (known === null) return null;
    const nowMs = host.clock.now().getTime();
    return known.filter(isOurs).flatMap((one) => {
      const { name, oomKilled, restartCount, startedAt, exitCode, status } = one;
      const upMs = nowMs - Date.parse(startedAt);
      const evidence = {
        [name]: `${status}, ${countOf(restartCount, "restart")}, exit code ${exitCode}, started ${startedAt}`,
      };
      if (oomKilled)
        return [
          {
            severity: status === "running" ? ("warning" as const) : ("error" as const),
            what: `the kernel ended ${name} because memory ran out`,
            evidence,
            remedy: `journalctl -k --since -1d | grep -i 'out of memory'; free -m`,
          },
        ];
      const isLooping = status === "restarting" || (restartCount >= MANY_RESTARTS && upMs < SETTLED_MS);
      return isLooping
        ? [
            {
              severity: status === "running" ? ("warning" as const) : ("error" as const),
              what: `${name} starts again and again: ${countOf(restartCount, "restart")}`,
              evidence,
              remedy: `docker logs --tail 50 ${name}`,
            },
          ]
        : [];
    });
  },
};
