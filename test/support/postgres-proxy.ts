import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** A proxy in front of a PostgreSQL. It ends with the test. */
export interface PostgresProxy {
  readonly port: number;
  /** From now on the open connections stay open and pass nothing on, in either direction. */
  freeze(): void;
  /** From now on a new connection is taken, and nothing is passed on. */
  freezeNew(): void;
  /** The next connection that sends this text is reset (TCP RST) in place of an answer. */
  resetAt(text: string): void;
  /** The next connection that sends this text is cut before the server gets it, or in place of its answer. */
  cut(text: string, when: "before" | "after"): void;
}

/**
 * Starts a proxy on 127.0.0.1. `swallowOptions` leaves `options` out of the start-up message, as a pooler does that is
 * told to ignore them (pgbouncer's ignore_startup_parameters).
 */
export async function startPostgresProxy(
  serverPort: number,
  { swallowOptions = false } = {},
): Promise<PostgresProxy> {
  const pairs: (readonly [Socket, Socket])[] = [];
  let takesNew = true;
  let resetAt: string | null = null;
  let cut: { readonly text: string; readonly when: "before" | "after" } | null = null;
  const server = createServer((client) => {
    const upstream = connect(serverPort, "127.0.0.1");
    pairs.push([client, upstream]);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
    if (!takesNew) return;
    client.once("data", (first: Buffer) => {
      upstream.write(swallowOptions ? withoutOptions(first) : first);
      client.on("data", (data: Buffer) => {
        if (cut !== null && data.includes(cut.text)) {
          const { when } = cut;
          cut = null;
          if (when === "before") {
            upstream.destroy();
            client.resetAndDestroy();
          } else {
            upstream.unpipe(client);
            upstream.once("data", () => client.resetAndDestroy()).resume();
          }
        }
        if (resetAt === null || !data.includes(resetAt)) return;
        resetAt = null;
        client.resetAndDestroy();
      });
      client.pipe(upstream);
      upstream.pipe(client);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    for (const sockets of pairs) for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    port: address.port,
    freeze() {
      for (const [client, upstream] of pairs) {
        client.unpipe(upstream);
        upstream.unpipe(client);
        // Read and thrown away, so that the kernel confirms what was sent, as a firewall that lost its state may not.
        client.resume();
        upstream.resume();
      }
    },
    freezeNew() {
      takesNew = false;
    },
    resetAt(text) {
      resetAt = text;
    },
    cut(text, when) {
      cut = { text, when };
    },
  };
}

/** PostgreSQL manual, 55.7 Message Formats, StartupMessage: length, protocol, then pairs of strings. */
function withoutOptions(message: Buffer): Buffer {
  const words = message.subarray(8).toString("utf8").split("\0").slice(0, -2);
  const kept: string[] = [];
  for (let at = 0; at + 1 < words.length; at += 2)
    if (words[at] !== "options") kept.push(words[at] ?? "", words[at + 1] ?? "");
  const body = Buffer.from(`${kept.map((word) => `${word}\0`).join("")}\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(message.readInt32BE(4), 4);
  return Buffer.concat([head, body]);
}
