import { describe, expect, it } from "vitest";
import { isWalletToken } from "../../../src/accounts/api-key.ts";
import { checksummed, sessionDigest, signerOf, textDigest } from "../../../src/accounts/wallet-signature.ts";
import { verifyWalletToken } from "../../../src/accounts/wallet-token.ts";
import { CURVE_ORDER, tokenOf, walletOf, walletToken } from "../../support/wallets.ts";

const NOW = 1_800_000_000;
const ALICE = walletOf("alice");
const BOB = walletOf("bob");
const SESSION = { wallet: ALICE.address, iat: NOW, exp: NOW + 3_600 };
const SIGNATURE = await ALICE.sign(sessionDigest(SESSION));
const { wallet, iat, exp } = SESSION;

const verify = (token: string, now = NOW) => verifyWalletToken(token, now);
/** A payload with Alice's valid signature over SESSION. */
const written = (payload: string) => verify(tokenOf(payload, SIGNATURE));
const signedWith = (signature: Uint8Array) => verify(tokenOf(JSON.stringify(SESSION), signature));
const signed = async (session: typeof SESSION, by = ALICE) =>
  verify(tokenOf(JSON.stringify(session), await by.sign(sessionDigest(session))));

function changed(change: (signature: Buffer) => void): Buffer {
  const signature = Buffer.from(SIGNATURE);
  change(signature);
  return signature;
}

/** The other signature that the same key could have made: (r, n - s), with v flipped. */
function twin(): Buffer {
  return changed((signature) => {
    const s = BigInt(`0x${signature.subarray(32, 64).toString("hex")}`);
    Buffer.from((CURVE_ORDER - s).toString(16).padStart(64, "0"), "hex").copy(signature, 32);
    signature[64] = signature[64] === 27 ? 28 : 27;
  });
}

describe("a wallet token", () => {
  it("opens the session that its wallet signed", async () => {
    expect(verify(await walletToken(ALICE, NOW))).toEqual(SESSION);
    expect(isWalletToken(await walletToken(ALICE, NOW))).toBe(true);
  });

  it("has the digest that other software signs (ethers 6)", () => {
    const digest = sessionDigest({
      wallet: "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
      iat: 1_700_000_000,
      exp: 1_700_003_600,
    });
    expect(Buffer.from(digest).toString("hex")).toBe(
      "813f1376cb6a422040c8205637721288b26773495413a8ed30b555a410608ddc",
    );
  });

  it.each([
    ["blanks", `{ "wallet" : "${wallet}" ,\n "iat":${iat},\t"exp": ${exp} } `],
    ["another order", `{"exp":${exp},"wallet":"${wallet}","iat":${iat}}`],
    ["a checksummed wallet", `{"wallet":"${checksummed(wallet)}","iat":${iat},"exp":${exp}}`],
  ])("is the same session with %s", (_, payload) => {
    expect(written(payload)).toEqual(SESSION);
  });

  it.each([0, 1])("is the same session with v %i in place of 27 or 28", (v) => {
    const signature = changed((bytes) => (bytes[64] = v));
    expect(signedWith(signature)).toEqual(
      v === (SIGNATURE[64] ?? 0) - 27 ? SESSION : { refused: "other-wallet" },
    );
  });

  it.each([
    ["a third key", `{"wallet":"${wallet}","iat":${iat},"exp":${exp},"x":1}`],
    ["a key twice", `{"wallet":"${wallet}","iat":${iat},"exp":${exp},"exp":${exp}}`],
    ["a missing key", `{"wallet":"${wallet}","iat":${iat}}`],
    ["an escaped key", `{"w\\u0061llet":"${wallet}","iat":${iat},"exp":${exp}}`],
    ["a proto", `{"__proto__":{},"wallet":"${wallet}","iat":${iat},"exp":${exp}}`],
    ["a list", `["${wallet}",${iat},${exp}]`],
    ["a text", `"${wallet}"`],
    ["nothing", "{}"],
    ["a comma at the end", `{"wallet":"${wallet}","iat":${iat},"exp":${exp},}`],
    ["two objects", `{"wallet":"${wallet}","iat":${iat},"exp":${exp}}{}`],
    ["a BOM", `\ufeff{"wallet":"${wallet}","iat":${iat},"exp":${exp}}`],
    ["NUL", `{"wallet":"${wallet}","iat":${iat},"exp":${exp}}\u0000`],
    ["a wallet of 39 digits", `{"wallet":"${wallet.slice(0, -1)}","iat":${iat},"exp":${exp}}`],
    ["a wallet without 0x", `{"wallet":"${wallet.slice(2)}","iat":${iat},"exp":${exp}}`],
    ["a wallet with 0X", `{"wallet":"0X${wallet.slice(2)}","iat":${iat},"exp":${exp}}`],
    ...[
      `"${exp}"`,
      "1.8000036e9",
      `${exp}.0`,
      "1e400",
      "-1",
      "null",
      `0${exp}`,
      `+${exp}`,
      "0x6b49d200",
      "true",
    ].map(
      (value) => [`exp ${value}`, `{"wallet":"${wallet}","iat":${iat},"exp":${value}}`] as [string, string],
    ),
    ["iat as a text", `{"wallet":"${wallet}","iat":"${iat}","exp":${exp}}`],
    ["iat 1e400", `{"wallet":"${wallet}","iat":1e400,"exp":${exp}}`],
    ["iat of 13 digits", `{"wallet":"${wallet}","iat":1000000000000,"exp":${exp}}`],
  ])("is malformed with %s", (_, payload) => {
    expect(written(payload)).toEqual({ refused: "malformed" });
  });

  it("is malformed in every other base64 than the one of its bytes", async () => {
    const token = await walletToken(ALICE, NOW);
    const [prefix = "", payload = "", signature = ""] = token.split(".");
    expect(signature).toHaveLength(87);
    const last = signature.at(-1) ?? "";
    // 65 bytes leave two spare bits in the last character.
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const spare = alphabet[alphabet.indexOf(last) + 1] ?? "";
    const standard = signature.replaceAll("-", "+").replaceAll("_", "/");
    for (const other of [
      `${prefix}.${payload}.${signature}=`,
      `${prefix}.${payload}=.${signature}`,
      `${prefix}.${payload}.${signature.slice(0, -1)}${spare}`,
      ...(standard === signature ? [] : [`${prefix}.${payload}.${standard}`]),
      `${prefix}.${payload}. ${signature}`,
      `${prefix}.${payload}.${signature}.`,
      `${prefix}.${payload}.${signature}.x`,
      `${prefix}.${payload}`,
      `${prefix}.${payload}.`,
      `${prefix}..${signature}`,
      `FULA-EIP712.${payload}.${signature}`,
      `Fula-eip712.${payload}.${signature}`,
      ` ${token}`,
      prefix,
      "",
      tokenOf(`${" ".repeat(1_000)}${JSON.stringify(SESSION)}`, SIGNATURE),
    ])
      expect(verify(other), other).toEqual({ refused: "malformed" });
  });

  it("is refused with the twin of its signature, which anybody can compute", () => {
    expect(signedWith(twin())).toEqual({ refused: "bad-signature" });
  });

  it.each([
    ["v 29", changed((bytes) => (bytes[64] = 29))],
    ["v 54", changed((bytes) => (bytes[64] = (SIGNATURE[64] ?? 0) + 27))],
    ["v 2", changed((bytes) => (bytes[64] = 2))],
    ["v 37 (EIP-155)", changed((bytes) => (bytes[64] = 37))],
    ["64 bytes", SIGNATURE.subarray(0, 64)],
    ["66 bytes", Buffer.concat([SIGNATURE, Buffer.alloc(1)])],
    ["a contract wallet's (EIP-1271)", Buffer.concat([SIGNATURE, SIGNATURE])],
    ["r = 0", changed((bytes) => bytes.fill(0, 0, 32))],
    ["s = 0", changed((bytes) => bytes.fill(0, 32, 64))],
    ["r = n", changed((bytes) => void Buffer.from(CURVE_ORDER.toString(16), "hex").copy(bytes, 0))],
    ["r beyond the field", changed((bytes) => bytes.fill(255, 0, 32))],
  ])("has no signature with %s", (_, signature) => {
    expect(signedWith(signature)).toEqual({ refused: "bad-signature" });
  });

  it("is of another wallet if its text says so, or if anything that was signed was changed", async () => {
    expect(await signed(SESSION, BOB)).toEqual({ refused: "other-wallet" });
    for (const change of [{ wallet: BOB.address }, { iat: iat - 1 }, { exp: exp + 1 }])
      expect(written(JSON.stringify({ ...SESSION, ...change }))).toEqual({ refused: "other-wallet" });
    // Signed as a text, not as typed data.
    const text = await ALICE.sign(textDigest(JSON.stringify(SESSION)));
    expect(signedWith(text)).toEqual({ refused: "other-wallet" });
  });

  it("is good until exp, for at most 24 hours, from 300 s before iat", async () => {
    expect(verify(await walletToken(ALICE, NOW), exp - 1)).toEqual(SESSION);
    expect(verify(await walletToken(ALICE, NOW), exp)).toEqual({ refused: "expired" });
    expect(await signed({ wallet, iat: NOW + 300, exp: NOW + 400 })).toMatchObject({ wallet });
    expect(await signed({ wallet, iat: NOW + 301, exp: NOW + 400 })).toEqual({ refused: "not-yet" });
    expect(await signed({ wallet, iat: NOW, exp: NOW + 86_400 })).toMatchObject({ wallet });
    expect(await signed({ wallet, iat: NOW, exp: NOW + 86_401 })).toEqual({ refused: "too-long" });
  });

  it("is no token if it ends when it begins, or before", async () => {
    for (const end of [NOW + 100, NOW + 99, NOW + 1])
      expect(await signed({ wallet, iat: NOW + 100, exp: end })).toEqual({ refused: "malformed" });
    expect(await signed({ wallet, iat: NOW + 100, exp: NOW + 101 })).toMatchObject({ wallet });
  });
});

describe("the first account of Hardhat and Anvil, whose key is public, as ethers 6 signs with it", () => {
  const address = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

  it("signed a session", () => {
    const signature =
      "316e2fd4a3b1365b8504c71d84865c5c75d76894d7349c64c5b9e18d051ead504eec8c500c3fe350011a627af08d277d234516420c5dbcc4ff9ef6d1034b4bff1b";
    const payload = JSON.stringify({ wallet: address, iat: 1_700_000_000, exp: 1_700_003_600 });
    expect(verify(tokenOf(payload, Buffer.from(signature, "hex")), 1_700_000_000)).toEqual({
      wallet: address.toLowerCase(),
      iat: 1_700_000_000,
      exp: 1_700_003_600,
    });
  });

  it("signed a text, and has this checksum", () => {
    const signature =
      "c14c7675d1ff92a36c8d01d8a7631bc4b07c8e625419c0fcc6ecd0bf4d90062f2891e70ae5e8fa2c5ae1b959496143e0e43ce4fc2c2e2e94c0cd68e55e7519f81c";
    const digest = textDigest("Link this wallet: \u00e9");
    expect(signerOf(digest, Buffer.from(signature, "hex"))).toBe(address.toLowerCase());
    expect(checksummed(address.toLowerCase())).toBe(address);
  });
});
