import { createDecipheriv, createHash, type DecipherGCM, hkdfSync } from "node:crypto";
import { ReadableStream } from "node:stream/web";
import { Decrypter, Encrypter } from "age-encryption";
import { messageOf, OperatorError } from "../errors.ts";
import { damaged, headerSumOf } from "./backup-manifest.ts";

/** For whom an archive is encrypted. */
export type Locked =
  | { readonly kind: "recipients"; readonly recipients: readonly string[] }
  | { readonly kind: "passphrase"; readonly passphrase: string };

/** What opens an archive. `file-key`: the key of one archive, which only the process that makes it has. */
export type Opener =
  | { readonly kind: "identities"; readonly identities: readonly string[] }
  | { readonly kind: "passphrase"; readonly passphrase: string }
  | { readonly kind: "file-key"; readonly fileKey: Uint8Array };

/**
 * 64 MiB of memory for a moment. A passphrase has at least so many characters that trying them all stays hopeless with half
 * of what the age program takes.
 */
const SCRYPT_LOG_N = 16;
const MIN_PASSPHRASE = 20;
/** The recipient of an X25519 key has 62. */
const SHOWN_CHARACTERS = 80;
/** A header for a hundred recipients has less. */
const MAX_HEADER_BYTES = 64 * 1024;

/** Throws (`settings`) for a passphrase that is too short. It is not named. */
export function requirePassphrase(passphrase: string, name: string): string {
  if (passphrase.length >= MIN_PASSPHRASE && !/[\n\r]/.test(passphrase)) return passphrase;
  throw new OperatorError({
    exit: "settings",
    what: `The passphrase in ${name} must be one line of at least ${MIN_PASSPHRASE} characters.`,
    why: "Whoever gets the backup can try passphrases for years.",
    remedy: "Make one: openssl rand -base64 32",
  });
}

/** Throws (`settings`) if a text is no recipient. A recipient has a checksum, so one that is mistyped is found. */
export function requireRecipients(text: string, name: string): readonly string[] {
  const recipients = text.split(/[\s,]+/).filter((one) => one !== "");
  for (const one of recipients) {
    try {
      new Encrypter().addRecipient(one);
    } catch (cause) {
      throw noRecipient(one, name, cause);
    }
  }
  if (recipients.length > 0) return recipients;
  throw new OperatorError({ exit: "settings", what: `${name} names no recipient.` });
}

/** The error for what is no recipient. A text that does not begin with age1 may be a secret key, so it is not shown. */
function noRecipient(text: string, name: string, cause: unknown): OperatorError {
  if (!text.startsWith("age1"))
    return new OperatorError({
      exit: "settings",
      what: `${name} is not a recipient of the program age.`,
      why: "It must begin with age1.",
      remedy: "Make a key pair on another machine: age-keygen -o backup-key.txt. It prints the recipient.",
      cause,
    });
  const isLong = text.length > SHOWN_CHARACTERS;
  const shown = isLong ? `${text.slice(0, SHOWN_CHARACTERS)}... (${text.length} characters)` : text;
  return new OperatorError({
    exit: "settings",
    what: `${name} has ${shown}, which is not a recipient of the program age.`,
    why: "A character of it is wrong or missing, or it is one of a plugin of age.",
    remedy: "Where its secret key is, age-keygen -y backup-key.txt prints it again.",
    cause,
  });
}

/** The secret keys in a file of age-keygen. Throws (`settings`) if there is none, or one is malformed. No key is named. */
export function requireIdentities(text: string, name: string): readonly string[] {
  const identities = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  const isGood = identities.every((one) => {
    try {
      new Decrypter().addIdentity(one);
      return true;
    } catch {
      return false;
    }
  });
  if (isGood && identities.length > 0) return identities;
  throw new OperatorError({
    exit: "settings",
    what: `The file for ${name} has no secret key of age, or one that is malformed.`,
    remedy: "Give the file that age-keygen wrote. Its key is a line that begins with AGE-SECRET-KEY-1.",
  });
}

/** An archive that is being encrypted, and the key that opens it as long as this process has it. */
interface Encrypted {
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly opener: Opener;
}

/** Encrypts a stream. Nothing is read before the result is. */
export async function encrypt(plain: AsyncIterable<Uint8Array>, locked: Locked): Promise<Encrypted> {
  const encrypter = new Encrypter();
  if (locked.kind === "passphrase") {
    encrypter.setScryptWorkFactor(SCRYPT_LOG_N);
    encrypter.setPassphrase(locked.passphrase);
    return { chunks: await encrypter.encrypt(streamOf(plain)), opener: locked };
  }
  for (const recipient of locked.recipients) encrypter.addRecipient(recipient);
  let fileKey: Uint8Array | null = null;
  encrypter.addRecipient({
    // It adds nothing to the file: so the archive can be verified where nobody has the secret key.
    wrapFileKey: (key) => {
      fileKey = Uint8Array.from(key);
      return [];
    },
  });
  const chunks = await encrypter.encrypt(streamOf(plain));
  if (fileKey === null) throw new TypeError("age asks every recipient");
  return { chunks, opener: { kind: "file-key", fileKey } };
}

/**
 * Decrypts a stream. `name` is that of the file. Throws (`settings`) for a key that does not open it, and (`integrity`) for
 * whatever is not as it was encrypted, also while the result is read.
 */
export async function* decrypt(
  source: AsyncIterable<Uint8Array>,
  opener: Opener,
  name: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const chunks = source[Symbol.asyncIterator]();
  try {
    const { header, start } = await readHeader(chunks);
    const fileKey = await openHeader(header, opener, name);
    yield* decryptPayload(from(start.subarray(header.length), chunks), fileKey);
  } finally {
    // Also where a key does not open it: its file is open.
    await chunks.return?.();
  }
}

/** The key of a file, from its header. */
async function openHeader(header: Buffer, opener: Opener, name: string): Promise<Uint8Array> {
  const wanted = headerSumOf(name);
  const isNamed = wanted !== null;
  if (isNamed && !sumOfHeader(header).startsWith(wanted)) throw damaged("its first lines were changed");
  requireFitting(header, opener);
  const decrypter = new Decrypter();
  if (opener.kind === "passphrase") decrypter.addPassphrase(opener.passphrase);
  else if (opener.kind === "file-key") decrypter.addIdentity({ unwrapFileKey: () => opener.fileKey });
  else for (const identity of opener.identities) decrypter.addIdentity(identity);
  try {
    return await decrypter.decryptHeader(header);
  } catch (thrown) {
    if (messageOf(thrown).startsWith("no identity matched")) throw wrongKey(opener, isNamed, thrown);
    throw damaged("its first lines do not match: they were changed", thrown);
  }
}

const NONCE_BYTES = 16;
const TAG_BYTES = 16;
const SEALED_BYTES = 64 * 1024 + TAG_BYTES;

/**
 * Decrypts what follows the header of an age file: 16 bytes of nonce, then 64 KiB at a time, each with its own tag and its number, the
 * last one marked as such (https://age-encryption.org/v1, "Payload"). age-encryption does the same in JavaScript, at a tenth of
 * the rate, and an archive is decrypted when it is made and when it is restored.
 */
async function* decryptPayload(
  source: AsyncIterable<Uint8Array>,
  fileKey: Uint8Array,
): AsyncGenerator<Buffer, void, undefined> {
  let key: Buffer | null = null;
  let held: Buffer = Buffer.alloc(0);
  let number = 0;
  const open = (sealed: Buffer, isLast: boolean): Buffer => {
    if (key === null || sealed.length < TAG_BYTES) throw changed();
    const nonce = Buffer.alloc(12);
    nonce.writeUIntBE(number, 5, 6);
    nonce[11] = isLast ? 1 : 0;
    const decipher = decipherOf(key, nonce);
    decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
    const plain = decipher.update(sealed.subarray(0, -TAG_BYTES));
    try {
      decipher.final();
    } catch (thrown) {
      throw changed(thrown);
    }
    // Only an empty file ends with an empty part.
    if (isLast && plain.length === 0 && number > 0) throw changed();
    number += 1;
    return plain;
  };
  for await (const chunk of source) {
    held = Buffer.concat([held, chunk]);
    if (key === null && held.length >= NONCE_BYTES) {
      key = Buffer.from(hkdfSync("sha256", fileKey, held.subarray(0, NONCE_BYTES), "payload", 32));
      held = held.subarray(NONCE_BYTES);
    }
    if (key === null) continue;
    const opened: Buffer[] = [];
    // More must come after it: the last part is opened as such.
    for (; held.length > SEALED_BYTES; held = held.subarray(SEALED_BYTES))
      opened.push(open(held.subarray(0, SEALED_BYTES), false));
    if (opened.length > 0) yield Buffer.concat(opened);
  }
  yield open(held, true);
}

function decipherOf(key: Buffer, nonce: Buffer): DecipherGCM {
  try {
    return createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: TAG_BYTES });
  } catch (cause) {
    throw new OperatorError({
      exit: "unavailable",
      what: "This Node.js can't decrypt backups: its OpenSSL has no ChaCha20-Poly1305.",
      why: messageOf(cause),
      remedy: "Use a Node.js without FIPS mode.",
      cause,
    });
  }
}

function changed(cause?: unknown): OperatorError {
  return damaged("its encryption does not match: it was changed or cut off", cause);
}

/** The whole sum of an age header, as hex. */
export function sumOfHeader(header: Uint8Array): string {
  return createHash("sha256").update(header).digest("hex");
}

/** Reads up to the end of the age header; `start` is all that was read for it. Throws (`integrity`) if there is none. */
export async function readHeader(
  chunks: AsyncIterator<Uint8Array>,
): Promise<{ readonly header: Buffer; readonly start: Buffer }> {
  let start = Buffer.alloc(0);
  while (start.length < MAX_HEADER_BYTES) {
    const { done, value } = await chunks.next();
    if (done === true) break;
    start = Buffer.concat([start, value]);
    const end = endOfHeader(start);
    if (end >= 0) return { header: start.subarray(0, end), start };
  }
  throw damaged("it does not begin as a file of age does");
}

/** What was read of chunks, and the rest of them. */
export async function* from(
  start: Buffer,
  chunks: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield start;
    for (;;) {
      const { done, value } = await chunks.next();
      if (done === true) return;
      yield value;
    }
  } finally {
    await chunks.return?.();
  }
}

/** The last line of the header begins with three dashes. */
function endOfHeader(bytes: Buffer): number {
  if (!bytes.subarray(0, 22).equals(Buffer.from("age-encryption.org/v1\n").subarray(0, bytes.length)))
    return -1;
  const last = bytes.indexOf("\n--- ");
  const end = last < 0 ? -1 : bytes.indexOf("\n", last + 1);
  return end < 0 ? -1 : end + 1;
}

/** A passphrase and a secret key are not mixed up without a word. */
function requireFitting(header: Buffer, opener: Opener): void {
  const wantsPassphrase = header.includes("\n-> scrypt ");
  if (opener.kind === "file-key" || wantsPassphrase === (opener.kind === "passphrase")) return;
  throw new OperatorError({
    exit: "settings",
    what: wantsPassphrase
      ? "This backup is encrypted with a passphrase, and a secret key was given."
      : "This backup is encrypted for a recipient, and a passphrase was given.",
    remedy: wantsPassphrase
      ? "Give the passphrase: --set-file BACKUP_PASSPHRASE=FILE"
      : "Give the file of age-keygen: --set-file BACKUP_IDENTITY=FILE",
  });
}

function wrongKey(opener: Opener, isNamed: boolean, cause: unknown): OperatorError {
  const given = opener.kind === "passphrase" ? "The passphrase" : "The secret key";
  return new OperatorError({
    exit: "settings",
    what: `${given} does not open this backup.`,
    ...(isNamed
      ? {}
      : {
          why: "Or the beginning of the file was changed: that is seen only while the file has its first name.",
        }),
    remedy: "Give the one that this backup was made with.",
    cause,
  });
}

function streamOf(chunks: AsyncIterable<Uint8Array>): globalThis.ReadableStream<Uint8Array> {
  return ReadableStream.from(chunks);
}
