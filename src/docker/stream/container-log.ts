import type Dockerode from "dockerode";
import type { IncomingMessage } from "node:http";
import { OperatorError } from "../../errors.ts";
import { LineSplitter } from "../../machine/line-scanner.ts";
import { type Engine, reasonOf } from "../engine-client.ts";
import type { LogOptions } from "../engine.ts";

/** A stream of the engine's has no deadline between two lines: a quiet container is no fault. */
const NO_IDLE_LIMIT = 0;
const HEADER_BYTES = 8;
const SPACE = 0x20;

/**
 * Opens the log of a container as a stream of lines, each with the engine's time before it. Both streams of the container are
 * in it. The reader decides how fast it comes, so memory stays the same.
 */
export async function openContainerLog(
  engine: Engine,
  container: { readonly name: string; readonly hasTerminal: boolean },
  { since, until, tail, follow, signal }: LogOptions,
): Promise<AsyncIterable<string>> {
  const { name, hasTerminal } = container;
  const docker = await engine.open(NO_IDLE_LIMIT);
  const answer = await dial(docker, name, {
    stdout: true,
    stderr: true,
    timestamps: true,
    follow,
    ...(since === undefined ? {} : { since: secondsOf(since) }),
    ...(until === undefined ? {} : { until: secondsOf(until) }),
    ...(tail === undefined ? {} : { tail }),
  });
  const stop = (): void => void answer.destroy();
  signal?.addEventListener("abort", stop, { once: true });
  return readAnswer(answer, { name, hasTerminal, signal, stop });
}

/** Unix seconds with a fraction, as the engine reads them. */
function secondsOf(at: Date): string {
  return (at.getTime() / 1000).toFixed(3);
}

function dial(docker: Dockerode, name: string, options: object): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    docker.modem.dial(
      {
        path: `/containers/${encodeURIComponent(name)}/logs?`,
        method: "GET",
        isStream: true,
        statusCodes: { 101: true, 200: true, 404: "no such container", 500: "server error" },
        options,
      },
      (error: unknown, answer: unknown) => {
        if (error === null || error === undefined) resolve(answer as IncomingMessage);
        // docker-modem gives the error that engine-client.ts made of the answer.
        else reject(error);
      },
    );
  });
}

async function* readAnswer(
  answer: IncomingMessage,
  given: {
    readonly name: string;
    readonly hasTerminal: boolean;
    readonly signal: AbortSignal | undefined;
    readonly stop: () => void;
  },
): AsyncGenerator<string> {
  const { name, hasTerminal, signal, stop } = given;
  try {
    const chunks = answer as AsyncIterable<Buffer>;
    yield* hasTerminal ? splitPlain(chunks) : splitFramed(chunks);
  } catch (cause) {
    if (signal?.aborted === true) return;
    throw new OperatorError({
      exit: "unavailable",
      what: `The log of ${name} broke off.`,
      why: reasonOf(cause, answer),
      remedy: "Look at `journalctl -u docker -n 50`, then run again.",
      cause,
    });
  } finally {
    signal?.removeEventListener("abort", stop);
    answer.destroy();
  }
}

/**
 * The lines of a terminal, which come without frames. The engine stores a long line in parts, and puts the time of the line before
 * each: in the middle of a line, that would cut a secret in two.
 */
export async function* splitPlain(chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const splitter = new LineSplitter();
  for await (const chunk of chunks) for (const line of splitter.add(chunk)) yield withOneTime(line);
  for (const line of splitter.rest()) yield withOneTime(line);
}

function withOneTime(line: string): string {
  const time = /^\d{4}-\d\d-\d\dT\S{9,40} /.exec(line)?.[0];
  return time === undefined ? line : time + line.slice(time.length).replaceAll(time, "");
}

/**
 * Unpacks frames: a byte that names the stream, three of zero, four of the size (Engine API, ContainerAttach). A frame may come
 * in several chunks, and each stream has its own half line. A line of more than 16 KiB comes in several frames, each with the
 * time before its part (moby, daemon/logger/copier.go): the time of a later part is dropped.
 */
export async function* splitFramed(chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const splitters = new Map<number, LineSplitter>();
  let splitter = new LineSplitter();
  let header: Buffer = Buffer.alloc(0);
  let leftBytes = 0;
  let isInTime = false;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length;) {
      if (leftBytes === 0) {
        const part = chunk.subarray(at, at + HEADER_BYTES - header.length);
        header = Buffer.concat([header, part]);
        at += part.length;
        if (header.length < HEADER_BYTES) continue;
        const stream = header[0] ?? 1;
        splitter = splitters.get(stream) ?? new LineSplitter();
        splitters.set(stream, splitter);
        leftBytes = header.readUInt32BE(4);
        header = Buffer.alloc(0);
        isInTime = splitter.hasHalfLine;
        continue;
      }
      const part = chunk.subarray(at, at + leftBytes);
      at += part.length;
      leftBytes -= part.length;
      const space = isInTime ? part.indexOf(SPACE) : -1;
      if (isInTime && space === -1) continue;
      isInTime = false;
      yield* splitter.add(part.subarray(space + 1));
    }
  }
  for (const one of splitters.values()) yield* one.rest();
}
