import { Agent, type ClientRequest, type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps, Agent as SecureAgent } from "node:https";
import { codeOf } from "./file-errors.ts";

/** One request; `path` goes after the base URL. */
export interface RequestHead {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly headers: Readonly<Record<string, string | number>>;
}

/** An answer, read whole. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** A request whose body is sent as it comes. */
export interface OpenRequest {
  write(part: Uint8Array): void;
  /** Sends the last of the body and reads the whole answer; throws as `send` does, and StaleConnection. */
  finish(rest: readonly Uint8Array[]): Promise<Answer>;
  /** Cuts the connection of a request that was not sent whole: the server never sees its end. */
  abandon(): void;
}

/** An HTTP client of one server, with kept connections. */
export interface HttpClient {
  open(head: RequestHead): OpenRequest;
  /** Sends it and reads the whole answer. Throws an Error without the request's headers where none comes, or none in time. */
  send(head: RequestHead, body?: readonly Uint8Array[]): Promise<Answer>;
  /** Closes the kept connections. */
  close(): void;
}

/** The server had closed a kept connection; the request must be sent again. */
export class StaleConnection extends Error {}

/** Nobody whom a service asks sends more than this. */
const MOST_ANSWER_BYTES = 65_536;
/** How a connection ends that the server had closed while it was kept. */
const STALE: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

/**
 * Opens no connection yet. `timeoutMs` bounds the time from the end of a request to its answer's last byte. Every
 * request must be safe to repeat: `send` repeats one that met a kept connection's end.
 */
export function openHttpClient(
  baseUrl: string,
  { connections, timeoutMs }: { readonly connections: number; readonly timeoutMs: number },
): HttpClient {
  const { protocol, hostname, port, pathname } = new URL(baseUrl);
  const secure = protocol === "https:";
  const pool = { keepAlive: true, maxSockets: connections };
  const agent = secure ? new SecureAgent(pool) : new Agent(pool);
  const start = secure ? requestHttps : requestHttp;
  // An IPv6 address stands in brackets in a URL, and without them in a socket's address.
  const server = { agent, port, hostname: hostname.replace(/^\[|\]$/g, "") };
  const base = pathname.replace(/\/$/, "");

  function open({ method, path, headers }: RequestHead): OpenRequest {
    const sent = start({ ...server, method, path: base + path, headers });
    const answered = readAnswer(sent);
    // Whoever abandons a request no longer waits for its answer.
    answered.catch(() => {});
    return {
      write: (part) => void sent.write(part),
      async finish(rest) {
        const late = new Error(`no answer within ${timeoutMs / 1000} s`);
        const timer = setTimeout(() => sent.destroy(late), timeoutMs);
        sent.cork();
        for (const part of rest) sent.write(part);
        sent.end();
        sent.uncork();
        try {
          return await answered;
        } finally {
          clearTimeout(timer);
        }
      },
      abandon() {
        if (!sent.writableFinished) sent.destroy();
      },
    };
  }

  return {
    open,
    async send(head, body = []) {
      for (;;) {
        try {
          return await open(head).finish(body);
        } catch (cause) {
          if (!(cause instanceof StaleConnection)) throw cause;
        }
      }
    },
    close: () => agent.destroy(),
  };
}

/** Events, not an async iterator: this runs for every block that is taken in. */
function readAnswer(sent: ClientRequest): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      const stale = sent.reusedSocket && STALE.has(codeOf(cause) ?? "");
      reject(stale ? new StaleConnection("a kept connection was closed", { cause }) : cause);
    };
    sent.on("error", fail);
    sent.once("response", (answer: IncomingMessage) => {
      const parts: Buffer[] = [];
      let sizeBytes = 0;
      answer.on("data", (part: Buffer) => {
        sizeBytes += part.length;
        parts.push(part);
        if (sizeBytes <= MOST_ANSWER_BYTES) return;
        sent.destroy(new Error(`the answer is longer than ${MOST_ANSWER_BYTES} bytes`));
      });
      answer.on("error", reject);
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString("utf8") }),
      );
    });
  });
}
