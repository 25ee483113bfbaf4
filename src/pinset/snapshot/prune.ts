import type { SigningKey } from "../../machine/signing.ts";
import { countOf } from "../../units.ts";
import { readLinks, retentionEntry, type SnapshotFault, trustedKeys } from "./links.ts";
import type { ChainMemory, Numbers } from "./memory.ts";
import { chooseExpired, type RetentionEntry, type RetentionPolicy } from "./retention.ts";
import type { SnapshotStore } from "./store.ts";

interface PruneOptions extends RetentionPolicy {
  readonly store: SnapshotStore;
  readonly key: SigningKey;
  readonly report: (line: string) => void;
}

/**
 * Removes the snapshots that retention does not keep, oldest first. Before that, every body is hashed: only intact
 * snapshots count as kept. A damaged one stays: it may be evidence. Gives the damaged ones that were not known yet.
 */
export async function prune(
  { store, key, keep, dropShare, report }: PruneOptions,
  {
    memory,
    known,
    remember,
  }: {
    readonly memory: ChainMemory | null | "damaged";
    readonly known: ReadonlyMap<string, string>;
    /** Records the numbers that are removed, before they are. */
    readonly remember: (removing: readonly Numbers[]) => Promise<void>;
  },
): Promise<{ readonly removed: readonly string[]; readonly faults: readonly SnapshotFault[] }> {
  const { links } = readLinks(await store.list(), trustedKeys(key, memory), (bytes) => store.sha256(bytes));
  const policy: RetentionPolicy = { keep, dropShare };
  const removed: string[] = [];
  const faults: SnapshotFault[] = [];
  if (chooseExpired(links.map(retentionEntry), policy).length === 0) return { removed, faults };
  const entries: RetentionEntry[] = [];
  for (const link of links) {
    const { body } = link.manifest;
    const intact =
      link.file.bodyBytes === body.size_bytes && (await store.hashBody(link.name)) === body.sha256;
    entries.push({ ...retentionEntry(link), intact });
    if (!intact && !known.has(link.name))
      faults.push({ name: link.name, why: "its body is not the one that was signed." });
  }
  const expired = new Set(chooseExpired(entries, policy));
  if (expired.size > 0)
    await remember(
      entries.flatMap(({ name, sequence }) => (expired.has(name) ? [[sequence, sequence] as const] : [])),
    );
  for (const name of expired) {
    await store.remove(name);
    removed.push(name);
  }
  if (removed.length > 0) report(`Retention removed ${countOf(removed.length, "snapshot")}.`);
  return { removed, faults };
}
