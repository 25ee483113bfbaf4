import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileError, isAbsence } from "./file-errors.ts";

/** A process that listens on a TCP port of this machine. */
export interface Listener {
  readonly port: number;
  /** `127.0.0.1`, `0.0.0.0`, `::`. */
  readonly address: string;
  readonly pid: number | null;
  /** The process's name (`/proc/PID/comm`). Null if it is unknown. */
  readonly process: string | null;
  /** The pid and its ancestors, nearest first. They show in which container it runs. */
  readonly ancestry: readonly number[];
  /** The systemd service whose control group it is in (`nginx.service`). Null if there is none. */
  readonly unit: string | null;
}

/**
 * Reads the processes of this machine from `/proc` (proc(5)). The calls are synchronous: `/proc` never
 * waits for a disk, and thousands of tiny asynchronous reads would be many times slower.
 */

/** The limit of descriptors to inspect. On a machine with more, some processes may stay unknown. */
const MAX_DESCRIPTORS = 500_000;
const MAX_ANCESTORS = 64;
const COMM_LENGTH = 15;

/** A process's name and parent. Null if it has ended or can't be read. */
function readProcess(pid: number): { readonly name: string; readonly parent: number } | null {
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
  for (let at = pid; at > 0 && line.length < MAX_ANCESTORS;) {
    const found = readProcess(at);
    if (found === null) break;
    line.push(at);
    at = found.parent;
  }
  return line;
}

/** The systemd service whose control group a process is in. Null if there is none. */
function serviceOf(pid: number): string | null {
  const groups = read(`/proc/${pid}/cgroup`) ?? "";
  return /\/(?<unit>[^/\n]+\.service)(?:\/|$)/m.exec(groups)?.groups?.["unit"] ?? null;
}

/**
 * True while a process of that name runs on this machine itself. A process in a container does not count: it sees other
 * files. The kernel keeps only the first 15 bytes of a name.
 */
export function isProcessRunning(name: string): boolean {
  const wanted = name.slice(0, COMM_LENGTH);
  return pids().some((pid) => read(`/proc/${pid}/comm`)?.trimEnd() === wanted && isOnThisMachine(pid));
}

/** True if a process shares our PID namespace and our root directory. False for a process in a container. */
function isOnThisMachine(pid: number): boolean {
  const own = link("/proc/self/ns/pid");
  const ownRoot = rootOf("self");
  const root = rootOf(String(pid));
  return own !== null && link(`/proc/${pid}/ns/pid`) === own && ownRoot !== null && root === ownRoot;
}

/** The root directory that a process sees, by device and inode. Null if it has ended or can't be read. */
function rootOf(pid: string): string | null {
  try {
    const { dev, ino } = statSync(`/proc/${pid}/root/`);
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

/**
 * The process that has a unix socket with this name (`@` at its start stands for the abstract namespace), if it is a
 * process of root's on this machine itself. Null for everybody else: any user, and any container on the host's network,
 * can bind an abstract name.
 */
export function findSocketHolder(name: string): number | null {
  const inodes = (read("/proc/net/unix") ?? "").split("\n").flatMap((line) => {
    const [, , , , , , inode, ...path] = line
      .trim()
      .split(" ")
      .filter((field) => field !== "");
    // Up to Node.js 20 the name is padded with NULs, which the kernel prints as `@`.
    return inode !== undefined && path.join(" ").replace(/@+$/, "") === name ? [inode] : [];
  });
  if (inodes.length === 0) return null;
  const holders = [...holdersOf(new Set(inodes)).values()];
  return holders.find((pid) => isRoots(pid) && isOnThisMachine(pid)) ?? null;
}

/** The effective user. The owner of /proc/PID is no evidence: it is root for every process that can't be traced. */
function isRoots(pid: number): boolean {
  return /^Uid:\s+\d+\s+0\s/m.test(read(`/proc/${pid}/status`) ?? "");
}

/**
 * The process that owns each of these sockets, by inode. If several do, the one with the lowest pid. Stops as soon
 * as all are found. A socket whose process can't be read is left out.
 */
function holdersOf(inodes: ReadonlySet<string>): ReadonlyMap<string, number> {
  const holders = new Map<string, number>();
  let inspected = 0;
  for (const pid of pids()) {
    if (holders.size === inodes.size || inspected > MAX_DESCRIPTORS) break;
    const descriptors = names(`/proc/${pid}/fd`);
    inspected += descriptors.length;
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

/** Every TCP socket that listens on this machine, with its process if that can be read. */
export async function readListeners(): Promise<readonly Listener[]> {
  const tables = await Promise.all(["/proc/net/tcp", "/proc/net/tcp6"].map(readTable));
  const sockets = tables.flatMap((table) => parseSockets(table));
  const holders = holdersOf(new Set(sockets.map(({ inode }) => inode)));
  return sockets.map(({ port, address, inode }) => {
    const pid = holders.get(inode);
    if (pid === undefined) return { port, address, pid: null, process: null, ancestry: [], unit: null };
    const process = readProcess(pid)?.name ?? null;
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

/** An address as the kernel prints it: 32-bit words in the machine's byte order (little-endian on all supported machines). */
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
