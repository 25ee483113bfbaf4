import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { blockCidOf, parseBlockCid } from "../../../src/ingest/cid.ts";

/** BLAKE3 of no bytes at all, and the CID that kubo 0.42 gives to it. */
const EMPTY = {
  digestHex: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
  text: "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi",
};

const digests = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => Buffer.from(bytes).toString("hex"));

function why(text: string): string {
  const parsed = parseBlockCid(text);
  return parsed.kind === "invalid" ? parsed.why : `valid: ${parsed.cid.digestHex}`;
}

/** Any bytes as base32 or base58btc, by code of its own. */
function base32(hex: string): string {
  const bits = [...Buffer.from(hex, "hex")].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const groups = bits.match(/.{1,5}/g) ?? [];
  const digit = (group: string): string =>
    "abcdefghijklmnopqrstuvwxyz234567"[Number.parseInt(group.padEnd(5, "0"), 2)] ?? "";
  return `b${groups.map(digit).join("")}`;
}

function base58(hex: string): string {
  const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  let text = "";
  for (let value = BigInt(`0x${hex}`); value > 0n; value /= 58n) text = alphabet[Number(value % 58n)] + text;
  return `z${text}`;
}

describe("a block's CID", () => {
  test("is the one that kubo gives", () => {
    expect(blockCidOf(EMPTY.digestHex)).toEqual(EMPTY);
    expect(parseBlockCid(EMPTY.text)).toEqual({ kind: "cid", cid: EMPTY });
  });

  test("is read from base32 and base58btc, whatever the digest", () => {
    fc.assert(
      fc.property(digests, (digestHex) => {
        const cid = blockCidOf(digestHex);
        expect(cid.text).toBe(base32(`01551e20${digestHex}`));
        expect(parseBlockCid(cid.text)).toEqual({ kind: "cid", cid });
        expect(parseBlockCid(base58(`01551e20${digestHex}`))).toEqual({ kind: "cid", cid });
      }),
    );
  });

  test("has one spelling in each base", () => {
    fc.assert(
      fc.property(
        digests,
        fc.nat(58),
        fc.constantFrom("a", "b", "z", "2", "7", "=", "A", "1", " "),
        (digestHex, at, character) => {
          const { text } = blockCidOf(digestHex);
          const other = text.slice(0, at) + character + text.slice(at + 1);
          const parsed = parseBlockCid(other);
          if (other !== text && parsed.kind === "cid") expect(parsed.cid.digestHex).not.toBe(digestHex);
        },
      ),
    );
    const last = EMPTY.text.slice(0, -1);
    expect(why(`${last}j`)).toBe("contains characters or bits that are not valid in its base");
    expect(why(`${EMPTY.text}=`)).toBe("contains characters or bits that are not valid in its base");
    expect(why(`${EMPTY.text}a`)).toBe("contains characters or bits that are not valid in its base");
    expect(why(EMPTY.text.toUpperCase())).toBe("is neither base32 (b...) nor base58btc (z...)");
    // A character beyond Latin-1 counts as a digit of no weight in the decoder of base58.
    expect(why(`z\u0131${base58(`01551e20${EMPTY.digestHex}`).slice(1)}`)).toBe(
      "contains characters or bits that are not valid in its base",
    );
    expect(why(`z1${base58(`01551e20${EMPTY.digestHex}`).slice(1)}`)).toBe("is not a CIDv1");
  });

  test.each([
    ["", "is neither base32 (b...) nor base58btc (z...)"],
    ["b", "is not a CIDv1"],
    ["z", "is not a CIDv1"],
    ["QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG", "is a CIDv0, which can't be the CID of a raw block"],
    [base32(`02551e20${EMPTY.digestHex}`), "is not a CIDv1"],
    [base32(`01701e20${EMPTY.digestHex}`), "has a codec other than raw (0x55)"],
    [base32(`01551220${EMPTY.digestHex}`), "has a hash other than blake3 (0x1e)"],
    [base32(`01551e1f${EMPTY.digestHex.slice(2)}`), "has a digest that is not 32 bytes long"],
    [base32(`01551e20${EMPTY.digestHex.slice(2)}`), "has a digest that is not 32 bytes long"],
    [base32(`01551e20${EMPTY.digestHex}00`), "has a digest that is not 32 bytes long"],
    [`f01551e20${EMPTY.digestHex}`, "has more than 64 characters"],
    ["bäfkr4", "contains characters or bits that are not valid in its base"],
    ["z0OIl", "contains characters or bits that are not valid in its base"],
  ])("is not %s", (text, reason) => {
    expect(why(text)).toBe(reason);
  });

  test("is not looked for in a text too long to be one", () => {
    expect(why("b".repeat(1_000_000))).toBe("has more than 64 characters");
  });

  test("is not found in what is none, and no text makes it throw", () => {
    const tails = fc.oneof(fc.string(), fc.base64String());
    fc.assert(
      fc.property(fc.constantFrom("", "b", "z", "bafkr4i"), tails, (head, tail) => {
        expect(parseBlockCid(head + tail).kind).toBe("invalid");
      }),
    );
  });
});
