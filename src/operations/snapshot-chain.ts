import { OperatorError, messageOf } from "../errors.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import type { SnapshotFile } from "../host/snapshot-file.ts";
import type { SnapshotStore } from "../host/snapshot-store.ts";
import type { Manifest } from "../model/manifest.ts";
import { checkManifest } from "./snapshot-verify.ts";

/** One snapshot whose manifest is ours and signed; its body was not read. */
export interface ChainLink {
  readonly name: string;
  readonly manifest: Manifest;
  /** What the next manifest calls `previous.manifest_sha256`. */
  readonly manifestSha256: string;
}

/** What lies in the directory of snapshots. */
export interface Chain {
  /** In the order in which they were taken, by sequence. */
  readonly links: readonly ChainLink[];
  /** What can't be trusted, and why in a sentence. */
  readonly faults: readonly { readonly name: string; readonly why: string }[];
  /** Every name that is taken. */
  readonly names: ReadonlySet<string>;
}

/** Reads all manifests and checks their signatures; the bodies are not opened. */
export async function readChain(store: SnapshotStore, key: VerifyingKey): Promise<Chain> {
  const links: ChainLink[] = [];
  const faults: { name: string; why: string }[] = [];
  const stored = await store.list();
  for (const snapshot of stored) {
    try {
      links.push(readLink(store, snapshot, key));
    } catch (thrown) {
      if (!(thrown instanceof OperatorError)) throw thrown;
      faults.push({ name: snapshot.name, why: messageOf(thrown) });
    }
  }
  links.sort((a, b) => a.manifest.sequence - b.manifest.sequence);
  return { links, faults, names: new Set(stored.map((snapshot) => snapshot.name)) };
}

function readLink(store: SnapshotStore, file: SnapshotFile, key: VerifyingKey): ChainLink {
  const manifest = checkManifest(file, key);
  return { name: file.name, manifest, manifestSha256: store.sha256(file.manifest ?? new Uint8Array()) };
}
