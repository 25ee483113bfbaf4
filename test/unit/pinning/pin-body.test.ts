import fc from "fast-check";
import { expect, it } from "vitest";
import { readPinBody } from "../../../src/pinning/pin-body.ts";
import { decode, readPinFilter, readQuery } from "../../../src/pinning/pin-filter.ts";

const V1 = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34";

it("reads a body with nothing but a CID, in any spelling", () => {
  const read = readPinBody({ cid: V1.toUpperCase() });
  expect(read).toMatchObject({ value: { cid: { text: V1 }, name: "", origins: [], meta: "{}" } });
});

it("keeps each origin once, and fields that it does not know out", () => {
  const origins = ["/dns4/a/tcp/1", "/dns4/a/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1/p2p/x"];
  const read = readPinBody({ cid: V1, origins, status: "pinned" });
  expect(read).toMatchObject({ value: { origins: [origins[0], origins[2]] } });
  expect("value" in read && Object.keys(read.value).toSorted()).toEqual(["cid", "meta", "name", "origins"]);
});

it("never throws, and what it accepts can be stored as text", () => {
  const texts = fc.string({ unit: "binary", maxLength: 20 });
  const bodies = fc.oneof(
    fc.jsonValue({ noUnicodeString: false }),
    fc.record({
      cid: fc.constantFrom(V1, "x"),
      name: texts,
      meta: fc.dictionary(texts, fc.oneof(texts, fc.integer())),
      origins: fc.array(fc.oneof(texts, fc.constant("/dns4/a/tcp/1"))),
    }),
  );
  fc.assert(
    fc.property(bodies, (body) => {
      const read = readPinBody(body);
      if ("problem" in read) return;
      const { name, origins, meta } = read.value;
      for (const text of [name, ...origins, meta]) {
        expect(text).not.toContain("\0");
        expect(Buffer.from(text, "utf8").toString("utf8")).toBe(text);
      }
      expect(meta).not.toMatch(/\\u0000|\\ud[89a-f]/i);
    }),
    { numRuns: 500 },
  );
});

it("reads a query without parameters as the last ten pinned requests", () => {
  expect(readPinFilter("")).toEqual({
    value: { cids: null, name: null, statuses: ["pinned"], meta: null, before: null, after: null, limit: 10 },
  });
});

it("ignores parameters that the specification does not have, also if they can't be read", () => {
  expect(readPinFilter("x=%ff&__proto__=1&constructor=%00&&=&limit=3")).toMatchObject({
    value: { limit: 3 },
  });
});

it("decodes names and values once, a plus as a blank", () => {
  expect(readQuery("a=x+y&b=%2B%25&c", ["a", "b", "c"])).toEqual({ value: { a: "x y", b: "+%", c: "" } });
  expect(decode("a+b")).toBe("a+b");
});

it("never throws for a query", () => {
  const parts = fc.constantFrom(
    "cid=",
    "name=",
    "match=",
    "status=",
    "meta=",
    "before=",
    "after=",
    "limit=",
    "&",
    "%",
    "%00",
    "%ed%a0%80",
    "{}",
    ",",
  );
  fc.assert(
    fc.property(
      fc.array(fc.oneof(parts, fc.string({ unit: "binary", maxLength: 5 })), { maxLength: 12 }),
      (texts) => {
        const read = readPinFilter(texts.join(""));
        expect("value" in read || read.problem.length > 0).toBe(true);
      },
    ),
    { numRuns: 500 },
  );
});
