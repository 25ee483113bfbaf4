import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/cluster-real.ts";
import { openRaw, randomBlock, startIngest, tokenOf, type RunningIngest } from "../support/kubo-ingest.ts";
import { answering, startStandIn, type Answer, type StandIn } from "../support/kubo-stand-in.ts";

const { bytes: BYTES, cid: CID } = randomBlock(1_000);
const GOOD = { address: "198.51.100.7", token: tokenOf("good") };
const LONG_MS = 600_000;

let closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers) await close();
  closers = [];
});

type Times = Parameters<typeof startIngest>[0]["times"];

/** The default of 32 slots. The clients come through a proxy on this machine, which names their addresses. */
async function serving(answer: Answer, times: Times = {}) {
  const kubo = await startStandIn(answering(200, { Key: CID, Size: 1_000 }));
  const storage = await startStandIn(answer);
  const ingest = await startIngest({
    kuboUrl: kubo.url,
    storageApiUrl: storage.url,
    times: { stallMs: LONG_MS, bodyMs: LONG_MS, slackMs: LONG_MS, maxWaitMs: LONG_MS, graceMs: 0, ...times },
  });
  closers.push(
    () => ingest.stop(),
    () => storage.close(),
    () => kubo.close(),
  );
  return { ingest, storage };
}

/** Answers by the token's name. */
function accepting(...names: readonly string[]): Answer {
  const tokens = names.map((name) => `Bearer ${tokenOf(name)}`);
  return (request, response) => {
    const known = tokens.includes(request.headers.authorization ?? "");
    response.writeHead(known ? 200 : 401).end(JSON.stringify({ canUpload: true }));
  };
}

async function send(
  ingest: RunningIngest,
  { address, token }: typeof GOOD,
): Promise<{ readonly status: number; readonly retryAfter: string | null }> {
  const answer = await fetch(`${ingest.url}/v0/block?cid=${CID}`, {
    method: "PUT",
    headers: { authorization: `Bearer ${token}`, "x-forwarded-for": address },
    body: BYTES,
  });
  await answer.text();
  return { status: answer.status, retryAfter: answer.headers.get("retry-after") };
}

/** Opens connections that announce a block and never send it. */
async function attack(ingest: RunningIngest, clients: readonly (typeof GOOD)[]) {
  const sockets = await Promise.all(
    clients.map(({ address, token }) =>
      openRaw(ingest.url, CID, {
        authorization: `Bearer ${token}`,
        "x-forwarded-for": address,
        "content-length": BYTES.length,
      }),
    ),
  );
  closers.unshift(() => sockets.forEach(({ socket }) => socket.destroy()));
  return sockets;
}

describe("while 288 slow connections are open", () => {
  test.each([
    ["of one token", (index: number) => ({ address: `203.0.113.${index % 250}`, token: tokenOf("slow") })],
    ["of one address", (index: number) => ({ address: "203.0.113.9", token: tokenOf(`slow-${index % 30}`) })],
    [
      "of one IPv6 network",
      (index: number) => ({
        address: `2001:db8::${index.toString(16)}`,
        token: tokenOf(`slow-${index % 30}`),
      }),
    ],
  ])("%s, somebody else still stores a block", async (_name, clientOf) => {
    const names = Array.from({ length: 30 }, (_, index) => `slow-${index}`);
    const { ingest } = await serving(accepting("good", "slow", ...names));
    const sockets = await attack(
      ingest,
      Array.from({ length: 288 }, (_, index) => clientOf(index)),
    );
    // A quarter of the slots and half of the queue is theirs; the rest is refused.
    await eventually("the attack has its share and no more", async () => {
      const refused = sockets.filter((client) => client.received().includes(" 503 ")).length;
      return refused >= 288 - 8 - 128;
    });
    expect(await send(ingest, GOOD)).toMatchObject({ status: 200 });
  });

  test("the slow ones are cut off at the minimum rate, and their slots come back", async () => {
    const { ingest } = await serving(accepting("slow"), { slackMs: 200, lingerMs: 50 });
    const slow = { address: "203.0.113.9", token: tokenOf("slow") };
    const sockets = await attack(
      ingest,
      Array.from({ length: 8 }, () => slow),
    );
    await Promise.all(sockets.map(({ closed }) => closed));
    expect(sockets.every((client) => client.received().startsWith("HTTP/1.1 408 "))).toBe(true);
    expect(await send(ingest, slow)).toMatchObject({ status: 200 });
  });
});

describe("forged tokens", () => {
  async function forge(ingest: RunningIngest, storage: StandIn, address: string) {
    const statuses: number[] = [];
    for (let index = 0; index < 60; index += 1)
      statuses.push((await send(ingest, { address, token: tokenOf(`forged-${index}`) })).status);
    return { statuses, asked: storage.asked.length };
  }

  test("of one address reach the storage API only until it has refused twenty", async () => {
    const { ingest, storage } = await serving(accepting("good"));
    const { statuses, asked } = await forge(ingest, storage, "203.0.113.9");
    expect(asked).toBe(20);
    expect(statuses).toEqual([...Array<number>(20).fill(401), ...Array<number>(40).fill(429)]);
    expect(await send(ingest, { address: "203.0.113.9", token: tokenOf("another") })).toEqual({
      status: 429,
      retryAfter: "10",
    });
    expect(await send(ingest, GOOD)).toMatchObject({ status: 200 });
  });

  test("do not stop a client at the same address whose token was accepted before", async () => {
    const { ingest, storage } = await serving(accepting("good"));
    const neighbour = { ...GOOD, address: "203.0.113.9" };
    expect(await send(ingest, neighbour)).toMatchObject({ status: 200 });
    await forge(ingest, storage, neighbour.address);
    expect(await send(ingest, neighbour)).toMatchObject({ status: 200 });
  });

  test("that the storage API does not answer are at most eight of one address at a time", async () => {
    const { ingest, storage } = await serving(() => {});
    const clients = Array.from({ length: 40 }, (_, index) => ({
      address: "203.0.113.9",
      token: tokenOf(`forged-${index}`),
    }));
    const sockets = await attack(ingest, clients);
    await eventually("the rest is refused", async () => {
      return sockets.filter((client) => client.received().includes(" 429 ")).length === 32;
    });
    expect(storage.asked).toHaveLength(8);
  });
});
