import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { openKubo } from "../../src/cluster/kubo.ts";
import { blockCidOf } from "../../src/ingest/cid.ts";
import { type IngestTimes, openIngest } from "../../src/ingest/ingest.ts";
import { openStorageApi } from "../../src/ingest/quota-gate.ts";
import { openBlake3 } from "../../src/ingest/blake3.ts";
import { http } from "../../src/machine/http.ts";
import { runService } from "../../src/services/run-service.ts";
import type { IngestSettings } from "../../src/settings/services.ts";
import type { SpaceReading } from "../../src/settings/space-limits.ts";

/** An ingest that runs in this process. */
export interface RunningIngest {
  readonly url: string;
  readonly lines: readonly string[];
  /** Aborts it and waits until it has stopped. */
  stop(): Promise<void>;
}

/** Its answer. */
export interface IngestAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Readonly<Record<string, unknown>>;
}

const blake3 = await openBlake3();
const EMPTY = { usedBytes: 0, limitBytes: 1e12, availableBytes: 1e12 };

/** A text with the form of an API key, which nobody signed. */
export function tokenOf(sub: string, claims: Readonly<Record<string, unknown>> = {}): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, ...claims })}.${"s".repeat(43)}`;
}

/** The token of a test that does not care. */
const TOKEN = tokenOf("somebody");

/** Starts an ingest. `quotaTimeoutMs` and `kuboTimeoutMs` are for servers that never answer. */
export async function startIngest(options: {
  readonly kuboUrl: string;
  readonly storageApiUrl?: string;
  readonly settings?: Partial<IngestSettings>;
  readonly times?: Partial<IngestTimes>;
  readonly quotaTimeoutMs?: number;
  readonly kuboTimeoutMs?: number;
  /** By default there is room for everything. */
  readonly readSpace?: () => Promise<SpaceReading | null>;
}): Promise<RunningIngest> {
  const lines: string[] = [];
  const stop = new AbortController();
  const storageApiUrl = options.storageApiUrl ?? null;
  const settings: IngestSettings = {
    bindHost: "127.0.0.1",
    port: 0,
    metricsPort: 0,
    logLevel: "info",
    kuboUrl: options.kuboUrl,
    storageApiUrl,
    storageApiCa: null,
    quotaMode: "strict",
    maxBlockBytes: 1_048_576,
    maxConcurrent: 32,
    noAuth: false,
    reserveBytes: 0,
    ...options.settings,
  };
  const connections = settings.maxConcurrent;
  const times = {
    stallMs: 10_000,
    bodyMs: 20_000,
    slackMs: 10_000,
    maxWaitMs: 10_000,
    lingerMs: 2_000,
    graceMs: 15_000,
  };
  let ended: Promise<void> = Promise.resolve();
  const url = await new Promise<string>((resolve, reject) => {
    const log = (line: string): void => {
      lines.push(line);
      const address = / listens on (\S+)$/.exec(line)?.[1];
      if (address !== undefined) resolve(`http://${address}`);
    };
    const kubo = openKubo(options.kuboUrl, { connections, timeoutMs: options.kuboTimeoutMs ?? 10_000 });
    const storage =
      storageApiUrl === null
        ? null
        : openStorageApi(storageApiUrl, { connections, timeoutMs: options.quotaTimeoutMs ?? 10_000 });
    const { readSpace = () => Promise.resolve(EMPTY) } = options;
    const deps = { blake3, kubo, storage, readSpace, http, log, version: "1.2.3" };
    const service = openIngest(settings, deps, { ...times, ...options.times });
    ended = runService(service, { stop: stop.signal, log, version: "1.2.3" });
    ended.catch(reject);
  });
  return {
    url,
    lines,
    async stop() {
      stop.abort();
      await ended;
    },
  };
}

/** The CID of these bytes, as canonical text. */
export function blockCid(bytes: Uint8Array): string {
  return blockCidOf(blake3.hash(bytes)).text;
}

/** Random bytes and their CID. */
export function randomBlock(sizeBytes: number): { readonly bytes: Buffer; readonly cid: string } {
  const bytes = randomBytes(sizeBytes);
  return { bytes, cid: blockCid(bytes) };
}

/** Sends a block with fetch. If `token` is null, without the header. */
export async function sendBlock(
  url: string,
  cid: string | null,
  bytes: Uint8Array,
  options: { readonly token?: string | null; readonly method?: string } = {},
): Promise<IngestAnswer> {
  const { token = TOKEN, method = "PUT" } = options;
  const query = cid === null ? "" : `?cid=${cid}`;
  const headers: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };
  const body = method === "GET" ? {} : { body: bytes };
  const answer = await fetch(`${url}/v0/block${query}`, { method, headers, ...body });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, body: JSON.parse(text) as IngestAnswer["body"] };
}

/** A connection on which a test can write anything. */
export interface RawClient {
  readonly socket: Socket;
  /** Everything that was received until now. */
  received(): string;
  readonly closed: Promise<unknown>;
}

/** Opens a connection and sends the head of a PUT. */
export async function openRaw(
  url: string,
  cid: string,
  headers: Readonly<Record<string, string | number>>,
): Promise<RawClient> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await once(socket, "connect");
  let text = "";
  socket.on("data", (part) => (text += part.toString("latin1")));
  socket.on("error", () => {});
  const closed = new Promise((resolve) => socket.once("close", resolve));
  const all = { host: hostname, authorization: `Bearer ${TOKEN}`, ...headers };
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`PUT /v0/block?cid=${cid} HTTP/1.1\r\n${head.join("")}\r\n`);
  return { socket, received: () => text, closed };
}
