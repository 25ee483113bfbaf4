import { messageOf, OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";

/** How many pins a master's own pinset holds, or why that is not known: the end of a sentence. */
export type MasterCount =
  | {
      readonly pins: number;
      /** By the master's clock; a long pinset is counted rarely, so it may be minutes ago. */
      readonly countedAt: Date;
    }
  | { readonly unknown: string };

/** A long pinset is counted while this waits. */
const TIMEOUT_MS = 20_000;

/**
 * Asks a master's API how many pins the pool has (GET /api/v1/pool). Only the count of a peer that this node
 * obeys is taken; a master that can't tell is no error.
 */
export async function askMasterCount(
  host: HostReader,
  storageApiUrl: string,
  trusted: readonly string[],
): Promise<MasterCount> {
  const url = `${storageApiUrl.replace(/\/+$/, "")}/api/v1/pool`;
  try {
    const answer = await host.http.json(url, { timeoutMs: TIMEOUT_MS });
    if (answer === null) return { unknown: `${url} does not answer` };
    if (answer.status !== 200) return { unknown: `${url} answers ${answer.status}` };
    return readCount(answer.body, url, trusted);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { unknown: `${url} can't be asked: ${thrown.why ?? messageOf(thrown)}` };
  }
}

function readCount(body: unknown, url: string, trusted: readonly string[]): MasterCount {
  const { peerId, pins, countedAt } = (body ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof peerId !== "string" || typeof pins !== "number" || !Number.isSafeInteger(pins) || pins < 0)
    return { unknown: `${url} gives no count` };
  const at = new Date(typeof countedAt === "string" ? countedAt : Number.NaN);
  if (Number.isNaN(at.getTime())) return { unknown: `${url} does not tell when it counted` };
  return trusted.includes(peerId)
    ? { pins, countedAt: at }
    : { unknown: `${url} counts for ${peerId.slice(0, 80)}, which this node does not obey` };
}
