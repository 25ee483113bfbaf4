import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
} from "node:crypto";
import { isIPv4 } from "node:net";

/** A certificate and its private key, in PEM form. */
export interface CertificatePair {
  readonly certificate: string;
  readonly key: string;
}

/** From when until when a certificate holds, to the second. */
interface Validity {
  readonly from: Date;
  readonly until: Date;
}

/** Makes X.509 certificates (RFC 5280) with keys on the curve P-256. Node.js reads certificates, but makes none. */
export interface CertificateMaker {
  /** A new private key, as PKCS8 PEM. */
  makeKey(): Promise<string>;
  /** True for a private key that certificates can be made for. */
  isKey(pem: string): Promise<boolean>;
  /** The certificate of a CA with that key, which signs itself; PEM. */
  makeAuthority(name: string, key: string, validity: Validity): Promise<string>;
  /** The certificate of a server with that key at these IP addresses, signed by that CA; PEM. */
  makeServerCertificate(
    authority: CertificatePair,
    addresses: readonly string[],
    key: string,
    validity: Validity,
  ): Promise<string>;
}

/** The real CertificateMaker. */
export const certificateMaker: CertificateMaker = {
  async makeKey() {
    const { privateKey } = generateKeyPairSync("ec", {
      namedCurve: "P-256",
      publicKeyEncoding: { type: "spki", format: "der" },
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
    });
    return privateKey;
  },

  async isKey(pem) {
    try {
      const { asymmetricKeyType, asymmetricKeyDetails } = createPrivateKey(pem);
      return asymmetricKeyType === "ec" && asymmetricKeyDetails?.namedCurve === "prime256v1";
    } catch {
      // The text of the error may quote the key.
      return false;
    }
  },

  async makeAuthority(name, key, validity) {
    const publicKey = publicKeyOf(key);
    const subject = nameOf(name);
    return certify({
      issuer: subject,
      subject,
      publicKey,
      validity,
      signer: key,
      extensions: [
        extension(OID.basicConstraints, sequence(TRUE), true),
        // keyCertSign and cRLSign: bits 5 and 6.
        extension(OID.keyUsage, der(TAG.bitString, Buffer.from([1, 0x06])), true),
        extension(OID.subjectKeyIdentifier, der(TAG.octetString, keyIdOf(publicKey))),
      ],
    });
  },

  async makeServerCertificate(authority, addresses, key, validity) {
    const issuer = new X509Certificate(authority.certificate);
    const names = addresses.map((address) => der(TAG.ipAddress, bytesOfIp(address)));
    return certify({
      issuer: subjectOf(issuer.raw),
      subject: nameOf(addresses[0] ?? ""),
      publicKey: publicKeyOf(key),
      validity,
      signer: authority.key,
      extensions: [
        extension(OID.basicConstraints, sequence(), true),
        // digitalSignature: bit 0.
        extension(OID.keyUsage, der(TAG.bitString, Buffer.from([7, 0x80])), true),
        extension(OID.extendedKeyUsage, sequence(objectId(OID.serverAuth))),
        extension(OID.subjectAltName, sequence(...names)),
        extension(OID.authorityKeyIdentifier, sequence(der(TAG.keyId, keyIdOf(publicKeyOf(authority.key))))),
      ],
    });
  },
};

const OID = {
  commonName: "2.5.4.3",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  basicConstraints: "2.5.29.19",
  keyUsage: "2.5.29.15",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  subjectAltName: "2.5.29.17",
  subjectKeyIdentifier: "2.5.29.14",
  authorityKeyIdentifier: "2.5.29.35",
} as const;

/** The tags of DER (X.690) that certificates have. The last four are context-specific (RFC 5280). */
const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectId: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  version: 0xa0,
  extensions: 0xa3,
  keyId: 0x80,
  ipAddress: 0x87,
} as const;

function publicKeyOf(key: string): Buffer {
  return createPublicKey(key).export({ type: "spki", format: "der" });
}

function certify(options: {
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: Buffer;
  readonly validity: Validity;
  /** PEM of the issuer's private key. */
  readonly signer: string;
  readonly extensions: readonly Buffer[];
}): string {
  const { issuer, subject, publicKey, validity, signer, extensions } = options;
  const algorithm = sequence(objectId(OID.ecdsaWithSha256));
  const serial = randomBytes(16);
  // Positive, and without a leading zero byte (RFC 5280, section 4.1.2.2).
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const signed = sequence(
    der(TAG.version, der(TAG.integer, Buffer.from([2]))),
    der(TAG.integer, serial),
    algorithm,
    issuer,
    sequence(timeOf(validity.from), timeOf(validity.until)),
    subject,
    publicKey,
    der(TAG.extensions, sequence(...extensions)),
  );
  const signature = sign("sha256", signed, createPrivateKey(signer));
  return pemOf(sequence(signed, algorithm, der(TAG.bitString, Buffer.of(0), signature)));
}

function pemOf(bytes: Buffer): string {
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.of(tag), lengthOf(content.length), content]);
}

/** Below 128 in one byte; else the number of bytes, and those. */
function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length);
  const bytes = Buffer.from(length.toString(16).padStart(length > 0xff ? 4 : 2, "0"), "hex");
  return Buffer.concat([Buffer.of(0x80 | bytes.length), bytes]);
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return der(TAG.sequence, ...parts);
}

const TRUE = Buffer.of(TAG.boolean, 1, 0xff);

function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((part) => {
    const digits = [part & 0x7f];
    for (let left = Math.floor(part / 128); left > 0; left = Math.floor(left / 128))
      digits.unshift((left & 0x7f) | 0x80);
    return digits;
  });
  return der(TAG.objectId, Buffer.from(bytes));
}

function extension(id: string, value: Buffer, isCritical = false): Buffer {
  return sequence(objectId(id), ...(isCritical ? [TRUE] : []), der(TAG.octetString, value));
}

function nameOf(commonName: string): Buffer {
  const attribute = sequence(objectId(OID.commonName), der(TAG.utf8, Buffer.from(commonName, "utf8")));
  return sequence(der(TAG.set, attribute));
}

/** UTCTime until 2049, then GeneralizedTime (RFC 5280, section 4.1.2.5). */
function timeOf(date: Date): Buffer {
  const digits = date.toISOString().replaceAll(/[-:T]|\.\d+Z$/g, "");
  return date.getUTCFullYear() < 2050
    ? der(TAG.utcTime, Buffer.from(`${digits.slice(2)}Z`))
    : der(TAG.generalizedTime, Buffer.from(`${digits}Z`));
}

/** The sha1 of the public key's bits (RFC 5280, section 4.2.1.2, method 1): of P-256, the last 65 bytes. */
function keyIdOf(spki: Buffer): Buffer {
  return createHash("sha1").update(spki.subarray(-65)).digest();
}

function bytesOfIp(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split(".").map(Number));
  const [head = "", tail] = address.split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const before = groups(head);
  const after = groups(tail ?? "");
  const zeros = Array.from({ length: tail === undefined ? 0 : 8 - before.length - after.length }, () => "0");
  return Buffer.from([...before, ...zeros, ...after].map((group) => group.padStart(4, "0")).join(""), "hex");
}

/** The subject of a certificate as its own bytes: an issuer must be written exactly so. */
function subjectOf(certificate: Buffer): Buffer {
  const outer = contentOf(certificate);
  let at = contentOf(outer);
  // Version, serial, algorithm, issuer and validity come before it.
  for (let skipped = 0; skipped < 5; skipped += 1) at = at.subarray(sizeOf(at));
  return at.subarray(0, sizeOf(at));
}

/** How many bytes the first element has, with its header. */
function sizeOf(bytes: Buffer): number {
  return headerOf(bytes) + lengthIn(bytes);
}

function contentOf(bytes: Buffer): Buffer {
  return bytes.subarray(headerOf(bytes), sizeOf(bytes));
}

function headerOf(bytes: Buffer): number {
  const first = bytes[1] ?? 0;
  return first < 0x80 ? 2 : 2 + (first & 0x7f);
}

function lengthIn(bytes: Buffer): number {
  const header = headerOf(bytes);
  return header === 2 ? (bytes[1] ?? 0) : bytes.readUIntBE(2, header - 2);
}
