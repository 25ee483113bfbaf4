import { OperatorError } from "../../errors.ts";
import { parseVerifyingKey, type VerifyingKey } from "../../machine/signing.ts";
import { checkOrder, type OrderVerdict } from "./chain.ts";
import type { Manifest } from "./manifest.ts";
import type { ChainEnd, ChainMemory } from "./memory.ts";
import type { RetentionEntry } from "./retention.ts";
import type { SnapshotFile } from "./store.ts";
import { checkManifest, endorses, type Sha256 } from "./verify.ts";

/** One snapshot with a manifest of our layout and a valid signature. Its body was not read. */
export interface ChainLink extends ChainEnd {
  readonly file: SnapshotFile;
  readonly manifest: Manifest;
}

/** A snapshot that can't be trusted, with the reason in a sentence. */
export interface SnapshotFault {
  readonly name: string;
  readonly why: string;
}

/** The snapshots of a directory, as far as their manifests show it. */
export interface ChainLinks {
  /** In the order of their sequence numbers. */
  readonly links: readonly ChainLink[];
  readonly faults: readonly SnapshotFault[];
  /** Names of snapshots in a format that this version does not know. They are neither valid nor damaged. */
  readonly newer: readonly string[];
}

/** Reads all manifests of our layout and checks their signatures. It does not open the bodies. */
export function readLinks(
  files: readonly SnapshotFile[],
  keys: readonly VerifyingKey[],
  sha256: Sha256,
): ChainLinks {
  const links: ChainLink[] = [];
  const faults: SnapshotFault[] = [];
  const newer: string[] = [];
  for (const file of files) {
    if (file.layout !== "ours") continue;
    try {
      const { manifest, keyId } = checkManifest(file, keys);
      const manifestSha256 = sha256(file.manifest ?? new Uint8Array());
      const { name, sequence } = manifest;
      links.push({ file, name, sequence, manifest, manifestSha256, keyId });
    } catch (thrown) {
      if (!(thrown instanceof OperatorError)) throw thrown;
      if (thrown.exit === "newer") newer.push(file.name);
      else faults.push({ name: file.name, why: thrown.what });
    }
  }
  links.sort((a, b) => a.sequence - b.sequence || (a.name < b.name ? -1 : 1));
  return { links, faults, newer };
}

/** Checks the chain of the snapshots of one directory. Snapshots without a valid signature are left out. */
export function checkChain(
  files: readonly SnapshotFile[],
  keys: readonly VerifyingKey[],
  sha256: Sha256,
): ReadonlyMap<string, OrderVerdict> {
  return checkLinks(readLinks(files, keys, sha256).links);
}

/** How each of these snapshots relates to the one before it. */
export function checkLinks(links: readonly ChainLink[]): ReadonlyMap<string, OrderVerdict> {
  return checkOrder(
    links.map(({ manifest, ...link }) => ({
      ...link,
      previous: manifest.previous,
      replacedKeyId: manifest.key_rotation?.from_key_id ?? null,
    })),
  );
}

/** What retention needs to know about a snapshot. Its body counts as intact until it is read. */
export function retentionEntry({ name, sequence, manifest }: ChainLink): RetentionEntry {
  const { drop, previous, accepted } = manifest;
  return {
    name,
    sequence,
    takenAtMs: Date.parse(manifest.created_at),
    count: manifest.pins.count,
    reference: drop === null ? null : (drop.reference ?? previous?.name ?? null),
    accepted: accepted === true,
    replacesKey: manifest.key_rotation !== undefined,
    intact: true,
  };
}

/** The current key, and every retired one that is proven to have named the key after it. */
export function trustedKeys(
  current: VerifyingKey,
  memory: ChainMemory | null | "damaged",
): readonly VerifyingKey[] {
  const keys = [current];
  if (memory === null || memory === "damaged") return keys;
  for (const { publicPem, successorId, endorsement } of memory.retiredKeys.toReversed()) {
    const successor = keys.find(({ id }) => id === successorId);
    if (successor === undefined) continue;
    const key = parseVerifyingKey(publicPem, "a retired snapshot key");
    if (endorses(key, successor, endorsement)) keys.push(key);
  }
  return keys;
}
