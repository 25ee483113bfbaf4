import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/cluster-real.ts";
import {
  openRaw,
  randomBlock,
  sendBlock,
  startIngest,
  tokenOf,
  type IngestAnswer,
  type RunningIngest,
} from "../support/kubo-ingest.ts";
import {
  answering,
  hangingUp,
  silent,
  startStandIn,
  type Answer,
  type StandIn,
} from "../support/kubo-stand-in.ts";

const LIMIT = 1_048_576;
const LONG_MS = 600_000;
const { bytes: BYTES, cid: CID } = randomBlock(1_000);
const OTHER = randomBlock(1_000);
const TAKES = answering(200, { Key: CID, Size: 1_000 });
const YES = answering(200, { canUpload: true });

let closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers) await close();
  closers = [];
});

type Options = Omit<Parameters<typeof startIngest>[0], "kuboUrl" | "storageApiUrl">;

async function serving(
  kuboAnswer: Answer,
  storageAnswer: Answer,
  options: Options = {},
): Promise<{ readonly kubo: StandIn; readonly storage: StandIn; readonly ingest: RunningIngest }> {
  const kubo = await startStandIn(kuboAnswer);
  const storage = await startStandIn(storageAnswer);
  const ingest = await startIngest({ kuboUrl: kubo.url, storageApiUrl: storage.url, ...options });
  closers.push(
    () => ingest.stop(),
    () => storage.close(),
    () => kubo.close(),
  );
  return { kubo, storage, ingest };
}

function statuses(answers: readonly IngestAnswer[]): readonly number[] {
  return answers.map(({ status }) => status);
}

describe("a request for the ingest", () => {
  test("reaches kubo as upstream's does", async () => {
    let seen = { type: "", text: "" };
    const { kubo, storage, ingest } = await serving((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        seen = {
          type: request.headers["content-type"] ?? "",
          text: Buffer.concat(parts).toString("latin1"),
        };
        response.end(JSON.stringify({ Key: CID, Size: 1_000 }));
      });
    }, YES);
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
    expect(kubo.asked).toEqual(["POST /api/v0/block/put?cid-codec=raw&mhtype=blake3&mhlen=32&pin=false"]);
    const boundary = /^multipart\/form-data; boundary=(\S+)$/.exec(seen.type)?.[1] ?? "";
    const [head, body] = seen.text.split("\r\n\r\n", 2);
    expect(head).toBe(
      `--${boundary}\r\ncontent-disposition: form-data; name="data"; filename="blob"\r\ncontent-type: application/octet-stream`,
    );
    expect(seen.text.endsWith(`\r\n--${boundary}--\r\n`)).toBe(true);
    expect(body?.startsWith(BYTES.toString("latin1").split("\r\n\r\n", 1)[0] ?? "")).toBe(true);
    expect(storage.asked).toEqual(["GET /api/v1/storage"]);
    expect(storage.authorizations).toEqual([`Bearer ${tokenOf("somebody")}`]);
  });

  test.each(["GET", "DELETE", "PATCH"])("is no %s", async (method) => {
    const { ingest, kubo } = await serving(TAKES, YES);
    const answer = await sendBlock(ingest.url, CID, BYTES, { method });
    expect({ status: answer.status, body: answer.body }).toEqual({ status: 405, body: { error: "use PUT" } });
    expect(answer.headers.get("allow")).toBe("PUT, POST");
    expect(kubo.asked).toEqual([]);
  });

  test("finds nothing elsewhere", async () => {
    const { ingest } = await serving(TAKES, YES);
    for (const path of ["/", "/v0/blocks", "/v0/block/x"]) {
      const answer = await fetch(ingest.url + path, { method: "PUT", body: BYTES });
      expect(answer.status).toBe(404);
      expect(await answer.json()).toEqual({ error: expect.any(String) as string });
    }
  });

  test("is checked in this order: cid, token, size, quota, emptiness, content, kubo, its key", async () => {
    const { kubo, storage, ingest } = await serving(
      answering(500, "broken"),
      answering(200, { canUpload: false }),
    );
    const big = Buffer.alloc(LIMIT + 1);
    const nothing = Buffer.alloc(0);
    const at = async (cid: string | null, bytes: Uint8Array, token: string | null): Promise<number> =>
      (await sendBlock(ingest.url, cid, bytes, { token: token && tokenOf(token) })).status;

    expect(await at(null, big, null)).toBe(400);
    expect(await at("bafy", big, null)).toBe(400);
    expect(storage.asked).toEqual([]);
    expect(await at(CID, big, null)).toBe(401);
    expect(storage.asked).toEqual([]);
    expect(await at(CID, big, "suspended")).toBe(413);
    expect(storage.asked).toEqual([]);
    expect(await at(CID, BYTES, "suspended")).toBe(402);
    storage.answer = YES;
    expect(await at(CID, nothing, "good")).toBe(400);
    expect(await at(CID, OTHER.bytes, "good")).toBe(422);
    expect(kubo.asked).toEqual([]);
    expect(await at(CID, BYTES, "good")).toBe(502);
    kubo.answer = answering(200, { Key: OTHER.cid });
    expect(await at(CID, BYTES, "good")).toBe(500);
    kubo.answer = TAKES;
    expect(await at(CID, BYTES, "good")).toBe(200);
  });

  test("gets the problem in `error`", async () => {
    const { ingest } = await serving(answering(200, { Key: OTHER.cid }), YES);
    const tampered = await sendBlock(ingest.url, CID, OTHER.bytes);
    expect(tampered.body).toEqual({
      error: "the bytes do not match the cid; nothing was stored",
      declared: CID,
      actual: OTHER.cid,
    });
    const renamed = await sendBlock(ingest.url, CID, BYTES);
    expect(renamed.body).toEqual({
      error: "kubo returned a different cid",
      kubo: OTHER.cid,
      declared: CID,
    });
    const sha256 = await sendBlock(
      ingest.url,
      "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
      BYTES,
    );
    expect(sha256.body).toEqual({ error: "the cid is invalid: it has a hash other than blake3 (0x1e)" });
  });

  test.each([
    "",
    "Bearer",
    "Bearer ",
    "Basic YTpi",
    "a-token",
    "Bearer two words",
    'Bearer a"b',
    "Bearer a-token",
    "Bearer a.b.c",
    `Bearer ${tokenOf("short").slice(0, -1)}`,
    `Bearer ${tokenOf("more")}.x`,
    `Bearer ${tokenOf("expired", { exp: Math.floor(Date.now() / 1_000) - 1 })}`,
    `Bearer ${tokenOf("no-date", { exp: "never" })}`,
    `Bearer ${tokenOf("none").replace(/^[^.]+/, Buffer.from('{"alg":"none"}').toString("base64url"))}`,
  ])("has no token in `%s`", async (authorization) => {
    const { ingest, storage } = await serving(TAKES, YES);
    const headers = { authorization };
    const answer = await fetch(`${ingest.url}/v0/block?cid=${CID}`, {
      method: "PUT",
      headers,
      body: BYTES,
    });
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    expect(storage.asked).toEqual([]);
  });

  test("needs neither token nor quota where authentication is off", async () => {
    const { ingest, storage } = await serving(TAKES, answering(500, ""), { settings: { noAuth: true } });
    expect((await sendBlock(ingest.url, CID, BYTES, { token: null })).status).toBe(200);
    expect(storage.asked).toEqual([]);
    expect(ingest.lines.join("\n")).toContain("NO AUTHENTICATION");
  });
});

describe("a size over the bound", () => {
  test("is refused by the declared length, before any byte of the body", async () => {
    const { ingest } = await serving(TAKES, YES);
    const client = await openRaw(ingest.url, CID, { "content-length": LIMIT + 1 });
    await eventually("an answer", async () => client.received().includes("\r\n\r\n"));
    expect(client.received()).toMatch(/^HTTP\/1.1 413 /);
    client.socket.destroy();
  });

  test.each(["close", "keep-alive"])(
    "reaches a client that is still sending (connection: %s), and its connection is not reset",
    async (connection) => {
      const { ingest } = await serving(TAKES, YES);
      const client = await openRaw(ingest.url, CID, { "content-length": LIMIT + 1, connection });
      await eventually("it is refused", async () => client.received().includes("\r\n\r\n{"));
      await new Promise<void>((resolve, reject) => {
        client.socket.write(Buffer.alloc(LIMIT + 1), (error) => (error ? reject(error) : resolve()));
      });
      expect(client.received()).toMatch(/^HTTP\/1\.1 413 /);
      client.socket.end();
      await client.closed;
    },
  );

  test("is refused while it is read where no length was declared, and the connection does not stay", async () => {
    const { ingest, kubo } = await serving(TAKES, YES, { times: { lingerMs: 50 } });
    const client = await openRaw(ingest.url, CID, { "transfer-encoding": "chunked" });
    const chunk = Buffer.concat([Buffer.from("10000\r\n"), Buffer.alloc(65_536), Buffer.from("\r\n")]);
    for (let sent = 0; sent <= LIMIT; sent += 65_536) client.socket.write(chunk);
    await eventually("an answer", async () => client.received().includes("\r\n\r\n"));
    expect(client.received()).toMatch(/^HTTP\/1.1 413 /);
    await eventually(
      "the connection is cut although more comes",
      async () => client.socket.destroyed || (client.socket.write(chunk), false),
      4_000,
    );
    expect(kubo.asked).toEqual([]);
  });

  test("is none at the bound itself", async () => {
    const { bytes, cid } = randomBlock(LIMIT);
    const { ingest } = await serving(answering(200, { Key: cid }), YES);
    expect((await sendBlock(ingest.url, cid, bytes)).status).toBe(200);
  });
});

describe("the quota", () => {
  const DENIALS: readonly (readonly [string, Answer])[] = [
    ["429", answering(429, "")],
    ["500", answering(500, "oops")],
    ["HTML", answering(200, "<html>a proxy's login page</html>")],
    ["another type", answering(200, { canUpload: "yes" })],
    ["a redirect", (_request, response) => void response.writeHead(302, { location: "/x" }).end()],
    ["10 MB", answering(200, JSON.stringify({ canUpload: true, pad: "x".repeat(10_000_000) }))],
    ["a hang-up", hangingUp],
    ["silence", silent],
  ];
  test.each(DENIALS)(
    "of a storage API that answers %s is refused in strict mode, and not in open mode",
    async (_name, answer) => {
      const { storage, ingest } = await serving(TAKES, answer, { quotaTimeoutMs: 300 });
      const open = await startIngest({
        kuboUrl: ingest.url,
        storageApiUrl: storage.url,
        settings: { quotaMode: "open" },
        quotaTimeoutMs: 300,
      });
      closers.unshift(() => open.stop());
      const denied = await sendBlock(ingest.url, CID, BYTES);
      expect(denied).toMatchObject({
        status: 503,
        body: {
          error: expect.stringMatching(/^the master's storage API can't check the quota now/) as string,
        },
      });
      expect((await sendBlock(open.url, CID, OTHER.bytes)).status).toBe(422);
      const before = storage.asked.length;
      await sendBlock(ingest.url, CID, BYTES);
      expect(storage.asked.length).toBeGreaterThan(before);
    },
  );

  test.each([401, 402, 403])(
    "of a storage API that answers %i is refused in either mode",
    async (refused) => {
      for (const quotaMode of ["strict", "open"] as const) {
        const { ingest, kubo, storage } = await serving(TAKES, answering(refused, { canUpload: true }), {
          settings: { quotaMode },
        });
        for (let time = 0; time < 3; time += 1)
          expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(refused);
        expect({ stored: kubo.asked, asked: storage.asked.length }).toEqual({ stored: [], asked: 1 });
      }
    },
  );

  test("that is used up is refused in either mode", async () => {
    for (const quotaMode of ["strict", "open"] as const) {
      const { ingest } = await serving(TAKES, answering(200, { canUpload: false }), {
        settings: { quotaMode },
      });
      expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(402);
    }
  });

  test("without a storage API is refused in strict mode only", async () => {
    const kubo = await startStandIn(TAKES);
    closers.push(() => kubo.close());
    for (const [quotaMode, status] of [
      ["strict", 503],
      ["open", 200],
    ] as const) {
      const ingest = await startIngest({ kuboUrl: kubo.url, settings: { quotaMode } });
      closers.unshift(() => ingest.stop());
      expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(status);
    }
  });

  test("is asked once for many blocks of one token, and once for each token", async () => {
    const { storage, ingest } = await serving(TAKES, YES);
    const send = (token: string): Promise<IngestAnswer> =>
      sendBlock(ingest.url, CID, BYTES, { token: tokenOf(token) });
    await Promise.all(Array.from({ length: 20 }, () => send("one")));
    await send("one");
    expect(storage.asked.length).toBe(1);
    await send("two");
    expect(storage.authorizations).toEqual([`Bearer ${tokenOf("one")}`, `Bearer ${tokenOf("two")}`]);
  });

  test("never brings a token into the log or an answer", async () => {
    const { ingest } = await serving(hangingUp, hangingUp, { settings: { quotaMode: "open" } });
    const token = tokenOf("s3cret");
    const answer = await sendBlock(ingest.url, CID, BYTES, { token });
    expect(answer.status).toBe(502);
    expect(ingest.lines.join("\n")).toMatch(/quota: the request to the storage API failed/);
    expect([...ingest.lines, JSON.stringify(answer.body)].join("\n")).not.toContain(token);
  });
});

describe("kubo", () => {
  test.each([
    ["hangs up", hangingUp],
    ["says nothing", silent],
    ["answers 500", answering(500, { Message: "no space left on device", Type: "error" })],
    ["answers no JSON", answering(200, "<html>")],
    ["answers no key", answering(200, {})],
  ] as const)("that %s is a 502", async (_name, answer) => {
    const { ingest } = await serving(answer, YES, { kuboTimeoutMs: 300 });
    const { status, body } = await sendBlock(ingest.url, CID, BYTES);
    expect({ status, body }).toEqual({
      status: 502,
      body: { error: expect.stringMatching(/^kubo: ./) as string },
    });
  });

  test("that closed a kept connection is asked once more", async () => {
    const { kubo, ingest } = await serving(TAKES, YES);
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
    kubo.answer = (request) => {
      kubo.answer = TAKES;
      request.socket.destroy();
    };
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
    expect(kubo.asked.length).toBe(3);
  });

  test("that says nothing makes the ingest unhealthy within its three seconds", async () => {
    const { ingest } = await serving(silent, YES);
    const answer = await fetch(`${ingest.url}/health`);
    expect(answer.status).toBe(503);
    expect(await answer.json()).toEqual({ status: "ok", kubo: false });
  });
});

describe("a slow client", () => {
  test.each([
    ["stalls", { stallMs: 100, bodyMs: LONG_MS, slackMs: LONG_MS }],
    ["takes too long", { stallMs: LONG_MS, bodyMs: 200, slackMs: LONG_MS }],
    ["is below the minimum rate", { stallMs: LONG_MS, bodyMs: LONG_MS, slackMs: 100 }],
  ])("that %s is answered 408, cut, and leaves its slot", async (_name, times) => {
    const { ingest } = await serving(TAKES, YES, {
      settings: { maxConcurrent: 1 },
      times: { ...times, lingerMs: 50 },
    });
    const client = await openRaw(ingest.url, CID, { "content-length": BYTES.length });
    client.socket.write(BYTES.subarray(0, 10));
    await client.closed;
    expect(client.received()).toMatch(/^HTTP\/1.1 408 /);
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
  });

  test("keeps others waiting in a line that has an end", async () => {
    const { ingest } = await serving(TAKES, YES, {
      settings: { maxConcurrent: 1 },
      times: { maxWaitMs: 200 },
    });
    const holder = await openRaw(ingest.url, CID, { "content-length": BYTES.length });
    holder.socket.write(BYTES.subarray(0, 10));
    await eventually("the slot is held", async () => {
      const { status } = await sendBlock(ingest.url, CID, BYTES);
      return status === 503;
    });
    const crowd = await Promise.all(Array.from({ length: 12 }, () => sendBlock(ingest.url, CID, BYTES)));
    expect(statuses(crowd)).toEqual(crowd.map(() => 503));
    expect(crowd[0]?.headers.get("retry-after")).toBe("1");
    holder.socket.write(BYTES.subarray(10));
    await eventually("the holder is answered", async () => holder.received().startsWith("HTTP/1.1 200"));
    expect((await sendBlock(ingest.url, CID, BYTES)).status).toBe(200);
    holder.socket.destroy();
  });

  test("leaves its place in the line when it goes away", async () => {
    const { ingest } = await serving(TAKES, YES, {
      settings: { maxConcurrent: 1 },
      times: { stallMs: LONG_MS, bodyMs: LONG_MS, slackMs: LONG_MS, maxWaitMs: LONG_MS, graceMs: 0 },
    });
    const holder = await openRaw(ingest.url, CID, { "content-length": BYTES.length });
    const turnedAway = async (): Promise<boolean> => {
      const impatient = AbortSignal.timeout(200);
      const answer = await fetch(`${ingest.url}/v0/block?cid=${CID}`, {
        method: "PUT",
        headers: { authorization: `Bearer ${tokenOf("somebody")}` },
        body: BYTES,
        signal: impatient,
      }).catch(() => null);
      return answer?.status === 503;
    };
    const line = await Promise.all(
      Array.from({ length: 4 }, () => openRaw(ingest.url, CID, { "content-length": BYTES.length })),
    );
    await eventually("the line is full", turnedAway);
    for (const { socket } of line) socket.destroy();
    await eventually("the line has room", async () => !(await turnedAway()), 5_000);
    holder.socket.destroy();
  });
});

describe("the stop", () => {
  async function halfway(times: Options["times"] = {}) {
    const { ingest, storage } = await serving(TAKES, YES, { times });
    const client = await openRaw(ingest.url, CID, { "content-length": BYTES.length });
    client.socket.write(BYTES.subarray(0, 10));
    await eventually("the block is under way", async () => storage.asked.length === 1);
    return { ingest, client };
  }

  test("lets a block under way finish, and takes no other", async () => {
    const { ingest, client } = await halfway();
    const stopped = ingest.stop();
    await eventually("nobody else gets in", async () => {
      const answer = await fetch(`${ingest.url}/health`).catch(() => null);
      return answer === null;
    });
    client.socket.write(BYTES.subarray(10));
    await client.closed;
    expect(client.received()).toMatch(/^HTTP\/1.1 200 /);
    await stopped;
    expect(ingest.lines.at(-1)).toBe("ingest has stopped");
  });

  test("cuts off what is not done after the grace", async () => {
    const { ingest, client } = await halfway({ graceMs: 100 });
    await ingest.stop();
    await client.closed;
    expect(client.received()).toBe("");
  });
});
