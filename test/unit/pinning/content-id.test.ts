import { base16 } from "multiformats/bases/base16";
import { base32, base32upper } from "multiformats/bases/base32";
import { base36 } from "multiformats/bases/base36";
import { base58btc } from "multiformats/bases/base58";
import { base64url } from "multiformats/bases/base64";
import { CID } from "multiformats/cid";
import { describe, expect, it } from "vitest";
import {
  contentOf,
  type ParsedCid,
  parseCid,
  spellingsOf,
  usualSpellingsOf,
} from "../../../src/pinning/content-id.ts";

const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
const V1 = CID.parse(V0).toV1().toString();
const RAW = CID.createV1(0x55, CID.parse(V0).multihash).toString();

function parse(text: string): ParsedCid {
  const parsed = parseCid(text);
  if (parsed === null) throw new Error(`not a CID: ${text}`);
  return parsed;
}

describe("parseCid", () => {
  it.each([base16, base32, base32upper, base36, base58btc, base64url])("reads base $name", (base) => {
    expect(parse(CID.parse(V1).toString(base)).text).toBe(V1);
  });

  it("keeps a CIDv0 as it is", () => {
    expect(parse(V0).text).toBe(V0);
  });

  it.each([
    "",
    "x",
    "Qm",
    `/ipfs/${V1}`,
    `${V1} `,
    `${V0}a`,
    "b",
    `b${"a".repeat(5_000)}`,
    "zzzz",
    "\0",
    V1.slice(0, -3),
  ])("refuses %j", (text) => {
    expect(parseCid(text)).toBeNull();
  });
});

describe("the names of a content", () => {
  it("are CIDv1 and CIDv0 of the same codec, whichever was given", () => {
    expect(usualSpellingsOf(parse(V0))).toEqual([V1, V0]);
    expect(usualSpellingsOf(parse(V1))).toEqual([V1, V0]);
    expect(usualSpellingsOf(parse(RAW))).toEqual([RAW]);
    expect(spellingsOf(parse(V0))).toEqual(spellingsOf(parse(V1)));
    expect(spellingsOf(parse(V1)).slice(0, 2)).toEqual([V1, V0]);
    for (const spelling of spellingsOf(parse(V1))) expect(spellingsOf(parse(spelling))).toContain(V1);
    expect(new Set(spellingsOf(parse(V1)).map((spelling) => spelling.charAt(0)))).toEqual(
      new Set(["b", "Q", "B", "f", "F", "k", "K", "z", "m", "u"]),
    );
  });

  it("have one multihash, whatever the codec, for blocking", () => {
    expect(contentOf(parse(V0))).toMatch(/^1220[0-9a-f]{64}$/);
    for (const text of [V1, RAW, ...spellingsOf(parse(V1))])
      expect(contentOf(parse(text))).toBe(contentOf(parse(V0)));
  });
});
