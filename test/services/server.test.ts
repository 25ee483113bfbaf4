import { once } from "node:events";
import { Agent, get, type IncomingMessage } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { type RunningServer, startServer } from "../../src/services/server.ts";
import { deferred, listenAnywhere } from "./serving.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** A server whose requests wait for the gate. */
async function startGated(graceMs: number) {
  const stop = new AbortController();
  const gate = deferred<void>();
  const arrived = deferred<void>();
  const server = await startServer({
    name: "test",
    host: "127.0.0.1",
    port: 0,
    stop: stop.signal,
    graceMs,
    listener: (_request, response) => {
      arrived.resolve();
      void gate.promise.then(() => response.end("done"));
    },
  });
  cleanups.push(async () => {
    gate.resolve();
    stop.abort();
    await server.stopped;
  });
  return { server, stop, gate, arrived: arrived.promise };
}

async function fetchText(
  { port }: RunningServer,
  agent?: Agent,
): Promise<IncomingMessage & { text: string }> {
  const request = get({ host: "127.0.0.1", port, ...(agent === undefined ? {} : { agent }) });
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return Object.assign(response, { text });
}

describe("startServer", () => {
  it("lets a request under way finish, and accepts no new one", async () => {
    const { server, stop, gate, arrived } = await startGated(10_000);
    const agent = new Agent({ keepAlive: true });
    cleanups.push(() => agent.destroy());
    const underWay = fetchText(server, agent);
    await arrived;
    stop.abort();
    await expect(fetchText(server)).rejects.toThrow("ECONNREFUSED");
    gate.resolve();
    expect(await underWay).toMatchObject({ statusCode: 200, text: "done", headers: { connection: "close" } });
    await server.stopped;
  });

  it("cuts off what is not finished within the grace period", async () => {
    const { server, stop, arrived } = await startGated(20);
    const underWay = fetchText(server).catch((error: NodeJS.ErrnoException) => error.code);
    await arrived;
    stop.abort();
    await server.stopped;
    expect(await underWay).toBe("ECONNRESET");
  });

  it("does not wait for connections that are kept alive but idle", async () => {
    const { server, stop, gate } = await startGated(600_000);
    gate.resolve();
    const agent = new Agent({ keepAlive: true });
    cleanups.push(() => agent.destroy());
    await fetchText(server, agent);
    stop.abort();
    await server.stopped;
  });

  it("stops at once when told to before it listens", async () => {
    const { stopped } = await startServer({
      name: "test",
      host: "127.0.0.1",
      port: 0,
      listener: () => {},
      stop: AbortSignal.abort(),
    });
    await stopped;
  });

  it("names the port that is taken", async () => {
    const taken = await listenAnywhere(() => {});
    cleanups.push(taken.close);
    const started = startServer({
      name: "test",
      host: "127.0.0.1",
      port: taken.port,
      listener: () => {},
      stop: new AbortController().signal,
    });
    const error: unknown = await started.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OperatorError);
    expect(error).toMatchObject({
      exit: "preflight",
      what: `test can't listen on 127.0.0.1:${taken.port}: port ${taken.port} is taken.`,
      cause: { code: "EADDRINUSE" },
    });
  });

  it("says so where the address is not this machine's", async () => {
    const started = startServer({
      name: "test",
      host: "192.0.2.1",
      port: 0,
      listener: () => {},
      stop: new AbortController().signal,
    });
    await expect(started).rejects.toMatchObject({ exit: "preflight", cause: { code: "EADDRNOTAVAIL" } });
  });
});
