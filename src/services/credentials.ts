import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { readBearer } from "../accounts/api-key.ts";
import { isLiveKey } from "../accounts/usage.ts";
import type { PostgresPool } from "../database/pool.ts";
import { json } from "./server.ts";

/** What the database knows a request's bearer token by: hex sha256. Null where the request has none. */
export function keyHashOf({ authorization }: IncomingHttpHeaders): string | null {
  const token = readBearer(authorization);
  return token === null ? null : createHash("sha256").update(token).digest("hex");
}

/** True if the request carries an API key that is not revoked. */
export async function hasApiKey(
  pool: Pick<PostgresPool, "query">,
  headers: IncomingHttpHeaders,
): Promise<boolean> {
  const hash = keyHashOf(headers);
  return hash !== null && isLiveKey(pool, hash);
}

/** The answer to a request without a live API key. */
export function unauthorized(): Response {
  const error = "An API key is needed: Authorization: Bearer KEY.";
  return json(401, { error }, { "www-authenticate": "Bearer" });
}
