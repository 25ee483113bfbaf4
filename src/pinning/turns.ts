/** How many pins of an account may be on their way in the cluster at first, and at most. */
const FIRST_WINDOW = 4;
const LARGEST_WINDOW = 32;
/** A pin that takes no longer is quick. ipfs-cluster itself pins ten at a time. */
const QUICK_MS = 10_000;
/** How many accounts have a window of their own. */
export const MAX_WINDOWS = 1_000;

/**
 * How many pins of each account may be on their way in the cluster at the same time: few at first, more while its pins
 * are quick. So content that nobody has does not fill the cluster's own slots.
 */
export class Windows {
  readonly #windows = new Map<string, number>();

  sizeOf(account: string): number {
    return this.#windows.get(account) ?? FIRST_WINDOW;
  }

  /** A pin of the account is pinned, so long after it was sent. */
  pinned(account: string, afterMs: number): void {
    if (afterMs > QUICK_MS) return this.slow(account);
    const size = Math.min(LARGEST_WINDOW, this.sizeOf(account) + 1);
    this.#windows.delete(account);
    this.#windows.set(account, size);
    if (this.#windows.size > MAX_WINDOWS) this.#windows.delete([...this.#windows.keys()][0] ?? "");
  }

  /** A pin of the account is not pinned, so long after it was sent. */
  waits(account: string, afterMs: number): void {
    if (afterMs > QUICK_MS) this.slow(account);
  }

  slow(account: string): void {
    this.#windows.delete(account);
  }

  /** The accounts with another size than the first one, as an object. */
  all(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#windows);
  }
}

/** The size for accounts without a window of their own. */
export const WINDOW = FIRST_WINDOW;

/** How many pins all accounts without a window of their own may have on their way: ipfs-cluster pins ten at a time. */
export const PLACES = 8;

/** How often one more may be, if it is the first one of its account. It takes a place for up to fullSearchMs(0). */
export const FIRST_EVERY_MS = 2_000;

/** When to look at a pin that was just sent, in milliseconds since then. Most are pinned by one of these looks. */
export const SOON_MS = [15, 60, 200];

/** When to look again at a pin that was sent so long ago, in milliseconds from now. */
export function nextLookMs(sinceSentMs: number): number {
  return clamp(sinceSentMs / 4, 300, 60_000);
}

/** How many pins of each account that were searched for in vain may be in the cluster beside its window. */
export const SEARCHES = 4;

/** How long a pin that was searched for in vain so often keeps its place while others of its account wait for one. */
export function searchMs(attempts: number): number {
  return clamp(20_000 * 2 ** attempts, 20_000, 600_000);
}

/** The same while another account waits, and all places are taken. */
export function fullSearchMs(attempts: number): number {
  return searchMs(attempts) / 4;
}

/** How long to wait before the cluster tries again what failed for the nth time. */
export function recoverMs(attempts: number): number {
  return clamp(15_000 * 2 ** (attempts - 1), 15_000, 600_000);
}

/** How long a pin that failed several times in a row stays out of the cluster, before it gets another turn. */
export function restMs(attempts: number): number {
  return clamp(60_000 * 2 ** Math.floor(attempts / TRIES_IN_A_ROW), 60_000, 3_600_000);
}

/** After so many failures in a row, a pin makes room for others of its account. */
export const TRIES_IN_A_ROW = 3;

/** When to look again whether a content that was replaced is still kept: about as long as it was up to now. */
export function keptMs(attempts: number): number {
  return clamp(300 * 2 ** attempts, 300, 3_600_000);
}

/** How long to wait before the size of a DAG is asked for again, and how long that may take. */
export function sizeRetryMs(attempts: number): number {
  return clamp(5_000 * 2 ** attempts, 5_000, 3_600_000);
}

/** The limit for one try to find a size. A large DAG gets more time with each try. */
export function sizeLimitMs(attempts: number): number {
  return clamp(30_000 * 2 ** attempts, 30_000, 900_000);
}

/** How long no request may be there before the queue goes on. */
const QUIET_MS = 40;
/** The longest that it waits for that; then it works for as long, whatever comes. */
const TURN_MS = 400;

/**
 * Lets the queue wait while clients send requests in a row: on the same machine, each of them would take longer. Whatever
 * they send, it works half of the time. All times are in milliseconds of one clock.
 */
export class Yielding {
  #inProgress = 0;
  #last = Number.NEGATIVE_INFINITY;
  #since = Number.NEGATIVE_INFINITY;

  /** A request has come. */
  begins(now: number): void {
    if (now - this.#since >= 2 * TURN_MS) this.#since = now;
    this.#inProgress += 1;
  }

  /** It was answered. */
  ends(now: number): void {
    this.#inProgress -= 1;
    this.#last = now;
  }

  /** How long the queue has to wait before it looks again; 0: it may work. */
  waitMs(now: number): number {
    if (now - this.#since >= TURN_MS) return 0;
    return this.#inProgress > 0 ? QUIET_MS : Math.max(0, this.#last + QUIET_MS - now);
  }
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

/** Accounts that fill half of the slots. */
export function busyAccounts(
  running: ReadonlySet<{ readonly account: string }>,
  slots: number,
): readonly string[] {
  const counts = new Map<string, number>();
  for (const { account } of running) counts.set(account, (counts.get(account) ?? 0) + 1);
  return [...counts].flatMap(([account, count]) => (count >= Math.max(1, slots / 2) ? [account] : []));
}
