import { OperatorError } from "../errors.ts";
import { failure, NO_POOL } from "./nodes-api-replies.ts";
import type { PinCount } from "./pin-count.ts";
import type { Route } from "./router.ts";

/** What the pool API works with. */
export interface PoolApiHands {
  readonly count: () => Promise<PinCount>;
  readonly log: (line: string) => void;
}

const RETRY_SECONDS = "5";

/**
 * `GET /api/v1/pool`: which pool this is, which cluster peer speaks for it, and how many pins that peer's own
 * pinset holds, so that a node which joins knows how far it is. Open to anybody: the node has no account, the
 * cluster's secret is public, and every member has the pinset itself. Asking often costs the cluster nothing
 * (pin-count.ts).
 */
export function poolRoutes({ count, log }: PoolApiHands, pool: string | null): readonly Route[] {
  return [
    {
      method: "GET",
      path: "/api/v1/pool",
      answer: async () => {
        if (pool === null) return NO_POOL;
        try {
          const { peerId, pins, countedAt } = await count();
          return { status: 200, body: { pool, peerId, pins, countedAt: countedAt.toISOString() } };
        } catch (thrown) {
          if (!(thrown instanceof OperatorError)) throw thrown;
          log(`the pins were not counted: ${thrown.what}`);
          const reply = failure(503, "not-counted", "The pinset can't be counted now; try again.");
          return { ...reply, headers: { "retry-after": RETRY_SECONDS } };
        }
      },
    },
  ];
}
