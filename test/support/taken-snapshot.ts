import { createHash } from "node:crypto";
import { openCluster } from "../../src/cluster/client.ts";
import { listSnapshotFiles, openSnapshotFile } from "../../src/pinset/snapshot/store.ts";
import type { VerifyingKey } from "../../src/machine/signing.ts";
import { type TakeOptions, type TakeResult, takeSnapshot } from "../../src/pinset/snapshot/take.ts";
import { judgeNeighbours, type VerifiedSnapshot, verifySnapshot } from "../../src/pinset/snapshot/verify.ts";
import type { OperationHands } from "./operation-hands.ts";

/** Hashes bytes: sha256 as hex. */
export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Takes a snapshot of the cluster at this address, a second after the one before. */
export async function takeFrom(
  url: string,
  hands: OperationHands,
  over: Partial<TakeOptions> = {},
): Promise<TakeResult> {
  hands.clock.move(1000);
  const cluster = openCluster({ endpoint: url });
  const { store, key, clock, alerts, report } = hands;
  const fixed = { clusterName: "lab", clusterId: null, keep: 28, dropShare: 0.1, toolVersion: "0.1.0" };
  const heartbeat = hands.heartbeat("take");
  try {
    return await takeSnapshot({ cluster, store, key, clock, alerts, report, heartbeat, ...fixed, ...over });
  } finally {
    cluster.close();
  }
}

/** Opens and verifies a snapshot as the verbs do. */
export async function verifyPath(path: string, key: VerifyingKey): Promise<VerifiedSnapshot> {
  const file = await openSnapshotFile(path);
  const neighbours = await listSnapshotFiles(file.directory);
  return verifySnapshot(file, key, { sha256, order: judgeNeighbours(neighbours, key, sha256) });
}
