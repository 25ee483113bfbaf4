import type { VerifyingKey } from "../machine/signing.ts";
import type { SnapshotStore } from "../host/snapshot-store.ts";
import { chooseExpired } from "../model/retention.ts";
import { readChain } from "./snapshot-chain.ts";

/**
 * Removes the snapshots that retention lets go, oldest first, and gives their names. One whose body
 * does not match its manifest is told and left: it may be evidence.
 */
export async function removeExpired(
  store: SnapshotStore,
  key: VerifyingKey,
  keep: number,
  report: (line: string) => void,
): Promise<readonly string[]> {
  const { links } = await readChain(store, key);
  const byName = new Map(links.map((link) => [link.name, link.manifest]));
  const expired = chooseExpired(
    links.map(({ name, manifest }) => ({
      name,
      sequence: manifest.sequence,
      previous: manifest.previous?.name ?? null,
      dropped: manifest.drop !== null,
    })),
    keep,
  );
  const removed: string[] = [];
  for (const name of expired) {
    if ((await store.hashBody(name)) !== byName.get(name)?.body.sha256) {
      report(`not verified, left alone: ${name}: its body is not the one that was signed.`);
      continue;
    }
    await store.remove(name);
    removed.push(name);
  }
  return removed;
}
