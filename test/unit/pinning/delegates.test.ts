import { expect, it } from "vitest";
import type { HttpReader } from "../../../src/machine/http.ts";
import { createDelegates, pickDelegates } from "../../../src/pinning/delegates.ts";

const ID = "/p2p/12D3KooWHByriNfWuwhFxamqUmi5BSuB24NgwKkYEusXK3QF41n2";

const BRIDGES = ["172.17.0.0/16", "fd00:17::/64"];

it("are the addresses that other machines can dial", () => {
  const good = [
    `/ip4/203.0.113.5/tcp/4001${ID}`,
    `/ip6/2001:db8::1/udp/4001/quic-v1${ID}`,
    `/dns4/h.example/tcp/4001${ID}`,
  ];
  const local = [
    "/ip4/127.0.0.1/tcp/4001",
    "/ip6/::1/tcp/4001",
    "/ip4/169.254.1.1/tcp/1",
    "/ip6/fe80::1/tcp/1",
    "/dns4/localhost/tcp/1",
  ];
  const relayed = `/ip4/203.0.113.9/tcp/4001/p2p/12D3KooWLPvwXrusmd6moHNWd9rwtf8mdJittPRNj3GmzqRrTYcN/p2p-circuit${ID}`;
  const inside = `/ip4/10.0.0.7/tcp/4001${ID}`;
  const bridged = `/ip4/172.17.0.1/udp/4001/quic-v1${ID}`;
  const others = [
    ...local.map((address) => `${address}${ID}`),
    relayed,
    ID,
    "/ip4/203.0.113.5/tcp/4001",
    "",
    "x",
  ];
  expect(pickDelegates([...others, inside, ...good], BRIDGES)).toEqual(good);
  expect(pickDelegates([...others, bridged, inside], BRIDGES)).toEqual([inside]);
  expect(pickDelegates(others, BRIDGES)).toEqual([]);
  expect(pickDelegates([...others, bridged], BRIDGES)).toEqual([bridged]);
  const many = Array.from({ length: 30 }, (_, i) => `/ip4/203.0.113.${i}/tcp/1${ID}`);
  expect(pickDelegates(many, BRIDGES)).toHaveLength(20);
});

it("are asked for once a minute, and the last known ones are used while kubo does not answer", async () => {
  let now = 0;
  let asked = 0;
  let host: string | null = "10.0.0.1";
  const http: Pick<HttpReader, "json"> = {
    async json(url, options) {
      asked += 1;
      expect([url, options?.method]).toEqual(["http://kubo/api/v0/id", "POST"]);
      return host === null
        ? null
        : { status: 200, body: { Addresses: [`/ip4/172.17.0.1/tcp/1${ID}`, `/ip4/${host}/tcp/1${ID}`, 7] } };
    },
  };
  const delegates = createDelegates(http, "http://kubo", {
    nowMs: () => now,
    bridgeSubnets: async () => ["172.17.0.0/16"],
    log: () => {},
  });
  const first = [`/ip4/10.0.0.1/tcp/1${ID}`];
  expect(await Promise.all([delegates(), delegates(), delegates()])).toEqual([first, first, first]);
  expect(asked).toBe(1);
  host = null;
  now = 61_000;
  for (let again = 0; again < 3; again += 1) expect(await delegates()).toEqual(first);
  expect(asked).toBe(2);
  host = "203.0.113.2";
  now = 67_000;
  await delegates();
  await expect.poll(delegates).toEqual([`/ip4/203.0.113.2/tcp/1${ID}`]);
  expect(asked).toBe(3);
});

it("are none while kubo never answered, and it is asked again after some seconds", async () => {
  let now = 0;
  let asked = 0;
  const lines: string[] = [];
  const http: Pick<HttpReader, "json"> = { json: async () => ((asked += 1), { status: 500, body: null }) };
  const delegates = createDelegates(http, "http://kubo", {
    nowMs: () => now,
    bridgeSubnets: async () => [],
    log: (line) => void lines.push(line),
  });
  for (let again = 0; again < 3; again += 1) expect(await delegates()).toEqual([]);
  now = 6_000;
  await delegates();
  expect([asked, lines.length]).toEqual([2, 1]);
});

it("are all addresses outside while the machine's container networks are not known, and that is logged", async () => {
  const addresses = [`/ip4/172.17.0.1/tcp/1${ID}`, `/ip4/10.0.0.7/tcp/1${ID}`];
  const lines: string[] = [];
  const http: Pick<HttpReader, "json"> = {
    json: async () => ({ status: 200, body: { Addresses: addresses } }),
  };
  const delegates = createDelegates(http, "http://kubo", {
    nowMs: () => 0,
    bridgeSubnets: () => Promise.reject(new Error("no /proc")),
    log: (line) => void lines.push(line),
  });
  expect(await delegates()).toEqual(addresses);
  expect(lines).toEqual([expect.stringMatching(/container networks.*no \/proc/)]);
});
