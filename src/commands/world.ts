import type { Cluster, ClusterTarget } from "../cluster/client.ts";
import type { openPostgresPool } from "../database/pool.ts";
import type { NodeIdentity, NodesClient } from "../federation/announcer.ts";
import type { Host } from "../host/host.ts";
import type { openIngestHands } from "../ingest/hands.ts";
import type { Lock, LockHolder } from "../machine/lock.ts";
import type { SigningKey, VerifyingKey } from "../machine/signing.ts";
import type { AlertLog } from "../pinset/alerts.ts";
import type { SnapshotFile, SnapshotStore } from "../pinset/snapshot/store.ts";
import type { PinsetWorkspace } from "../pinset/workspace.ts";
import type { Reporter } from "../ui/reporter.ts";

/** Puts questions to a person. */
export interface Questions {
  confirm(question: string, byDefault: boolean): Promise<boolean>;
  text(question: string, byDefault: string): Promise<string>;
}

/** What every verb gets from the composition root: hands, eyes, and facts of this process. */
export interface World {
  readonly host: Host;
  readonly reporter: Reporter;
  /** Null: there is nobody to ask. */
  readonly questions: Questions | null;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** The root of the running package: bin/, dist/, compose/, migrations/. */
  readonly packageDir: string;
  readonly nodePath: string;
  readonly hostname: string;
  readonly pid: number;
  /** Lower-case hex sha256. */
  readonly hash: (text: string) => string;
  takeLock(name: string, holder: LockHolder): Promise<Lock>;
  openCluster(target: ClusterTarget): Cluster;
  openSnapshots(directory: string): SnapshotStore;
  /** Any snapshot by the path of one of its files; see openSnapshotFile. */
  openSnapshotFile(path: string): Promise<SnapshotFile>;
  listSnapshotFiles(directory: string): Promise<readonly SnapshotFile[]>;
  /** Room on a disk to compare pinsets in (TMPDIR, else /var/tmp). */
  openWorkspace(): PinsetWorkspace;
  openAlerts(path: string): AlertLog;
  openPool: typeof openPostgresPool;
  openIngestHands: typeof openIngestHands;
  /** Aborted when the process is told to stop. */
  readonly stop: AbortSignal;
  /** Standard input to its end; at most 1 MiB. */
  readStdin(): Promise<string>;
  /** See host/announcer.ts. */
  parseNodeIdentity(text: string, path: string): NodeIdentity;
  openNodesClient(storageApiUrl: string): NodesClient;
  readonly parseVerifyingKey: (pem: string, path: string) => VerifyingKey;
  readSigningKey(path: string): Promise<SigningKey>;
  /** The first of these that exists, public or private. */
  readVerifyingKey(paths: readonly string[]): Promise<VerifyingKey>;
}

/** How a verb ends when nothing went wrong: all is well, or something is pending (exit 20). */
export type VerbExit = "ok" | "pending";
