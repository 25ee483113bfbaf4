import { Agent, type ClientRequest, type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps, Agent as SecureAgent } from "node:https";
import { messageOf, OperatorError } from "../errors.ts";
import { codeOf } from "./file-errors.ts";

/** Reads over http(s): health endpoints and the REST APIs of kubo and ipfs-cluster. */
export interface HttpReader {
  /**
   * Null where nothing answers at all; a body that is no JSON, or longer than `maxBytes` (16 MiB), is
   * `body: null`. `method` POST serves kubo, whose reads are POSTs.
   */
  json(
    url: string,
    options?: {
      readonly method?: "GET" | "POST";
      readonly timeoutMs?: number;
      readonly basicAuth?: string;
      readonly maxBytes?: number;
    },
  ): Promise<{ readonly status: number; readonly body: unknown } | null>;
  /** Counts the lines of a stream until it ends or the time is up; null where nothing answers. */
  countLines(
    url: string,
    options: { readonly timeoutMs: number; readonly basicAuth?: string },
  ): Promise<{ readonly lines: number; readonly complete: boolean } | null>;
}

const TIMEOUT_MS = 5_000;
const LINE_END = 10;
const MAX_BODY_BYTES = 16 * 1024 ** 2;
/** What is thrown when nothing is there, or when what is there goes away or says nothing in time. */
const NOBODY: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EPIPE",
  "ETIMEDOUT",
]);

const agents = {
  "http:": new Agent({ keepAlive: true, maxSockets: 8 }),
  "https:": new SecureAgent({ keepAlive: true, maxSockets: 8 }),
};

interface Exchange {
  readonly method?: "GET" | "POST";
  readonly timeoutMs: number;
  readonly basicAuth?: string;
}

/** GET and POST over http(s), following no redirects; the whole exchange has to end within the timeout. */
export const http: HttpReader = {
  json: (url, { timeoutMs = TIMEOUT_MS, maxBytes = MAX_BODY_BYTES, ...rest } = {}) =>
    exchange(url, { timeoutMs, ...rest }, async (answer) => ({
      status: answer.statusCode ?? 0,
      body: parseBody(await readBody(answer, maxBytes)),
    })),

  countLines: (url, options) =>
    exchange(url, options, async (answer) => {
      if (answer.statusCode !== 200) {
        answer.resume();
        return answer.statusCode === 204 ? { lines: 0, complete: true } : null;
      }
      return countLines(answer);
    }),
};

async function exchange<T>(
  url: string,
  { method = "GET", timeoutMs, basicAuth }: Exchange,
  take: (answer: IncomingMessage) => Promise<T>,
): Promise<T | null> {
  const target = parseUrl(url);
  const signal = AbortSignal.timeout(timeoutMs);
  const authorization = basicAuth && `Basic ${Buffer.from(basicAuth).toString("base64")}`;
  const headers = { accept: "application/json", ...(authorization && { authorization }) };
  const sent =
    target.protocol === "https:"
      ? requestHttps(target, { method, headers, signal, agent: agents["https:"] })
      : requestHttp(target, { method, headers, signal, agent: agents["http:"] });
  try {
    return await take(await answerTo(sent));
  } catch (thrown) {
    if (signal.aborted || NOBODY.has(codeOf(thrown) ?? "")) return null;
    throw new OperatorError({
      exit: "unavailable",
      what: `${target.origin} can't be asked.`,
      why: messageOf(thrown),
      cause: thrown,
    });
  }
}

/** What had come when the stream broke off or the time was up still counts. */
async function countLines(answer: IncomingMessage): Promise<{ lines: number; complete: boolean }> {
  let lines = 0;
  let open = false;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      for (let at = chunk.indexOf(LINE_END); at !== -1; at = chunk.indexOf(LINE_END, at + 1)) lines += 1;
      open = chunk.at(-1) !== LINE_END;
    }
  } catch {
    return { lines, complete: false };
  }
  return { lines: open ? lines + 1 : lines, complete: answer.complete };
}

function parseUrl(url: string): URL {
  const target = URL.canParse(url) ? new URL(url) : null;
  if (target !== null && (target.protocol === "http:" || target.protocol === "https:")) return target;
  throw new OperatorError({
    exit: "settings",
    what: "An address is no http(s) URL.",
    why: `It is ${url.replace(/\/\/[^/]*@/, "//<redacted>@")}.`,
  });
}

function answerTo(sent: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    sent.on("response", resolve);
    sent.on("error", reject);
    sent.end();
  });
}

/** Null for a longer one; the rest of it is not read, and its connection is closed. */
async function readBody(answer: IncomingMessage, maxBytes: number): Promise<string | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseBody(text: string | null): unknown {
  try {
    return text === null ? null : (JSON.parse(text) as unknown);
  } catch {
    return null;
  }
}
