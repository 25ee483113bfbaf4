import type { IncomingMessage } from "node:http";
import type { Reply } from "./router.ts";

/** A body as JSON, or the answer to one that can't be taken. */
export type Body = { readonly json: unknown } | { readonly refused: Reply };

const TIMEOUT_MS = 5_000;

/**
 * Reads a JSON body of at most so many bytes. Never keeps more than that in memory: a longer one is refused
 * by its announced length, or as soon as it is longer. A client that sends too slowly is refused, too.
 */
export async function readJsonBody(
  request: IncomingMessage,
  { maxBytes, timeoutMs = TIMEOUT_MS }: { readonly maxBytes: number; readonly timeoutMs?: number },
): Promise<Body> {
  if (!/^application\/json *(?:;|$)/i.test(request.headers["content-type"] ?? ""))
    return refuse(415, "The body must be application/json.");
  const tooLong = refuse(413, `The body must not be longer than ${maxBytes} bytes.`);
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) return tooLong;
  const bytes = await collect(request, maxBytes, timeoutMs);
  if (bytes === "too long") return tooLong;
  if (bytes === "too slow") return refuse(408, `The body did not come within ${timeoutMs / 1000} seconds.`);
  try {
    return { json: JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown };
  } catch {
    return refuse(400, "The body is no JSON in UTF-8.");
  }
}

function collect(
  request: IncomingMessage,
  maxBytes: number,
  timeoutMs: number,
): Promise<Buffer | "too long" | "too slow"> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const end = (result: Buffer | "too long" | "too slow"): void => {
      clearTimeout(timer);
      request.off("data", take).off("end", finish).off("error", fail).off("close", abandon);
      if (typeof result === "string") request.pause();
      resolve(result);
    };
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > maxBytes) end("too long");
      else chunks.push(chunk);
    };
    const finish = (): void => end(Buffer.concat(chunks));
    const fail = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    const abandon = (): void => fail(new Error("the client went away before its body was complete"));
    const timer = setTimeout(() => end("too slow"), timeoutMs);
    request.on("data", take).on("end", finish).on("error", fail).on("close", abandon);
  });
}

/** The rest of a body that is not wanted would otherwise be taken for the next request. */
function refuse(status: number, error: string): Body {
  return { refused: { status, body: { error }, headers: { connection: "close" } } };
}
