import * as z from "zod";
import type { Files } from "../machine/file-writer.ts";

/** What one sweep recorded, for the plots of the status page. */
export interface SweepPoint {
  /** ISO text. */
  readonly at: string;
  readonly pins: number;
  readonly complete: number;
  readonly below: number;
  /** The free space of all nodes that report it; null if none does. */
  readonly freeBytes: number | null;
}

/** One snapshot that was taken. */
export interface SnapshotPoint {
  /** ISO text. */
  readonly at: string;
  readonly pins: number;
  /** The size of its body. */
  readonly bytes: number;
}

const count = z.number().nonnegative();
const sweepPoints = z.array(
  z.object({ at: z.iso.datetime(), pins: count, complete: count, below: count, freeBytes: count.nullable() }),
);
const snapshotPoints = z.array(z.object({ at: z.iso.datetime(), pins: count, bytes: count }));

/** The file with the history of an operation, beside its heartbeat: `<base>/heartbeats/sweep-history.json`. */
export function historyPath(heartbeat: string): string {
  return heartbeat.replace(/\.json$/, "-history.json");
}

/** Reads the history of the sweeps. Null if it is damaged; empty if there is none yet. */
export function parseSweepHistory(text: string | null): readonly SweepPoint[] | null {
  return parsePoints(sweepPoints, text);
}

/** Reads the history of the snapshots. Null if it is damaged; empty if there is none yet. */
export function parseSnapshotHistory(text: string | null): readonly SnapshotPoint[] | null {
  return parsePoints(snapshotPoints, text);
}

function parsePoints<Point>(schema: z.ZodType<Point[]>, text: string | null): readonly Point[] | null {
  if (text === null) return [];
  try {
    return schema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

/**
 * Adds points to a history file. What is damaged in it begins anew: it is for looking at, and nothing is decided by it.
 */
export async function recordHistory<Point extends { readonly at: string }>(
  files: Pick<Files, "readText" | "writeAtomic">,
  path: string,
  {
    parse,
    points,
  }: { readonly parse: (text: string | null) => readonly Point[] | null; readonly points: readonly Point[] },
): Promise<void> {
  const before = parse(await files.readText(path)) ?? [];
  await files.writeAtomic(path, `${JSON.stringify(thin([...before, ...points]))}\n`, { mode: 0o644 });
}

const DAY_MS = 86_400_000;
/** So long, every point stays. */
const RECENT_MS = 7 * DAY_MS;
/** Of the time before that, the last point of each day stays. */
const DAYS = 365;

/** The points in the order of their times, as many as a plot needs: at most about 700 of sweeps. */
export function thin<Point extends { readonly at: string }>(points: readonly Point[]): readonly Point[] {
  const byTime = new Map(points.map((point) => [point.at, point]));
  const sorted = [...byTime.values()].toSorted((a, b) => (a.at < b.at ? -1 : 1));
  const newestMs = Date.parse(sorted.at(-1)?.at ?? "");
  const kept = new Map<string, Point>();
  for (const point of sorted) {
    const ageMs = newestMs - Date.parse(point.at);
    if (ageMs > DAYS * DAY_MS) continue;
    // A later point of the day replaces the one before it.
    kept.set(ageMs <= RECENT_MS ? point.at : point.at.slice(0, 10), point);
  }
  return [...kept.values()];
}
