import type { ClusterReader } from "../cluster/client.ts";
import { countLines } from "../cluster/line-count.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { poll, readValues } from "../settings/node-context.ts";
import { STORAGE_NAMES } from "../settings/storage-layout.ts";
import { ageOfCount } from "./count-age.ts";
import { askMasterCount, type MasterCount } from "./master-count.ts";
import { OWN_CLUSTER, type StorageContext } from "./storage-context.ts";

const SYNC_DEADLINE_MS = 180_000;
/**
 * Masters send their newest state again at an interval (CLUSTER_CRDT_REBROADCASTINTERVAL): until then none is known here.
 * Writers made here do so every 10 seconds; an adopted one has ipfs-cluster's default of a minute.
 */
const FIRST_NEWS_MS = 75_000;
const QUIET_MS = 6_000;
/** A master's pinset moves while this node syncs, and what was unpinned meanwhile never comes. */
const ASK_EVERY_MS = 10_000;

/** How far this node is by now. */
interface Sync {
  /** As listed last; null while no list has come whole. */
  readonly own: number | null;
  readonly master: MasterCount;
  /** What the master counted before that, since this wait began. */
  readonly before: number | null;
}

/** Whether a count has stopped changing. */
interface Rest {
  /** As far as a count alone tells; one look is enough on a node that has been up for long. */
  readonly likely: boolean;
  /** Though a master's news must have come since this wait began. */
  readonly surely: boolean;
}

/**
 * Waits until this node's pinset has as many pins as the master says its own has, or, where no master tells,
 * until it stops growing; a node that has been up for long is then only counted. A deadline that passes, or
 * a pinset that stays larger than the master's, is a warning: the pinset goes on by itself.
 */
export async function watchPinset(
  host: HostReader,
  context: StorageContext,
  wish: { readonly trusted: readonly string[]; readonly isNewMember: boolean },
): Promise<void> {
  const { openCluster, tell } = context;
  const cluster = openCluster(OWN_CLUSTER);
  const askMaster = await openAsker(host, context, wish.trusted);
  const restOf = await openRest(host, wish.isNewMember);
  const last: { sync: Sync } = { sync: { own: null, master: { unknown: "" }, before: null } };
  const age = () =>
    "pins" in last.sync.master
      ? ageOfCount(host.clock.now().getTime() - last.sync.master.countedAt.getTime())
      : "";
  tell.progress(progressOf(last.sync, age()));
  const settled = await poll(host, SYNC_DEADLINE_MS, async () => {
    const told = await askMaster();
    const own = await countPins(cluster);
    last.sync = { own, ...told };
    if (own !== null && isEnough(own, told, restOf(own))) return true;
    tell.progress(progressOf(last.sync, age()));
    await host.clock.wait(900);
    return null;
  });
  if (settled === true && !hasMore(last.sync)) tell.note(resultOf(last.sync, age()));
  else tell.warning(warningOf(last.sync, age()));
}

/**
 * No pins on both sides are no proof: a master that has not synced itself counts none either. Nor are more
 * than the master's: what was unpinned while this node was away hides that as many new ones are missing.
 * Where a busy master's count moves, one between two of its counts will do.
 */
function isEnough(own: number, { master, before }: Told, { likely, surely }: Rest): boolean {
  if ("unknown" in master || (own === 0 && master.pins === 0)) return likely;
  const [least, most] = rangeOf(master.pins, before);
  return own >= least && (own <= most || surely);
}

function rangeOf(pins: number, before: number | null): readonly [least: number, most: number] {
  return before === null ? [pins, pins] : [Math.min(pins, before), Math.max(pins, before)];
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

type Told = Omit<Sync, "own">;

/** Asks now and then; a count that was told once stays where the master can't be asked any more. */
async function openAsker(
  host: HostReader,
  context: StorageContext,
  trusted: readonly string[],
): Promise<() => Promise<Told>> {
  const never = (unknown: string) => () => Promise.resolve({ master: { unknown }, before: null });
  if (context.naming === null) return never("--no-register: it was not asked");
  const url = (await readValues(host, context))("STORAGE_API_URL");
  if (url === undefined) return never("STORAGE_API_URL is not set");
  let known: Told | null = null;
  let askedMs = 0;
  return async () => {
    if (known !== null && host.clock.now().getTime() - askedMs < ASK_EVERY_MS) return known;
    const answer = await askMasterCount(host, url, trusted);
    askedMs = host.clock.now().getTime();
    const before = known !== null && "pins" in known.master ? known.master.pins : null;
    if (known === null || "pins" in answer || before === null) known = { master: answer, before };
    return known;
  };
}

/** Makes a function that is given every count, and tells whether it has stopped changing. */
async function openRest(host: HostReader, isNewMember: boolean): Promise<(count: number) => Rest> {
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
    const isQuiet = nowMs - last.changedMs >= QUIET_MS;
    return {
      likely: isOld || (count > 0 ? isQuiet : nowMs - startedMs >= FIRST_NEWS_MS),
      surely: isQuiet && nowMs - begunMs >= FIRST_NEWS_MS,
    };
  };
}

function hasMore({ own, master, before }: Sync): boolean {
  return own !== null && "pins" in master && own > rangeOf(master.pins, before)[1];
}

function progressOf(sync: Sync, age: string): string {
  const { own, master } = sync;
  if (own === null) return "waiting for ipfs-cluster to list its pins whole";
  if ("pins" in master && hasMore(sync))
    return `${own} pins known here, more than the master's ${master.pins}${age}, waiting for its news`;
  if ("pins" in master && master.pins > 0)
    return `${own} of ${master.pins} pins known here${age}, waiting for the rest`;
  return `${own} pins known here, waiting ${own > 0 ? "for more" : "for the first news of the masters"}`;
}

function resultOf({ own, master, before }: Sync, age: string): string {
  const count = own ?? 0;
  if ("unknown" in master)
    return `${count} pins known here; the master's count is not known (${master.unknown})`;
  if (count === 0 && master.pins === 0) return `No pins known here, and the master counts none either${age}`;
  if (count === master.pins) return `${count} of ${master.pins} pins known here${age}`;
  const [least, most] = rangeOf(master.pins, before);
  return `${count} pins known here; the master counted ${least} to ${most} meanwhile`;
}

function warningOf(sync: Sync, age: string): string {
  const { own, master } = sync;
  const minutes = SYNC_DEADLINE_MS / 60_000;
  const later = "It goes on by itself; run again later, or see `status`, to see how far it is.";
  if (own === null)
    return `ipfs-cluster did not list its pins whole in ${minutes} minutes, so how far it is can't be told. ${later}`;
  if ("pins" in master && hasMore(sync))
    return `${own} pins are known here, more than the master's ${master.pins}${age}: this node has not caught up with it. ${later}`;
  if ("pins" in master)
    return `${own} of ${master.pins} pins are known here after ${minutes} minutes${age}: this node still syncs. ${later}`;
  return `The pinset still grows after ${minutes} minutes (${own} pins so far; the master's count is not known: ${master.unknown}). ${later}`;
}
