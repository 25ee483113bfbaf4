import type { IncomingMessage } from "node:http";
import type { KuboBlocks } from "../cluster/kubo.ts";
import type { Log } from "../errors.ts";
import type { Blake3 } from "./blake3.ts";
import type { HttpReader } from "../machine/http.ts";
import { createHealth, healthGauges } from "../services/health.ts";
import { type Call, createApp, logFailure, type Service } from "../services/server.ts";
import type { IngestSettings } from "../settings/services.ts";
import type { SpaceReading } from "../settings/space-limits.ts";
import { answerBlock, type Reply } from "./block.ts";
import { BufferPool } from "./body.ts";
import { createQuotaGate, type StorageApi } from "./quota-gate.ts";
import { Slots } from "./slots.ts";
import { Space } from "./space.ts";

/** Time limits. Tests use shorter ones. */
export interface IngestTimes {
  /** The longest time without data from a client that sends a block. */
  readonly stallMs: number;
  /** The longest time for a whole block. */
  readonly bodyMs: number;
  /** The time before a client must keep to the minimum rate. */
  readonly slackMs: number;
  /** The longest wait for a slot. */
  readonly maxWaitMs: number;
  /** How long the rest of a refused block is read and discarded before the connection is closed. */
  readonly lingerMs: number;
  readonly graceMs: number;
}

const TIMES: IngestTimes = {
  stallMs: 15_000,
  bodyMs: 60_000,
  slackMs: 5_000,
  maxWaitMs: 30_000,
  lingerMs: 2_000,
  graceMs: 15_000,
};
/** Bytes per second. A block of 2 MiB must be complete within a minute anyway. */
const MINIMUM_RATE = 32_768;
/** A waiting request only costs its socket's buffer. */
const WAITING_PER_SLOT = 8;

/**
 * The verified ingest: `PUT /v0/block?cid=` and `GET /health`, as in fula-ingest (functionland/fula-ota). At
 * its end it closes the clients of kubo and the storage API. Requests in progress may finish within 15 s of the stop.
 */
export function openIngest(
  settings: IngestSettings,
  deps: {
    readonly blake3: Blake3;
    readonly kubo: KuboBlocks;
    /** Null: no storage API is configured. */
    readonly storage: StorageApi | null;
    readonly readSpace: () => Promise<SpaceReading | null>;
    readonly http: HttpReader;
    readonly log: Log;
    readonly version: string;
  },
  times: IngestTimes = TIMES,
): Service {
  const { blake3, kubo, storage, readSpace, http, log, version } = deps;
  const {
    bindHost: host,
    port,
    metricsPort,
    maxConcurrent: slots,
    maxBlockBytes,
    quotaMode: mode,
    noAuth,
  } = settings;
  const { stallMs, bodyMs: totalMs, slackMs, maxWaitMs, lingerMs, graceMs } = times;
  const now = (): number => performance.now();
  const all = new Slots({ slots, maxWaiting: slots * WAITING_PER_SLOT, maxWaitMs });
  const space = new Space({ read: readSpace, reserveBytes: settings.reserveBytes, now });
  const blockDeps = {
    slots: all,
    startHash: blake3.start,
    kubo,
    quota: noAuth ? null : createQuotaGate({ mode, storage, now, log }),
    buffers: new BufferPool(maxBlockBytes),
    space,
    limits: { stallMs, totalMs, slackMs, minimumRate: MINIMUM_RATE },
    log,
  };
  const health = createHealth({ version, checks: { kubo: checkKubo(http, settings.kuboUrl) }, log });
  const answer = (call: Call, reply: Reply): Response => respond(call.env.incoming, reply, lingerMs);
  const app = createApp({
    notFound: (call) => answer(call, { status: 404, body: { error: "not found; send blocks to /v0/block" } }),
    failed: (call, thrown) => {
      logFailure(log, call, thrown);
      const error = "the request failed; see the service's log";
      return answer(call, { status: 500, body: { error } });
    },
  });
  const block = async (call: Call): Promise<Response> =>
    answer(call, await answerBlock(call.env.incoming, call.req.raw.signal, blockDeps));
  const isUp = async (call: Call): Promise<Response> => {
    const up = (await health()).status === "ok";
    return answer(call, { status: up ? 200 : 503, body: { status: "ok", kubo: up } });
  };
  // Metrics count a method by its name only if its route has it.
  app.put("/v0/block", block).post("/v0/block", block).all("/v0/block", block);
  app.get("/health", isUp).all("/health", isUp);
  const auth = noAuth ? "NO AUTHENTICATION" : `quota ${mode}`;
  return {
    name: "ingest",
    host,
    port,
    app,
    metrics: {
      port: metricsPort,
      gauges: [
        ...healthGauges(health),
        {
          name: "fula_ingest_uploads",
          help: "Uploads that are processed now, and uploads that wait.",
          label: "state",
          read: () => ({ active: slots - all.free, waiting: all.waiting }),
        },
        {
          name: "fula_ingest_space_bytes",
          help: "Space that the last upload found: left for more of them, below the limit of kubo and above the reserve of the disk.",
          label: "state",
          read() {
            const left = space.leftBytes();
            return left === null ? {} : { left };
          },
        },
      ],
    },
    notes: [
      `ingest: kubo ${settings.kuboUrl}, ${auth}, storage API ${settings.storageApiUrl ?? "none"}`,
      `ingest: BLAKE3 by ${blake3.by}`,
    ],
    graceMs,
    // Includes the wait for a slot, since the body is only read after that.
    requestTimeoutMs: maxWaitMs + totalMs + 5_000,
    close: async () => {
      kubo.close();
      storage?.close();
    },
  };
}

/** Requests kubo's identity (`POST /api/v0/id`). */
function checkKubo(http: HttpReader, url: string) {
  return async (timeoutMs: number): Promise<void> => {
    const answer = await http.json(`${url}/api/v0/id`, { method: "POST", timeoutMs });
    if (answer === null) throw new Error(`no answer from ${url}`);
    if (answer.status !== 200)
      throw new Error(`${url}/api/v0/id responded with HTTP status ${answer.status}`);
  };
}

/** Sends a reply immediately, even while the client is still sending its request. */
function respond(incoming: IncomingMessage, { status, body, headers }: Reply, lingerMs: number): Response {
  const text = `${JSON.stringify(body)}\n`;
  const length = String(Buffer.byteLength(text));
  return new Response(incoming.complete ? text : withRest(incoming, text, lingerMs), {
    status,
    headers: { "content-type": "application/json", "content-length": length, ...headers },
  });
}

/**
 * A response body that is sent immediately but ends only with the request, whose rest is discarded. If the connection
 * were closed immediately, the client, which is still sending, would get a reset instead of the response.
 */
function withRest(incoming: IncomingMessage, text: string, lingerMs: number): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async start(controller) {
      controller.enqueue(Buffer.from(text));
      await discardRest(incoming, lingerMs);
      controller.close();
    },
  });
}

async function discardRest(incoming: IncomingMessage, lingerMs: number): Promise<void> {
  if (incoming.destroyed) return;
  const cut = setTimeout(() => incoming.socket.destroy(), lingerMs);
  await new Promise<void>((resolve) => {
    incoming.once("end", resolve).once("close", resolve).resume();
  });
  clearTimeout(cut);
}
