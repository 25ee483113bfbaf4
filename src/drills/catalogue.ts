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
export interface Entry {
  readonly id: string;
  readonly title: string;
  /** What it touches on the live box, as the object of a sentence. */
  readonly touches: string;
  readonly usual: string;
  load(): Promise<Drill<DrillDeps>>;
}

const SCRATCH = "a scratch database of its own";

/** Every drill, in the order in which they run. */
export const CATALOGUE: readonly Entry[] = [
  {
    id: "D1",
    title: "stack health",
    touches: "nothing",
    usual: "1 to 7 s",
    load: async () => (await import("./stack-health-drill.ts")).stackHealthDrill,
  },
  {
    id: "D2",
    title: "migrations",
    touches: "nothing",
    usual: "1 s",
    load: async () => (await import("./migrations-drill.ts")).migrationsDrill,
  },
  {
    id: "D3",
    title: "one leader",
    touches: SCRATCH,
    usual: "3 s",
    load: async () => (await import("./lease-drill.ts")).leaseDrill,
  },
  {
    id: "D4",
    title: "takeover",
    touches: SCRATCH,
    usual: "8 to 15 s",
    load: async () => (await import("./takeover-drill.ts")).takeoverDrill,
  },
  {
    id: "D5",
    title: "billing replay",
    touches: SCRATCH,
    usual: "4 s",
    load: async () => (await import("./replay-drill.ts")).replayDrill,
  },
  {
    id: "D6",
    title: "snapshot",
    touches: "one pin and one block of its own, in the live pool",
    usual: "1 to 5 s, a minute for a million pins",
    load: async () => (await import("./snapshot-drill.ts")).snapshotDrill,
  },
  {
    id: "D7",
    title: "sweep",
    touches: "one pin and one block of its own, in the live pool",
    usual: "1 to 10 s, 2 min for a million pins",
    load: async () => (await import("./sweep-drill.ts")).sweepDrill,
  },
  {
    id: "D8",
    title: "stale writers",
    touches: SCRATCH,
    usual: "2 s",
    load: async () => (await import("./bucket-drill.ts")).bucketDrill,
  },
  {
    id: "D9",
    title: "dump",
    touches: "two containers and a volume of its own; it reads the database",
    usual: "5 to 20 s, 1 to 2 min for a million pins",
    load: async () => (await import("./dump-drill.ts")).dumpDrill,
  },
  {
    id: "D10",
    title: "node names",
    touches: SCRATCH,
    usual: "2 s",
    load: async () => (await import("./name-drill.ts")).nameDrill,
  },
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
