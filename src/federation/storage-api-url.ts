import { OperatorError } from "../errors.ts";
import type { HttpReader } from "../machine/http.ts";
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

async function askPool(
  http: Pick<HttpReader, "json">,
  url: string,
): Promise<{ readonly pool: string } | { readonly pool: null; readonly why: string }> {
  try {
    let why = "no answer";
    const onNoAnswer = (reason: string) => void (why = reason);
    const answer = await http.json(url, { timeoutMs: TIMEOUT_MS, onNoAnswer });
    if (answer === null) return { pool: null, why };
    const { pool } = (answer.body ?? {}) as { readonly pool?: unknown };
    return answer.status === 200 && typeof pool === "string"
      ? { pool }
      : { pool: null, why: `GET ${url} answers ${answer.status}` };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { pool: null, why: (thrown.why ?? thrown.what).replace(/\.$/, "") };
  }
}
