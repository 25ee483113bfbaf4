import { EXIT_CODES, OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { checkChain, trustedKeys } from "../pinset/snapshot/links.ts";
import { parseMemory } from "../pinset/snapshot/memory.ts";
import type { SnapshotFile, SnapshotStore } from "../pinset/snapshot/store.ts";
import { verifySnapshot } from "../pinset/snapshot/verify.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import type { MasterLayout } from "../settings/layout.ts";

/** A master, and what reads its snapshots. */
interface Given {
  readonly host: Pick<Host, "files" | "system">;
  readonly nodePath: string;
  readonly openSnapshots: (directory: string) => Promise<SnapshotStore>;
  readonly readVerifyingKey: (paths: readonly string[]) => Promise<VerifyingKey>;
  /** Aborted by a signal. */
  readonly stop: AbortSignal;
  readonly warn: (text: string) => void;
}

/** The newest good ones. Each has the whole pinset. */
const SNAPSHOTS = 3;
const SNAPSHOT_DEADLINE_MS = 3_600_000;

/**
 * Takes a snapshot of the pinset, as cron does: what was pinned since the last one would be lost with the writer, and the database would
 * still call it pinned. A backup without it is better than none.
 */
export async function takeSnapshot(
  { host, nodePath, stop, warn }: Given,
  layout: MasterLayout,
): Promise<void> {
  const runs = [nodePath, `${layout.cliCurrent}/bin/fula-node.js`, "snapshot", "take"];
  try {
    await host.system.runCommand([...runs, "--base-dir", layout.baseDir], {
      timeoutMs: SNAPSHOT_DEADLINE_MS,
      accept: [EXIT_CODES.pending],
    });
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    // A signal from the terminal ends it, too; then there is no backup.
    if (stop.aborted) return;
    warn(
      `No snapshot of the pinset could be taken now. Pins since the last one may be missing in this backup. ${thrown.why ?? thrown.what}`,
    );
  }
}

/** The newest snapshots that verify. */
export async function newestGood(
  { host, openSnapshots, readVerifyingKey, warn }: Given,
  layout: MasterLayout,
): Promise<readonly SnapshotFile[]> {
  const store = await openSnapshots(layout.snapshotsDir);
  const sha256 = (bytes: Uint8Array): string => store.sha256(bytes);
  const all = await store.list();
  if (all.length === 0) return [];
  const current = await readVerifyingKey([layout.verifyingKey, layout.signingKey]);
  const keys = trustedKeys(current, parseMemory(await host.files.readText(layout.snapshotMemory)));
  const order = checkChain(all, keys, sha256);
  const good: SnapshotFile[] = [];
  for (const file of all.toReversed()) {
    if (good.length === SNAPSHOTS) break;
    try {
      await verifySnapshot(file, keys, { sha256, order });
      good.push(file);
    } catch (thrown) {
      if (!(thrown instanceof OperatorError)) throw thrown;
      warn(`Left out of the backup: ${file.name}: ${thrown.what}`);
    }
  }
  return good;
}
