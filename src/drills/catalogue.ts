import { closest, distance } from "fastest-levenshtein";
import { OperatorError } from "../errors.ts";
import type { StatusDeps } from "../status/look-at-node.ts";
import type { Drill } from "./drill.ts";
import type { CronDrillDeps } from "./scratch/cron-group.ts";
import type { SnapshotDrillDeps } from "./snapshot-drill.ts";
import type { SweepDrillDeps } from "./sweep-drill.ts";

/** What the drills need from the composition root, all together. Each names the few members that it uses. */
export type DrillDeps = StatusDeps & CronDrillDeps & SnapshotDrillDeps & SweepDrillDeps;

/** A drill that is loaded when it is needed. */
interface Entry {
  readonly id: string;
  readonly title: string;
  load(): Promise<Drill<DrillDeps>>;
}

/** Every drill, in the order in which they run. */
export const CATALOGUE: readonly Entry[] = [
  {
    id: "D1",
    title: "stack health",
    load: async () => (await import("./stack-health-drill.ts")).stackHealthDrill,
  },
  {
    id: "D2",
    title: "migrations",
    load: async () => (await import("./migrations-drill.ts")).migrationsDrill,
  },
  { id: "D3", title: "one leader", load: async () => (await import("./lease-drill.ts")).leaseDrill },
  { id: "D4", title: "takeover", load: async () => (await import("./takeover-drill.ts")).takeoverDrill },
  { id: "D5", title: "billing replay", load: async () => (await import("./replay-drill.ts")).replayDrill },
  { id: "D6", title: "snapshot", load: async () => (await import("./snapshot-drill.ts")).snapshotDrill },
  { id: "D7", title: "sweep", load: async () => (await import("./sweep-drill.ts")).sweepDrill },
  { id: "D8", title: "stale writers", load: async () => (await import("./bucket-drill.ts")).bucketDrill },
  { id: "D9", title: "dump", load: async () => (await import("./dump-drill.ts")).dumpDrill },
  { id: "D10", title: "node names", load: async () => (await import("./name-drill.ts")).nameDrill },
];

/** `stack-health`, as a name on the command line. */
export function slugOf({ title }: Pick<Entry, "title">): string {
  return title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
}

/** The drills with these names, in the order of the catalogue; all without a name. Throws (`usage`) for an unknown one. */
export function chooseDrills(
  names: readonly string[],
  catalogue: readonly Entry[] = CATALOGUE,
): readonly Entry[] {
  const wanted = new Set(names.map((name) => findDrill(name, catalogue)));
  return names.length === 0 ? catalogue : catalogue.filter((entry) => wanted.has(entry));
}

function findDrill(name: string, catalogue: readonly Entry[]): Entry {
  const given = name.toLowerCase();
  const known = catalogue.flatMap((entry) => [entry.id.toLowerCase(), slugOf(entry)]);
  const found = catalogue.find((entry) => entry.id.toLowerCase() === given || slugOf(entry) === given);
  if (found !== undefined) return found;
  const nearest = closest(given, known);
  const isNear = distance(given, nearest) <= Math.max(1, given.length / 3);
  const shown = catalogue.find(({ id }) => id.toLowerCase() === nearest)?.id ?? nearest;
  throw new OperatorError({
    exit: "usage",
    what: `There is no drill ${JSON.stringify(name.slice(0, 80))}.`,
    remedy: `${isNear ? `Did you mean ${shown}? ` : ""}fula-node drill --list shows all drills.`,
  });
}
