import { OperatorError, messageOf } from "../errors.ts";
import type { VerifyingKey } from "../host/signing.ts";
import type { SnapshotStore, StoredSnapshot } from "../host/snapshot-store.ts";
import { parseManifest, snapshotFiles } from "../model/manifest.ts";
import type { Manifest } from "../model/manifest.ts";

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

function readLink(store: SnapshotStore, snapshot: StoredSnapshot, key: VerifyingKey): ChainLink {
  const { name, manifest, signature } = snapshot;
  const files = snapshotFiles(name);
  if (manifest === null) throw broken(`${files.manifest} is missing.`);
  if (signature === null) throw broken(`${files.signature} is missing.`);
  if (!key.verify(manifest, signature)) {
    throw broken(`The signature does not fit ${files.manifest}, or another key made it.`);
  }
  if (!snapshot.hasBody) throw broken(`${files.body} is missing.`);
  const parsed = parseManifest(manifest.toString("utf8"), files.manifest);
  if (parsed.name !== name) throw broken(`${files.manifest} is the manifest of ${parsed.name}.`);
  return { name, manifest: parsed, manifestSha256: store.sha256(manifest) };
}

function broken(what: string): OperatorError {
  return new OperatorError({ exit: "integrity", what });
}
