import { once } from "node:events";
import { connect } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { clientOf, createRateLimit } from "../../src/services/rate-limit.ts";
import { readJson } from "../../src/services/request-body.ts";
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
    ["127.0.0.1", "203.0.113.9:50412", "203.0.113.9"],
    ["127.0.0.1", "unknown", "unknown"],
    ["2001:db8:1:2:3:4:5:6", undefined, "2001:db8:1:2::/64"],
    ["2001:db8:1:2:ffff::1", undefined, "2001:db8:1:2::/64"],
    ["2001:db8:1:3::1", undefined, "2001:db8:1:3::/64"],
    ["2001:db8::1", undefined, "2001:db8:0:0::/64"],
    ["::2", undefined, "0:0:0:0::/64"],
    ["1::", undefined, "1:0:0:0::/64"],
    ["fe80::1%eth0", undefined, "fe80:0:0:0::/64"],
    ["::ffff:192.0.2.1", undefined, "192.0.2.1"],
    ["::ffff:192.0.2.2", undefined, "192.0.2.2"],
    ["127.0.0.1", "::FFFF:C000:0201", "192.0.2.1"],
    ["127.0.0.1", "2001:0DB8:0001:0002::9", "2001:db8:1:2::/64"],
    ["127.0.0.1", "[2001:db8:1:2::9]:50412", "2001:db8:1:2::/64"],
    ["127.0.0.1", "[2001:db8:1:2::8]", "2001:db8:1:2::/64"],
  ])("%s with %s is %s", (peer, forwarded, client) => {
    expect(from(peer, forwarded)).toBe(client);
  });
});

test("all addresses of one IPv6 customer share one bucket", () => {
  const wait = createRateLimit({ burst: 2, perMinute: 1 }, () => 0);
  const from = (remoteAddress: string) => wait(clientOf({ socket: { remoteAddress } as never, headers: {} }));
  expect(["::1:1", "::2:2", "::3:3"].map((end) => from(`2001:db8:7:7${end}`))).toEqual([0, 0, 60]);
  expect(from("2001:db8:7:8::1")).toBe(0);
});

describe("readJson", () => {
  it("gives up on a client that sends too slowly, and on one that goes away", async () => {
    const read = deferred<unknown>();
    const { port, close } = await listenAnywhere((request, response) => {
      readJson(request, { maxBytes: 100, timeoutMs: 50 }).then(
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
    const refused = (await read.promise) as Response;
    expect({ status: refused.status, connection: refused.headers.get("connection") }).toEqual({
      status: 408,
      connection: "close",
    });
    socket.destroy();
    await close();

    const failed = deferred<string>();
    const other = await listenAnywhere((request) => {
      readJson(request, { maxBytes: 100 }).catch((error: Error) => failed.resolve(error.message));
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
