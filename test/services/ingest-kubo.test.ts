import fc from "fast-check";
import { statfs } from "node:fs/promises";
import { request as requestHttp } from "node:http";
import { tmpdir } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSpace } from "../../src/cluster/kubo-space.ts";
import { http } from "../../src/machine/http.ts";
import { eventually } from "../support/cluster-real.ts";
import {
  blockCid,
  openRaw,
  randomBlock,
  sendBlock,
  startIngest,
  tokenOf,
  type RunningIngest,
} from "../support/kubo-ingest.ts";
import { findKubo, startRealKubo, type RealKubo } from "../support/kubo-real.ts";
import { answering, startStandIn, type StandIn } from "../support/kubo-stand-in.ts";

const program = await findKubo();
if (typeof program === "string" && process.env["CI"] !== undefined) throw new Error(program);
if (typeof program === "string") console.warn(`skipped: the ingest on a real kubo: ${program}`);

describe.skipIf(typeof program === "string")("the ingest on a real kubo", () => {
  let kubo: RealKubo;
  let storage: StandIn;
  let ingest: RunningIngest;
  beforeAll(async () => {
    kubo = await startRealKubo(program as Exclude<typeof program, string>);
    storage = await startStandIn(answering(200, { canUpload: true }));
    ingest = await startIngest({
      kuboUrl: kubo.url,
      storageApiUrl: storage.url,
      settings: { maxBlockBytes: 4_194_304 },
    });
  });
  afterAll(async () => {
    await ingest?.stop();
    await storage?.close();
    await kubo?.remove();
  });

  test.each([1, 65_536, 262_144, 1_048_576, 2_097_152])("stores a block of %i bytes", async (sizeBytes) => {
    const { bytes, cid } = randomBlock(sizeBytes);
    const { status, headers, body } = await sendBlock(ingest.url, cid, bytes);
    expect({ status, body }).toEqual({ status: 200, body: { cid, size: sizeBytes } });
    expect(headers.get("content-type")).toBe("application/json");
    expect((await kubo.block(cid))?.equals(bytes)).toBe(true);
  });

  test("takes POST for PUT, and names the block in base32 whatever the base it was asked for", async () => {
    const { bytes, cid } = randomBlock(1_000);
    const answer = await fetch(`${kubo.url}/api/v0/cid/format?arg=${cid}&b=base58btc`, { method: "POST" });
    const { Formatted } = (await answer.json()) as { Formatted: string };
    expect(Formatted).toMatch(/^z/);
    const { status, body } = await sendBlock(ingest.url, Formatted, bytes, { method: "POST" });
    expect({ status, body }).toEqual({ status: 200, body: { cid, size: 1_000 } });
  });

  test("stores nothing of a block in which one bit is not what it was", async () => {
    // Of a few bytes only, the flipped block could be one that another test has stored.
    const flips = fc.tuple(fc.uint8Array({ minLength: 16, maxLength: 5_000 }), fc.nat(), fc.nat(7));
    await fc.assert(
      fc.asyncProperty(flips, async ([bytes, at, bit]) => {
        const before = await kubo.countBlocks();
        const declared = blockCid(bytes);
        const flipped = Uint8Array.from(bytes);
        const index = at % bytes.length;
        flipped[index] = (flipped[index] ?? 0) ^ (1 << bit);
        const answer = await sendBlock(ingest.url, declared, flipped);
        expect(answer.status).toBe(422);
        expect(answer.body).toEqual({
          error: expect.any(String) as string,
          declared,
          actual: blockCid(flipped),
        });
        expect(await kubo.block(declared)).toBeNull();
        expect(await kubo.block(blockCid(flipped))).toBeNull();
        expect(await kubo.countBlocks()).toBe(before);
      }),
      { numRuns: 60 },
    );
  });

  test("stores nothing of a large block with its last bit flipped", async () => {
    const { bytes, cid } = randomBlock(1_048_576);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    expect((await sendBlock(ingest.url, cid, bytes)).status).toBe(422);
    expect(await kubo.block(cid)).toBeNull();
    expect(await kubo.block(blockCid(bytes))).toBeNull();
  });

  test("passes on that kubo takes no block over 2 MiB", async () => {
    const { bytes, cid } = randomBlock(2_097_153);
    const { status, body } = await sendBlock(ingest.url, cid, bytes);
    expect(status).toBe(502);
    expect(body["error"]).toMatch(/^kubo: block\/put answered 500: .*2MiB/);
  });

  test("stores nothing of a block that the client breaks off, and takes the next one", async () => {
    const narrow = await startIngest({
      kuboUrl: kubo.url,
      storageApiUrl: storage.url,
      settings: { maxConcurrent: 1 },
    });
    try {
      const { bytes, cid } = randomBlock(100_000);
      const client = await openRaw(narrow.url, cid, { "content-length": bytes.length });
      const asked = storage.asked.length;
      client.socket.write(bytes.subarray(0, 50_000));
      await eventually("the quota was asked", async () => storage.asked.length > asked);
      client.socket.destroy();
      await client.closed;
      expect((await sendBlock(narrow.url, cid, bytes)).status).toBe(200);
    } finally {
      await narrow.stop();
    }
  });

  test("takes no more than the limit and the disk's reserve allow, whatever is sent at once", async () => {
    const space = await readSpace(http, kubo.url);
    expect(space?.limitBytes).toBe(10e9);
    const { bavail, bsize } = await statfs(tmpdir());
    expect((space?.availableBytes ?? 0) / (bavail * bsize)).toBeCloseTo(1, 1);
    const room = 1_000_000;
    const full = await startIngest({
      kuboUrl: kubo.url,
      storageApiUrl: storage.url,
      readSpace: async () => {
        const reading = await readSpace(http, kubo.url);
        return reading && { ...reading, limitBytes: (space?.usedBytes ?? 0) + room };
      },
    });
    try {
      const blocks = Array.from({ length: 40 }, () => randomBlock(100_000));
      const answers = await Promise.all(blocks.map(({ cid, bytes }) => sendBlock(full.url, cid, bytes)));
      const stored = answers.filter(({ status }) => status === 200).length;
      expect(answers.filter(({ status }) => status === 507)).toHaveLength(40 - stored);
      expect(stored).toBeGreaterThanOrEqual(8);
      expect((await readSpace(http, kubo.url))?.usedBytes).toBeLessThanOrEqual(
        (space?.usedBytes ?? 0) + room,
      );
    } finally {
      await full.stop();
    }
  });

  test("stores a block that comes byte by byte", async () => {
    const { bytes, cid } = randomBlock(3_000);
    const status = await new Promise<number>((resolve, reject) => {
      const headers = { authorization: `Bearer ${tokenOf("slow")}`, "transfer-encoding": "chunked" };
      const sent = requestHttp(`${ingest.url}/v0/block?cid=${cid}`, { method: "PUT", headers }, (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      });
      sent.on("error", reject);
      for (const byte of bytes) sent.write(Uint8Array.of(byte));
      sent.end();
    });
    expect(status).toBe(200);
    expect((await kubo.block(cid))?.equals(bytes)).toBe(true);
  });

  test("stores what 64 clients send at once", async () => {
    const blocks = Array.from({ length: 64 }, () => randomBlock(20_000));
    const answers = await Promise.all(blocks.map(({ cid, bytes }) => sendBlock(ingest.url, cid, bytes)));
    expect(answers.map(({ status }) => status)).toEqual(blocks.map(() => 200));
    for (const { cid, bytes } of blocks) expect((await kubo.block(cid))?.equals(bytes)).toBe(true);
  });

  test("says 502 and unhealthy while kubo is down, and recovers with it", async () => {
    const health = async (): Promise<unknown> => {
      const answer = await fetch(`${ingest.url}/health`);
      return { status: answer.status, body: await answer.json() };
    };
    const { bytes, cid } = randomBlock(10_000);
    expect(await health()).toEqual({ status: 200, body: { status: "ok", kubo: true } });
    await kubo.stop();
    const { status, body } = await sendBlock(ingest.url, cid, bytes);
    expect({ status, keys: Object.keys(body) }).toEqual({ status: 502, keys: ["error"] });
    expect(await health()).toEqual({ status: 503, body: { status: "ok", kubo: false } });
    await kubo.start();
    expect(await health()).toEqual({ status: 200, body: { status: "ok", kubo: true } });
    expect((await sendBlock(ingest.url, cid, bytes)).status).toBe(200);
    expect((await kubo.block(cid))?.equals(bytes)).toBe(true);
  });
});
