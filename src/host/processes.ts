import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/**
 * What `/proc` says of the processes of this machine (proc(5)). The calls are synchronous: `/proc` never
 * waits for a disk, and thousands of tiny asynchronous reads cost many times more.
 */

/** More descriptors than this are not looked through: a machine that has them gets its answer in part. */
const MOST_DESCRIPTORS = 500_000;
const MOST_ANCESTORS = 64;
const COMM_LENGTH = 15;

/** A process's name and parent; null where it is gone or may not be looked at. */
export function lookAtProcess(pid: number): { readonly name: string; readonly parent: number } | null {
  const text = read(`/proc/${pid}/stat`);
  if (text === null) return null;
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  const parent = Number(text.slice(close + 2).split(" ")[1]);
  return { name: text.slice(open + 1, close), parent };
}

/** The pid and its ancestors, nearest first. */
export function ancestryOf(pid: number): readonly number[] {
  const line: number[] = [];
  for (let at = pid; at > 0 && line.length < MOST_ANCESTORS;) {
    const found = lookAtProcess(at);
    if (found === null) break;
    line.push(at);
    at = found.parent;
  }
  return line;
}

/** The systemd service in whose control group a process is; null where it is in none. */
export function serviceOf(pid: number): string | null {
  const groups = read(`/proc/${pid}/cgroup`) ?? "";
  return /\/(?<unit>[^/\n]+\.service)(?:\/|$)/m.exec(groups)?.groups?.["unit"] ?? null;
}

/** True while a process of that name runs; the kernel keeps the first 15 bytes of a name. */
export function isProcessRunning(name: string): boolean {
  const wanted = name.slice(0, COMM_LENGTH);
  return pids().some((pid) => read(`/proc/${pid}/comm`)?.trimEnd() === wanted);
}

/**
 * The process that holds each of these sockets, by inode: the oldest where several do. Stops as soon as
 * all are found; a socket whose process may not be looked at is left out.
 */
export function holdersOf(inodes: ReadonlySet<string>): ReadonlyMap<string, number> {
  const holders = new Map<string, number>();
  let looked = 0;
  for (const pid of pids()) {
    if (holders.size === inodes.size || looked > MOST_DESCRIPTORS) break;
    const descriptors = names(`/proc/${pid}/fd`);
    looked += descriptors.length;
    for (const descriptor of descriptors) {
      const target = link(`/proc/${pid}/fd/${descriptor}`);
      if (target === null || !target.startsWith("socket:[")) continue;
      const inode = target.slice("socket:[".length, -1);
      if (inodes.has(inode) && !holders.has(inode)) holders.set(inode, pid);
    }
  }
  return holders;
}

function pids(): readonly number[] {
  return names("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

function names(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function link(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
