import { constants } from "node:fs";
import { Resolver } from "node:dns/promises";
import { access, readFile, stat } from "node:fs/promises";
import { connect } from "node:net";
import { networkInterfaces, totalmem } from "node:os";
import { OperatorError } from "../errors.ts";
import { findRemovals, installPackages } from "./apt.ts";
import { clock } from "./clock.ts";
import { codeOf, fileError, isAbsence } from "./file-errors.ts";
import { isProcessRunning, type Listener, readListeners } from "./processes.ts";
import { programEnvironment, runProgram } from "./run-program.ts";
import { enableUnit, isClockSynchronised, readUnit, type UnitState } from "./systemd.ts";

/** Reads the state of the operating system. */
export interface SystemReader {
  /** Effective user id. */
  uid(): number;
  /** `/etc/os-release` (ID, VERSION_ID, ID_LIKE, PRETTY_NAME) and the machine's architecture in node's spelling. */
  os(): Promise<{
    readonly id: string;
    readonly versionId: string;
    readonly idLike: readonly string[];
    readonly prettyName: string;
    readonly arch: string;
  }>;
  memoryBytes(): number;
  /** The IP addresses of this machine's interfaces. */
  addresses(): readonly string[];
  /** True if this machine's DNS has an address for the name, false if it has none. Null if it does not answer in time. */
  isInDns(name: string, timeoutMs: number): Promise<boolean | null>;
  /** The IPv6 addresses that this machine's DNS has for the name. Null if it does not answer in time. */
  ipv6InDns(name: string, timeoutMs: number): Promise<readonly string[] | null>;
  /** True if something takes a connection there. */
  answersTcp(host: string, port: number, timeoutMs: number): Promise<boolean>;
  /** The absolute path of a program on root's PATH, or null. */
  which(program: string): Promise<string | null>;
  /** Null if systemd does not know the unit, or systemd does not run. */
  unit(name: string): Promise<UnitState | null>;
  listeners(): Promise<readonly Listener[]>;
  /** True if systemd reports that the clock is synchronised. Null if that is unknown. */
  clockSynchronised(): Promise<boolean | null>;
  /** True while a process of that name runs (`/proc/PID/comm`). */
  isRunning(process: string): Promise<boolean>;
  /** Runs a program that only prints something. Null if it ends with 0 or a code in `accept`, else why not, without a full stop. */
  tryProgram(
    argv: readonly string[],
    options: { readonly timeoutMs: number; readonly accept?: readonly number[] },
  ): Promise<string | null>;
  /** The packages that apt would remove to install these. Asks apt's simulation; none if apt can't answer. */
  wouldRemove(names: readonly string[]): Promise<readonly string[]>;
}

/** Changes the operating system. */
export interface System extends SystemReader {
  /** `apt-get install` of distribution packages, waiting for apt's lock. `report` gets the lines of its output. */
  installPackages(names: readonly string[], report: (line: string) => void): Promise<void>;
  /** Enables and starts a unit; without systemd, starts the service by its init script. */
  enableUnit(name: string): Promise<void>;
  /**
   * Runs a command to its end (the same command as in a cron line), and returns its exit code. Throws an OperatorError unless that is 0 or
   * in `accept`.
   */
  runCommand(
    argv: readonly string[],
    options: {
      readonly timeoutMs: number;
      readonly onLine?: (line: string) => void;
      readonly accept?: readonly number[];
    },
  ): Promise<number>;
}

const OS_RELEASE = ["/etc/os-release", "/usr/lib/os-release"];

/** The operating system of this machine. */
export function createSystem(env: Readonly<Record<string, string | undefined>>): System {
  const programs = programEnvironment(env);
  return {
    uid: () => process.geteuid?.() ?? -1,
    os: readOs,
    memoryBytes: totalmem,
    addresses: () =>
      Object.values(networkInterfaces()).flatMap((all = []) => all.map(({ address }) => address)),
    isInDns: (name, timeoutMs) => isInDns(name, timeoutMs),
    ipv6InDns: (name, timeoutMs) => ipv6InDns(name, timeoutMs),
    answersTcp,
    which: (program) => findProgram(program, programs.PATH),
    unit: (name) => readUnit(name, programs),
    listeners: readListeners,
    clockSynchronised: () => isClockSynchronised(programs),
    isRunning: (name) => Promise.resolve(isProcessRunning(name)),
    tryProgram: async (argv, { timeoutMs, accept = [] }) => {
      const { exitCode, stopped, lastLines } = await runProgram(argv, { env: programs, timeoutMs });
      if (stopped === null && [0, ...accept].includes(exitCode ?? -1)) return null;
      return stopped ?? lastLines[0]?.replace(/\.$/, "") ?? `it ended with exit code ${exitCode}`;
    },
    wouldRemove: (names) => findRemovals(names, programs),
    installPackages: (names, report) =>
      installPackages(names, { env: programs, report, wait: (durationMs) => clock.wait(durationMs) }),
    enableUnit: (name) => enableUnit(name, programs),
    runCommand: async (argv, { accept = [], ...options }) => {
      const { exitCode, stopped, lastLines } = await runProgram(argv, { env: programs, ...options });
      if (stopped === null && [0, ...accept].includes(exitCode ?? -1)) return exitCode ?? 0;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${argv.join(" ")} ${stopped === null ? `ended with exit code ${exitCode}` : "was not completed"}.`,
        why: stopped ?? lastLines.join("\n"),
      });
    },
  };
}

/** Parses os-release(5): shell-like assignments. Of the shell syntax, only quotes are handled. */
export function parseOsRelease(text: string): Omit<Awaited<ReturnType<SystemReader["os"]>>, "arch"> {
  const lines = text.split("\n").flatMap((line) => {
    const match = /^(?<key>[A-Z_]+)=(?<quote>["']?)(?<value>.*)\k<quote>\s*$/.exec(line);
    return match?.groups === undefined ? [] : [[match.groups["key"], match.groups["value"]] as const];
  });
  const values = new Map(lines);
  const id = values.get("ID") ?? "linux";
  return {
    id,
    versionId: values.get("VERSION_ID") ?? "",
    idLike: (values.get("ID_LIKE") ?? "").split(" ").filter((one) => one !== ""),
    prettyName: values.get("PRETTY_NAME") ?? id,
  };
}

async function readOs(): ReturnType<SystemReader["os"]> {
  for (const path of OS_RELEASE) {
    try {
      return { ...parseOsRelease(await readFile(path, "utf8")), arch: process.arch };
    } catch (thrown) {
      if (!isAbsence(thrown)) throw fileError("read", path, thrown);
    }
  }
  return { ...parseOsRelease(""), arch: process.arch };
}

async function findProgram(program: string, searchPath: string): Promise<string | null> {
  for (const directory of searchPath.split(":")) {
    const path = `${directory}/${program}`;
    try {
      await access(path, constants.X_OK);
      if ((await stat(path)).isFile()) return path;
    } catch {
      continue;
    }
  }
  return null;
}

/** Where the kernel shows the network of this process. */
const PLACES = { net: "/proc/net", interfaces: "/sys/class/net" } as const;

/**
 * The subnets (CIDR) of this machine's bridges that have no default route: container networks, also those in which no
 * container runs, which `os.networkInterfaces()` leaves out. Works without Docker, so also inside a container with the
 * machine's network. A bridge with the default route connects the machine to its own network.
 */
export async function bridgeSubnets(
  places: Readonly<Record<keyof typeof PLACES, string>> = PLACES,
): Promise<readonly string[]> {
  const [routes, addresses] = await Promise.all([
    readLines(`${places.net}/route`),
    readLines(`${places.net}/if_inet6`),
  ]);
  const subnets = [...subnetsOfRoutes(routes), ...subnetsOfAddresses(addresses)];
  const uplinks = new Set(subnets.filter(({ isDefault }) => isDefault).map(({ name }) => name));
  const names = [...new Set(subnets.map(({ name }) => name))].filter((name) => !uplinks.has(name));
  const isBridge = new Map(
    await Promise.all(
      names.map(async (name) => [name, await isThere(`${places.interfaces}/${name}/bridge`)] as const),
    ),
  );
  return [...new Set(subnets.filter(({ name }) => isBridge.get(name) === true).map(({ subnet }) => subnet))];
}

/** A subnet behind an interface. */
interface Subnet {
  readonly name: string;
  readonly subnet: string;
  readonly isDefault: boolean;
}

/** The lines of /proc/net/route: interface, destination, ..., mask; both in the machine's byte order. */
function subnetsOfRoutes(lines: readonly string[]): readonly Subnet[] {
  return lines.flatMap((line) => {
    const [name = "", destination = "", , , , , , mask = ""] = line.split(/\s+/);
    if (!/^[0-9A-F]{8}$/.test(destination) || !/^[0-9A-F]{8}$/.test(mask)) return [];
    const bits = Number.parseInt(mask, 16).toString(2).replaceAll("0", "").length;
    const bytes = [6, 4, 2, 0].map((at) => Number.parseInt(destination.slice(at, at + 2), 16));
    return [{ name, subnet: `${bytes.join(".")}/${bits}`, isDefault: bits === 0 }];
  });
}

/** The lines of /proc/net/if_inet6: address, index, length of the prefix, scope, flags, interface; in hex. */
function subnetsOfAddresses(lines: readonly string[]): readonly Subnet[] {
  return lines.flatMap((line) => {
    const [address = "", , length = "", , , name = ""] = line.trim().split(/\s+/);
    if (!/^[0-9a-f]{32}$/.test(address) || !/^[0-9a-f]{2}$/.test(length)) return [];
    const groups = address.match(/.{4}/g) ?? [];
    return [{ name, subnet: `${groups.join(":")}/${Number.parseInt(length, 16)}`, isDefault: false }];
  });
}

/** A kernel without IPv6 has no file for it. */
async function readLines(path: string): Promise<readonly string[]> {
  try {
    return (await readFile(path, "utf8")).split("\n");
  } catch (thrown) {
    if (isAbsence(thrown)) return [];
    throw fileError("read", path, thrown);
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (thrown) {
    if (isAbsence(thrown)) return false;
    throw fileError("read", path, thrown);
  }
}

/** What a name server answers for a name that it does not know, or that has no address of a kind. */
const NO_ADDRESS: ReadonlySet<string | undefined> = new Set(["ENOTFOUND", "ENODATA"]);

/** Asks the name servers only, by default those of this machine: what /etc/hosts says is not known to other machines. */
export async function isInDns(
  name: string,
  timeoutMs: number,
  servers?: readonly string[],
): Promise<boolean | null> {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 1 });
  if (servers !== undefined) resolver.setServers(servers);
  const timer = setTimeout(() => resolver.cancel(), timeoutMs);
  const found = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
  clearTimeout(timer);
  if (found.some((one) => one.status === "fulfilled" && one.value.length > 0)) return true;
  const isKnown = found.every((one) => one.status === "fulfilled" || NO_ADDRESS.has(codeOf(one.reason)));
  return isKnown ? false : null;
}

/** As isInDns, for addresses of IPv6 alone. */
export async function ipv6InDns(
  name: string,
  timeoutMs: number,
  servers?: readonly string[],
): Promise<readonly string[] | null> {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 1 });
  if (servers !== undefined) resolver.setServers(servers);
  const timer = setTimeout(() => resolver.cancel(), timeoutMs);
  try {
    return await resolver.resolve6(name);
  } catch (thrown) {
    return NO_ADDRESS.has(codeOf(thrown)) ? [] : null;
  } finally {
    clearTimeout(timer);
  }
}

/** Connects and closes again. A name that nobody knows answers nothing. */
export function answersTcp(host: string, port: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: timeoutMs });
    const end = (answers: boolean) => () => {
      socket.destroy();
      resolve(answers);
    };
    socket.once("connect", end(true)).once("timeout", end(false)).once("error", end(false));
  });
}
