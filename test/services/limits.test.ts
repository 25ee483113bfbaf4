import { once } from "node:events";
import { connect } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { clientOf, createRateLimit } from "../../src/services/rate-limit.ts";
import { readJsonBody } from "../../src/services/request-body.ts";
import { deferred, listenAnywhere } from "./serving.ts";

describe("createRateLimit", () => {
  it("gives a burst, then so many a minute, to each client by itself", () => {
    let now = 0;
    const wait = createRateLimit({ burst: 2, perMinute: 6 }, () => now);
    expect([wait("a"), wait("a"), wait("a"), wait("b")]).toEqual([0, 0, 10, 0]);
    now += 9_000;
    expect(wait("a")).toBe(1);
    now += 1_000;
    expect([wait("a"), wait("a")]).toEqual([0, 10]);
    now += 3_600_000;
    expect([wait("a"), wait("a"), wait("a")]).toEqual([0, 0, 10]);
  });

  test("never lets more through than burst and rate allow", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20_000), { maxLength: 60 }), (pauses) => {
        let now = 0;
        const wait = createRateLimit({ burst: 3, perMinute: 10 }, () => now);
        let passed = 0;
        for (const pause of pauses) {
          now += pause;
          if (wait("a") === 0) passed += 1;
        }
        expect(passed).toBeLessThanOrEqual(3 + (now / 60_000) * 10);
      }),
    );
  });

  it("forgets the client that asked longest ago once there are too many", () => {
    const wait = createRateLimit({ burst: 1, perMinute: 1 }, () => 0);
    for (let client = 0; client <= 10_000; client += 1) wait(String(client));
    expect(wait("10000")).toBeGreaterThan(0);
    expect(wait("0")).toBe(0);
  });
});

describe("clientOf", () => {
  const from = (remoteAddress: string, forwarded?: string) =>
    clientOf({
      socket: { remoteAddress } as never,
      headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded },
    });

  it.each([
    ["192.0.2.1", undefined, "192.0.2.1"],
    ["192.0.2.1", "203.0.113.9", "192.0.2.1"],
    ["127.0.0.1", "203.0.113.9", "203.0.113.9"],
    ["::ffff:127.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"],
    ["::1", undefined, "::1"],
    ["127.0.0.1", "", "127.0.0.1"],
  ])("%s with %s is %s", (peer, forwarded, client) => {
    expect(from(peer, forwarded)).toBe(client);
  });
});

describe("readJsonBody", () => {
  it("gives up on a client that sends too slowly, and on one that goes away", async () => {
    const read = deferred<unknown>();
    const { port, close } = await listenAnywhere((request, response) => {
      readJsonBody(request, { maxBytes: 100, timeoutMs: 50 }).then(
        (body) => {
          read.resolve(body);
          response.end();
        },
        () => {},
      );
    });
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    socket.write(
      "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{",
    );
    expect(await read.promise).toMatchObject({ refused: { status: 408, headers: { connection: "close" } } });
    socket.destroy();
    await close();

    const failed = deferred<string>();
    const other = await listenAnywhere((request) => {
      readJsonBody(request, { maxBytes: 100 }).catch((error: Error) => failed.resolve(error.message));
    });
    const leaver = connect(other.port, "127.0.0.1");
    leaver.on("error", () => {});
    await once(leaver, "connect");
    leaver.write(
      "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{",
      () => leaver.destroy(),
    );
    expect(await failed.promise).toMatch(/went away|aborted/);
    await other.close();
  });
});
