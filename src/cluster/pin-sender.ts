import Pool from "undici/lib/dispatcher/pool.js";
import type { Answer, Wire } from "./request.ts";

/** Sends very many small requests to one server, at half of what node's own client spends on each. */
export interface PinSender {
  /** Posts to a path and reads the whole answer. Rejects with the bare cause where none comes. */
  post(path: string): Promise<Answer>;
  close(): void;
}

/** Opens no connection yet. */
export function openPinSender({ endpoint, agent, headers, ca, requestTimeoutMs, signal }: Wire): PinSender {
  const { secure, host, port, socketPath } = endpoint;
  const pool = new Pool(`${secure ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`, {
    connections: agent.maxSockets,
    headersTimeout: requestTimeoutMs,
    bodyTimeout: requestTimeoutMs,
    connect: {
      timeout: requestTimeoutMs,
      ...(socketPath === null ? {} : { socketPath }),
      ...(ca === undefined ? {} : { ca }),
    },
  });
  const end = (): void => void pool.destroy();
  signal?.addEventListener("abort", end, { once: true });
  return {
    post: (path) =>
      new Promise((resolve, reject) => {
        const parts: Buffer[] = [];
        let status = 0;
        pool.dispatch(
          { method: "POST", path, headers },
          {
            onRequestStart: () => {},
            onResponseStart: (_controller, code) => void (status = code),
            onResponseData: (_controller, part) => void parts.push(part),
            onResponseEnd: () => resolve({ status, text: Buffer.concat(parts).toString("utf8") }),
            onResponseError: (_controller, cause) => reject(cause),
          },
        );
      }),
    close() {
      signal?.removeEventListener("abort", end);
      end();
    },
  };
}
