import type { PostgresPool } from "../database/postgres.ts";
import { type ParsedCid, usualSpellingsOf } from "./content-id.ts";

/** A wait that ends early on the stop, or by `end`. If nobody waits then, the next wait ends at once. */
export class Pause {
  #end: (() => void) | null = null;
  #isEnded = false;

  end(): void {
    if (this.#end === null) this.#isEnded = true;
    else this.#end();
  }

  async wait(ms: number, stop: AbortSignal): Promise<void> {
    if (stop.aborted || this.#isEnded) {
      this.#isEnded = false;
      return;
    }
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        stop.removeEventListener("abort", done);
        this.#end = null;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#end = done;
      stop.addEventListener("abort", done, { once: true });
    });
  }
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (thrown: unknown) => void;
}

/** Gives a result for each item, in their order. What is known earlier can be given to `answer` with its place. */
type RunBatch<Item, Result> = (
  items: readonly Item[],
  answer: (at: number, result: Result) => void,
) => Promise<readonly Result[]>;

/**
 * Lets what comes at the same time be done together, by one statement or in one transaction. A few batches run at once;
 * what comes while they do waits, and makes the next one.
 */
export class Batches<Item, Result> {
  readonly #run: RunBatch<Item, Result>;
  readonly #most: number;
  readonly #atOnce: number;
  #waiting: Waiting<Item, Result>[] = [];
  #running = 0;
  #isDue = false;

  /** `run` gets at most `most` items. `atOnce` batches run at the same time. */
  constructor(run: RunBatch<Item, Result>, bounds: { readonly most: number; readonly atOnce: number }) {
    this.#run = run;
    this.#most = bounds.most;
    this.#atOnce = bounds.atOnce;
  }

  /** Throws what the batch of this item throws. */
  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      // After everything that comes with it.
      if (!this.#isDue) setImmediate(() => this.#begin());
      this.#isDue = true;
    });
  }

  #begin(): void {
    this.#isDue = false;
    while (this.#running < this.#atOnce && this.#waiting.length > 0) {
      this.#running += 1;
      void this.#runOne(this.#waiting.splice(0, this.#most)).then(() => {
        this.#running -= 1;
        this.#begin();
      });
    }
  }

  async #runOne(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#run(
        batch.map(({ item }) => item),
        (at, result) => batch[at]?.resolve(result),
      );
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result));
    } catch (thrown) {
      for (const { reject } of batch) reject(thrown);
    }
  }
}

/**
 * Runs `work` while this process alone, of all masters on this database, sends or unpins those contents, whatever their
 * spelling. `isHeld` tells which of them, in their order: not what another process works on just now, and of equal contents
 * only the first one. The locks belong to one transaction, so they work through a pooler, and PostgreSQL ends them if this
 * process is gone, or stopped for longer than the lease: the transaction then fails.
 */
export async function underContentLocks<Result>(
  pool: Pick<PostgresPool, "transaction">,
  cids: readonly ParsedCid[],
  leaseMs: number,
  work: (database: Pick<PostgresPool, "query">, isHeld: readonly boolean[]) => Promise<Result>,
): Promise<Result> {
  const contents = cids.map((cid) => usualSpellingsOf(cid)[0] ?? cid.text);
  return pool.transaction(async (database) => {
    const held = await database.query<{ content: string }>(
      `SELECT content FROM (
         SELECT content, pg_try_advisory_xact_lock(hashtextextended('fula-node content ' || content, 0)) AS held,
           set_config('idle_in_transaction_session_timeout', $2, true)
         FROM unnest($1::text[]) AS content OFFSET 0) AS locks
       WHERE held`,
      [[...new Set(contents)], `${leaseMs}ms`],
      { name: "work-lock" },
    );
    const mine = new Set(held.map(({ content }) => content));
    const isHeld = contents.map((content, at) => mine.has(content) && contents.indexOf(content) === at);
    // If it fails, the transaction is gone, and its next statement says so.
    const alive = setInterval(() => void database.query("SELECT 1").catch(() => {}), leaseMs / 3);
    try {
      return await work(database, isHeld);
    } finally {
      clearInterval(alive);
    }
  });
}

/** Repeats a statement until it finds no more, or until the stop. Returns how many it found in all. */
export async function untilNone(find: () => Promise<number>, stop: AbortSignal): Promise<number> {
  let all = 0;
  while (!stop.aborted) {
    const found = await find();
    if (found === 0) break;
    all += found;
  }
  return all;
}
