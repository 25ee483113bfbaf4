import { bracketed } from "../settings/address.ts";
import type { Check, Ownership, PortNeed } from "./check.ts";

/** Passes if every required port is free, or in use by one of our containers or by the adopted writer. */
export const ports: Check = {
  id: "ports",
  title: "ports",
  ignorable: true,

  async run(host, { ports: needs, ownership, writerUnits }) {
    const [listeners, containers, noEngine] = await Promise.all([
      host.system.listeners(),
      host.docker.containers(),
      host.docker.unreachable(),
    ]);
    const owned = containers.map((container) => ({ ...container, ownership: ownership(container) }));
    return findPortConflicts({ needs, listeners, containers: owned, writerUnits }).map((conflict) => ({
      severity: "failure",
      what: `Port ${conflict.need.port}, which ${conflict.need.purpose} needs, is in use: ${describeHolder(conflict)}.`,
      ...(noEngine === null
        ? {}
        : {
            why: `Docker does not answer (${noEngine}), so this may be a container of fula-node itself.`,
          }),
      remedy: `Stop it, or change its port.${conflict.need.remedy === undefined ? "" : ` ${conflict.need.remedy}`}`,
    }));
  },
};

/** A listening socket of this machine. */
export interface ListenerFacts {
  readonly port: number;
  readonly address: string;
  readonly pid: number | null;
  readonly process: string | null;
  /** The pids of the process and its ancestors. */
  readonly ancestry: readonly number[];
  readonly unit: string | null;
}

/** What the check of ports needs to know about a container. */
export interface ContainerFacts {
  readonly name: string;
  readonly pid: number;
  readonly publishedPorts: readonly number[];
  readonly boundPorts: readonly number[];
  readonly ownership: Ownership;
}

/** A required port that something else uses. */
interface PortConflict {
  readonly need: PortNeed;
  /** `127.0.0.1`, `::`. Empty if the engine forwards the port without a listening process. */
  readonly addresses: readonly string[];
  readonly pid: number | null;
  readonly process: string | null;
  readonly container: string | null;
  readonly unit: string | null;
}

/**
 * Finds everything that uses a required port and is neither one of our containers nor the adopted writer. An
 * adopted writer is a container, or a process of its systemd units.
 */
export function findPortConflicts(facts: {
  readonly needs: readonly PortNeed[];
  readonly listeners: readonly ListenerFacts[];
  readonly containers: readonly ContainerFacts[];
  readonly writerUnits: readonly string[];
}): readonly PortConflict[] {
  return facts.needs.flatMap((need) => {
    const holders = facts.listeners
      .filter(({ port, address }) => port === need.port && collides(address, need.address))
      .map((listener) => ({ listener, container: containerOf(listener, facts.containers) }))
      .filter(({ listener, container }) => {
        if (container !== null) return container.ownership === "foreign";
        return listener.unit === null || !facts.writerUnits.includes(listener.unit);
      });
    const conflicts = mergeAddresses(
      holders.map(({ listener: { address, pid, process, unit }, container }) => ({
        need,
        addresses: [address],
        pid,
        process,
        container: container?.name ?? null,
        unit,
      })),
    );
    return [...conflicts, ...silentPublishers(need, facts, conflicts)];
  });
}

/** Describes what uses the port: "postgres (process 812, container other-db) listens on 127.0.0.1:5432". */
export function describeHolder({ need, addresses, pid, process, container, unit }: PortConflict): string {
  if (addresses.length === 0) return `the container ${container} publishes it`;
  const details = [
    ...(pid === null ? [] : [`process ${pid}`]),
    ...(container === null ? [] : [`container ${container}`]),
    ...(unit === null || container !== null ? [] : [`unit ${unit}`]),
  ];
  const name = process ?? "an unknown process";
  const sockets = addresses.map((address) => `${bracketed(address)}:${need.port}`);
  return `${name}${details.length === 0 ? "" : ` (${details.join(", ")})`} listens on ${sockets.join(" and ")}`;
}

/** True if a socket on address `used` prevents another from listening on address `needed`. */
function collides(used: string, needed: PortNeed["address"]): boolean {
  return needed === "0.0.0.0" || used === needed || used === "0.0.0.0" || used === "::";
}

/**
 * Finds the container of a listener: the container whose process is an ancestor of the listener. If the engine
 * itself listens for a container, it is the container that publishes the port.
 */
function containerOf(listener: ListenerFacts, containers: readonly ContainerFacts[]): ContainerFacts | null {
  const inside = containers.find(({ pid }) => pid > 0 && listener.ancestry.includes(pid));
  if (inside !== undefined) return inside;
  const byEngine = listener.process === null || ENGINE_PROCESSES.has(listener.process);
  const publisher = containers.find(({ publishedPorts }) => publishedPorts.includes(listener.port));
  // After a boot, the engine listens before the container runs.
  const starting = containers.find(({ boundPorts }) => boundPorts.includes(listener.port));
  return byEngine ? (publisher ?? starting ?? null) : null;
}

/** The processes that listen for a published port, by `/proc/PID/comm`. */
const ENGINE_PROCESSES: ReadonlySet<string> = new Set(["docker-proxy", "dockerd"]);

/** Containers whose published port has no listener: with `userland-proxy: false`, the engine forwards the port without one. */
function silentPublishers(
  need: PortNeed,
  {
    containers,
    listeners,
  }: { readonly containers: readonly ContainerFacts[]; readonly listeners: readonly ListenerFacts[] },
  known: readonly PortConflict[],
): readonly PortConflict[] {
  if (listeners.some(({ port }) => port === need.port)) return [];
  return containers
    .filter(({ ownership, publishedPorts }) => ownership === "foreign" && publishedPorts.includes(need.port))
    .filter(({ name }) => !known.some(({ container }) => container === name))
    .map(({ name }) => ({ need, addresses: [], pid: null, process: null, container: name, unit: null }));
}

function mergeAddresses(conflicts: readonly PortConflict[]): readonly PortConflict[] {
  const merged = new Map<string, PortConflict>();
  for (const conflict of conflicts) {
    const key = `${conflict.pid}/${conflict.container}`;
    const existing = merged.get(key);
    const addresses = [...(existing?.addresses ?? []), ...conflict.addresses];
    merged.set(key, { ...conflict, addresses: [...new Set(addresses)].sort() });
  }
  return [...merged.values()];
}
