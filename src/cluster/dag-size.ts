import type { HttpReader } from "../machine/http.ts";

/**
 * The size of a DAG, each block counted once, in bytes (kubo's `dag/stat`). It reads the whole DAG, from other nodes where
 * this kubo has no copy. Throws if kubo does not answer within `timeoutMs`.
 */
export async function readDagSize(
  http: Pick<HttpReader, "json">,
  kuboUrl: string,
  cid: string,
  timeoutMs: number,
): Promise<number> {
  // With `timeout`, kubo itself ends the search a little earlier.
  const limit = `timeout=${Math.max(1, Math.round(timeoutMs * 0.9))}ms`;
  const url = `${kuboUrl}/api/v0/dag/stat?arg=${encodeURIComponent(cid)}&progress=false&${limit}`;
  const answer = await http.json(url, { method: "POST", timeoutMs });
  if (answer === null) throw new Error("kubo did not answer dag/stat in time");
  const body = (answer.body ?? {}) as { readonly Message?: unknown; readonly DagStats?: unknown };
  if (answer.status !== 200) {
    const said = typeof body.Message === "string" ? body.Message : "no message";
    throw new Error(`kubo answered ${answer.status} to dag/stat: ${said.slice(0, 300)}`);
  }
  const [stat] = (Array.isArray(body.DagStats) ? body.DagStats : []) as readonly {
    readonly Size?: unknown;
  }[];
  const size = stat?.Size;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
    throw new Error("kubo answered dag/stat without a size");
  return size;
}
