import { once } from "node:events";
import { request as requestHttp } from "node:http";
import { type AddressInfo, connect, createServer } from "node:net";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { createApp, json, startServer } from "../../src/services/server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { blockOf, carOf, carV2Of, DAG_PB, frameOf, headerOf, linking, textOf } from "../support/cars.ts";
import { findKubo, type RealKubo, startRealKubo } from "../support/kubo-real.ts";
import { answering, startStandIn } from "../support/kubo-stand-in.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import {
  type Answered,
  createUser,
  type PinningApi,
  request,
  startPinningApi,
  type User,
} from "./pins-api.ts";

const program = await findKubo();
if (typeof program === "string" && process.env["CI"] !== undefined) throw new Error(program);
vi.setConfig({ testTimeout: 60_000 });
if (typeof program === "string") console.warn(`skipped: the import of CAR files on a real kubo: ${program}`);

const MAX_BYTES = 300_000_000;

/** A DAG of its own for each text. */
function dagOf(text: string) {
  const leaves = [blockOf(Buffer.from(`${text} one`)), blockOf(Buffer.from(`${text} two`))];
  const root = linking(leaves);
  return { root, leaves, car: carOf([root, ...leaves]) };
}

function send(api: { url: string }, user: User, car: Uint8Array, name?: string): Promise<Answered> {
  const form = new FormData();
  if (name !== undefined) form.set("name", name);
  form.set("file", new Blob([new Uint8Array(car)]), "secret-file-name.car");
  return sendForm(api, user, form);
}

function sendForm(api: { url: string }, user: User, form: FormData): Promise<Answered> {
  const headers = { authorization: `Bearer ${user.token}` };
  return request(`${api.url}/pins/import/car`, { method: "POST", headers, body: form });
}

function rows(target: PostgresTarget): Promise<readonly unknown[]> {
  return sql(target, "SELECT p.cid, p.name, w.action FROM pins p LEFT JOIN pin_work w USING (requestid)");
}

/** A form whose file is sent as it is made. */
function streamed(
  api: { url: string },
  user: User,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  sizeBytes?: number,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const sent = requestHttp(
      `${api.url}/pins/import/car`,
      {
        method: "POST",
        headers: {
          authorization: `Bearer ${user.token}`,
          "content-type": "multipart/form-data; boundary=b",
          ...(sizeBytes === undefined ? {} : { "content-length": sizeBytes }),
        },
      },
      (answer) => {
        let text = "";
        answer
          .on("data", (part) => (text += String(part)))
          .on("end", () => {
            sent.destroy();
            resolve({ status: answer.statusCode ?? 0, text });
          });
      },
    );
    sent.on("error", reject);
    async function* form(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n');
      yield* parts;
      yield Buffer.from("\r\n--b--\r\n");
    }
    Readable.from(form(), { objectMode: false }).pipe(sent);
  });
}

/** What is answered before the body comes. */
function statusWithoutBody(api: { url: string }, user: User, sizeBytes?: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${user.token}`,
      "content-type": "multipart/form-data; boundary=b",
      ...(sizeBytes === undefined ? {} : { "content-length": sizeBytes }),
    };
    const sent = requestHttp(`${api.url}/pins/import/car`, { method: "POST", headers }, (answer) => {
      resolve(answer.statusCode ?? 0);
      sent.destroy();
    });
    sent.on("error", reject).flushHeaders();
  });
}

/** Stands before a kubo, and counts the imports that began. */
async function startRelay(url: string): Promise<{ readonly url: string; readonly begun: () => number }> {
  const { hostname, port } = new URL(url);
  let begun = 0;
  const server = createServer((client) => {
    client.once("data", (data) => {
      if (data.includes("dag/import")) begun += 1;
    });
    const upstream = connect(Number(port), hostname);
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
    client.pipe(upstream).pipe(client);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, begun: () => begun };
}

describeOnPostgres(
  "POST /pins/import/car",
  (postgres) => {
    let kubo: RealKubo;
    beforeAll(async () => {
      if (typeof program !== "string") kubo = await startRealKubo(program);
    });
    afterAll(() => kubo?.remove());

    async function start(
      options: {
        readonly balance?: number | null;
        readonly idleMs?: number;
        readonly maxBytes?: number;
        readonly kuboUrl?: string;
      } = {},
    ): Promise<{ readonly api: PinningApi; readonly ann: User; readonly target: PostgresTarget }> {
      const { balance = 100, idleMs = 60_000, maxBytes = MAX_BYTES, kuboUrl = kubo.url } = options;
      const target = await postgres.createDatabase();
      const settings = { kuboUrl, importMaxBytes: maxBytes };
      const api = await startPinningApi(target, settings, { imports: { idleMs } });
      return { api, ann: await createUser(target, api, "ann", balance), target };
    }

    test.skipIf(typeof program === "string").each([
      ["version 1", (car: Buffer) => car],
      ["version 2", carV2Of],
    ])("a CAR of %s becomes a request, and kubo has its blocks", async (version, form) => {
      const { api, ann, target } = await start();
      const { root, leaves, car } = dagOf(version);
      const { status, body } = await send(api, ann, form(car), "the name");
      expect([status, body["status"]]).toEqual([202, "queued"]);
      expect(body["pin"]).toMatchObject({ cid: textOf(root), name: "the name" });
      expect(await rows(target)).toEqual([{ cid: textOf(root), name: "the name", action: "pin" }]);
      for (const block of [root, ...leaves])
        expect((await kubo.block(textOf(block)))?.equals(block.bytes)).toBe(true);
      expect((await ann.get(`/${String(body["requestid"])}`)).status).toBe(200);
    });

    test("it is off unless the master switches it on", async () => {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target);
      const ann = await createUser(target, api, "ann");
      for (const url of [api.url, api.edge]) {
        const { status, body } = await send({ url }, ann, dagOf("off").car);
        expect([status, body["error"]]).toMatchObject([404, { reason: "NOT_FOUND" }]);
      }
    });

    test("the name may come after the file, or not at all; the file's own name is not used", async () => {
      const { api, ann, target } = await start();
      const form = new FormData();
      form.set("file", new Blob([new Uint8Array(dagOf("after").car)]), "other.car");
      form.set("name", "ä".repeat(255));
      expect((await sendForm(api, ann, form)).status).toBe(202);
      expect((await send(api, ann, dagOf("none").car)).status).toBe(202);
      const names = (await rows(target)).map((row) => (row as { name: string }).name);
      expect(names.toSorted()).toEqual(["", "ä".repeat(255)]);
    });

    test("a form that is not right is refused, and leaves no request", async () => {
      const { api, ann, target } = await start();
      const { car } = dagOf("forms");
      const file = () => new Blob([new Uint8Array(car)]);
      const cases: readonly (readonly [string, (form: FormData) => void])[] = [
        ["no file", (form) => form.set("name", "x")],
        ["a name that is too long", (form) => (form.set("name", "x".repeat(256)), form.set("file", file()))],
        ["a huge name", (form) => (form.set("name", "x".repeat(100_000)), form.set("file", file()))],
        ["NUL in the name", (form) => (form.set("file", file()), form.set("name", "a\0b"))],
        ["two files", (form) => (form.append("file", file()), form.append("file", file()))],
        [
          "two names",
          (form) => (form.append("name", "a"), form.append("name", "b"), form.set("file", file())),
        ],
        ["another part", (form) => (form.set("cid", "x"), form.set("file", file()))],
      ];
      for (const [what, fill] of cases) {
        const form = new FormData();
        fill(form);
        const { status, body } = await sendForm(api, ann, form);
        expect([what, status, body["error"]]).toMatchObject([what, 400, { reason: "BAD_REQUEST" }]);
      }
      const head = '--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n';
      const headers = {
        authorization: `Bearer ${ann.token}`,
        "content-type": "multipart/form-data; boundary=b",
      };
      const url = `${api.url}/pins/import/car`;
      const cut = Buffer.concat([Buffer.from(head), car]);
      expect((await request(url, { method: "POST", headers, body: cut })).status).toBe(400);
      const noBoundary = { ...headers, "content-type": "multipart/form-data; x=y" };
      expect((await request(url, { method: "POST", headers: noBoundary, body: cut })).status).toBe(400);
      expect((await ann.post({ cid: "x" }, "/pins/import/car")).status).toBe(415);
      expect(await rows(target)).toEqual([]);
    });

    test("a CAR that is not right is refused, and leaves no request", async () => {
      const { api, ann, target } = await start();
      const { root, leaves, car } = dagOf("wrong");
      const flipped = Buffer.from(car);
      flipped.writeUInt8(flipped.readUInt8(car.length - 1) ^ 1, car.length - 1);
      const noPb = blockOf(Buffer.from([0xff, 0xff, 0xff]), DAG_PB);
      const cases: readonly (readonly [number, RegExp, Buffer])[] = [
        [400, /do not match its CID/, flipped],
        [400, /cut off/, car.subarray(0, -1)],
        [400, /length/, Buffer.concat([car, Buffer.from([0x80, 0x00])])],
        [400, /exactly one root/, carOf([root, ...leaves], [root.cid, root.cid])],
        [400, /exactly one root/, carOf([root], [])],
        [400, new RegExp(`no block ${textOf(leaves[1] ?? root)}`), carOf([root, ...leaves.slice(0, 1)])],
        [400, /what the codec/, carOf([noPb])],
        [413, /more than 2097152 bytes/, carOf([blockOf(Buffer.alloc(2_097_153))])],
      ];
      for (const [status, details, bytes] of cases) {
        const answer = await send(api, ann, bytes);
        expect(answer.body["error"]).toMatchObject({ details: expect.stringMatching(details) as string });
        expect(answer.status).toBe(status);
      }
      expect(await rows(target)).toEqual([]);
    });

    test("kubo itself refuses bytes that do not match their CID", async () => {
      const { root } = dagOf("bytes");
      const form = new FormData();
      form.set("file", new Blob([new Uint8Array(carOf([{ cid: root.cid, bytes: Buffer.from("no") }]))]));
      const answer = await fetch(`${kubo.url}/api/v0/dag/import?pin-roots=false`, {
        method: "POST",
        body: form,
      });
      expect(await answer.text()).toContain("content integrity");
    });

    test("a block of 2 MiB is accepted, and one account's CAR may have BLAKE3", async () => {
      const { api, ann } = await start();
      expect((await send(api, ann, carOf([blockOf(Buffer.alloc(2_097_152, 1))]))).status).toBe(202);
      const { randomBlock } = await import("../support/kubo-ingest.ts");
      const { parseCid } = await import("../../src/pinning/content-id.ts");
      const { bytes, cid } = randomBlock(100_000);
      const block = { cid: parseCid(cid)?.cid ?? dagOf("x").root.cid, bytes };
      expect((await send(api, ann, carOf([block]))).status).toBe(202);
      expect((await kubo.block(cid))?.equals(bytes)).toBe(true);
    });

    test("blocked content is refused in every spelling, and nothing of it is stored", async () => {
      const { api, ann, target } = await start();
      const { root, car } = dagOf("blocked");
      const other = blockOf(root.bytes, DAG_PB);
      await sql(target, "INSERT INTO blocked_cids (cid, mode) VALUES ($1, 'block')", [textOf(other)]);
      const before = await kubo.countBlocks();
      expect((await send(api, ann, car)).status).toBe(451);
      expect([await rows(target), await kubo.countBlocks()]).toEqual([[], before]);
    });

    test("who may not pin is refused before the body is read", async () => {
      const { api, ann, target } = await start({ balance: null });
      await sql(target, "INSERT INTO account_holds (account, reason, actor) VALUES ($1, 'test', 'test')", [
        ann.account,
      ]);
      const { status } = await streamed(api, ann, endless());
      expect(status).toBe(402);
      const stranger = { ...ann, token: "unknown" };
      expect((await streamed(api, stranger, endless())).status).toBe(401);
      expect(await rows(target)).toEqual([]);
    });

    test("who may not pin is refused without one byte of the body, and without a question to kubo", async () => {
      const standIn = await startStandIn(answering(500, {}));
      onTestFinished(() => standIn.close());
      const { api, ann, target } = await start({ balance: null, kuboUrl: standIn.url });
      await sql(target, "INSERT INTO account_holds (account, reason, actor) VALUES ($1, 'test', 'test')", [
        ann.account,
      ]);
      expect(await statusWithoutBody(api, ann)).toBe(402);
      expect(await statusWithoutBody(api, { ...ann, token: "unknown" })).toBe(401);
      expect(standIn.asked.filter((line) => /repo|diag|dag/.test(line))).toEqual([]);
    });

    test("without space on kubo's disk it is answered 507, also with several at once, and in bounded time", async () => {
      const gib = 1_073_741_824;
      const disk = { free_space: 2 * gib, total_space: 1_000_000_000 + 250_000 };
      const standIn = await startStandIn((asked, response) => {
        const isDisk = asked.url?.includes("diag/sys") === true;
        // KUBO_STORAGE_MAX is passed long ago.
        const body = isDisk ? { diskinfo: disk } : { RepoSize: 50 * gib, StorageMax: 10 * gib };
        if (asked.url?.includes("dag/import") === true) asked.resume();
        else answering(200, body)(asked, response);
      });
      onTestFinished(() => standIn.close());
      const { api, ann, target } = await start({ kuboUrl: standIn.url });
      const car = Buffer.alloc(300_000);
      const full = await send(api, ann, car);
      expect([full.status, full.body["error"]]).toEqual([
        507,
        { reason: "INSUFFICIENT_STORAGE", details: "The master has no space for this CAR now." },
      ]);
      expect(await statusWithoutBody(api, ann)).toBe(507);
      // One of 150 kB fits, and while it goes on, a second one does not.
      let end = (): void => {};
      const ended = new Promise<void>((resolve) => (end = resolve));
      async function* held(): AsyncGenerator<Uint8Array> {
        yield dagOf("held").car.subarray(0, 100);
        await ended;
        yield Buffer.alloc(150_000);
      }
      const open = streamed(api, ann, held(), 150_000);
      await expect.poll(() => standIn.asked.some((line) => line.includes("dag/import"))).toBe(true);
      expect(await statusWithoutBody(api, ann, 150_000)).toBe(507);
      end();
      expect((await open).status).toBe(400);
      standIn.answer = answering(500, {});
      const other = await startPinningApi(target, { kuboUrl: standIn.url, importMaxBytes: MAX_BYTES });
      expect(await statusWithoutBody(other, ann)).toBe(503);
    });

    test("with DAG_IMPORT_MIN_BALANCE_DAYS, the balance must last so long with the CAR", async () => {
      const target = await postgres.createDatabase();
      const changes = {
        importMaxBytes: 2_000_000_000,
        importBalanceDays: 60,
        fulaPerGibMonth: 3,
        limits: { freeTierBytes: 1_073_741_824, maxPending: 10, deadlineSeconds: 3_600 },
      };
      const api = await startPinningApi(target, changes);
      const statusOf = async (balance: number | null, stored: number, size: number) => {
        const user = await createUser(target, api, `u${balance}-${stored}-${size}`, balance);
        await sql(
          target,
          "INSERT INTO pins (requestid, user_id, cid, status, size) VALUES (gen_random_uuid(), $1, 'c', 'pinned', $2)",
          [user.account, stored],
        );
        return statusWithoutBody(api, user, size);
      };
      const gib = 1_073_741_824;
      // Nothing above the free tier costs nothing; then it is 6 FULA for 60 days of one GiB. 503: kubo is away.
      expect(await statusOf(null, 0, 1_000_000)).toBe(503);
      expect(await statusOf(5.9, gib, gib)).toBe(402);
      expect(await statusOf(6.1, gib, gib)).toBe(503);
      expect(await statusOf(11.9, 2 * gib, gib)).toBe(402);
      expect(await statusOf(12.1, 2 * gib, gib)).toBe(503);
    });

    test("more than the most bytes is refused, whether it is said before or not", async () => {
      const { api, ann, target } = await start({ maxBytes: 1_000_000 });
      expect((await send(api, ann, Buffer.alloc(1_100_000))).status).toBe(413);
      const { root } = dagOf("large");
      expect((await streamed(api, ann, blocksAfter(headerOf([root.cid]), 100_000, 1e9))).status).toBe(413);
      expect(await rows(target)).toEqual([]);
    });

    test("a client that stops is answered 408, and one that leaves is forgotten", async () => {
      const { api, ann, target } = await start({ idleMs: 300 });
      const { car } = dagOf("slow");
      async function* stopping(): AsyncGenerator<Uint8Array> {
        yield car.subarray(0, 100);
        await sleep(20_000, undefined, { ref: false });
      }
      expect((await streamed(api, ann, stopping())).status).toBe(408);
      expect((await send(api, ann, car)).status).toBe(202);
      expect(await rows(target)).toHaveLength(1);
    });

    test("an account has at most two at once, and there are at most four", async () => {
      const relay = await startRelay(kubo.url);
      const { api, ann, target } = await start({ kuboUrl: relay.url });
      const { car } = dagOf("many");
      const ends: (() => void)[] = [];
      const hold = async (user: User): Promise<number> => {
        const open = new Promise<void>((resolve) => ends.push(resolve));
        return (await streamed(api, user, untilOpen(open))).status;
      };
      async function* untilOpen(open: Promise<void>): AsyncGenerator<Uint8Array> {
        yield car.subarray(0, 100);
        await open;
        yield car.subarray(100);
      }
      const users = [
        ann,
        await createUser(target, api, "bea"),
        await createUser(target, api, "cem"),
      ] as const;
      const held = [hold(ann), hold(ann)];
      // Each of them has read the head of its CAR.
      await expect.poll(relay.begun, { timeout: 30_000 }).toBe(2);
      expect((await send(api, ann, car)).status).toBe(429);
      held.push(hold(users[1]), hold(users[1]));
      await expect.poll(relay.begun, { timeout: 30_000 }).toBe(4);
      const busy = await send(api, users[2], car);
      expect([busy.status, busy.headers.get("retry-after")]).toEqual([429, "10"]);
      for (const end of ends) end();
      expect(await Promise.all(held)).toEqual([202, 202, 202, 202]);
      expect((await send(api, users[2], car)).status).toBe(202);
    });

    test("while kubo is down, it is answered 503", async () => {
      const target = await postgres.createDatabase();
      const api = await startPinningApi(target, { importMaxBytes: MAX_BYTES });
      const ann = await createUser(target, api, "ann");
      const { status, headers } = await send(api, ann, dagOf("down").car);
      expect([status, headers.get("retry-after"), await rows(target)]).toEqual([503, "10", []]);
    });

    test("a CAR of 200 MB needs little memory", async () => {
      const { api, ann } = await start();
      const root = blockOf(Buffer.from("root of much"));
      let most = 0;
      const before = process.memoryUsage().rss;
      const watch = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
      const car = blocksAfter(Buffer.concat([headerOf([root.cid]), frameOf(root)]), 1_000_000, 200_000_000);
      const { status, text } = await streamed(api, ann, car);
      clearInterval(watch);
      expect([status, text]).toEqual([202, expect.any(String)]);
      // Read whole, it was 200 MB or more.
      expect((most - before) / 1e6).toBeLessThan(150);
    }, 120_000);

    async function* endless(): AsyncGenerator<Uint8Array> {
      for (;;) {
        yield Buffer.alloc(65_536);
        await sleep(5);
      }
    }
  },
  { template: migrate },
);

/** Other blocks of one size, until there are so many bytes. */
function* blocksAfter(start: Buffer, sizeBytes: number, bytes: number): Generator<Uint8Array> {
  yield start;
  for (let at = 0; at < bytes; at += sizeBytes) yield frameOf(blockOf(Buffer.alloc(sizeBytes, String(at))));
}

test("one path may be slow, and the others may not", async () => {
  const app = createApp({ notFound: () => json(404, {}), failed: () => json(500, {}) });
  app.post("*", async ({ env: { incoming } }) => {
    for await (const part of incoming) expect(part).toBeDefined();
    return json(200, {});
  });
  const stop = new AbortController();
  const slowRoute = { path: "/slow", timeoutMs: 60_000 };
  const service = { name: "test", host: "127.0.0.1", port: 0, app, requestTimeoutMs: 500, slowRoute };
  const { port, stopped } = await startServer(service, { stop: stop.signal, log: () => {} });
  const statusOf = (path: string) =>
    new Promise<number | undefined>((resolve, reject) => {
      const sent = requestHttp({ port, path, method: "POST" }, ({ statusCode }) => resolve(statusCode));
      sent.on("error", reject).write("a part");
      setTimeout(() => sent.end(), 2_500);
    });
  expect(await Promise.all(["/slow", "/other", "/slow?x"].map(statusOf))).toEqual([200, 408, 408]);
  stop.abort();
  await stopped;
});
