import {
  createPublicKey,
  generateKeyPairSync,
  sign as signByNode,
  verify as verifyByNode,
} from "node:crypto";
import { etc, getPublicKey, hash, Point, sign, utils, verify } from "@noble/ed25519";
import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { isSignedBy } from "../../src/federation/node-identity.ts";
import { createSigner, createVerifier, parseVerifyingKey } from "../../src/machine/signing.ts";
import { peerIdOf } from "../../src/federation/announcement.ts";

/** RFC 8032, section 7.1. */
const MESSAGE_1024 =
  "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1e355f6c50544" +
  "e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d658675fc6ea534e0810a4432" +
  "826bf58c941efb65d57a338bbd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15" +
  "452f80288a821a579116ec6dad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39ce767967ed628" +
  "c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204ed3455c68c83" +
  "f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70e" +
  "b6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf" +
  "2b13fd65f27088d78b7e883c8759d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089b" +
  "eccf80cfe2df16a2cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128bab27af87a7131" +
  "4f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae0784504df543af8969be3ea7082ff7fc9888c144da2" +
  "af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb751fb73e666c6c655ade8297297d07ad1ba5e" +
  "43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb" +
  "3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34dff7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a" +
  "7e08d78ff4ef5d63653a65040cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276c" +
  "d419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a32ef5b52a1ecc820e308a" +
  "a342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5f" +
  "b93246f6b1116398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6" +
  "d9d90d11faa933a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380db2eaaa707b4c4185c32eddcd" +
  "d306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8cac60c905c15fc910840b94c00a0b9d0";
const VECTORS = [
  {
    name: "1",
    seed: "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    publicKey: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    message: "",
    signature:
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  },
  {
    name: "2",
    seed: "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    publicKey: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    message: "72",
    signature:
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  },
  {
    name: "3",
    seed: "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    publicKey: "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    message: "af82",
    signature:
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
  },
  {
    name: "1024",
    seed: "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
    publicKey: "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
    message: MESSAGE_1024,
    signature:
      "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
  },
  {
    name: "SHA(abc)",
    seed: "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
    publicKey: "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
    message:
      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    signature:
      "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
  },
] as const;

/** Every key of small order, each in its one encoding. */
const SMALL_ORDER = [
  "0100000000000000000000000000000000000000000000000000000000000000",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0000000000000000000000000000000000000000000000000000000000000080",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
] as const;
/** The neutral point (y = 1) written as y = p + 1. */
const NEUTRAL_UNREDUCED = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";

const { n: ORDER } = Point.CURVE();
const MESSAGE = Buffer.from("fula-node announcement 1");
const LENIENT = { zip215: true };

const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const numberOf = (bytes: Uint8Array): bigint =>
  BigInt(`0x${Buffer.from(bytes.toReversed()).toString("hex")}`);
const scalarBytes = (scalar: bigint): Uint8Array =>
  bytesOf(scalar.toString(16).padStart(64, "0")).toReversed();
const challenge = (point: Uint8Array, key: Uint8Array): bigint =>
  numberOf(hash(etc.concatBytes(point, key, MESSAGE))) % ORDER;

/** A signature over MESSAGE by a secret scalar under a public key and R as given, whatever they are. */
function forge(options: { secret: bigint; nonce: bigint; key: Uint8Array; point?: Uint8Array }): Uint8Array {
  const { secret, nonce, key, point = Point.BASE.multiply(nonce).toBytes() } = options;
  const s = (nonce + challenge(point, key) * secret) % ORDER;
  return etc.concatBytes(point, scalarBytes(s));
}

describe("ed25519", () => {
  it.each(VECTORS)("RFC 8032, section 7.1, test $name", ({ seed, publicKey, message, signature }) => {
    const signer = createSigner(bytesOf(seed));
    expect(signer.publicKey).toEqual(bytesOf(publicKey));
    expect(signer.sign(bytesOf(message))).toEqual(bytesOf(signature));
    const verifies = createVerifier(bytesOf(publicKey));
    expect(verifies(bytesOf(message), bytesOf(signature))).toBe(true);
    expect(verifies(bytesOf(`${message}00`), bytesOf(signature))).toBe(false);
    const altered = bytesOf(signature);
    for (const at of [0, 31, 32, 63]) {
      altered[at] = (altered[at] ?? 0) ^ 1;
      expect(verifies(bytesOf(message), altered)).toBe(false);
      altered[at] = (altered[at] ?? 0) ^ 1;
    }
  });

  test("OpenSSL (in node) and we accept each other's signatures", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (message) => {
        const { privateKey, publicKey } = generateKeyPairSync("ed25519");
        const jwk = privateKey.export({ format: "jwk" });
        const signer = createSigner(new Uint8Array(Buffer.from(jwk.d ?? "", "base64url")));
        expect(verifyByNode(null, message, publicKey, signer.sign(message))).toBe(true);
        expect(createVerifier(signer.publicKey)(message, signByNode(null, message, privateKey))).toBe(true);
      }),
      { numRuns: 20 },
    );
  });

  test("S is below the group's order: S + L is refused", () => {
    const seed = utils.randomSecretKey();
    const signature = sign(MESSAGE, seed);
    const more = scalarBytes(numberOf(signature.subarray(32)) + ORDER);
    const verifies = createVerifier(getPublicKey(seed));
    expect(verifies(MESSAGE, signature)).toBe(true);
    expect(verifies(MESSAGE, etc.concatBytes(signature.subarray(0, 32), more))).toBe(false);
  });

  test("R in another encoding than its own is refused, which a lenient check takes", () => {
    const seed = utils.randomSecretKey();
    const { scalar } = utils.getExtendedPublicKey(seed);
    const key = getPublicKey(seed);
    const signature = forge({ secret: scalar, nonce: 0n, key, point: bytesOf(NEUTRAL_UNREDUCED) });
    expect(verify(signature, MESSAGE, key, LENIENT)).toBe(true);
    expect(createVerifier(key)(MESSAGE, signature)).toBe(false);
  });

  test.each([...SMALL_ORDER, NEUTRAL_UNREDUCED])(
    "the key %s, under which anybody can sign anything, is refused",
    (hex) => {
      const key = bytesOf(hex);
      expect(Point.fromBytes(key, true).isSmallOrder()).toBe(true);
      const signature = forge({ secret: 0n, nonce: 7n, key });
      expect(verify(signature, MESSAGE, key, LENIENT)).toBe(true);
      expect(createVerifier(key)(MESSAGE, signature)).toBe(false);
      expect(
        isSignedBy(peerIdOf(key), MESSAGE.toString("utf8"), Buffer.from(signature).toString("hex")),
      ).toBe(false);
      const x = Buffer.from(key).toString("base64url");
      const pem = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
      const parsed = parseVerifyingKey(pem.export({ type: "spki", format: "pem" }).toString(), "key.pem");
      expect(parsed.verify(MESSAGE, signature)).toBe(false);
    },
  );

  test("a key of mixed order, on which verifiers disagree, is refused", () => {
    const { scalar, point } = utils.getExtendedPublicKey(utils.randomSecretKey());
    const key = point.add(Point.fromHex(SMALL_ORDER[4])).toBytes();
    const signature = forge({ secret: scalar, nonce: 7n, key });
    expect(verify(signature, MESSAGE, key, { zip215: false })).toBe(true);
    expect(createVerifier(key)(MESSAGE, signature)).toBe(false);
  });

  test("whatever else comes is false, and no error", () => {
    const key = getPublicKey(utils.randomSecretKey());
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), fc.uint8Array({ maxLength: 40 }), (signature, other) => {
        expect(createVerifier(key)(MESSAGE, signature)).toBe(false);
        expect(createVerifier(other)(MESSAGE, signature)).toBe(false);
      }),
    );
    expect(createVerifier(key)(MESSAGE, new Uint8Array(64).fill(255))).toBe(false);
    expect(createVerifier(new Uint8Array(32).fill(255))(MESSAGE, new Uint8Array(64))).toBe(false);
  });
});
