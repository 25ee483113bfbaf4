import { Agent, request as requestHttp, type IncomingMessage } from "node:http";
import { Agent as SecureAgent, request as requestHttps } from "node:https";
import { codeOf } from "./file-errors.ts";

/** One request; `path` goes after the base URL. */
export interface ClientRequest {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers: Readonly<Record<string, string | number>>;
  readonly body?: readonly Uint8Array[];
}

/** An HTTP client of one server, with kept connections. */
export interface HttpClient {
  /** Sends it and reads the whole answer. Throws an Error without the request's headers where none comes, or none in time. */
  send(request: ClientRequest): Promise<{ readonly status: number; readonly text: string }>;
  /** Closes the kept connections. */
  close(): void;
}

/** Nobody whom a service asks sends more than this. */
const MOST_ANSWER_BYTES = 65_536;
/** How a connection ends that the server had closed while it was kept. */
const STALE: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

/**
 * Opens no connection yet. `timeoutMs` bounds each exchange from its start to the answer's last byte. Every
 * request must be safe to repeat: one that met a kept connection's end is sent once more.
 */
export function openHttpClient(
  baseUrl: string,
  options: { readonly connections: number; readonly timeoutMs: number },
): HttpClient {
  const { connections: maxSockets, timeoutMs } = options;
  const secure = new URL(baseUrl).protocol === "https:";
  const agent = secure
    ? new SecureAgent({ keepAlive: true, maxSockets })
    : new Agent({ keepAlive: true, maxSockets });
  const start = secure ? requestHttps : requestHttp;

  function exchange(request: ClientRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { method, headers, body = [] } = request;
    return new Promise((resolve, reject) => {
      const sent = start(new URL(baseUrl + request.path), { method, headers, agent, signal });
      sent.once("response", resolve);
      sent.on("error", (cause) => {
        const stale = sent.reusedSocket && STALE.has(codeOf(cause) ?? "") && !signal.aborted;
        if (stale) exchange(request, signal).then(resolve, reject);
        else reject(cause);
      });
      sent.cork();
      for (const part of body) sent.write(part);
      sent.end();
      sent.uncork();
    });
  }

  return {
    async send(request) {
      const signal = AbortSignal.timeout(timeoutMs);
      try {
        const answer = await exchange(request, signal);
        return { status: answer.statusCode ?? 0, text: await readText(answer) };
      } catch (cause) {
        if (signal.aborted) throw new Error(`no answer within ${timeoutMs / 1000} s`, { cause });
        throw cause;
      }
    },
    close: () => agent.destroy(),
  };
}

async function readText(answer: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of answer as AsyncIterable<Buffer>) {
    sizeBytes += part.length;
    if (sizeBytes > MOST_ANSWER_BYTES)
      throw new Error(`the answer is longer than ${MOST_ANSWER_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}
