import { OperatorError } from "../errors.ts";
import type { SnapshotFile } from "../pinset/snapshot/store.ts";
import type { VerifyingKey } from "../machine/signing.ts";
import { MASTER_BASE_DIR, masterLayout, type MasterLayout } from "../settings/master-layout.ts";
import {
  judgeNeighbours,
  type Sha256,
  type VerifiedSnapshot,
  verifySnapshot,
} from "../pinset/snapshot/verify.ts";
import type { World } from "./world.ts";

/** The flags that say where snapshots are and with which key they are checked. */
export interface SnapshotFlags {
  readonly baseDir?: string;
  /** PEM of a public or private ed25519 key. */
  readonly key?: string;
}

/** Needs neither root nor an installed master: a copy and the public key are enough. */
export function snapshotLayout({ baseDir }: SnapshotFlags): MasterLayout {
  return masterLayout(baseDir ?? MASTER_BASE_DIR);
}

/** The key that signatures are checked with: the one that was named, else this master's. */
export function readSnapshotKey(world: World, flags: SnapshotFlags): Promise<VerifyingKey> {
  const layout = snapshotLayout(flags);
  return world.readVerifyingKey(
    flags.key === undefined ? [layout.verifyingKey, layout.signingKey] : [flags.key],
  );
}

/** Finds a snapshot by a path, or by a name in this master's own directory, and verifies it whole. */
export async function openVerified(
  world: World,
  flags: SnapshotFlags,
  given: string,
): Promise<VerifiedSnapshot> {
  const key = await readSnapshotKey(world, flags);
  const file = await openGiven(world, flags, given);
  const neighbours = await world.listSnapshotFiles(file.directory);
  const sha256 = sha256Of(world, flags);
  return verifySnapshot(file, key, { sha256, order: judgeNeighbours(neighbours, key, sha256) });
}

/** Hashes bytes for whoever compares them. */
export function sha256Of(world: World, flags: SnapshotFlags): Sha256 {
  const store = world.openSnapshots(snapshotLayout(flags).snapshotsDir);
  return (bytes) => store.sha256(bytes);
}

async function openGiven(world: World, flags: SnapshotFlags, given: string): Promise<SnapshotFile> {
  try {
    return await world.openSnapshotFile(given);
  } catch (thrown) {
    const elsewhere = thrown instanceof OperatorError && thrown.exit === "usage" && !given.includes("/");
    if (!elsewhere) throw thrown;
    return world.openSnapshotFile(`${snapshotLayout(flags).snapshotsDir}/${given}`);
  }
}
