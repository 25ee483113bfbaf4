import type { Cluster } from "../cluster/client.ts";
import type { KuboBlocks } from "../cluster/kubo.ts";
import { linesOf, readWholePin, type WholePin } from "../cluster/pin.ts";
import { planPin } from "../cluster/pin-request.ts";
import { OperatorError } from "../errors.ts";
import type { Blake3 } from "../ingest/blake3.ts";
import { blockCidOf, parseBlockCid } from "../ingest/cid.ts";
import { type InstalledMaster, openOwnCluster } from "../join/installed-node.ts";
import type { JoinDeps } from "../join/join-run.ts";
import type { Clock } from "../machine/clock.ts";
import { judgeOwner } from "../machine/owner-check.ts";
import { DRILL_MARK_KEY, DRILL_NAME_START, drillMark, hasDrillMark } from "../pinset/drill-mark.ts";
import { isCopy, readPinStatus } from "../pinset/sweep/replication.ts";
import { multiaddrToUrl } from "../settings/address.ts";
import { DRILL_DIRECTORY } from "../settings/layout.ts";
import type { DrillContext } from "./drill.ts";
import { DrillFinding } from "./drill-finding.ts";

/** What a drill needs to make content of its own on the live pool, and to remove it. */
export interface ContentDeps extends Pick<JoinDeps, "openCluster"> {
  readonly host: Pick<JoinDeps["host"], "files" | "clock" | "random" | "http">;
  openBlake3(): Promise<Blake3>;
  openKubo(
    url: string,
    options: { readonly connections: number; readonly timeoutMs: number },
  ): Promise<KuboBlocks>;
}

/** A few random bytes that nobody else has, and the directory of the drill that made them. */
export interface DrillContent {
  readonly cid: string;
  /** The name of the pin and of the directory. */
  readonly name: string;
  /** Of root alone. It goes last, because it is what remembers the content. */
  readonly directory: string;
}

/** How many copies a pin has, and where if possible. Zero: as the cluster does by default. */
interface Copies {
  readonly min: number;
  readonly max: number;
  readonly peers: readonly string[];
}

const NOTE = "content.json";
const KUBO_TIMEOUT_MS = 10_000;
const POLL_MS = 200;

/** Opens the cluster for a drill. After `stop` it reads nothing more. A change that was sent is waited for: nobody could know later whether it still comes. */
export function openDrillCluster(
  deps: Pick<ContentDeps, "openCluster">,
  master: InstalledMaster,
  stop: AbortSignal,
): Cluster {
  const reads = openOwnCluster(deps, master, { signal: stop });
  const changes = openOwnCluster(deps, master);
  return {
    ...reads,
    pin: (path) => changes.pin(path),
    unpin: (cid) => changes.unpin(cid),
    close: () => {
      reads.close();
      changes.close();
    },
  };
}

/** A clock whose waits end soon after `stop`, with its reason. */
export function stoppable(clock: Clock, stop: AbortSignal): Clock {
  return {
    now: () => clock.now(),
    monotonicMs: () => clock.monotonicMs(),
    wait: async (durationMs) => {
      for (let left = durationMs; left > 0; left -= POLL_MS) {
        stop.throwIfAborted();
        await clock.wait(Math.min(POLL_MS, left));
      }
      stop.throwIfAborted();
    },
  };
}

/** Checks again and again. False if it did not become true within this time. */
export async function until(clock: Clock, limitMs: number, check: () => Promise<boolean>): Promise<boolean> {
  const endMs = clock.monotonicMs() + limitMs;
  while (!(await check())) {
    if (clock.monotonicMs() >= endMs) return false;
    await clock.wait(POLL_MS);
  }
  return true;
}

/**
 * Makes the directory, then the block in the master's kubo. It is pinned by pinContent. Whatever is cut off here,
 * removeContents finds it: the directory names the content before there is any.
 */
export async function makeContent(
  deps: ContentDeps,
  { layout, values }: InstalledMaster,
  subject: "snapshot" | "sweep",
): Promise<DrillContent> {
  const { files, random } = deps.host;
  const bytes = Buffer.from(`a drill of fula-node: ${random.hex(32)}\n`);
  const cid = blockCidOf((await deps.openBlake3()).hash(bytes)).text;
  const name = `${DRILL_NAME_START}${subject}-${random.hex(8)}`;
  const directory = `${layout.baseDir}/${name}`;
  await files.makeDirectory(directory, { mode: 0o700 });
  await files.writeAtomic(`${directory}/${NOTE}`, `${JSON.stringify({ cid })}\n`, { mode: 0o600 });
  const kubo = await deps.openKubo(kuboUrlOf(values), { connections: 1, timeoutMs: KUBO_TIMEOUT_MS });
  try {
    const put = await kubo.openPut(bytes.length).store(bytes);
    if (put.kind === "failed" || put.key !== cid)
      throw new DrillFinding(
        `kubo did not store a block: ${put.kind === "failed" ? put.why.replace(/\.$/, "") : `it named it ${put.key}`}`,
        { todo: "see what does not work (fula-node status), repair it, then run the drill again" },
      );
  } finally {
    kubo.close();
  }
  return { cid, name, directory };
}

/**
 * Pins it in the pool, with the mark of this master. It expires after `lifeMs`: ipfs-cluster itself unpins what no drill
 * cleans up, and a snapshot that has it restores it only until then.
 */
export async function pinContent(
  deps: { readonly host: Pick<JoinDeps["host"], "clock"> },
  { master, cluster }: { readonly master: InstalledMaster; readonly cluster: Cluster },
  { cid, name }: DrillContent,
  { copies, lifeMs }: { readonly copies: Copies; readonly lifeMs: number },
): Promise<void> {
  const now = deps.host.clock.now();
  const expireAt = `${new Date(now.getTime() + lifeMs).toISOString().slice(0, 19)}Z`;
  const options: WholePin["options"] = {
    name,
    mode: "recursive",
    replicationMin: copies.min,
    replicationMax: copies.max,
    shardSize: 0,
    metadata: { [DRILL_MARK_KEY]: drillMark(masterIdOf(master), cid) },
    origins: [],
    expireAt,
  };
  const plan = planPin({ cid, type: "pin", options, allocations: copies.peers }, now);
  if (plan.kind === "not-restorable") throw new Error(`a drill's pin can't be sent: ${plan.why}`);
  const answer = await cluster.pin(plan.path);
  if (answer.kind === "done") return;
  throw new OperatorError({
    exit: "unavailable",
    what: `ipfs-cluster did not accept the drill's pin: ${answer.status}: ${answer.message}`,
    remedy: "See what does not work (fula-node status), repair it, then run this again.",
  });
}

/** The peers that report a copy. */
export async function copiesOf(cluster: Pick<Cluster, "status">, cid: string): Promise<ReadonlySet<string>> {
  const status = readPinStatus(await cluster.status(cid));
  if (status === null)
    throw new OperatorError({
      exit: "unavailable",
      what: "The answer of ipfs-cluster to the status of a pin can't be read.",
    });
  return new Set(Object.entries(status.peerMap).flatMap(([peer, info]) => (isCopy(info) ? [peer] : [])));
}

/**
 * Removes what drills of this master have left: pins with its mark, blocks in its kubo, directories. Nothing else is
 * touched; what has only the name is reported. Returns a line for each content. Throws an OperatorError (unavailable) if it
 * can't see what is left.
 */
export async function removeContents(
  deps: ContentDeps,
  { master, report }: Pick<DrillContext, "master" | "report">,
  deadlineMs = 55_000,
): Promise<readonly string[]> {
  const { files } = deps.host;
  const { baseDir, snapshotsDir } = master.layout;
  const cluster = openOwnCluster(deps, master, { deadlineMs });
  try {
    const directories = await listDirectories(files, [snapshotsDir, baseDir], report);
    const contents = new Map<string, string>();
    const damaged = new Set<string>();
    for (const { name, path } of directories) {
      const cid = await readNote(files, `${path}/${NOTE}`);
      if (cid === "damaged") damaged.add(name);
      else if (cid !== null) contents.set(cid, name);
    }
    for (const { cid, name } of await listMarked(master, cluster)) {
      contents.set(cid, name);
      damaged.delete(name);
    }
    const removed = new Map<string, string[]>();
    const add = (name: string, what: readonly string[]) =>
      removed.set(name, [...(removed.get(name) ?? []), ...what]);
    for (const [cid, name] of contents) {
      try {
        add(name, await removeContent(deps, { master, cluster }, cid));
      } catch (thrown) {
        throw await keepNotes(
          files,
          directories.map(({ path }) => path),
          thrown,
        );
      }
    }
    for (const { name, path } of directories) {
      await files.remove(path);
      add(name, [damaged.has(name) ? `its directory (${BLOCK_MAY_STAY})` : "its directory"]);
    }
    return [...removed].map(([name, what]) => `${name}: ${[...new Set(what)].join(", ")}`);
  } finally {
    cluster.close();
  }
}

/**
 * A directory whose content can't be removed now keeps its note, for the next run, and nothing else: a snapshot of all pins is large.
 * Returns the error with the names of the directories.
 */
async function keepNotes(
  files: ContentDeps["host"]["files"],
  directories: readonly string[],
  thrown: unknown,
): Promise<unknown> {
  for (const directory of directories)
    for (const name of (await files.list(directory)) ?? [])
      if (name !== NOTE) await files.remove(`${directory}/${name}`);
  if (!(thrown instanceof OperatorError) || directories.length === 0) return thrown;
  const { exit, what, remedy } = thrown;
  return new OperatorError({
    exit,
    what: `${what.replace(/\.$/, "")}; ${directories.join(", ")} remembers it, and goes with the next run.`,
    ...(remedy === undefined ? {} : { remedy }),
    cause: thrown,
  });
}

const BLOCK_MAY_STAY = `its ${NOTE} is damaged, so a block of a few bytes may stay in kubo`;

/** The directories of drills, in the order in which they go: what remembers the content is last. */
async function listDirectories(
  files: ContentDeps["host"]["files"],
  parents: readonly string[],
  report: (line: string) => void,
): Promise<readonly { readonly name: string; readonly path: string }[]> {
  const found: { name: string; path: string }[] = [];
  for (const parent of parents)
    for (const name of ((await files.list(parent)) ?? []).filter((one) => DRILL_DIRECTORY.test(one))) {
      const path = `${parent}/${name}`;
      const stat = await files.stat(path);
      if (stat === null) continue;
      if (stat.kind === "directory" && judgeOwner(path, stat) === null) found.push({ name, path });
      else
        report(`left ${path} alone: it has the name of a drill's directory, but is not one of root's alone`);
    }
  return found;
}

/** A directory without a note was cut off before there was any content. A power cut may leave a note that can't be read. */
async function readNote(files: ContentDeps["host"]["files"], path: string): Promise<string | null> {
  try {
    const text = await files.readText(path);
    if (text === null) return null;
    const { cid } = (JSON.parse(text) ?? {}) as { readonly cid?: unknown };
    return typeof cid === "string" && parseBlockCid(cid).kind === "cid" ? cid : "damaged";
  } catch (thrown) {
    if (thrown instanceof OperatorError || thrown instanceof SyntaxError) return "damaged";
    throw thrown;
  }
}

/** The pins with this master's mark, however many others there are. */
async function listMarked(
  master: InstalledMaster,
  cluster: Pick<Cluster, "list">,
): Promise<readonly { readonly cid: string; readonly name: string }[]> {
  const found: { cid: string; name: string }[] = [];
  await cluster.list("allocations", (block) => {
    if (!block.includes(DRILL_NAME_START)) return;
    for (const line of linesOf(block, "utf8")) {
      if (!line.includes(DRILL_NAME_START)) continue;
      const pin = readWholePin(JSON.parse(line));
      if (pin !== null && hasDrillMark(masterIdOf(master), pin))
        found.push({ cid: pin.cid, name: pin.options.name });
    }
  });
  return found;
}

function masterIdOf({ layout, values }: InstalledMaster): string {
  const id = values("MASTER_ID");
  if (id !== undefined) return id;
  throw new OperatorError({
    exit: "settings",
    what: `${layout.envFile} has no MASTER_ID, with which a drill marks its pins.`,
    remedy: "Run join-as-master again: it makes one.",
  });
}

/** Returns what was there, for people. */
async function removeContent(
  deps: ContentDeps,
  { master, cluster }: { readonly master: InstalledMaster; readonly cluster: Cluster },
  cid: string,
): Promise<readonly string[]> {
  const pin = readWholePin(await cluster.allocation(cid));
  if (pin !== null && !hasDrillMark(masterIdOf(master), pin))
    return ["its content stays, because somebody else pinned it"];
  if (pin !== null) await cluster.unpin(cid);
  const hadBlock = await removeBlock(deps, kuboUrlOf(master.values), cid);
  const isGone = async () => (await cluster.allocation(cid)) === null;
  // A cluster with batching lists a pin some time longer.
  if (!(await until(deps.host.clock, UNPIN_MS, isGone)))
    throw new OperatorError({
      exit: "unavailable",
      what: "A drill's pin is still in the pinset, although it was unpinned.",
      remedy: "Run the drill again: it cleans up first.",
    });
  return [...(pin === null ? [] : ["its pin"]), ...(hadBlock ? ["its block"] : [])];
}

/** ipfs-cluster unpins in kubo within seconds. What it does not unpin by then, because it lost track, is unpinned here. */
const UNPIN_MS = 5_000;
const REMOVE_MS = 20_000;

/** Removes a block from kubo, once nothing pins it there. True if it was there. */
async function removeBlock({ host }: ContentDeps, kuboUrl: string, cid: string): Promise<boolean> {
  const { clock, http } = host;
  const startMs = clock.monotonicMs();
  const ask = (path: string) =>
    http.json(`${kuboUrl}/api/v0/${path}`, { method: "POST", timeoutMs: KUBO_TIMEOUT_MS });
  let fault = "it has it pinned";
  while (clock.monotonicMs() - startMs < REMOVE_MS) {
    const answer = await ask(`block/rm?arg=${cid}`);
    if (answer === null) throw kuboFault("does not answer, so the block of a drill may still be there");
    const { Error: error = "", Message: message } = (answer.body ?? {}) as {
      readonly Error?: string;
      readonly Message?: string;
    };
    if (answer.status === 200 && error === "") return true;
    if (/could not find|not found/.test(error)) return false;
    fault = message ?? error;
    if (!fault.startsWith("pinned")) break;
    if (clock.monotonicMs() - startMs >= UNPIN_MS) await ask(`pin/rm?arg=${cid}`);
    await clock.wait(POLL_MS);
  }
  throw kuboFault(`did not remove the block of a drill: ${fault}`);
}

function kuboUrlOf(values: InstalledMaster["values"]): string {
  const url = multiaddrToUrl(values("IPFS_API_ADDR") ?? "");
  if (url !== null) return url;
  throw new OperatorError({ exit: "settings", what: "IPFS_API_ADDR is not an address of kubo's RPC API." });
}

function kuboFault(what: string): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `kubo ${what}.`,
    remedy: "See what does not work (fula-node status), repair it, then run this again.",
  });
}
