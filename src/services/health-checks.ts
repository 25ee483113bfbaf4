import type { PostgresPool } from "../database/pool.ts";
import type { PinningApiSettings } from "../settings/services.ts";
import type { Check } from "./health.ts";
import type { HttpReader } from "../machine/http.ts";

/** Asks the database for a row. */
export function checkPostgres(pool: Pick<PostgresPool, "query">): Check {
  return async (timeoutMs) => {
    await pool.query("SELECT 1", [], { timeoutMs });
  };
}

/**
 * Asks the ipfs-cluster peer who it is (`GET /id`). It answers 200 although its kubo is gone, and then
 * says so in `ipfs.error` (ipfs-cluster 1.1.6): that counts as failed, since nothing can be pinned.
 */
export function checkCluster(http: HttpReader, cluster: PinningApiSettings["cluster"]): Check {
  return async (timeoutMs) => {
    const options = cluster.basicAuth === null ? { timeoutMs } : { timeoutMs, basicAuth: cluster.basicAuth };
    const answer = await http.json(`${cluster.url}/id`, options);
    if (answer === null) throw new Error(`nothing answers at ${cluster.url}`);
    if (answer.status !== 200) throw new Error(`${cluster.url}/id answers ${answer.status}`);
    const { id, error, ipfs } = (answer.body ?? {}) as {
      readonly id?: unknown;
      readonly error?: unknown;
      readonly ipfs?: { readonly error?: unknown };
    };
    if (typeof id !== "string" || id === "") throw new Error(`${cluster.url} is no ipfs-cluster peer`);
    if (isText(error)) throw new Error(error);
    if (isText(ipfs?.error)) throw new Error(`its kubo does not answer: ${ipfs.error}`);
  };
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
