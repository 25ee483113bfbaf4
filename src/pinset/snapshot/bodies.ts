import * as z from "zod";
import type { SnapshotFault, ChainLink } from "./links.ts";
import type { SnapshotStore } from "./store.ts";

/** What is known of the bodies on the disk. The heartbeat of the snapshots keeps it. */
export interface BodyRecord {
  /** When a body was last read completely, by the snapshot's name. */
  readonly read: Readonly<Record<string, string>>;
  /** Snapshots whose body is not the one that was signed. */
  readonly damaged: readonly string[];
}

/** All bodies are read within so many runs: two days, with one every six hours. */
const RUNS = 8;
/** So much is read in any case, so that small pinsets are read completely each time. */
const FREE_BYTES = 256 * 1024 ** 2;
const WHY = "its body is not the one that was signed.";

const schema = z.object({
  bodies: z.object({ read: z.record(z.string(), z.string()), damaged: z.array(z.string()) }),
});

/** The record in a heartbeat's facts; an empty one if there is none. */
export function bodyRecordOf(facts: Readonly<Record<string, unknown>> | null | undefined): BodyRecord {
  const found = schema.safeParse(facts);
  return found.success ? found.data.bodies : { read: {}, damaged: [] };
}

/** The bodies to read now: damaged ones, which may be back, then those that were not read for the longest time. */
export function chooseBodies(
  links: readonly ChainLink[],
  { read, damaged }: BodyRecord,
): readonly ChainLink[] {
  const rankOf = ({ name }: ChainLink) => (damaged.includes(name) ? "" : (read[name] ?? "0"));
  const ordered = links.toSorted((a, b) => (rankOf(a) < rankOf(b) ? -1 : rankOf(a) > rankOf(b) ? 1 : 0));
  const least = damaged.length + Math.ceil(links.length / RUNS);
  let bytes = 0;
  return ordered.filter(({ file }, index) => {
    bytes += file.bodyBytes ?? 0;
    return index < least || bytes <= FREE_BYTES;
  });
}

/** Reads some of the bodies. The new record has only snapshots that are there; `faults` are all damaged ones among them. */
export async function checkBodies(
  store: Pick<SnapshotStore, "hashBody">,
  links: readonly ChainLink[],
  before: BodyRecord,
  now: Date,
): Promise<{ readonly record: BodyRecord; readonly faults: readonly SnapshotFault[] }> {
  const there = new Set(links.map(({ name }) => name));
  const read = Object.entries(before.read).filter(([name]) => there.has(name));
  const damaged = new Set(before.damaged.filter((name) => there.has(name)));
  const at = now.toISOString();
  for (const { name, manifest } of chooseBodies(links, before)) {
    const isIntact = (await store.hashBody(name)) === manifest.body.sha256;
    if (isIntact) damaged.delete(name);
    else damaged.add(name);
    read.push([name, at]);
  }
  // A size shows without reading.
  for (const { name, file, manifest } of links)
    if (file.bodyBytes !== manifest.body.size_bytes) damaged.add(name);
  return {
    record: { read: Object.fromEntries(read), damaged: [...damaged].toSorted() },
    faults: [...damaged].toSorted().map((name) => ({ name, why: WHY })),
  };
}
