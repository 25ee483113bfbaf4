import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  apiKeyClaims,
  isExpired,
  readBearer,
  readClaims,
  readEmail,
  signClaims,
} from "../../../src/accounts/api-key.ts";

describe("apiKeyClaims", () => {
  const from = {
    userId: "u",
    issuedAt: new Date("2026-11-21T20:00:00.999Z"),
    name: undefined,
    uploadHours: null,
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
    const claims = apiKeyClaims({ ...from, randomHex: "0".repeat(32), uploadHours: 24 });
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

describe("readEmail", () => {
  it.each([
    ["Alice@Example.ORG", "alice@example.org"],
    ["a+b@c", "a+b@c"],
    ["a", null],
    ["", null],
    ["@", null],
    ["a@b@c", null],
    ["a b@c", null],
    ["a@b,c@d", null],
    [`${"a".repeat(250)}@b.org`, null],
  ])("%j", (text, email) => {
    expect(readEmail(text)).toBe(email);
  });
});
