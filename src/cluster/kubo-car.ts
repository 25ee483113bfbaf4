import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import type { HttpReader } from "../machine/http.ts";
import { type Answer, HttpClient, parseJson, readWhole } from "../machine/http-client.ts";

const MAX_ANSWER_BYTES = 65_536;
/** Nothing is pinned in this kubo: the pin goes through the cluster. */
const IMPORT_PATH = "/api/v0/dag/import?pin-roots=false&stats=true&silent=true";

/** Stores the blocks of a CARv1 in a kubo. */
export interface KuboImport {
  /** Streams the CAR. Throws what `frames` throws, a KuboRefusal, or an HttpFailure if kubo does not answer. */
  send(frames: AsyncIterable<Uint8Array>): Promise<void>;
  /** Ends it. */
  abort(reason: Error): void;
}

/** Kubo did not store all of it. */
export class KuboRefusal extends Error {}

/** Opens one import. `timeoutMs` is for the connection. Nothing is sent yet. */
export function openKuboImport(url: string, timeoutMs: number): KuboImport {
  const client = new HttpClient({ url, connections: 1, connectTimeoutMs: timeoutMs, fresh: true });
  return {
    async send(frames) {
      const boundary = `fula-node-${randomBytes(16).toString("hex")}`;
      const sent: Sent = { isWhole: false, failure: undefined };
      const body = Readable.from(multipart(frames, boundary, sent), { objectMode: false });
      const headers = { "content-type": `multipart/form-data; boundary=${boundary}` };
      try {
        const request = { method: "POST", path: IMPORT_PATH, headers, body, isOnce: true } as const;
        checkAnswer(await client.exchange(request, readWhole(MAX_ANSWER_BYTES)), sent);
      } catch (thrown) {
        throw sent.failure ?? thrown;
      } finally {
        body.destroy();
        client.close();
      }
    },
    abort: (reason) => client.close(reason),
  };
}

interface Sent {
  isWhole: boolean;
  failure: unknown;
}

async function* multipart(
  frames: AsyncIterable<Uint8Array>,
  boundary: string,
  sent: Sent,
): AsyncGenerator<Uint8Array> {
  yield Buffer.from(
    `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="car"\r\n` +
      "content-type: application/octet-stream\r\n\r\n",
  );
  try {
    yield* frames;
  } catch (thrown) {
    sent.failure = thrown;
    throw thrown;
  }
  sent.isWhole = true;
  yield Buffer.from(`\r\n--${boundary}--\r\n`);
}

/** Kubo sends the sums last, and only if it has stored everything. */
function checkAnswer({ status, text }: Answer, { isWhole }: Sent): void {
  const lines = text.split("\n").map((line) => (parseJson(line) ?? {}) as Readonly<Record<string, unknown>>);
  if (status === 200 && isWhole && lines.some((line) => "Stats" in line)) return;
  const message = lines.map((line) => line["Message"]).find((one) => typeof one === "string") ?? text.trim();
  throw new KuboRefusal(`kubo answered ${status} to dag/import: ${message.slice(0, 300)}`);
}

/**
 * Whether a kubo has a whole DAG itself: `missing` is the CID of a block that it has not. Null if it can't tell in time.
 * Nothing is searched for in other nodes.
 */
export async function findMissing(
  http: Pick<HttpReader, "json">,
  kuboUrl: string,
  cid: string,
  timeoutMs: number,
): Promise<{ readonly missing: string | null } | null> {
  const url = `${kuboUrl}/api/v0/dag/stat?arg=${cid}&progress=false&offline=true&timeout=${Math.round(timeoutMs * 0.9)}ms`;
  const answer = await http.json(url, { method: "POST", timeoutMs });
  if (answer?.status === 200) return { missing: null };
  const { Message: message } = (answer?.body ?? {}) as { readonly Message?: unknown };
  const [, missing] =
    /offline\).*could not find (\w+)/.exec(typeof message === "string" ? message : "") ?? [];
  return missing === undefined ? null : { missing };
}
