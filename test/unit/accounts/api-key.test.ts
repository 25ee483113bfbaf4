import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  apiKeyClaims,
  isExpired,
  NO_JWT,
  readBearer,
  readClaims,
  signClaims,
} from "../../../src/accounts/api-key.ts";

describe("apiKeyClaims", () => {
  const from = {
    userId: "u",
    issuedAt: new Date("2026-11-21T20:00:00.999Z"),
    name: undefined,
    uploadOnly: false,
    lifetimeMs: null,
  };

  test("are upstream's four, with a UUID of version 4", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        const randomHex = Buffer.from(bytes).toString("hex");
        const claims = apiKeyClaims({ ...from, randomHex });
        expect(claims).toEqual({
          sub: "u",
          iat: 1_795_291_200,
          scope: "storage:read storage:write",
          jti: expect.stringMatching(
            /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
          ) as string,
        });
      }),
    );
  });

  it("say when a key for uploading expires, and that it is good for nothing else", () => {
    const claims = apiKeyClaims({
      ...from,
      randomHex: "0".repeat(32),
      uploadOnly: true,
      lifetimeMs: 86_400_000,
    });
    expect(claims).toMatchObject({ scope: "storage:upload", exp: 1_795_291_200 + 86_400 });
    const read = readClaims(signClaims(claims, "a-secret"));
    expect(read).toEqual({ name: null, uploadOnly: true, expiresAt: 1_795_377_600 });
    expect([1_795_377_599_999, 1_795_377_600_000].map((ms) => read && isExpired(read, new Date(ms)))).toEqual(
      [false, true],
    );
  });

  it("carry a name where one is given", () => {
    expect(apiKeyClaims({ ...from, randomHex: "0".repeat(32), name: "ci" })).toMatchObject({ name: "ci" });
  });
});

describe("readBearer", () => {
  it.each([
    ["Bearer abc.def-_~+/==", "abc.def-_~+/=="],
    ["bearer abc", "abc"],
    ["BEARER   abc ", "abc"],
    ["Bearer", null],
    ["Bearer ", null],
    ["Basic abc", null],
    ["Bearer a b", null],
    ["Bearer a\u00e9", null],
    [`Bearer ${"a".repeat(4097)}`, null],
    ["", null],
    [undefined, null],
  ])("%j", (header, token) => {
    expect(readBearer(header)).toBe(token);
  });
});

describe("readClaims", () => {
  const key = (header: unknown, claims: unknown): string =>
    `${[header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".")}.${"s".repeat(43)}`;
  const nothing = { ...NO_JWT };

  it.each([
    ["upstream's key, without exp", key({ alg: "HS256", typ: "JWT" }, { sub: "u", iat: 1 }), nothing],
    ["a text that is no JWT", "an-opaque-key", nothing],
    ["three parts that are no JWT", "a.b.c", nothing],
    ["none", key({ alg: "none" }, { sub: "u" }), null],
    ["HS512", key({ alg: "HS512" }, { sub: "u" }), null],
    ["RS256", key({ alg: "RS256" }, { sub: "u" }), null],
    ["no alg", key({ typ: "JWT" }, { sub: "u" }), null],
    ["a signature of another length", key({ alg: "HS256" }, {}).slice(0, -1), null],
    ["exp as a text", key({ alg: "HS256" }, { exp: "4000000000" }), null],
    ["exp as null", key({ alg: "HS256" }, { exp: null }), null],
    ["claims that are a list", key({ alg: "HS256" }, []), null],
    ["exp", key({ alg: "HS256" }, { exp: 4_000_000_000 }), { ...nothing, expiresAt: 4_000_000_000 }],
  ])("%s", (_, token, claims) => {
    expect(readClaims(token)).toEqual(claims);
  });
});
