import { type KuboBlocks, openKubo } from "../cluster/kubo.ts";
import { type Blake3, openBlake3 } from "../machine/blake3.ts";
import { openStorageApi, type StorageApi } from "./storage-api-client.ts";

/** What `serve ingest` works with beside a network socket. */
export interface IngestHands {
  readonly blake3: Blake3;
  readonly kubo: KuboBlocks;
  /** Null: no storage API is set. */
  readonly storage: StorageApi | null;
}

/** fula-ingest gives each question so long, too. */
const TIMEOUT_MS = 30_000;

/** Makes the hands ready; connections are opened when they are needed. */
export async function openIngestHands(target: {
  readonly kuboUrl: string;
  readonly storageApiUrl: string | null;
  readonly maxConcurrent: number;
}): Promise<IngestHands> {
  const options = { connections: target.maxConcurrent, timeoutMs: TIMEOUT_MS };
  return {
    blake3: await openBlake3(),
    kubo: openKubo(target.kuboUrl, options),
    storage: target.storageApiUrl === null ? null : openStorageApi(target.storageApiUrl, options),
  };
}
