import { OperatorError } from "../errors.ts";
import type { Pool } from "./pool.ts";
import type { HttpReader } from "../machine/http.ts";

const TIMEOUT_MS = 15_000;
/** Far above any pool: a thousand addresses take a tenth of it. */
const MAX_BYTES = 1024 ** 2;

/**
 * Asks the pool API. Whoever answers there decides whom a node obeys, so plain http is refused for any
 * host but this one, unless the operator allows it (by `allowFlag`, where there is such a flag). Throws
 * `settings` for a bad address, `unavailable` where there is no usable answer.
 */
export async function lookUpPool(
  http: HttpReader,
  url: string,
  options: { readonly allowHttp: boolean; readonly allowFlag?: string } = { allowHttp: false },
): Promise<Pool> {
  const { protocol, hostname } = new URL(url);
  if (
    !options.allowHttp &&
    protocol !== "https:" &&
    !["127.0.0.1", "localhost", "[::1]"].includes(hostname)
  ) {
    throw new OperatorError({
      exit: "settings",
      what: `POOL_API is ${url}: plain http to another host.`,
      why: "The answer decides whose pins this node takes over; anybody on the way could change it.",
      remedy:
        options.allowFlag === undefined
          ? "Use https://, or give MASTER_CLUSTER_PEERIDS and MASTER_CLUSTER_BOOTSTRAP yourself."
          : `Use https://; or, where nobody else can be on the way, run again with ${options.allowFlag}.`,
    });
  }
  const answer = await http.json(url, { timeoutMs: TIMEOUT_MS, maxBytes: MAX_BYTES });
  // Loaded here: most runs ask no pool, and zod is slow to load.
  const { parsePool } = await import("./pool.ts");
  const pool = answer?.status === 200 ? parsePool(answer.body) : null;
  if (pool !== null && !("fault" in pool)) return pool;
  throw new OperatorError({
    exit: "unavailable",
    what: `The pool API ${url} gives no usable answer: ${answer === null ? `nothing answers, or not whole within ${TIMEOUT_MS / 1000} s` : (pool?.fault ?? `status ${answer.status}`)}.`,
    remedy: "Try again later, or give MASTER_CLUSTER_PEERIDS and MASTER_CLUSTER_BOOTSTRAP yourself.",
  });
}
