import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { messageOf } from "../errors.ts";
import { createHealth } from "../services/health.ts";
import type { Reply } from "../services/router.ts";
import { startServer } from "../services/server.ts";
import type { ServiceHands } from "../services/service.ts";
import type { IngestSettings } from "../settings/services.ts";
import { answerBlock } from "./block.ts";
import { Rooms } from "./body.ts";
import type { IngestHands } from "./hands.ts";
import { createQuotaGate } from "./quota.ts";
import { Slots } from "./slots.ts";
import type { HttpReader } from "../machine/http.ts";

/** How long things may take; tests give shorter times. */
export interface IngestTimes {
  /** Longest silence of a client that sends a block. */
  readonly stallMs: number;
  /** Longest time for the whole of a block. */
  readonly bodyMs: number;
  /** Longest wait for a slot. */
  readonly patienceMs: number;
  /** How long the rest of a refused block is thrown away before its connection is cut. */
  readonly lingerMs: number;
  readonly graceMs: number;
}

const TIMES: IngestTimes = {
  stallMs: 15_000,
  bodyMs: 60_000,
  patienceMs: 30_000,
  lingerMs: 2_000,
  graceMs: 15_000,
};
/** Whoever waits costs no more than what the socket holds. */
const WAITING_PER_SLOT = 8;

/** What the ingest works with; it closes kubo and the storage API in the end. */
export type IngestServiceHands = Omit<ServiceHands, "pool"> & IngestHands;

/**
 * The verified ingest: `PUT /v0/block?cid=` and `GET /health`, as functionland/fula-ota's fula-ingest has
 * them. Serves until the stop; requests under way may finish within 15 s.
 */
export async function serveIngest(
  settings: IngestSettings,
  hands: IngestServiceHands,
  times: IngestTimes = TIMES,
): Promise<void> {
  const { blake3, kubo, storage, stop, log, version } = hands;
  const { bindHost: host, port } = settings;
  try {
    const listener = createListener(settings, hands, times);
    const server = await startServer({
      name: "ingest",
      host,
      port,
      listener,
      stop,
      graceMs: times.graceMs,
      // The wait for a slot counts as well: the body is not read before that.
      requestTimeoutMs: times.patienceMs + times.bodyMs + 5_000,
    });
    const auth = settings.noAuth ? "NO AUTHENTICATION" : `quota ${settings.quotaMode}`;
    log(`ingest ${version} listens on ${host}:${server.port}`);
    log(`ingest: kubo ${settings.kuboUrl}, ${auth}, storage API ${settings.storageApiUrl ?? "none"}`);
    log(`ingest: BLAKE3 by ${blake3.by}`);
    await server.stopped;
    log("ingest has stopped");
  } finally {
    kubo.close();
    storage?.close();
  }
}

function createListener(
  settings: IngestSettings,
  hands: IngestServiceHands,
  times: IngestTimes,
): RequestListener {
  const { blake3, kubo, storage, http, log, version } = hands;
  const { maxConcurrent: slots, maxBlockBytes, quotaMode: mode } = settings;
  const { stallMs, bodyMs: totalMs, patienceMs } = times;
  const now = (): number => performance.now();
  const blockHands = {
    slots: new Slots({ slots, mostWaiting: slots * WAITING_PER_SLOT, patienceMs }),
    hash: blake3.hash,
    kubo,
    quota: settings.noAuth ? null : createQuotaGate({ mode, storage, now, log }),
    rooms: new Rooms(maxBlockBytes),
    limits: { stallMs, totalMs },
    log,
  };
  const health = createHealth({ version, checks: { kubo: checkKubo(http, settings.kuboUrl) }, log });

  async function answer(request: IncomingMessage, gone: AbortSignal): Promise<Reply> {
    const path = (request.url ?? "").split("?", 1)[0];
    if (path === "/v0/block") return answerBlock(request, gone, blockHands);
    if (path === "/health") {
      const up = (await health()).status === "ok";
      return { status: up ? 200 : 503, body: { status: "ok", kubo: up } };
    }
    return { status: 404, body: { error: "nothing answers here; blocks go to /v0/block" } };
  }

  return (request, response) => {
    const gone = new AbortController();
    response.once("close", () => {
      if (!response.writableFinished) gone.abort();
    });
    const failed = (cause: unknown): Reply => {
      log(`${request.method ?? "?"} failed: ${messageOf(cause)}`);
      return { status: 500, body: { error: "the request failed; the service's log says why" } };
    };
    void answer(request, gone.signal)
      .catch(failed)
      .then((reply) => {
        send(response, reply);
        if (request.complete) response.end();
        else endLater(request, response, times.lingerMs);
      });
  };
}

/** Asks kubo who it is (`POST /api/v0/id`). */
function checkKubo(http: HttpReader, url: string) {
  return async (timeoutMs: number): Promise<void> => {
    const answer = await http.json(`${url}/api/v0/id`, { method: "POST", timeoutMs });
    if (answer === null) throw new Error(`nothing answers at ${url}`);
    if (answer.status !== 200) throw new Error(`${url}/api/v0/id answers ${answer.status}`);
  };
}

function send(response: ServerResponse, { status, body, headers }: Reply): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...headers,
  });
  response.write(text);
}

/**
 * Throws the rest of a request away. A connection that is closed at once would take the answer with it: the
 * client still sends, and would be reset.
 */
function endLater(request: IncomingMessage, response: ServerResponse, lingerMs: number): void {
  const cut = setTimeout(() => request.socket.destroy(), lingerMs);
  const end = (): void => {
    clearTimeout(cut);
    response.end();
  };
  request.once("end", end).once("close", end).resume();
}
