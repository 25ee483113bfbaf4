import { describe, expect, it, test } from "vitest";
import { age, decimalBytes, duration, gibibytes, plainLog, withoutCids } from "../../src/units.ts";

test.each([
  "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
  "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
  "BAFKREIGH2AKISCAILDCQABSYG3DFR6CHU3FGPREGIYMSCK7E7AQA4S52ZY",
  "zb2rhe5P4gXftAwvA4eXQ5HJwsER2owDyS9sKaQRRVQPn93bA",
  "f01551220c7e8091108085a05000581836c71f8fa2cd36df26462a8a2a2a3cc8ad97e5cc4",
  "k2jvtf53ygfzbaqwa2eiyxphy1npr1xe52gqzg5e3wh4qtslafzuoxt4",
  "uAVUSIMfoCRCAhaBQAFgYNscfj6LNNt8mRiqKKiqPMitl-XM",
])("no log or health names what users store: %s", (cid) => {
  expect(withoutCids(`(GET /pins/${cid}): no ${cid}, "${cid}"`)).toBe('(GET /pins/:cid): no :cid, ":cid"');
});

test.each([
  "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
  "https://a-very-long-name-of-a-machine-that-nobody-would-choose.example.org:9094/id",
  "could not extend file base/16384/24576: No space left on device",
  "0193f2a0-1111-4abc-8def-0123456789ab",
])("what is no CID stays in a line: %s", (text) => {
  expect(withoutCids(text)).toBe(text);
});

describe("numbers for people", () => {
  it.each([
    [0, "0 bytes"],
    [999, "999 bytes"],
    [1000, "1.0 kB"],
    [1_234_000_000, "1.2 GB"],
    [5e15, "5.0 PB"],
    [5e18, "5000.0 PB"],
  ])("%d bytes are %s", (bytes, text) => {
    expect(decimalBytes(bytes)).toBe(text);
  });

  it("a minimum that is nearly met is not shown as met", () => {
    expect(gibibytes(2 * 1024 ** 3 - 1)).toBe("1.9 GiB");
    expect(gibibytes(2 * 1024 ** 3)).toBe("2.0 GiB");
  });

  it.each([
    [0, "0.0 s"],
    [440, "0.4 s"],
    [9_949, "9.9 s"],
    [9_950, "10 s"],
    [59_400, "59 s"],
    [59_600, "1 min 0 s"],
    [125_000, "2 min 5 s"],
    [3_599_000, "59 min 59 s"],
    [3_600_000, "1 h 0 min"],
    [7_170_000, "2 h 0 min"],
  ])("%d ms last %s", (ms, text) => {
    expect(duration(ms)).toBe(text);
  });

  it.each([
    [-1, "in the future"],
    [0, "0 s"],
    [119_999, "119 s"],
    [120_000, "2 min"],
    [7_199_999, "119 min"],
    [7_200_000, "2 h"],
    [71 * 3_600_000, "71 h"],
    [72 * 3_600_000, "3 days"],
  ])("what is %d ms old is %s old", (ms, text) => {
    expect(age(ms)).toBe(text);
  });
});

describe("a log for people", () => {
  const line = (fields: object) => JSON.stringify({ level: "warn", time: "T", service: "webui", ...fields });

  it.each([
    [line({ msg: "health: degraded" }), "T warn health: degraded"],
    [
      line({ requestId: "r", method: "GET", route: "/pins", status: 503, ms: 1, msg: "request" }),
      "T warn request GET /pins 503",
    ],
    ["Error: no settings", "Error: no settings"],
    ['{"level":"info"', '{"level":"info"'],
    ['{"level":"info","ts":1,"msg":"of Caddy"}', '{"level":"info","ts":1,"msg":"of Caddy"}'],
    ["{}", "{}"],
    ["", ""],
  ])("has %j as %j", (text, shown) => {
    expect(plainLog(`${text}\n${text}`)).toBe(`${shown}\n${shown}`);
  });
});
