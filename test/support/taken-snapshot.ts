import { createHash } from "node:crypto";
import { openCluster } from "../../src/cluster/client.ts";
import type { VerifyingKey } from "../../src/machine/signing.ts";
import { listSnapshotFiles, openSnapshotFile } from "../../src/pinset/snapshot/store.ts";
import { type TakeOptions, type TakeResult, takeSnapshot } from "../../src/pinset/snapshot/take.ts";
import { checkChain } from "../../src/pinset/snapshot/links.ts";
import { type VerifiedSnapshot, verifySnapshot } from "../../src/pinset/snapshot/verify.ts";
import { cidOf } from "./cids.ts";
import { startClusterDouble } from "./cluster-double.ts";
import { operationDeps, type OperationDeps } from "./operation-deps.ts";

/** Hashes bytes: sha256 as hex. */
export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** Takes a snapshot of the cluster at this address, one second after the previous one. */
export async function takeFrom(
  url: string,
  deps: OperationDeps,
  over: Partial<TakeOptions> = {},
): Promise<TakeResult> {
  deps.clock.move(1000);
  const cluster = openCluster({ endpoint: url });
  const { store, key, clock, channels, report } = deps;
  const fixed = { clusterName: "lab", clusterId: null, keep: 28, dropShare: 0.1, toolVersion: "0.1.0" };
  const heartbeat = deps.heartbeat("take");
  const { workspace, memory } = deps;
  try {
    return await takeSnapshot({
      cluster,
      store,
      key,
      clock,
      channels,
      report,
      heartbeat,
      workspace,
      memory,
      accept: false,
      ...fixed,
      ...over,
    });
  } finally {
    cluster.close();
  }
}

/** Opens and verifies a snapshot as the verbs do. */
export async function verifyPath(path: string, ...keys: readonly VerifyingKey[]): Promise<VerifiedSnapshot> {
  const file = await openSnapshotFile(path);
  const neighbours = await listSnapshotFiles(file.directory);
  return verifySnapshot(file, keys, { sha256, order: checkChain(neighbours, keys, sha256) });
}

/** A directory with one snapshot of two pins, taken two hours before `now`. */
export async function oneSnapshot(now: Date): Promise<OperationDeps> {
  const deps = operationDeps();
  deps.clock.move(now.getTime() - 2 * 3_600_000 - 1_000 - deps.clock.now().getTime());
  const double = await startClusterDouble({ pins: [{ cid: cidOf("one") }, { cid: cidOf("two") }] });
  try {
    await takeFrom(double.url, deps);
  } finally {
    await double.stop();
  }
  return deps;
}
