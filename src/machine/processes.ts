import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileError, isAbsence } from "./file-errors.ts";

/** Who holds a TCP port on this machine. */
export interface Listener {
  readonly port: number;
  /** `127.0.0.1`, `0.0.0.0`, `::`. */
  readonly address: string;
  readonly pid: number | null;
  /** The process's name (`/proc/PID/comm`), null where it can't be told. */
  readonly process: string | null;
  /** The pid and its ancestors, nearest first: to tell whose container it runs in. */
  readonly ancestry: readonly number[];
  /** The systemd service whose control group it is in (`nginx.service`), null where it is in none. */
  readonly unit: string | null;
}

/**
 * What `/proc` says of the processes of this machine (proc(5)). The calls are synchronous: `/proc` never
 * waits for a disk, and thousands of tiny asynchronous reads cost many times more.
 */

/** More descriptors than this are not looked through: a machine that has them gets its answer in part. */
const MOST_DESCRIPTORS = 500_000;
const MOST_ANCESTORS = 64;
const COMM_LENGTH = 15;

/** A process's name and parent; null where it is gone or may not be looked at. */
function lookAtProcess(pid: number): { readonly name: string; readonly parent: number } | null {
  const text = read(`/proc/${pid}/stat`);
  if (text === null) return null;
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  const parent = Number(text.slice(close + 2).split(" ")[1]);
  return { name: text.slice(open + 1, close), parent };
}

/** The pid and its ancestors, nearest first. */
function ancestryOf(pid: number): readonly number[] {
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
function serviceOf(pid: number): string | null {
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
function holdersOf(inodes: ReadonlySet<string>): ReadonlyMap<string, number> {
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

/** State LISTEN of `/proc/net/tcp` (include/net/tcp_states.h). */
const LISTEN = "0A";

interface Socket {
  readonly port: number;
  readonly address: string;
  readonly inode: string;
}

/** Every TCP socket that listens on this machine, with its process where that may be known. */
export async function readListeners(): Promise<readonly Listener[]> {
  const tables = await Promise.all(["/proc/net/tcp", "/proc/net/tcp6"].map(readTable));
  const sockets = tables.flatMap((table) => parseSockets(table));
  const holders = holdersOf(new Set(sockets.map(({ inode }) => inode)));
  return sockets.map(({ port, address, inode }) => {
    const pid = holders.get(inode);
    if (pid === undefined) return { port, address, pid: null, process: null, ancestry: [], unit: null };
    const process = lookAtProcess(pid)?.name ?? null;
    return { port, address, pid, process, ancestry: ancestryOf(pid), unit: serviceOf(pid) };
  });
}

/** The listening sockets of one table of `/proc/net`. */
export function parseSockets(table: string): readonly Socket[] {
  return table
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const fields = line.trim().split(/\s+/);
      const [address = "", port = ""] = (fields[1] ?? "").split(":");
      const inode = fields[9];
      if (fields[3] !== LISTEN || inode === undefined) return [];
      return [{ port: Number.parseInt(port, 16), address: parseAddress(address), inode }];
    });
}

/** An address as the kernel prints it: 32-bit words in the machine's byte order (little-endian on all we run on). */
function parseAddress(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  const bytes = words.flatMap((word) =>
    (word.match(/../g) ?? []).toReversed().map((two) => Number.parseInt(two, 16)),
  );
  if (bytes.length === 4) return bytes.join(".");
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255;
  return isMapped ? bytes.slice(12).join(".") : shortenIpv6(bytes);
}

/** RFC 5952: lower case, no leading zeros, the longest run of zero groups as `::`. */
function shortenIpv6(bytes: readonly number[]): string {
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[index * 2] ?? 0) << 8) | (bytes[index * 2 + 1] ?? 0)).toString(16),
  );
  const whole = groups.join(":");
  const runs = [...whole.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].sort((a, b) => b[0].length - a[0].length);
  const [longest] = runs;
  if (longest === undefined) return whole;
  const before = whole.slice(0, longest.index);
  const after = whole.slice(longest.index + longest[0].length).replace(/^:/, "");
  return `${before}::${after}`;
}

async function readTable(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (thrown) {
    if (isAbsence(thrown)) return "";
    throw fileError("read", path, thrown);
  }
}
