import { OperatorError } from "../errors.ts";
import { type HttpReader, tlsFaultBehind } from "../machine/http.ts";
import { isPlainHttpElsewhere } from "../settings/address.ts";

const TIMEOUT_MS = 10_000;
const PAGE = "docs/ports.md#proxy";

/**
 * Asks a storage API's public URL for its pool, as a node that joins does, and returns a warning for each problem. They
 * are no errors: a network may let other machines in where it does not let this one out and in again.
 */
export async function findUrlProblems(
  http: Pick<HttpReader, "json">,
  url: string,
  pool: string,
): Promise<readonly string[]> {
  const { hostname } = new URL(url);
  const warnings: string[] = [];
  if (isPlainHttpElsewhere(url))
    warnings.push(`${url} is plain http. Nodes refuse it, unless they join with --allow-http.`);
  if (["127.0.0.1", "localhost", "[::1]"].includes(hostname)) {
    warnings.push(`${url} is an address of this machine only. Other machines can't reach it: see ${PAGE}.`);
    return warnings;
  }
  const found = await askPool(http, `${url.replace(/\/+$/, "")}/api/v1/pool`);
  if (found.pool === pool) return warnings;
  const seen =
    found.pool === null
      ? `${url} does not answer as the storage API of this master: ${found.why}.`
      : `${url} is the storage API of another pool, ${JSON.stringify(found.pool.slice(0, 80))}.`;
  const todo =
    found.pool === null && found.why.startsWith("TLS with ")
      ? `Nodes need a certificate for it that they can verify: see ${PAGE}, and fula-node status.`
      : `The storage API listens on 127.0.0.1 only, so an HTTPS proxy must stand in front of it: see ${PAGE}.`;
  return [
    ...warnings,
    `${seen} ${todo} If other machines reach ${url} and only this one does not, ignore this.`,
  ];
}

/**
 * Why the storage API of a node's settings is of no use to its ingest, which asks it about each upload: a sentence. Null if it
 * answers as the storage API of a master of this pool.
 */
export async function findNodeUrlProblem(
  http: Pick<HttpReader, "json">,
  url: string,
  pool: string,
): Promise<string | null> {
  const base = url.replace(/\/+$/, "");
  const found = await askPool(http, `${base}/api/v1/pool`, true);
  if (found.pool === pool) return null;
  // Upstream's storage API, and one of 0.1.0, do not say their pool.
  if (found.pool === null && (await refusesWithoutKey(http, `${base}/api/v1/storage`))) return null;
  return found.pool === null
    ? `${url} does not answer as the storage API of a master: ${found.why}`
    : `${url} is the storage API of another pool, ${JSON.stringify(found.pool.slice(0, 80))}`;
}

async function refusesWithoutKey(http: Pick<HttpReader, "json">, url: string): Promise<boolean> {
  try {
    return (await http.json(url, { timeoutMs: TIMEOUT_MS, isRemote: true }))?.status === 401;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return false;
    throw thrown;
  }
}

async function askPool(
  http: Pick<HttpReader, "json">,
  url: string,
  isRemote = false,
): Promise<{ readonly pool: string } | { readonly pool: null; readonly why: string }> {
  try {
    let why = "no answer";
    const onNoAnswer = (reason: string) => void (why = reason);
    const answer = await http.json(url, { timeoutMs: TIMEOUT_MS, onNoAnswer, isRemote });
    if (answer === null) return { pool: null, why };
    const { pool } = (answer.body ?? {}) as { readonly pool?: unknown };
    return answer.status === 200 && typeof pool === "string"
      ? { pool }
      : { pool: null, why: `GET ${url} answers ${answer.status}` };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const says = tlsFaultBehind(thrown) === null ? (thrown.why ?? thrown.what) : thrown.what;
    return { pool: null, why: says.replace(/\.$/, "") };
  }
}
