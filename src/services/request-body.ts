import type { IncomingMessage } from "node:http";
import { failure } from "./server.ts";

const BODY_TIMEOUT_MS = 5_000;

/**
 * Reads a JSON body of at most `maxBytes`, or returns the error response. It never keeps more than that in memory: a
 * longer body is refused by its declared length, or as soon as it exceeds the limit. A body that arrives too slowly is
 * also refused.
 */
export async function readJson(
  incoming: IncomingMessage,
  options: {
    readonly maxBytes: number;
    readonly timeoutMs?: number;
    /** Makes the error response, with these headers. */
    readonly refuse?: RefuseBody;
  },
): Promise<{ readonly json: unknown } | Response> {
  const {
    maxBytes,
    timeoutMs = BODY_TIMEOUT_MS,
    refuse = (status, error, headers) =>
      failure(status, BODY_CODES[status] ?? "not-json", error, {}, headers),
  } = options;
  const bytes = await readBody(incoming, JSON_TYPE, { maxBytes, timeoutMs, refuse });
  if (bytes instanceof Response) return bytes;
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    return refuse(400, "The body is not JSON in UTF-8.", CLOSING);
  }
  // JSON.parse takes the last of two equal keys; a proxy that checks the body may take the first one.
  return keysWritten(text) === keysOf(value)
    ? { json: value }
    : refuse(400, "An object of the body has the same key twice.", CLOSING);
}

/** How many keys a JSON text has: outside of its strings, each has one colon. */
function keysWritten(text: string): number {
  return text.replace(/"(?:[^"\\]+|\\.)*"/g, "").split(":").length - 1;
}

/** How many keys the objects of a value have in all. */
function keysOf(value: unknown): number {
  let count = 0;
  const left = [value];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next !== "object" || next === null) continue;
    const inner: readonly unknown[] = Object.values(next);
    if (!Array.isArray(next)) count += inner.length;
    for (const one of inner) left.push(one);
  }
  return count;
}

const JSON_TYPE = "application/json";
/** Otherwise the rest of the refused body would be read as the next request. */
const CLOSING = { connection: "close" };

/** Reads a body of this type, in the same way. */
export async function readBody(
  incoming: IncomingMessage,
  type: string,
  {
    maxBytes,
    timeoutMs = BODY_TIMEOUT_MS,
    refuse,
  }: { readonly maxBytes: number; readonly timeoutMs?: number; readonly refuse: RefuseBody },
): Promise<Buffer | Response> {
  const [sent = ""] = (incoming.headers["content-type"] ?? "").toLowerCase().split(";", 1);
  if (sent.trimEnd() !== type) return refuse(415, `The body must be ${type}.`, CLOSING);
  const declared = Number(incoming.headers["content-length"] ?? 0);
  const bytes =
    declared > maxBytes + DISCARDED_BYTES ? "too long" : await collect(incoming, maxBytes, timeoutMs);
  if (bytes === "too long")
    return refuse(413, `The body must not be longer than ${maxBytes} bytes.`, CLOSING);
  if (bytes === "too slow")
    return refuse(408, `The body did not arrive within ${timeoutMs / 1000} seconds.`, CLOSING);
  return bytes;
}

/**
 * How much of a body that is too long is read and thrown away before the answer: more than the edge lets through. A service
 * that closes the connection while the edge still sends gets the client a 503, or no answer, in place of its 413.
 */
const DISCARDED_BYTES = 2_000_000;

/** The codes of a body that is refused before it is read as JSON. */
const BODY_CODES: Readonly<Record<number, string>> = {
  408: "body-too-slow",
  413: "body-too-long",
  415: "not-json-type",
};

function collect(
  incoming: IncomingMessage,
  maxBytes: number,
  timeoutMs: number,
): Promise<Buffer | "too long" | "too slow"> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const end = (result: Buffer | "too long" | "too slow"): void => {
      clearTimeout(timer);
      incoming.off("data", take).off("end", finish).off("error", fail).off("close", abandon);
      if (typeof result === "string") incoming.pause();
      resolve(result);
    };
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > maxBytes + DISCARDED_BYTES) end("too long");
      else if (size > maxBytes) chunks.length = 0;
      else chunks.push(chunk);
    };
    const finish = (): void => end(size > maxBytes ? "too long" : Buffer.concat(chunks));
    const fail = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    const abandon = (): void => fail(new Error("the client disconnected before its body was complete"));
    const timer = setTimeout(() => end(size > maxBytes ? "too long" : "too slow"), timeoutMs);
    incoming.on("data", take).on("end", finish).on("error", fail).on("close", abandon);
  });
}

type RefuseBody = (status: number, error: string, headers: Readonly<Record<string, string>>) => Response;
