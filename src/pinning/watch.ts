import { randomInt } from "node:crypto";
import type { Cluster } from "../cluster/client.ts";
import { linesOf, readPinLine } from "../cluster/pin.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { parseCid, spellingsOf } from "./content-id.ts";
import { judgeStatus, type Verdict } from "./cluster-status.ts";
import { loseContent, sendOnceMore } from "./queue.ts";

/** How many suspicious CIDs one pass keeps. The cluster lists in another order each time, so later passes find the others. */
const MAX_SUSPECTS = 10_000;
const BATCH = 500;

/**
 * One pass over the cluster's list of statuses, in constant memory. Pinned requests whose content no peer has any more leave
 * `pinned`. The list says nothing about what is missing in it, and a list that is not complete changes nothing. Each
 * suspicion is checked with the status of the single CID, which is right where the list is not (pins in direct mode).
 * Throws if the cluster or the database does not answer.
 */
export async function watchPins(
  pool: Pick<PostgresPool, "query">,
  cluster: Pick<Cluster, "list" | "status">,
  stop: AbortSignal,
): Promise<void> {
  const suspects: string[] = [];
  await cluster.list("status", (block) => {
    for (const line of linesOf(block, "utf8")) {
      if (suspects.length >= MAX_SUSPECTS) return;
      const status: unknown = JSON.parse(line);
      const cid = (status as { readonly cid?: unknown } | null)?.cid;
      if (typeof cid === "string" && isGone(judgeStatus(status).verdict)) suspects.push(cid);
    }
  });
  for (let at = 0; at < suspects.length && !stop.aborted; at += BATCH) {
    for (const cid of await pinnedAmong(pool, suspects.slice(at, at + BATCH))) {
      const parsed = parseCid(cid);
      if (parsed === null || stop.aborted) continue;
      if (isGone(judgeStatus(await cluster.status(cid)).verdict))
        await loseContent(pool, spellingsOf(parsed));
    }
  }
}

function isGone(verdict: Verdict): boolean {
  return verdict.kind === "lost" || verdict.kind === "failing";
}

/**
 * Finds pinned requests whose content is no longer in the cluster's pinset, and sends them again. An ipfs-cluster that was
 * killed comes back without what it had not yet written (pebble, v1.1.6), which can be the pins of hours; other peers may
 * still have the content, so the requests stay `pinned`. Needs constant memory. Throws if the list of the pinset is not
 * complete, and has then changed nothing.
 */
export async function sendForgotten(
  pool: Pick<PostgresPool, "query">,
  cluster: Pick<Cluster, "list" | "allocation">,
  stop: AbortSignal,
): Promise<number> {
  const newest = await newestRequest(pool);
  const seen = new SeenCids(randomInt(2 ** 31));
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) seen.add(readPinLine(line).cid);
  });
  let sent = 0;
  let after = 0;
  while (sent < MAX_SUSPECTS && !stop.aborted) {
    const page = await pinnedPage(pool, after, newest, BATCH);
    for (const { requestid, cid } of page) {
      const parsed = parseCid(cid);
      if (parsed === null || seen.has(parsed.text) || stop.aborted) continue;
      if ((await cluster.allocation(parsed.text)) !== null) continue;
      await sendOnceMore(pool, requestid);
      // Once for all requests for it.
      seen.add(parsed.text);
      sent += 1;
    }
    if (page.length < BATCH) break;
    after = page.at(-1)?.id ?? newest;
  }
  return sent;
}

/** Of these texts, those that a pinned request has. */
async function pinnedAmong(
  database: Pick<PostgresPool, "query">,
  cids: readonly string[],
): Promise<readonly string[]> {
  const rows = await database.query<{ cid: string }>(
    `SELECT c.cid FROM unnest($1::text[]) AS c (cid)
     WHERE EXISTS (SELECT FROM pins p WHERE p.cid = c.cid AND p.status = 'pinned')`,
    [cids],
  );
  return rows.map(({ cid }) => cid);
}

/** The id of the newest row of pins, 0 if there is none. */
async function newestRequest(database: Pick<PostgresPool, "query">): Promise<number> {
  const [row] = await database.query<{ id: number }>("SELECT coalesce(max(id), 0)::integer AS id FROM pins");
  return row?.id ?? 0;
}

/** Pinned requests in the order of their rows. */
function pinnedPage(
  database: Pick<PostgresPool, "query">,
  after: number,
  upTo: number,
  limit: number,
): Promise<readonly { readonly id: number; readonly requestid: string; readonly cid: string }[]> {
  return database.query(
    "SELECT id, requestid, cid FROM pins WHERE id > $1 AND id <= $2 AND status = 'pinned' ORDER BY id LIMIT $3",
    [after, upTo, limit],
  );
}

const BITS = 1 << 24;
const PROBES = 4;

/**
 * Remembers texts in 2 MiB, however many there are (a Bloom filter). What was added is always found; of others, one in a
 * few hundred is found by mistake at a million, and more at ten million. Another seed makes other mistakes.
 */
export class SeenCids {
  readonly #bits = new Uint32Array(BITS / 32);
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed;
  }

  add(text: string): void {
    for (const bit of this.#probesOf(text))
      this.#bits[bit >>> 5] = (this.#bits[bit >>> 5] ?? 0) | (1 << (bit & 31));
  }

  has(text: string): boolean {
    return this.#probesOf(text).every((bit) => ((this.#bits[bit >>> 5] ?? 0) & (1 << (bit & 31))) !== 0);
  }

  #probesOf(text: string): readonly number[] {
    const first = hashOf(text, this.#seed);
    const step = hashOf(text, this.#seed ^ 0x9e3779b9) | 1;
    return Array.from({ length: PROBES }, (_, probe) => (first + probe * step) & (BITS - 1));
  }
}

/** FNV-1a with the final mix of MurmurHash3. */
function hashOf(text: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
