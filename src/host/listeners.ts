import { readFile } from "node:fs/promises";
import { fileError, isAbsence } from "./file-errors.ts";
import type { Listener } from "./host.ts";
import { ancestryOf, holdersOf, lookAtProcess, serviceOf } from "./processes.ts";

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
