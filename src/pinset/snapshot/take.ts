import type { ClusterReader, PeerIdentity } from "../../cluster/client.ts";
import { type ExitName, messageOf, OperatorError } from "../../errors.ts";
import type { Clock } from "../../machine/clock.ts";
import type { SigningKey, VerifyingKey } from "../../machine/signing.ts";
import type { AlertLog } from "../alerts.ts";
import { type HeartbeatDeps, withHeartbeat } from "../heartbeat.ts";
import { chooseExpired, isDrop } from "./chain.ts";
import {
  DIGEST_ALGORITHM,
  type Manifest,
  MANIFEST_FORMAT,
  MANIFEST_VERSION,
  serialiseManifest,
  snapshotFiles,
  snapshotName,
} from "./manifest.ts";
import type { BodyFacts, SnapshotFile, SnapshotStore } from "./store.ts";
import { checkManifest } from "./verify.ts";

/** What taking a snapshot needs. */
export interface TakeOptions {
  readonly cluster: ClusterReader;
  readonly store: SnapshotStore;
  readonly key: SigningKey;
  readonly clock: Pick<Clock, "now">;
  readonly alerts: AlertLog;
  readonly heartbeat: HeartbeatDeps;
  /** The name of the cluster, and its id; null if the id is not known. */
  readonly clusterName: string;
  readonly clusterId: string | null;
  /** How many snapshots retention keeps; see chooseExpired. */
  readonly keep: number;
  /** The share of pins that may disappear since the last snapshot without an alert: 0.1 is 10 %. */
  readonly dropShare: number;
  readonly toolVersion: string;
  readonly report: (line: string) => void;
}

/** A snapshot that was taken. */
export interface TakeResult {
  /** `pending` if the pinset is much smaller than before. */
  readonly exit: ExitName;
  readonly verdict: "first" | "steady" | "dropped";
  readonly summary: string;
  readonly name: string;
  /** The path of the body. Manifest and signature are in the same directory. */
  readonly file: string;
  readonly count: number;
  readonly sizeBytes: number;
  /** How many pins the previous snapshot has; null if there is none. */
  readonly before: number | null;
  /** Snapshots that retention removed. */
  readonly removed: readonly string[];
}

/**
 * Writes a signed snapshot of the desired pinset (what the cluster lists as allocations). If the list is not
 * complete or the disk fails, it throws an OperatorError (unavailable) and leaves no snapshot. The caller holds
 * the lock.
 */
export function takeSnapshot(options: TakeOptions): Promise<TakeResult> {
  return withHeartbeat(options.heartbeat, "snapshot take", () => take(options));
}

async function take(options: TakeOptions): Promise<TakeResult> {
  const { cluster, store, key, clock } = options;
  const chain = await readChain(store, key);
  for (const fault of chain.faults) options.report(`not verified, not changed: ${fault.name}: ${fault.why}`);
  const last = chain.links.at(-1) ?? null;
  const peer = await cluster.identity();
  const startedAt = clock.now();
  const name = freeName(snapshotName(startedAt), chain.names);
  const draft = await store.begin(name);
  let manifest: Manifest;
  try {
    await cluster.list("allocations", (lines) => draft.write(lines));
    const body = await draft.finish();
    manifest = describe(options, { name, startedAt, peer, body, last });
    const bytes = Buffer.from(serialiseManifest(manifest), "utf8");
    await draft.commit(bytes, key.sign(bytes));
  } catch (thrown) {
    await draft.discard();
    throw thrown;
  }
  if (manifest.drop !== null) await options.alerts.append([dropLine(clock.now(), manifest)]);
  const removed = await removeExpired(store, key, options.keep, options.report);
  return describeResult(store, manifest, removed, last);
}

function describe(
  options: TakeOptions,
  seen: {
    readonly name: string;
    readonly startedAt: Date;
    readonly peer: PeerIdentity;
    readonly body: BodyFacts;
    readonly last: ChainLink | null;
  },
): Manifest {
  const { name, startedAt, peer, body, last } = seen;
  const before = last?.manifest.pins.count ?? 0;
  return {
    format: MANIFEST_FORMAT,
    version: MANIFEST_VERSION,
    name,
    sequence: last === null ? 1 : last.manifest.sequence + 1,
    created_at: startedAt.toISOString(),
    cluster: { id: options.clusterId, name: options.clusterName },
    peer: { id: peer.id, name: peer.peername, version: peer.version },
    pins: { count: body.count, by_type: body.byType },
    digest: { algorithm: DIGEST_ALGORITHM, value: body.digest },
    body: {
      file: snapshotFiles(name).body,
      encoding: "gzip",
      size_bytes: body.sizeBytes,
      plain_bytes: body.plainBytes,
      sha256: body.sha256,
    },
    previous: last === null ? null : { name: last.name, manifest_sha256: last.manifestSha256 },
    drop: isDrop(before, body.count, options.dropShare) ? { from: before, to: body.count } : null,
    clock_went_back: last !== null && startedAt.getTime() < Date.parse(last.manifest.created_at),
    tool: { name: "fula-node", version: options.toolVersion },
    key_id: options.key.id,
  };
}

function describeResult(
  store: SnapshotStore,
  manifest: Manifest,
  removed: readonly string[],
  last: ChainLink | null,
): TakeResult {
  const { count } = manifest.pins;
  const before = last?.manifest.pins.count ?? null;
  const verdict = manifest.drop !== null ? "dropped" : last === null ? "first" : "steady";
  const change = before === null ? "the first snapshot" : `${before} in the previous snapshot`;
  const summary = `${manifest.name}: ${count} pins (${change}), ${manifest.body.size_bytes} bytes`;
  return {
    exit: verdict === "dropped" ? "pending" : "ok",
    verdict,
    summary: verdict === "dropped" ? `${summary}: the pinset has shrunk` : summary,
    name: manifest.name,
    file: `${store.directory}/${manifest.body.file}`,
    count,
    sizeBytes: manifest.body.size_bytes,
    before,
    removed,
  };
}

function dropLine(at: Date, manifest: Manifest): string {
  const utc = at.toISOString().replace(/\.\d{3}Z$/, "Z");
  return `${utc} pinset-dropped snapshot=${manifest.name} pins=${manifest.drop?.to} before=${manifest.drop?.from}`;
}

function freeName(preferred: string, taken: ReadonlySet<string>): string {
  let name = preferred;
  for (let copy = 2; taken.has(name); copy++) name = `${preferred}-${copy}`;
  return name;
}

/** One snapshot with a manifest of our layout and a valid signature. Its body was not read. */
interface ChainLink {
  readonly name: string;
  readonly manifest: Manifest;
  /** The value of `previous.manifest_sha256` in the next manifest. */
  readonly manifestSha256: string;
}

/** The content of the snapshot directory. */
interface Chain {
  /** In the order of their sequence numbers. */
  readonly links: readonly ChainLink[];
  /** Snapshots that cannot be trusted, each with the reason in a sentence. */
  readonly faults: readonly { readonly name: string; readonly why: string }[];
  /** Every name that is in use. */
  readonly names: ReadonlySet<string>;
}

/** Reads all manifests and checks their signatures. It does not open the bodies. */
async function readChain(store: SnapshotStore, key: VerifyingKey): Promise<Chain> {
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

/**
 * Removes the snapshots that retention does not keep, oldest first, and gives their names. A snapshot whose
 * body does not match its manifest is reported and stays: it may be evidence.
 */
async function removeExpired(
  store: SnapshotStore,
  key: VerifyingKey,
  keep: number,
  report: (line: string) => void,
): Promise<readonly string[]> {
  const { links } = await readChain(store, key);
  const byName = new Map(links.map((link) => [link.name, link.manifest]));
  const expired = chooseExpired(
    links.map(({ name, manifest }) => ({
      name,
      sequence: manifest.sequence,
      previous: manifest.previous?.name ?? null,
      dropped: manifest.drop !== null,
    })),
    keep,
  );
  const removed: string[] = [];
  for (const name of expired) {
    if ((await store.hashBody(name)) !== byName.get(name)?.body.sha256) {
      report(`not verified, not changed: ${name}: its body is not the one that was signed.`);
      continue;
    }
    await store.remove(name);
    removed.push(name);
  }
  return removed;
}
