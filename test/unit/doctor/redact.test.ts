import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { createRedactor, REDACTED } from "../../../src/logs/redact.ts";

const SECRET = "Zq7-abc_DEF.123/xyz+0";
const redact = createRedactor([SECRET, "user:an0ther-Secret-9"]);

it("takes the whole of a secret in base64, with its padding", () => {
  const text = (secret: string) => Buffer.from(secret).toString("base64");
  const some = ["a-secret-of-16-ch", "a-secret-of-17-cha", "a-secret-of-18-char"];
  for (const secret of some) expect(createRedactor([secret])(`x ${text(secret)} y`)).toBe(`x ${REDACTED} y`);
});

describe("a known secret", () => {
  test.each([
    ["as it is", SECRET],
    ["in JSON", JSON.stringify({ note: SECRET })],
    ["encoded for an address", `https://h/?x=${encodeURIComponent(SECRET)}`],
    [
      "encoded with small letters",
      encodeURIComponent(SECRET).replaceAll(/%../g, (code) => code.toLowerCase()),
    ],
    ["in base64", Buffer.from(SECRET).toString("base64")],
    ["in base64url", Buffer.from(SECRET).toString("base64url")],
    ["inside of other base64", Buffer.from(`u:${SECRET}:more`).toString("base64")],
    ["in hex", Buffer.from(SECRET).toString("hex")],
    ["the password of credentials", "password is an0ther-Secret-9"],
    ["as basic credentials", `Basic ${Buffer.from("user:an0ther-Secret-9").toString("base64")}`],
  ])("%s", (_name, text) => {
    const shown = redact(`before ${text} after`);
    expect(shown).toContain(REDACTED);
    for (const hidden of [SECRET, encodeURIComponent(SECRET), "an0ther-Secret-9"])
      expect(shown).not.toContain(hidden);
    for (const run of shown.match(/[A-Za-z0-9+/_-]{8,}/g) ?? []) {
      const decoded = Buffer.from(run, "base64").toString("latin1");
      expect(decoded).not.toContain(SECRET);
      expect(decoded).not.toContain("an0ther-Secret-9");
    }
  });

  it("that is hex is taken out in small and in capital letters", () => {
    const key = "0123456789abcdef00ff";
    for (const known of [key, key.toUpperCase()]) {
      const hide = createRedactor([known]);
      for (const text of [key, key.toUpperCase(), `0x${key.toUpperCase()}`])
        expect(hide(`key ${text} end`)).not.toContain(text.slice(4));
    }
  });

  it("never stays, wherever it stands in base64", () => {
    const chars = fc.string({ maxLength: 40 });
    fc.assert(
      fc.property(chars, chars, (before, after) => {
        const text = Buffer.from(before + SECRET + after).toString("base64");
        const shown = redact(`x ${text} y`);
        for (const run of shown.match(/[A-Za-z0-9+/=]+/g) ?? [])
          for (const from of [0, 1, 2, 3])
            expect(Buffer.from(run.slice(from), "base64").toString("latin1")).not.toContain(
              SECRET.slice(0, 15),
            );
      }),
    );
  });
});

test.each([
  ["an e-mail address", "mail ann.b+x@mail.example.org now", "ann.b"],
  ["one encoded for an address", "?to=ann%40example.org", "ann%40"],
  [
    "one in base64",
    Buffer.from("to ann@example.org").toString("base64"),
    Buffer.from("ann@example").toString("base64").slice(2, 10),
  ],
  ["a password in an address", "postgres://u:hunter22@h/db", "hunter22"],
  ["a token in an address", "GET /x?token=abcdef&y=1", "abcdef"],
  ["a bearer", "Authorization: Bearer abcdefgh.ij", "abcdefgh"],
  ["a JSON Web Token", "key eyJhbGciOi.eyJzdWIi.c2ln here", "eyJhbGciOi"],
  ["a setting", "SOME_API_KEY=abc123def", "abc123def"],
  ["a field of JSON", '{"private_key":"CAESQ12345","a":1}', "CAESQ12345"],
  ["a private key", "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----", "MC4CAQAw"],
  [
    "a private key in one line",
    "k=-----BEGIN EC PRIVATE KEY-----\\nMC4CAQAw\\n-----END EC PRIVATE KEY-----",
    "MC4CAQAw",
  ],
  ["a setting of YAML", "password: hunter22", "hunter22"],
  ["a header with a key", "x-api-key: abc123def", "abc123def"],
  ["a cookie", "Cookie: session=abc123def; other=ghi456", "ghi456"],
  ["a flag", "run --password hunter22 --verbose", "hunter22"],
  ["an e-mail address in other letters", "mail from jürgen@müller.example.org", "rgen"],
  ["an e-mail address with a quoted name", 'mail "ann quoted"@example.org now', "quoted"],
  ["one with a quoted name in JSON", JSON.stringify({ to: '"ann quoted"@example.org' }), "quoted"],
  ["one of this machine", "mail from ann@localhost now", "ann"],
  ["one at an IP address", "mail from ann@[192.0.2.1] now", "ann"],
  ["one at an IPv6 address", "mail from ann@[IPv6:2001:db8::1] now", "ann"],
  ["one whose @ is escaped in JSON", String.raw`{"to":"ann\u0040example.org"}`, "ann"],
  ["one whose @ is escaped twice", String.raw`{\"to\":\"ann\\u0040example.org\"}`, "ann"],
  ["a key of age", "AGE-SECRET-KEY-1QQQQQQ", "1QQQQQQ"],
  ["a post-quantum key of age", "AGE-SECRET-KEY-PQ-1QQQQQQ", "1QQQQQQ"],
])("%s is taken out", (_name, text, hidden) => {
  const shown = redact(text);
  expect(shown).toContain(REDACTED);
  expect(shown).not.toContain(hidden);
});

it("is fast with a line that is long", () => {
  const long = ["a", "a.", "eyJ-", "pass-", '"a', "a@", '"a ', "a@[", "a%40a.", "\\u0040", "a://"].map(
    (part) => part.repeat(5_000),
  );
  const startMs = performance.now();
  for (const line of long) redact(line);
  // A second on a busy machine; a pattern without limits takes minutes.
  expect(performance.now() - startMs).toBeLessThan(20_000);
});

it("leaves what is no secret: ids, digests, paths, addresses, times", () => {
  const plain = [
    "2026-01-01T00:00:00Z pinned bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
    "peer 12D3KooWKuboKuboKuboKuboKuboKuboKuboKuboKuboKuboKubo at /ip4/192.0.2.1/tcp/4001",
    "image postgres@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "npx fula-node@0.5.0, root@box-1, @localhost:5432, [localhost], node@[no address]",
    '{"owner":"@example.org","list":[1,"@example.org"],"at":"x","@type":"y"}',
    "http://127.0.0.1:5001/api/v0/id?arg=1 answers 200 for /opt/fula-master/docker-compose.yml",
  ].join("\n");
  expect(redact(plain)).toBe(plain);
});
