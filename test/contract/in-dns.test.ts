import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { createSocket, type Socket } from "node:dgram";
import { afterEach, expect, it } from "vitest";
import { answersTcp, ipv6InDns, isInDns } from "../../src/machine/system.ts";

const open: Socket[] = [];

afterEach(() => {
  for (const socket of open.splice(0)) socket.close();
});

const [NOT_KNOWN, REFUSED, A] = [3, 5, 1];

/** A name server. `answer` says what it makes of a question (RFC 1035, section 4.1): a code, an address, or nothing. */
async function nameServer(answer: (type: number) => number | string | null): Promise<string> {
  const socket = createSocket("udp4");
  open.push(socket);
  socket.on("message", (question, from) => {
    // The name ends with an empty label; the type follows.
    const end = question.indexOf(0, 12) + 5;
    const found = answer(question.readUInt16BE(end - 4));
    if (found === null) return;
    const head = Buffer.from(question.subarray(0, 12));
    head.writeUInt16BE(0x81_80 | (typeof found === "number" ? found : 0), 2);
    head.writeUInt16BE(typeof found === "string" ? 1 : 0, 6);
    // No further records, whatever the question had.
    head.writeUInt32BE(0, 8);
    const record =
      typeof found === "string"
        ? Buffer.from([0xc0, 12, 0, A, 0, 1, 0, 0, 0, 60, 0, 4, ...found.split(".").map(Number)])
        : Buffer.alloc(0);
    socket.send(Buffer.concat([head, question.subarray(12, end), record]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return `127.0.0.1:${socket.address().port}`;
}

it.each<[string, (type: number) => number | string | null, boolean | null]>([
  ["an address of one family", (type) => (type === A ? "192.0.2.7" : 0), true],
  ["a name that is not known", () => NOT_KNOWN, false],
  ["a name without addresses", () => 0, false],
  ["a server that refuses", () => REFUSED, null],
  ["a server that is silent", () => null, null],
])("%s", async (_name, answer, expected) => {
  expect(await isInDns("m.example.org", 700, [await nameServer(answer)])).toBe(expected);
});

it.each<[string, (type: number) => number | string | null, readonly string[] | null]>([
  ["a name that is not known has no IPv6 address", () => NOT_KNOWN, []],
  ["a name with IPv4 alone has none", (type) => (type === A ? "192.0.2.7" : 0), []],
  ["a server that refuses does not say", () => REFUSED, null],
  ["a silent one does not say", () => null, null],
])("%s", async (_name, answer, expected) => {
  expect(await ipv6InDns("m.example.org", 700, [await nameServer(answer)])).toEqual(expected);
});

it("a port answers if something listens there, and an unknown name answers nothing", async () => {
  const server = createServer(() => {}).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  expect(await answersTcp("127.0.0.1", port, 1_000)).toBe(true);
  await new Promise((resolve) => server.close(resolve));
  expect(await answersTcp("127.0.0.1", port, 1_000)).toBe(false);
  expect(await answersTcp("no-such-host.invalid", port, 1_000)).toBe(false);
});
