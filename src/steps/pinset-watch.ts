import { OperatorError } from "../errors.ts";
import type { ClusterReader } from "../host/cluster.ts";
import type { HostReader } from "../host/host.ts";
import { countLines } from "../model/line-count.ts";
import { STORAGE_NAMES } from "../model/storage-layout.ts";
import { askMasterCount, type MasterCount } from "./master-count.ts";
import { poll, readValues } from "./node-context.ts";
import { OWN_CLUSTER, type StorageContext } from "./storage-context.ts";

const SYNC_DEADLINE_MS = 180_000;
/** Masters tell their newest state once a minute (CLUSTER_CRDT_REBROADCASTINTERVAL): until then none is known here. */
const FIRST_NEWS_MS = 75_000;
const QUIET_MS = 6_000;
/** A master's pinset moves while this node syncs, and what was unpinned meanwhile never comes. */
const ASK_EVERY_MS = 10_000;

/** How far this node is by now. */
interface Sync {
  /** As listed last; null while no list has come whole. */
  readonly own: number | null;
  readonly master: MasterCount;
}

/**
 * Waits until this node's pinset has as many pins as the master says its own has, or, where no master tells,
 * until it stops growing; a node that has been up for long is then only counted. A deadline that passes is a
 * warning: the pinset goes on by itself.
 */
export async function watchPinset(
  host: HostReader,
  context: StorageContext,
  wish: { readonly trusted: readonly string[]; readonly isNewMember: boolean },
): Promise<void> {
  const { openCluster, tell } = context;
  const cluster = openCluster(OWN_CLUSTER);
  const askMaster = await openAsker(host, context, wish.trusted);
  const isSettled = await openQuiet(host, wish.isNewMember);
  const last: { sync: Sync } = { sync: { own: null, master: { unknown: "" } } };
  const settled = await poll(host, SYNC_DEADLINE_MS, async () => {
    const master = await askMaster();
    const own = await countPins(cluster);
    last.sync = { own, master };
    if (own !== null && ("pins" in master ? own >= master.pins : isSettled(own))) return true;
    tell.progress(progressOf(last.sync));
    await host.clock.wait(900);
    return null;
  });
  if (settled === true) tell.note(resultOf(last.sync));
  else tell.warning(warningOf(last.sync));
}

/** How many pins a peer's own pinset has; null where its list did not come whole, since a part is no count. */
export async function countPins(cluster: Pick<ClusterReader, "list">): Promise<number | null> {
  let pins = 0;
  try {
    await cluster.list("allocations", (lines) => {
      pins += countLines(lines);
    });
    return pins;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

/** Asks now and then; a count that was told once stays where the master can't be asked any more. */
async function openAsker(
  host: HostReader,
  context: StorageContext,
  trusted: readonly string[],
): Promise<() => Promise<MasterCount>> {
  if (context.naming === null) return () => Promise.resolve({ unknown: "--no-register: it was not asked" });
  const url = (await readValues(host, context))("STORAGE_API_URL");
  if (url === undefined) return () => Promise.resolve({ unknown: "STORAGE_API_URL is not set" });
  let known: MasterCount | null = null;
  let askedMs = 0;
  return async () => {
    if (known !== null && host.clock.now().getTime() - askedMs < ASK_EVERY_MS) return known;
    const answer = await askMasterCount(host, url, trusted);
    askedMs = host.clock.now().getTime();
    if (known === null || "pins" in answer || !("pins" in known)) known = answer;
    return known;
  };
}

/** Whether a count has stopped growing, for a node whose master tells no count. */
async function openQuiet(host: HostReader, isNewMember: boolean): Promise<(count: number) => boolean> {
  const container = await host.docker.container(STORAGE_NAMES.cluster);
  const begunMs = host.clock.now().getTime();
  const startedMs = isNewMember ? begunMs : Date.parse(container?.startedAt ?? "");
  const isOld = begunMs - startedMs > FIRST_NEWS_MS;
  const last = { count: 0, changedMs: begunMs };
  return (count) => {
    const nowMs = host.clock.now().getTime();
    if (count !== last.count) {
      last.count = count;
      last.changedMs = nowMs;
    }
    return isOld || (count > 0 ? nowMs - last.changedMs >= QUIET_MS : nowMs - startedMs >= FIRST_NEWS_MS);
  };
}

function progressOf({ own, master }: Sync): string {
  if (own === null) return "waiting for ipfs-cluster to list its pins whole";
  if ("pins" in master) return `${own} of ${master.pins} pins known here, waiting for the rest`;
  return `${own} pins known here, waiting ${own > 0 ? "for more" : "for the first news of the masters"}`;
}

function resultOf({ own, master }: Sync): string {
  const count = own ?? 0;
  if ("unknown" in master)
    return `${count} pins known here; the master's count is not known (${master.unknown})`;
  return count === master.pins
    ? `${count} of ${master.pins} pins known here`
    : `${count} pins known here; the master counted ${master.pins}, a moment before`;
}

function warningOf({ own, master }: Sync): string {
  const minutes = SYNC_DEADLINE_MS / 60_000;
  const later = "It goes on by itself; run again later, or see `status`, to see how far it is.";
  if (own === null)
    return `ipfs-cluster did not list its pins whole in ${minutes} minutes, so how far it is can't be told. ${later}`;
  if ("pins" in master)
    return `${own} of ${master.pins} pins are known here after ${minutes} minutes: this node still syncs. ${later}`;
  return `The pinset still grows after ${minutes} minutes (${own} pins so far; the master's count is not known: ${master.unknown}). ${later}`;
}
