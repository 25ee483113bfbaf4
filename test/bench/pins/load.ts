import { Client, type Dispatcher } from "undici";

/** One request of a load. */
export interface Sent {
  readonly method: "GET" | "POST" | "DELETE" | "OPTIONS";
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** What is sent, and by how many at once. */
export interface Load {
  readonly url: string;
  readonly clients: number;
  /** How many requests all clients send together; each client sends its next one once the last one was answered. */
  readonly requests: number;
  /** The nth request. */
  readonly request: (nth: number) => Sent;
  /** The status that each answer must have. */
  readonly status: number;
  /** Called with the body of each answer. */
  readonly onAnswer?: (text: string) => void;
}

/** What a load took. */
export interface LoadResult {
  readonly perSecond: number;
  /** The time of each request, in the order of the answers. */
  readonly latenciesMs: readonly number[];
}

/** Sends a load over kept-alive connections, one for each client. Throws if an answer has another status. */
export async function runLoad(load: Load): Promise<LoadResult> {
  const connections = Array.from({ length: load.clients }, () => connect(load.url));
  try {
    // Opens each connection before the time begins.
    await Promise.all(connections.map((connection) => send(connection, OPENING)));
    const latenciesMs: number[] = [];
    let next = 0;
    const startedAt = performance.now();
    await Promise.all(
      connections.map(async (connection) => {
        while (next < load.requests) {
          const sent = load.request(next++);
          const sentAt = performance.now();
          const { status, text } = await send(connection, sent);
          latenciesMs.push(performance.now() - sentAt);
          if (status !== load.status)
            throw new Error(`${sent.method} ${sent.path} was answered with ${status}: ${text}`);
          load.onAnswer?.(text);
        }
      }),
    );
    const seconds = (performance.now() - startedAt) / 1_000;
    return { perSecond: latenciesMs.length / seconds, latenciesMs };
  } finally {
    await Promise.all(connections.map((connection) => connection.destroy()));
  }
}

/** Answered by every server, whatever the status is. */
const OPENING: Sent = { method: "OPTIONS", path: "/pins", headers: {} };

function connect(url: string, localAddress?: string): Client {
  const from = localAddress === undefined ? {} : { localAddress };
  return new Client(url, { pipelining: 1, keepAliveTimeout: 60_000, keepAliveTimeoutThreshold: 0, ...from });
}

/** Connections that do nothing. */
export interface IdleConnections {
  /** How many the server has closed meanwhile. */
  lost(): number;
  close(): Promise<void>;
}

/** Opens connections that stay idle after one request each. An address may open only a part of what a service accepts. */
export async function openIdle(url: string, count: number): Promise<IdleConnections> {
  let lost = 0;
  let isOver = false;
  const connections = Array.from({ length: count }, (_, n) => {
    const connection = connect(url, `127.0.0.${2 + Math.floor(n / 400)}`);
    connection.on("disconnect", () => {
      if (!isOver) lost += 1;
    });
    return connection;
  });
  for (let at = 0; at < count; at += 50)
    await Promise.all(connections.slice(at, at + 50).map((connection) => send(connection, OPENING)));
  return {
    lost: () => lost,
    async close() {
      isOver = true;
      await Promise.all(connections.map((connection) => connection.destroy()));
    },
  };
}

async function send(
  connection: Dispatcher,
  sent: Sent,
): Promise<{ readonly status: number; readonly text: string }> {
  const { statusCode, body } = await connection.request(sent);
  return { status: statusCode, text: await body.text() };
}

/** The value below which so large a part of the numbers is. */
export function percentile(numbers: readonly number[], part: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN;
}
