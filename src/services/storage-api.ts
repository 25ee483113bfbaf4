import { isLiveKey, usageOfKey } from "../accounts/usage.ts";
import type { PostgresPool } from "../database/pool.ts";
import { type Pricing, reportStorage } from "../settings/quota.ts";
import { keyHashOf } from "./credentials.ts";
import { whileDatabaseAnswers } from "./outage.ts";
import type { Reply, Route } from "./router.ts";

/** What the storage API works with. */
export interface StorageApiHands {
  readonly pool: Pick<PostgresPool, "query">;
  readonly log: (line: string) => void;
}

/**
 * `GET /api/v1/storage`: what the account of an API key uses and may still upload. No rate limit stands
 * before it: an ingest node asks it for each of its clients and comes from one address, and a limit for that
 * address would turn away paying clients (or, where the node lets pass what it can't ask, meter nobody). A key
 * can't be guessed, so a wrong one costs one look into an index, and a malformed one not even that.
 */
export function storageRoutes({ pool, log }: StorageApiHands, pricing: Pricing): readonly Route[] {
  return [
    {
      method: "GET",
      path: "/api/v1/storage",
      answer: async ({ headers }) => {
        const hash = keyHashOf(headers);
        if (hash === null) return UNAUTHORIZED;
        return whileDatabaseAnswers(log, async () => {
          const usage = await usageOfKey(pool, hash);
          return usage === null ? UNAUTHORIZED : { status: 200, body: reportStorage(usage, pricing) };
        });
      },
    },
  ];
}

/** True where the request carries an API key that is not revoked. */
export async function hasApiKey(
  pool: Pick<PostgresPool, "query">,
  headers: Parameters<typeof keyHashOf>[0],
): Promise<boolean> {
  const hash = keyHashOf(headers);
  return hash !== null && isLiveKey(pool, hash);
}

/** For a request without a live API key. */
export const UNAUTHORIZED: Reply = {
  status: 401,
  body: { error: "An API key is needed: Authorization: Bearer KEY." },
  headers: { "www-authenticate": "Bearer" },
};
