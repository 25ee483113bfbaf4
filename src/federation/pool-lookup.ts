import { OperatorError } from "../errors.ts";
import type { HttpReader } from "../machine/http.ts";
import { isPlainHttpElsewhere } from "../settings/address.ts";
import type { Pool } from "./pool.ts";

const TIMEOUT_MS = 15_000;
/** Far larger than any answer: a thousand addresses take a tenth of it. */
const MAX_BYTES = 1024 ** 2;

/**
 * Asks the pool API. Its answer decides which masters a node trusts, so plain http is refused for any
 * host other than this one, unless the operator allows it (with `allowFlag`, if the command has such a flag). Throws
 * `settings` for a bad address, `unavailable` if there is no usable answer.
 */
export async function lookUpPool(
  http: HttpReader,
  url: string,
  options: { readonly allowHttp: boolean; readonly allowFlag?: string } = { allowHttp: false },
): Promise<Pool> {
  if (!options.allowHttp && isPlainHttpElsewhere(url)) {
    throw new OperatorError({
      exit: "settings",
      what: `POOL_API is ${url}, which uses plain http to another host.`,
      why: "The answer decides which masters this node trusts. Anyone on the network path could change it.",
      remedy:
        options.allowFlag === undefined
          ? "Use https://, or set MASTER_CLUSTER_PEERIDS and MASTER_CLUSTER_BOOTSTRAP."
          : `Use https://. If you trust the network in between, run again with ${options.allowFlag}.`,
    });
  }
  const answer = await http.json(url, { timeoutMs: TIMEOUT_MS, maxBytes: MAX_BYTES, isRemote: true });
  // Loaded here because most runs do not ask a pool, and zod is slow to load.
  const { parsePool } = await import("./pool.ts");
  const pool = answer?.status === 200 ? parsePool(answer.body) : null;
  if (pool !== null && !("fault" in pool)) return pool;
  throw new OperatorError({
    exit: "unavailable",
    what: `The pool API ${url} gave no usable answer: ${answer === null ? `no complete answer within ${TIMEOUT_MS / 1000} s` : (pool?.fault ?? `HTTP status ${answer.status}`)}.`,
    remedy: "Try again later, or set MASTER_CLUSTER_PEERIDS and MASTER_CLUSTER_BOOTSTRAP.",
  });
}
