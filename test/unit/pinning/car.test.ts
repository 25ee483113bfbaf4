import { CID } from "multiformats/cid";
import * as digests from "multiformats/hashes/digest";
import { describe, expect, it } from "vitest";
import { CarProblem, hashSha2, openCar } from "../../../src/pinning/car.ts";
import { blockOf, carOf, carV2Of, DAG_PB, framed, frameOf, headerOf, linking } from "../../support/cars.ts";

const LIMITS = { maxBytes: 100_000, maxBlockBytes: 1_000, maxBlocks: 5 };
const LEAVES = [blockOf(Buffer.from("one")), blockOf(Buffer.from("two"))];
const ROOT = linking(LEAVES);
const CAR = carOf([ROOT, ...LEAVES]);

async function* inPartsOf(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Uint8Array, size = 7): Promise<{ readonly root: string; readonly car: Buffer }> {
  const { root, frames } = await openCar(inPartsOf(bytes, size), LIMITS, hashSha2);
  const parts: Buffer[] = [];
  for await (const frame of frames) parts.push(Buffer.from(frame));
  return { root: root.text, car: Buffer.concat(parts) };
}

async function problemOf(bytes: Uint8Array): Promise<readonly [status: number, details: string]> {
  try {
    await read(bytes);
  } catch (thrown) {
    if (thrown instanceof CarProblem) return [thrown.status, thrown.message];
    throw thrown;
  }
  return [202, "no problem"];
}

describe("a CAR", () => {
  it.each([1, 2, 3, 64, 1_000_000])("is passed on as it came, in parts of %i bytes", async (size) => {
    expect(await read(CAR, size)).toEqual({ root: ROOT.cid.toString(), car: CAR });
  });

  it.each([1, 5, 1_000_000])("of version 2 is passed on as version 1, in parts of %i bytes", async (size) => {
    expect((await read(carV2Of(CAR), size)).car.equals(CAR)).toBe(true);
  });

  it("may have a root of version 0, an identity block and no blocks at all", async () => {
    const v0 = blockOf(Buffer.from("x"), DAG_PB).cid.toV0();
    expect((await read(carOf([], [v0]))).root).toBe(v0.toString());
    const identity = {
      cid: CID.createV1(0x55, digests.create(0, Buffer.from("id"))),
      bytes: Buffer.from("id"),
    };
    const car = carOf([ROOT, ...LEAVES, identity]);
    expect((await read(car)).car.equals(car)).toBe(true);
  });

  it("is refused wherever it is cut off, except between two blocks", async () => {
    const ends = new Set([headerOf([ROOT.cid]).length]);
    for (const block of [ROOT, ...LEAVES]) ends.add(Math.max(...ends) + frameOf(block).length);
    for (let end = 1; end < CAR.length; end += 1)
      expect([end, (await problemOf(CAR.subarray(0, end)))[0]]).toEqual([end, ends.has(end) ? 202 : 400]);
    const v2 = carV2Of(CAR);
    for (let end = 1; end < v2.length - "an index".length; end += 1)
      expect([end, (await problemOf(v2.subarray(0, end)))[0]]).toEqual([end, 400]);
  });

  it("is refused if any byte of a block is another one", async () => {
    for (let at = headerOf([ROOT.cid]).length; at < CAR.length; at += 1) {
      const flipped = Buffer.from(CAR);
      flipped.writeUInt8(flipped.readUInt8(at) ^ 0x40, at);
      expect([at, (await problemOf(flipped))[0]]).toEqual([at, 400]);
    }
  });

  it.each<readonly [string, number, RegExp, Buffer]>([
    ["no root", 400, /exactly one root/, carOf([ROOT], [])],
    ["two roots", 400, /exactly one root/, carOf([ROOT], [ROOT.cid, ROOT.cid])],
    ["another version", 400, /version 1 or 2/, headerOf([ROOT.cid], 3)],
    ["nothing in it", 400, /cut off/, Buffer.alloc(0)],
    ["a header that is a text", 400, /not a CAR/, framed(Buffer.from("hello"))],
    ["a header without an end", 400, /header is far too long/, Buffer.from([0xff, 0xff, 0xff, 0x7f])],
    ["a length without an end", 400, /length/, Buffer.concat([headerOf([ROOT.cid]), Buffer.from([0x80, 0])])],
    ["a length of zero", 400, /length/, Buffer.concat([headerOf([ROOT.cid]), Buffer.from([0])])],
    [
      "a length of terabytes",
      413,
      /more than 1000 bytes/,
      Buffer.concat([headerOf([ROOT.cid]), Buffer.alloc(5, 0xff)]),
    ],
    ["a block that is too large", 413, /more than 1000 bytes/, carOf([blockOf(Buffer.alloc(1_001))])],
    ["too many blocks", 413, /more than 5 blocks/, carOf(Array.from({ length: 6 }, () => ROOT))],
    ["too many bytes", 413, /more than 100000 bytes/, Buffer.concat([carV2Of(CAR), Buffer.alloc(100_000)])],
    ["a codec that is not known", 400, /codec/, carOf([blockOf(Buffer.from("x"), 0x78)])],
    ["a block of another codec", 400, /codec/, carOf([ROOT, blockOf(Buffer.from("x"), 0x78)])],
    ["no CID", 400, /no valid CID/, Buffer.concat([headerOf([ROOT.cid]), framed(Buffer.from("xx"))])],
    [
      "a hash that is not known",
      400,
      /must be sha2-256/,
      carOf([{ cid: CID.createV1(0x55, digests.create(0x11, Buffer.alloc(20))), bytes: Buffer.from("x") }]),
    ],
  ])("with %s is refused with %i", async (_what, status, details, bytes) => {
    expect(await problemOf(bytes)).toEqual([status, expect.stringMatching(details)]);
  });

  it("with a block of just the most bytes is accepted", async () => {
    expect((await problemOf(carOf([blockOf(Buffer.alloc(1_000))])))[0]).toBe(202);
  });
});
