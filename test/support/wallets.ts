import { createHash } from "node:crypto";
import { getPublicKey, signAsync } from "@noble/secp256k1";
import { addressOf, sessionDigest, textDigest } from "../../src/accounts/wallet-signature.ts";

/** The order of the curve secp256k1 (SEC 2, 2.4.1). */
export const CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

/** A wallet of a test: always the same for a name. */
export interface TestWallet {
  readonly address: string;
  /** 65 bytes: r, s, v (27 or 28). */
  sign(digest: Uint8Array): Promise<Buffer>;
  /** A signed text, as `personal_sign` gives it. */
  signText(text: string): Promise<string>;
}

export function walletOf(name: string): TestWallet {
  const key = createHash("sha256").update(`wallet ${name}`).digest();
  async function sign(digest: Uint8Array): Promise<Buffer> {
    const signed = await signAsync(digest, key, { prehash: false, format: "recovered" });
    return Buffer.concat([signed.subarray(1), Buffer.from([27 + (signed[0] ?? 0)])]);
  }
  return {
    address: addressOf(getPublicKey(key)),
    sign,
    signText: async (text) => `0x${(await sign(textDigest(text))).toString("hex")}`,
  };
}

/** A wallet token, from its parts. */
export function tokenOf(payload: string, signature: Uint8Array): string {
  return `fula-eip712.${Buffer.from(payload).toString("base64url")}.${Buffer.from(signature).toString("base64url")}`;
}

/** A valid wallet token. */
export async function walletToken(wallet: TestWallet, iat: number, exp = iat + 3_600): Promise<string> {
  const session = { wallet: wallet.address, iat, exp };
  return tokenOf(JSON.stringify(session), await wallet.sign(sessionDigest(session)));
}
