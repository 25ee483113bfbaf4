import type { Check, Ownership, PortNeed } from "./check.ts";

/** Every port that is needed is free, or held by a container of ours or by the adopted writer. */
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
      what: `Port ${conflict.need.port}, which ${conflict.need.purpose} needs, is taken: ${describeHolder(conflict)}.`,
      ...(noEngine === null
        ? {}
        : {
            why: `Docker does not answer (${noEngine}), so a container of ours could not be told from others.`,
          }),
      remedy: `Stop it, or let it listen elsewhere.${conflict.need.remedy === undefined ? "" : ` ${conflict.need.remedy}`}`,
    }));
  },
};

/** A listening socket of this machine. */
export interface ListenerFacts {
  readonly port: number;
  readonly address: string;
  readonly pid: number | null;
  readonly process: string | null;
  /** The pid and its ancestors. */
  readonly ancestry: readonly number[];
  readonly unit: string | null;
}

/** A container, as far as ports go. */
export interface ContainerFacts {
  readonly name: string;
  readonly pid: number;
  readonly publishedPorts: readonly number[];
  readonly ownership: Ownership;
}

/** Somebody else who holds a port that is needed. */
interface PortConflict {
  readonly need: PortNeed;
  /** `127.0.0.1`, `::`; empty where the engine forwards the port without a process. */
  readonly addresses: readonly string[];
  readonly pid: number | null;
  readonly process: string | null;
  readonly container: string | null;
  readonly unit: string | null;
}

/**
 * Who is in the way: every holder of a needed port that is neither a container of ours, nor the adopted
 * writer, be that a container or a process of its units.
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

/** One sentence on who holds it: "postgres (process 812, container other-db) listens on 127.0.0.1:5432". */
export function describeHolder({ need, addresses, pid, process, container, unit }: PortConflict): string {
  if (addresses.length === 0) return `the container ${container} publishes it`;
  const marks = [
    ...(pid === null ? [] : [`process ${pid}`]),
    ...(container === null ? [] : [`container ${container}`]),
    ...(unit === null || container !== null ? [] : [`unit ${unit}`]),
  ];
  const name = process ?? "an unknown process";
  const where = addresses.map(
    (address) => `${address.includes(":") ? `[${address}]` : address}:${need.port}`,
  );
  return `${name}${marks.length === 0 ? "" : ` (${marks.join(", ")})`} listens on ${where.join(" and ")}`;
}

/** True where a socket at `taken` keeps another from listening at `wanted`. */
function collides(taken: string, wanted: PortNeed["address"]): boolean {
  return wanted === "0.0.0.0" || taken === wanted || taken === "0.0.0.0" || taken === "::";
}

/**
 * The container that a listener belongs to: the one whose process it descends from; or, where the engine
 * itself listens on a container's behalf, the one that publishes the port.
 */
function containerOf(listener: ListenerFacts, containers: readonly ContainerFacts[]): ContainerFacts | null {
  const inside = containers.find(({ pid }) => pid > 0 && listener.ancestry.includes(pid));
  if (inside !== undefined) return inside;
  const byEngine = listener.process === null || ENGINE_PROCESSES.has(listener.process);
  const publisher = containers.find(({ publishedPorts }) => publishedPorts.includes(listener.port));
  return byEngine ? (publisher ?? null) : null;
}

/** Who listens for a published port, as `/proc/PID/comm` has it. */
const ENGINE_PROCESSES: ReadonlySet<string> = new Set(["docker-proxy", "dockerd"]);

/** An engine with `userland-proxy: false` forwards a port without listening on it. */
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
    const there = merged.get(key);
    const addresses = [...(there?.addresses ?? []), ...conflict.addresses];
    merged.set(key, { ...conflict, addresses: [...new Set(addresses)].sort() });
  }
  return [...merged.values()];
}
