/** The facts about one snapshot that the check of the chain needs. Its signature was checked before. */
interface OrderEntry {
  readonly name: string;
  readonly sequence: number;
  readonly manifestSha256: string;
  readonly previous: { readonly name: string; readonly manifest_sha256: string } | null;
  /** The key that signed it. */
  readonly keyId: string;
  /** The key that this one replaced, if it is the first one with a new key. */
  readonly replacedKeyId: string | null;
}

/**
 * How a snapshot relates to the previous one. `first`: there is no previous one. `linked`: they match. `gap`: the
 * previous one is not here (retention removes old ones). `broken`: they contradict each other.
 */
export interface OrderVerdict {
  readonly state: "first" | "linked" | "gap" | "broken";
  /** A sentence, if the state is `broken`; else null. */
  readonly why: string | null;
}

/** Checks every snapshot against the ones before and after it. All entries must have a checked signature. */
export function checkOrder(entries: readonly OrderEntry[]): ReadonlyMap<string, OrderVerdict> {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const verdicts = new Map(entries.map((entry) => [entry.name, checkLink(entry, byName)]));
  for (const { name, previous } of entries) {
    const before = previous === null ? undefined : byName.get(previous.name);
    if (before === undefined || previous === null) continue;
    if (before.manifestSha256 === previous.manifest_sha256) continue;
    verdicts.set(
      before.name,
      broken(`the next snapshot, ${name}, refers to a different manifest of this name`),
    );
  }
  for (const entry of entries) {
    const retiredAt = entries.find(
      ({ replacedKeyId, sequence }) => replacedKeyId === entry.keyId && sequence <= entry.sequence,
    );
    if (retiredAt !== undefined)
      verdicts.set(
        entry.name,
        broken(`it was signed with the key ${entry.keyId}, which ${retiredAt.name} had replaced before`),
      );
  }
  return verdicts;
}

function checkLink(entry: OrderEntry, byName: ReadonlyMap<string, OrderEntry>): OrderVerdict {
  if (entry.previous === null) {
    return entry.sequence === 1
      ? { state: "first", why: null }
      : broken(`it has number ${entry.sequence}, but refers to no previous snapshot`);
  }
  const before = byName.get(entry.previous.name);
  if (before === undefined) return { state: "gap", why: null };
  if (before.manifestSha256 !== entry.previous.manifest_sha256)
    return broken(`it refers to a different manifest of ${before.name} than the one that is here`);
  if (before.sequence !== entry.sequence - 1)
    return broken(
      `it has number ${entry.sequence}, but the previous snapshot, ${before.name}, has number ${before.sequence}`,
    );
  return { state: "linked", why: null };
}

function broken(why: string): OrderVerdict {
  return { state: "broken", why };
}
