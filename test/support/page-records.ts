import { writeFile } from "node:fs/promises";
import { cidOf } from "./cids.ts";

const HOUR_MS = 3_600_000;
const TB = 1_000_000_000_000;

/** The id of one of the nodes in the records. */
export function nodeId(index: number): string {
  return `12D3KooW${String(index).padStart(44, "A")}`;
}

/** Writes what cron's operations of a pool with this many nodes record, for the status page: a year, up to now. */
export async function writeRecords(
  directory: string,
  { nodes, pins, now = new Date() }: { readonly nodes: number; readonly pins: number; readonly now?: Date },
): Promise<void> {
  const at = (agoMs: number) => new Date(now.getTime() - agoMs).toISOString();
  const run = { at: at(4 * 60_000), last_good_at: at(4 * 60_000), outcome: "ok", facts_at: at(4 * 60_000) };
  const write = (name: string, value: unknown) =>
    writeFile(`${directory}/${name}.json`, `${JSON.stringify(value)}\n`);
  const below = Math.floor(pins / 2_000);
  const syncing = Math.floor(pins / 200);
  await write("sweep", {
    ...run,
    operation: "sweep",
    summary: `${pins} pins, ${pins - below - syncing} healthy; the worst is ${cidOf("a user's")} of anna@example.org`,
    duration_ms: 41_000,
    facts: {
      pins: {
        total: pins,
        complete: pins - below - syncing,
        syncing,
        searchedFor: 12,
        below,
        unknown: 0,
        lackingNodes: 0,
      },
      histogram: { "1": below, "2": syncing, "3": pins - below - syncing },
      own: nodeId(0),
      nodes: Array.from({ length: nodes }, (_, index) => ({
        id: nodeId(index),
        name: index === 0 ? "berlin-1" : `storage-${index}`,
        state: index === 2 ? "absent" : "up",
        sync: "synced",
        pinsDone: pins - (index === 2 ? below : 0),
        pinsDue: pins,
        lastSeen: at(index === 2 ? 30 * HOUR_MS : 4 * 60_000),
        announcedAt: null,
        freeBytes: index === 2 ? null : (1 + (index % 5)) * TB,
      })),
      nodesExpected: nodes,
      strangers: 0,
      namesFault: null,
      queueFault: null,
    },
  });
  await write("snapshot", {
    ...run,
    operation: "snapshot take",
    summary: `pinset-20261127T010000Z: ${pins} pins (${pins - 40} before), 12.3 MB`,
    duration_ms: 9_000,
  });
  const wave = (index: number, total: number) => 0.5 + (0.5 * index) / total + 0.02 * Math.sin(index / 9);
  const sweeps = Array.from({ length: 700 }, (_, index) => ({
    at: at((700 - index) * 12 * HOUR_MS),
    pins: Math.round(pins * wave(index, 700)),
    complete: Math.round(pins * wave(index, 700)) - below,
    below: index % 90 < 12 ? below * 2 : below,
    freeBytes: Math.round(nodes * 3 * TB * (1.3 - wave(index, 700))),
  }));
  await write("sweep-history", sweeps);
  const snapshots = sweeps.map((point) => ({ at: point.at, pins: point.pins, bytes: point.pins * 62 }));
  await write("snapshot-history", snapshots);
}
