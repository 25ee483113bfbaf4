import type { IncomingMessage } from "node:http";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { readBody } from "../../../src/ingest/body.ts";

const LIMITS = { stallMs: 10_000, totalMs: 10_000, slackMs: 10_000, minimumRate: 1 };

test("the memory of a received part is freed at once, but not memory that is shared with others", async () => {
  const own = Buffer.allocUnsafeSlow(70_000).fill("a");
  const shared = Buffer.alloc(100, "b");
  const part = shared.subarray(10, 20);
  const body = new PassThrough({ readableHighWaterMark: 1e6 });
  const reading = readBody(body as unknown as IncomingMessage, Buffer.alloc(100_000), LIMITS, () => {});
  body.write(own);
  body.end(part);
  const read = await reading;
  expect(read.kind === "complete" && read.bytes.toString()).toBe("a".repeat(70_000) + "b".repeat(10));
  expect(own.buffer.byteLength).toBe(0);
  expect(shared.toString()).toBe("b".repeat(100));
});
