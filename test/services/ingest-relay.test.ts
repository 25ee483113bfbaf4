import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/cluster-real.ts";
import { openRaw, randomBlock, sendBlock, startIngest } from "../support/kubo-ingest.ts";
import { answering, startStandIn, type Answer } from "../support/kubo-stand-in.ts";

const SIZE = 700_000;
const { bytes: BYTES, cid: CID } = randomBlock(SIZE);
const TAKES = answering(200, { Key: CID, Size: SIZE });

let closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers) await close();
  closers = [];
});

/** What a stand-in for kubo got of each block. */
interface Received {
  text: string;
  ended: boolean;
  cutOff: boolean;
}

async function relaying(answer: Answer = TAKES) {
  const received: Received[] = [];
  const storage = await startStandIn(answering(200, { canUpload: true }));
  const kubo = await startStandIn((request, response) => {
    const one: Received = { text: "", ended: false, cutOff: false };
    received.push(one);
    request.on("data", (part: Buffer) => (one.text += part.toString("latin1")));
    request.on("end", () => (one.ended = true));
    request.on("close", () => (one.cutOff = !one.ended));
    answer(request, response);
  });
  const ingest = await startIngest({ kuboUrl: kubo.url, storageApiUrl: storage.url });
  closers.push(
    () => ingest.stop(),
    () => storage.close(),
    () => kubo.close(),
  );
  return { ingest, received };
}

describe("a block that is passed on while it comes", () => {
  test("reaches kubo before its end has come, and never whole", async () => {
    const { ingest, received } = await relaying();
    const client = await openRaw(ingest.url, CID, { "content-length": SIZE });
    client.socket.write(BYTES.subarray(0, SIZE - 1));
    await eventually("kubo has much of it", async () => (received[0]?.text.length ?? 0) > SIZE / 2);
    expect(received[0]).toMatchObject({ ended: false, cutOff: false });
    expect(received[0]?.text).not.toContain(BYTES.toString("latin1", SIZE - 100, SIZE - 1));
    client.socket.write(BYTES.subarray(SIZE - 1));
    await eventually("it is stored", async () => client.received().startsWith("HTTP/1.1 200"));
    expect(received).toHaveLength(1);
    expect(received[0]?.ended).toBe(true);
    expect(received[0]?.text).toContain(BYTES.toString("latin1"));
    client.socket.destroy();
  });

  test("is broken off where its bytes are not those of the cid: kubo never sees its end", async () => {
    const { ingest, received } = await relaying();
    const wrong = Buffer.from(BYTES);
    wrong[SIZE - 1] = (wrong[SIZE - 1] ?? 0) ^ 1;
    expect((await sendBlock(ingest.url, CID, wrong)).status).toBe(422);
    await eventually("kubo's side is cut", async () => received[0]?.cutOff ?? false);
    expect(received[0]?.ended).toBe(false);
    expect(received[0]?.text).not.toContain(wrong.toString("latin1", SIZE - 100));
  });

  test("is broken off where its client breaks off", async () => {
    const { ingest, received } = await relaying();
    const client = await openRaw(ingest.url, CID, { "content-length": SIZE });
    client.socket.write(BYTES.subarray(0, SIZE - 1));
    await eventually("kubo has some of it", async () => (received[0]?.text.length ?? 0) > 0);
    client.socket.destroy();
    await eventually("kubo's side is cut", async () => received[0]?.cutOff ?? false);
    expect(received[0]?.ended).toBe(false);
  });

  test("is sent whole once more where kubo had closed the kept connection", async () => {
    let closeNext = false;
    const { ingest, received } = await relaying((request, response) => {
      if (closeNext) {
        closeNext = false;
        request.socket.destroy();
      } else TAKES(request, response);
    });
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
    closeNext = true;
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
    expect(received.map(({ ended }) => ended)).toEqual([true, false, true]);
    expect(received[2]?.text).toContain(BYTES.toString("latin1"));
  });

  test("is a 502 where kubo breaks off a new connection, and the client's bytes are read all the same", async () => {
    const { ingest, received } = await relaying((request) => void request.socket.destroy());
    const answer = await sendBlock(ingest.url, CID, BYTES);
    expect(answer.status).toBe(502);
    const wrong = await sendBlock(ingest.url, randomBlock(10).cid, BYTES);
    expect(wrong.status).toBe(422);
    expect(received.every(({ ended }) => !ended)).toBe(true);
  });
});
