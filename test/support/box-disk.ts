import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { bedScratch } from "./bed.ts";

/**
 * The disk of a box that can lose power: a file with an ext4 of its own, on a loop device. A killed box loses nothing that it
 * wrote, since the page cache is the machine's and lives on. Such a disk can be shut down (SHUT_DOWN) as at a power cut: from
 * that moment the kernel writes nothing more to it, neither pages nor its journal, so that all that was not written back or
 * synced is lost; the next mount has only what had reached the disk, and recovers the journal from there.
 * A drive with a volatile cache of its own is not modelled: what the kernel had handed to the disk is kept.
 */
const MOUNT_OPTIONS =
  // Else ext4 makes up for programs that rename a file over another one without a sync. Other file systems do not.
  "noauto_da_alloc";
const SIZE_BYTES = 12 * 1024 ** 3;

/** What is on the disk, by its directory there: where this program and Docker write. The rest of a box is its image. */
const PLACES: Readonly<Record<string, string>> = {
  docker: "/var/lib/docker",
  containerd: "/var/lib/containerd",
  opt: "/opt",
  root: "/root",
  cron: "/etc/cron.d",
  local: "/usr/local",
};

/**
 * Runs in a box: shuts its disk down at once, as EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH does (the file systems' own tests
 * cut the power with it). Nobody can sync it from here on: every call on it fails.
 */
export const SHUT_DOWN = [
  "perl",
  "-e",
  'opendir(my $disk, "/opt") or die $!; sysopen(my $f, "/opt", 0) or die $!; my $flags = pack("L", 2); ' +
    'ioctl($f, 0x8004587D, $flags) or die "shutdown: $!"',
] as const;

/** The reason why there can be no such disk here; undefined if there can. */
export async function whyNoDisks(): Promise<string | undefined> {
  const found = await execa("losetup", ["--find"], { reject: false });
  return found.failed ? `no loop device is free: ${found.stderr || found.shortMessage}` : undefined;
}

/** Creates a disk, with a seed of `/var/lib/docker` if there is one. Returns the options of its volume. */
export async function createDisk(name: string, seed: string | null): Promise<readonly string[]> {
  const tree = await mkdtemp(join(bedScratch(), "fula-node-disk-"));
  try {
    for (const place of Object.keys(PLACES)) await mkdir(join(tree, place), { mode: 0o755 });
    for (const part of ["bin", "sbin", "lib"]) await mkdir(join(tree, "local", part));
    // Hard links: the file system gets the content.
    if (seed !== null) {
      await execa("cp", ["-al", `${seed}/.`, join(tree, "docker")]);
      await rm(join(tree, "docker", "engine-id"), { force: true });
    }
    await writeFile(fileOf(name), "", { flag: "wx" });
    await truncate(fileOf(name), SIZE_BYTES);
    await execa("mke2fs", ["-q", "-F", "-t", "ext4", "-m", "0", "-d", tree, fileOf(name)]);
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
  const { stdout: device } = await execa("losetup", ["--find", "--show", fileOf(name)]);
  return ["--opt=type=ext4", `--opt=device=${device}`, `--opt=o=${MOUNT_OPTIONS}`];
}

/** The mounts of a box whose volume is such a disk. */
export function mountsOf(volume: string): readonly string[] {
  return Object.entries(PLACES).map(
    ([place, target]) =>
      `--mount=type=volume,source=${volume},target=${target},volume-subpath=${place},volume-nocopy`,
  );
}

/** Removes a disk. It is no error if there is none. */
export async function removeDisk(name: string): Promise<void> {
  const { stdout } = await execa("losetup", ["--noheadings", "--output=NAME", "--associated", fileOf(name)], {
    reject: false,
  });
  for (const device of stdout.split("\n").filter((line) => line !== ""))
    await execa("losetup", ["--detach", device]);
  await rm(fileOf(name), { force: true });
}

function fileOf(name: string): string {
  return join(bedScratch(), `${name}.ext4`);
}
