import type { ClusterReader } from "../../cluster/client.ts";
import { linesOf, readWholePin } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import { splitLines } from "../../machine/line-scanner.ts";
import type { VerifyingKey } from "../../machine/signing.ts";
import type { Mark, PinsetMarks } from "../marks.ts";
import type { PinsetMatch, PinsetWorkspace } from "../workspace.ts";
import type { OrderVerdict } from "./chain.ts";
import { type Manifest, parseManifest } from "./manifest.ts";
import { DAMAGED_REMEDY } from "../body-reader.ts";
import { endorsementOf } from "./memory.ts";
import type { BodyReading, SnapshotFile } from "./store.ts";

/** A snapshot that passed every check. */
export interface VerifiedSnapshot {
  readonly file: SnapshotFile;
  /** Null for upstream's layout, which has no manifest. */
  readonly manifest: Manifest | null;
  readonly count: number;
  readonly sizeBytes: number;
  /** Of the body's file, as hex. Every later reading must give the same value. */
  readonly sha256: string;
  readonly keyId: string;
  readonly order: OrderVerdict;
}

/** Hashes bytes: sha256 as hex. */
export type Sha256 = (bytes: Uint8Array) => string;

/**
 * Verifies a snapshot completely: signature, manifest, every byte of the body, the number of pins, and its place
 * in the chain (`order`, from checkChain). Throws an OperatorError: `integrity` for anything that does not
 * match, `newer` for a format that this tool does not support.
 */
export async function verifySnapshot(
  file: SnapshotFile,
  keys: readonly VerifyingKey[],
  deps: { readonly sha256: Sha256; readonly order: ReadonlyMap<string, OrderVerdict> },
): Promise<VerifiedSnapshot> {
  if (file.layout === "upstream") return verifyUpstream(file, keys, deps.sha256);
  const { manifest, keyId } = checkManifest(file, keys);
  const order = deps.order.get(file.name) ?? { state: "gap", why: null };
  if (order.state === "broken")
    throw broken(`The chain of snapshots is broken at ${file.name}: ${order.why}.`);
  const { sha256, sizeBytes, count } = await readSignedBody(file, manifest);
  return { file, manifest, count, sizeBytes, sha256, keyId, order };
}

/** Checks the signature of a snapshot of our layout, and gives its manifest and the key that signed it. It does not open the body. */
export function checkManifest(
  file: SnapshotFile,
  keys: readonly VerifyingKey[],
): { readonly manifest: Manifest; readonly keyId: string } {
  const manifestFile = file.manifestFile ?? "";
  if (file.manifest === null) throw broken(`${manifestFile} is missing.`);
  const key = checkSignature(file, manifestFile, file.manifest, keys);
  if (file.bodyBytes === null) throw broken(`${file.bodyFile} is missing.`);
  const manifest = parseManifest(file.manifest.toString("utf8"), manifestFile);
  if (manifest.name !== file.name)
    throw broken(`${manifestFile} is the manifest of ${manifest.name}: the files were renamed or swapped.`);
  if (manifest.body.file !== file.bodyFile)
    throw broken(`${manifestFile} names the body ${manifest.body.file}, not ${file.bodyFile}.`);
  if (manifest.key_id !== key.id)
    throw broken(`${manifestFile} names the key ${manifest.key_id}, but ${key.id} signed it.`);
  const { key_rotation: rotation } = manifest;
  const replaced = keys.find(({ id }) => id === rotation?.from_key_id);
  if (rotation !== undefined && replaced !== undefined && !endorses(replaced, key, rotation.endorsement))
    throw broken(
      `${manifestFile} says that ${key.id} replaced the key ${replaced.id}, which did not sign that.`,
    );
  return { manifest, keyId: key.id };
}

/** True if the earlier key named the later one as the key that replaces it. `endorsement` is hex. */
export function endorses(earlier: VerifyingKey, later: VerifyingKey, endorsement: string): boolean {
  return earlier.verify(Buffer.from(endorsementOf(later.publicPem)), Buffer.from(endorsement, "hex"));
}

/** Reads a body of our layout. Throws (`integrity`) if it is not the one that was signed; nothing else is unpacked. */
export async function readSignedBody(
  file: SnapshotFile,
  { body, pins }: Manifest,
  takeLines?: (lines: Buffer) => void | Promise<void>,
): Promise<BodyReading> {
  const signed = { sizeBytes: body.size_bytes, sha256: body.sha256, plainBytes: body.plain_bytes };
  const reading = await file.read({ signed, ...(takeLines === undefined ? {} : { takeLines }) });
  if (reading.plainBytes !== body.plain_bytes)
    throw broken(
      `${file.bodyFile} unpacks to ${reading.plainBytes} bytes, but its manifest says ${body.plain_bytes}.`,
    );
  if (reading.count !== pins.count)
    throw broken(`${file.bodyFile} contains ${reading.count} pins, but its manifest says ${pins.count}.`);
  return reading;
}

async function verifyUpstream(
  file: SnapshotFile,
  keys: readonly VerifyingKey[],
  hash: Sha256,
): Promise<VerifiedSnapshot> {
  if (file.bodyBytes === null) throw broken(`${file.bodyFile} is missing.`);
  checkSignatureFile(file, file.bodyFile);
  const bytes = await file.signedBody();
  const key = checkSignature(file, file.bodyFile, bytes, keys);
  const takeLines = (lines: Buffer): void => {
    for (const line of linesOf(lines)) readSignedPin(file, line);
  };
  const signed = { sizeBytes: bytes.length, sha256: hash(bytes), plainBytes: Infinity };
  const { sha256, sizeBytes, count } = await file.read({ takeLines, signed });
  const order: OrderVerdict = { state: "first", why: null };
  return { file, manifest: null, count, sizeBytes, sha256, keyId: key.id, order };
}

function readSignedPin(file: SnapshotFile, line: string): void {
  let value: unknown = null;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new OperatorError({
      exit: "integrity",
      what: `${file.bodyFile} contains something that is not JSON, although its signature is valid: ${line.slice(0, 80)}`,
      remedy: DAMAGED_REMEDY,
      cause,
    });
  }
  if (readWholePin(value) === null)
    throw broken(
      `${file.bodyFile} contains an entry without a CID, although its signature is valid: ${line.slice(0, 80)}`,
    );
}

function checkSignatureFile(file: SnapshotFile, signed: string): Buffer {
  if (file.signature === null)
    throw broken(`${file.signatureFile} is missing: nothing proves that ${signed} is genuine.`);
  if (file.signature.length !== 64)
    throw broken(
      `${file.signatureFile} is not an ed25519 signature: it has ${file.signature.length} bytes, not 64.`,
    );
  return file.signature;
}

/** Gives the key that signed these bytes. */
function checkSignature(
  file: SnapshotFile,
  signed: string,
  bytes: Buffer,
  keys: readonly VerifyingKey[],
): VerifyingKey {
  const signature = checkSignatureFile(file, signed);
  const signer = keys.find((key) => key.verify(bytes, signature));
  if (signer !== undefined) return signer;
  const known = keys.map(({ id }) => id).join(" or ");
  throw broken(
    `The signature does not match ${signed}: ${signed} or ${file.signatureFile} was changed, or it was signed with another key than ${known}.`,
  );
}

function broken(what: string): OperatorError {
  return new OperatorError({ exit: "integrity", what, remedy: DAMAGED_REMEDY });
}

/** A pinset that can be read any number of times, always in the same order. */
export interface PinsetSource {
  readonly title: string;
  /** Passes on blocks of whole lines, one pin per line. */
  read(takeLines: (lines: Buffer) => void | Promise<void>): Promise<void>;
  close(): Promise<void>;
}

/**
 * A verified snapshot as a source. It is a private copy of the verified bytes: nobody can change what is read later.
 * Throws (`integrity`) if the file was changed after it was verified.
 */
export async function snapshotSource(
  { file, sha256, sizeBytes }: VerifiedSnapshot,
  workspace: PinsetWorkspace,
): Promise<PinsetSource> {
  const { bodyPath: path, encoding } = file;
  return { title: file.name, ...(await workspace.copyBody({ path, encoding, sha256, sizeBytes })) };
}

/** The current pinset of the cluster, stored on the disk until it is closed. Throws (`unavailable`) if the list is not complete. */
export async function liveSource(cluster: ClusterReader, workspace: PinsetWorkspace): Promise<PinsetSource> {
  const spool = await workspace.openSpool();
  try {
    await cluster.list("allocations", (lines) => spool.write(lines));
    await spool.finish();
  } catch (thrown) {
    await spool.close();
    throw thrown;
  }
  return { title: "live", read: (takeLines) => spool.read(takeLines), close: () => spool.close() };
}

/** Compares two pinsets pin by pin. It needs constant memory, and two bits for each pin. */
export async function compare(
  left: Pick<PinsetSource, "read">,
  right: Pick<PinsetSource, "read">,
  workspace: PinsetWorkspace,
): Promise<PinsetMatch> {
  const leftSpill = workspace.openSpill();
  const rightSpill = workspace.openSpill();
  try {
    await left.read((lines) => leftSpill.add(lines));
    await right.read((lines) => rightSpill.add(lines));
    return workspace.matchSpills(leftSpill, rightSpill);
  } finally {
    leftSpill.close();
    rightSpill.close();
  }
}

/** Reads a pinset and calls `visit`, in order, for each pin that has one of the wanted marks. If `visit` returns a promise, the reading waits for it. */
export function eachMarked(
  source: PinsetSource,
  marks: PinsetMarks,
  wanted: readonly Mark[],
  visit: (line: string, mark: Mark, place: number) => void | Promise<void>,
): Promise<void> {
  let place = 0;
  return source.read(async (lines) => {
    for (const line of splitLines(lines)) {
      const mark = marks.get(place);
      if (wanted.includes(mark)) {
        const pending = visit(line.toString("utf8"), mark, place);
        if (pending !== undefined) await pending;
      }
      place += 1;
    }
  });
}
