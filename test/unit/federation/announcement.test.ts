import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { readAnnouncement, readRelease } from "../../../src/federation/announcement-reader.ts";
import {
  type Announcement,
  announcementText,
  peerIdOf,
  publicKeyOf,
  releaseText,
  validateNodeAddress,
} from "../../../src/federation/announcement.ts";

const PEER = "12D3KooWHByriNfWuwhFxamqUmi5BSuB24NgwKkYEusXK3QF41n2";
const OTHER = "12D3KooWLPvwXrusmd6moHNWd9rwtf8mdJittPRNj3GmzqRrTYcN";
const SIGNATURE = "ab".repeat(64);
const GOOD: Announcement = {
  name: "berlin-1",
  peerId: PEER,
  addresses: [`/ip4/192.0.2.7/tcp/9096/p2p/${PEER}`],
  time: "2026-11-21T20:00:00.000Z",
  pool: "pool-a",
};

function problemsOf(parts: Readonly<Record<string, unknown>>): readonly string[] {
  const read = readAnnouncement({ ...GOOD, signature: SIGNATURE, ...parts });
  return "problems" in read ? read.problems : [];
}

const keys = fc.uint8Array({ minLength: 32, maxLength: 32 });
const announcements = fc.record({
  name: fc.stringMatching(/^[a-z0-9]{1,9}(-[a-z0-9]{1,9})?$/),
  key: keys,
  hosts: fc.array(fc.ipV4(), { minLength: 1, maxLength: 16 }),
  port: fc.integer({ min: 1, max: 65_535 }),
  time: fc
    .date({ min: new Date("2020-01-01"), max: new Date("2100-01-01"), noInvalidDate: true })
    .map((time) => time.toISOString()),
  pool: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/),
});

const made = announcements.map(({ name, key, hosts, port, time, pool }): Announcement => {
  const peerId = peerIdOf(key);
  return {
    name,
    peerId,
    addresses: hosts.map((host) => `/ip4/${host}/tcp/${port}/p2p/${peerId}`),
    time,
    pool,
  };
});

describe("the text that is signed", () => {
  it("is written down", () => {
    expect(announcementText(GOOD)).toBe(
      `fula-node announcement 1\n{"addresses":["/ip4/192.0.2.7/tcp/9096/p2p/${PEER}"],"name":"berlin-1",` +
        `"peerId":"${PEER}","pool":"pool-a","time":"2026-11-21T20:00:00.000Z"}`,
    );
    const { name, peerId, time, pool } = GOOD;
    expect(releaseText({ name, peerId, time, pool, reservation: null })).toBe(
      `fula-node release 1\n{"name":"berlin-1","peerId":"${PEER}","pool":"pool-a","reservation":null,` +
        `"time":"2026-11-21T20:00:00.000Z"}`,
    );
  });

  test("has its keys in order, whatever their order was, and is plain ASCII", () => {
    fc.assert(
      fc.property(made, (announcement) => {
        const turned = Object.fromEntries(
          Object.entries(announcement).toReversed(),
        ) as unknown as Announcement;
        const text = announcementText(announcement);
        expect(announcementText(turned)).toBe(text);
        expect(text).toMatch(/^fula-node announcement 1\n[ -~]+$/);
        const written = JSON.parse(text.split("\n")[1] ?? "") as object;
        expect(Object.keys(written)).toEqual(Object.keys(written).toSorted());
        expect(written).toEqual(announcement);
      }),
    );
  });

  test("differs wherever two announcements differ", () => {
    fc.assert(
      fc.property(made, made, (one, two) => {
        const isSame = JSON.stringify(one) === JSON.stringify(two);
        expect(announcementText(one) === announcementText(two)).toBe(isSame);
      }),
    );
  });

  test("what is made is read back as it was", () => {
    fc.assert(
      fc.property(made, (announcement) => {
        expect(readAnnouncement({ ...announcement, signature: SIGNATURE })).toEqual({
          message: announcement,
          signature: SIGNATURE,
        });
      }),
    );
  });
});

describe("readAnnouncement", () => {
  it.each([
    ["a name with a dot", { name: "a.b" }, '"a.b" contains a dot'],
    ["65 characters", { name: "x".repeat(65) }, "has 65 characters"],
    ["no name", { name: undefined }, "name must be a string."],
    ["an RSA peer", { peerId: `Qm${"a".repeat(44)}` }, "peerId must be an ed25519 peer id"],
    ["a peer id of other bytes", { peerId: `12D3KooW${"z".repeat(44)}` }, "peerId must be an ed25519"],
    ["no address", { addresses: [] }, "addresses must hold 1 to 16"],
    ["17 addresses", { addresses: Array(17).fill(GOOD.addresses[0]) }, "addresses must hold 1 to 16"],
    ["an address without peer", { addresses: ["/ip4/192.0.2.7/tcp/9096"] }, "must end with /p2p/"],
    [
      "another's address",
      { addresses: [`/ip4/192.0.2.7/tcp/1/p2p/${OTHER}`] },
      "belongs to a peer other than",
    ],
    ["addresses that are no list", { addresses: "x" }, "addresses must be a list of strings."],
    ["a number among them", { addresses: [7] }, "addresses must be a list of strings."],
    ["a time without milliseconds", { time: "2026-11-21T20:00:00Z" }, "time must be UTC"],
    ["a time with an offset", { time: "2026-11-21T20:00:00.000+01:00" }, "time must be UTC"],
    ["a day that does not exist", { time: "2026-02-30T20:00:00.000Z" }, "time must be UTC"],
    ["a year that Postgres has not", { time: "0000-01-01T00:00:00.000Z" }, "time must be UTC"],
    ["a time that is a number", { time: 1 }, "time must be a string."],
    ["an odd pool", { pool: "a b" }, "pool must be 1 to 64"],
    ["a short signature", { signature: "ab" }, "signature must be 128"],
    ["a signature in capitals", { signature: "AB".repeat(64) }, "signature must be 128"],
    ["something unsigned", { admin: true }, '"admin" is not a known key.'],
  ])("refuses %s", (_case, parts, why) => {
    expect(problemsOf(parts).join(" ")).toContain(why);
  });

  it("says everything at once", () => {
    expect(problemsOf({ name: "A", time: "x", pool: "", peerId: "y" })).toHaveLength(4);
  });

  it.each([[null], [[]], ["text"], [7], [undefined]])("refuses %j", (body) => {
    expect(readAnnouncement(body)).toMatchObject({
      problems: [expect.stringContaining("one JSON object")],
    });
  });

  test("never throws, whatever comes", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        readAnnouncement(value);
        readAnnouncement({ ...GOOD, signature: SIGNATURE, addresses: value });
        readRelease(value);
      }),
    );
  });
});

describe("readRelease", () => {
  const { addresses: _addresses, ...rest } = GOOD;
  it("takes null and an id", () => {
    for (const reservation of [null, "6f1b9c1e-7f0e-4c3a-9b0a-2f6f3f1d2c4b"])
      expect(readRelease({ ...rest, reservation, signature: SIGNATURE })).toMatchObject({
        message: { reservation },
      });
  });

  it.each([[undefined], ["x"], [7], ["6F1B9C1E-7F0E-4C3A-9B0A-2F6F3F1D2C4B"]])(
    "refuses %j",
    (reservation) => {
      expect(readRelease({ ...rest, reservation, signature: SIGNATURE })).toHaveProperty("problems");
    },
  );
});

describe("addresses", () => {
  it.each([
    `/ip4/192.0.2.7/tcp/9096/p2p/${PEER}`,
    `/ip6/2001:db8::7/udp/4001/quic-v1/p2p/${PEER}`,
    `/ip4/192.0.2.7/udp/9096/quic/p2p/${PEER}`,
    `/dns4/node.example.org/tcp/9096/p2p/${PEER}`,
  ])("takes %s", (address) => {
    expect(validateNodeAddress(address, PEER)).toBeNull();
  });

  it.each([
    "",
    "garbage",
    `/ip4/999.0.2.7/tcp/9096/p2p/${PEER}`,
    `/ip4/192.0.2.7/tcp/70000/p2p/${PEER}`,
    `/ip4/192.0.2.7/udp/4001/p2p/${PEER}`,
    `/ip4/192.0.2.7/tcp/9096/http/p2p/${PEER}`,
    `/ip4/192.0.2.7/tcp/9096/p2p/${PEER}/p2p-circuit`,
    `/dns4/${"a.".repeat(150)}org/tcp/9096/p2p/${PEER}`,
  ])("refuses %j", (address) => {
    expect(validateNodeAddress(address, PEER)).not.toBeNull();
  });
});

describe("peer ids", () => {
  it("carry their key", () => {
    // From libp2p's specs (peer-ids, the test vector of an Ed25519 key).
    const raw = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
    const peerId = peerIdOf(Buffer.from(raw, "hex"));
    expect(peerId).toMatch(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/);
    expect(Buffer.from(publicKeyOf(peerId) ?? []).toString("hex")).toBe(raw);
    expect(publicKeyOf(PEER)).toHaveLength(32);
  });

  test("there and back, for every key", () => {
    fc.assert(
      fc.property(keys, (key) => {
        expect(publicKeyOf(peerIdOf(key))).toEqual(new Uint8Array(key));
      }),
    );
  });

  test("no other text is taken for one", () => {
    fc.assert(
      fc.property(keys, fc.nat(51), fc.constantFrom(..."123ABCxyz0OIl ".split("")), (key, at, character) => {
        const id = peerIdOf(key);
        const changed = id.slice(0, at) + character + id.slice(at + 1);
        const decoded = publicKeyOf(changed);
        if (decoded !== null) expect(peerIdOf(decoded)).toBe(changed);
        expect(publicKeyOf(`1${id}`)).toBeNull();
        expect(publicKeyOf(`${id}1`)).toBeNull();
      }),
    );
    expect(publicKeyOf(`${PEER.slice(0, -1)}\u0131`)).toBeNull();
    for (const text of ["", "12D3KooW", "Qm", "z".repeat(10_000)]) expect(publicKeyOf(text)).toBeNull();
  });
});
