const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const KEY_BYTES = 32;

/**
 * What comes before an ed25519 key in a peer id: an identity multihash (0x00) of 36 bytes, which are a
 * protobuf PublicKey of type Ed25519 (08 01) with 32 bytes of data (12 20). libp2p specs, peer-ids.
 */
const PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20] as const;

/** The ed25519 public key that a peer id `12D3KooW...` carries; null for any other text, also for RSA's Qm ids. */
export function publicKeyOf(peerId: string): Uint8Array | null {
  const bytes = decodeBase58(peerId, PREFIX.length + KEY_BYTES);
  if (bytes === null || PREFIX.some((byte, at) => bytes[at] !== byte)) return null;
  return bytes.slice(PREFIX.length);
}

/** The peer id of an ed25519 public key of 32 bytes. */
export function peerIdOf(publicKey: Uint8Array): string {
  return encodeBase58(Uint8Array.of(...PREFIX, ...publicKey));
}

/** Null unless the text is the one way to write exactly so many bytes. */
function decodeBase58(text: string, size: number): Uint8Array | null {
  if (text.length > size * 2) return null;
  let number = 0n;
  for (const character of text) {
    const digit = ALPHABET.indexOf(character);
    if (digit === -1) return null;
    number = number * 58n + BigInt(digit);
  }
  const bytes = new Uint8Array(size);
  for (let at = size - 1; at >= 0; at -= 1) {
    bytes[at] = Number(number & 0xffn);
    number >>= 8n;
  }
  return number === 0n && encodeBase58(bytes) === text ? bytes : null;
}

function encodeBase58(bytes: Uint8Array): string {
  let number = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  let text = "";
  while (number > 0n) {
    text = `${ALPHABET[Number(number % 58n)] ?? ""}${text}`;
    number /= 58n;
  }
  // A leading zero byte has no weight; it is written as the digit for zero.
  const zeros = bytes.findIndex((byte) => byte !== 0);
  return `${"1".repeat(zeros === -1 ? bytes.length : zeros)}${text}`;
}
