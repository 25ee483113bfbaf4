import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { readBearer } from "../accounts/api-key.ts";

/** What the database knows a request's bearer token by: hex sha256. Null where the request has none. */
export function keyHashOf({ authorization }: IncomingHttpHeaders): string | null {
  const token = readBearer(authorization);
  return token === null ? null : createHash("sha256").update(token).digest("hex");
}
