import type { ClusterReader } from "../../cluster/client.ts";
import { linesOf, readWholePin } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import { splitLines } from "../../machine/line-scanner.ts";
import type { VerifyingKey } from "../../machine/signing.ts";
import type { Mark, PinsetMarks } from "../marks.ts";
import type { PinsetMatch, PinsetWorkspace } from "../workspace.ts";
import { checkOrder, type OrderVerdict } from "./chain.ts";
import { type Manifest, parseManifest } from "./manifest.ts";
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
  key: VerifyingKey,
  deps: { readonly sha256: Sha256; readonly order: ReadonlyMap<string, OrderVerdict> },
): Promise<VerifiedSnapshot> {
  if (file.layout === "upstream") return verifyUpstream(file, key, deps.sha256);
  const manifest = checkManifest(file, key);
  const order = deps.order.get(file.name) ?? { state: "gap", why: null };
  if (order.state === "broken")
    throw broken(`The chain of snapshots is broken at ${file.name}: ${order.why}.`);
  const reading = await readBodyOrRefuse(file);
  checkBody(file, manifest, reading);
  const { sha256, sizeBytes, count } = reading;
  return { file, manifest, count, sizeBytes, sha256, keyId: key.id, order };
}

/** Checks the signature of a snapshot of our layout and gives its manifest. It does not open the body. */
export function checkManifest(file: SnapshotFile, key: VerifyingKey): Manifest {
  const manifestFile = file.manifestFile ?? "";
  if (file.manifest === null) throw broken(`${manifestFile} is missing.`);
  checkSignature(file, manifestFile, file.manifest, key);
  if (!file.hasBody) throw broken(`${file.bodyFile} is missing.`);
  const manifest = parseManifest(file.manifest.toString("utf8"), manifestFile);
  if (manifest.name !== file.name)
    throw broken(`${manifestFile} is the manifest of ${manifest.name}: the files were renamed or swapped.`);
  if (manifest.body.file !== file.bodyFile)
    throw broken(`${manifestFile} names the body ${manifest.body.file}, not ${file.bodyFile}.`);
  return manifest;
}

/** Throws if the body is not the one that was signed. */
function checkBody(file: SnapshotFile, { body, pins, digest }: Manifest, reading: BodyReading): void {
  if (reading.sizeBytes !== body.size_bytes)
    throw broken(
      `${file.bodyFile} has ${reading.sizeBytes} bytes, but ${body.size_bytes} bytes were signed: the file was truncated or extended.`,
    );
  if (reading.sha256 !== body.sha256)
    throw broken(`${file.bodyFile} is not the file that was signed: its sha256 differs.`);
  if (reading.plainBytes !== body.plain_bytes)
    throw broken(
      `${file.bodyFile} unpacks to ${reading.plainBytes} bytes, but its manifest says ${body.plain_bytes}.`,
    );
  if (reading.count !== pins.count)
    throw broken(`${file.bodyFile} contains ${reading.count} pins, but its manifest says ${pins.count}.`);
  if (reading.digest !== null && reading.digest !== digest.value)
    throw broken(`${file.bodyFile} contains other pins than its manifest says: the digest differs.`);
}

/** Checks the chain of the snapshots of one directory. Snapshots without a valid signature are left out. */
export function checkChain(
  neighbours: readonly SnapshotFile[],
  key: VerifyingKey,
  sha256: Sha256,
): ReadonlyMap<string, OrderVerdict> {
  const entries = neighbours.flatMap((file) => {
    if (file.layout !== "ours" || file.manifest === null) return [];
    try {
      const { name, sequence, previous } = checkManifest(file, key);
      return [{ name, sequence, previous, manifestSha256: sha256(file.manifest) }];
    } catch (thrown) {
      if (thrown instanceof OperatorError) return [];
      throw thrown;
    }
  });
  return checkOrder(entries);
}

/** If a body cannot be unpacked, the error says what is most likely: it is not the one that was signed. */
async function readBodyOrRefuse(file: SnapshotFile): Promise<BodyReading> {
  try {
    return await file.read();
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.exit !== "integrity") throw thrown;
    throw new OperatorError({
      exit: "integrity",
      what: `${file.bodyFile} is not the file that was signed. ${thrown.what}`,
      remedy: REMEDY,
      cause: thrown,
    });
  }
}

async function verifyUpstream(
  file: SnapshotFile,
  key: VerifyingKey,
  hash: Sha256,
): Promise<VerifiedSnapshot> {
  if (!file.hasBody) throw broken(`${file.bodyFile} is missing.`);
  const signed = await file.signedBody();
  checkSignature(file, file.bodyFile, signed, key);
  const takeLines = (lines: Buffer): void => {
    for (const line of linesOf(lines)) readSignedPin(file, line);
  };
  const { sha256, sizeBytes, count } = await file.read({ takeLines });
  if (sha256 !== hash(signed)) throw broken(`${file.bodyFile} was changed while fula-node read it.`);
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
      remedy: REMEDY,
      cause,
    });
  }
  if (readWholePin(value) === null)
    throw broken(
      `${file.bodyFile} contains an entry without a CID, although its signature is valid: ${line.slice(0, 80)}`,
    );
}

function checkSignature(file: SnapshotFile, signed: string, bytes: Buffer, key: VerifyingKey): void {
  if (file.signature === null)
    throw broken(`${file.signatureFile} is missing: nothing proves that ${signed} is genuine.`);
  if (key.verify(bytes, file.signature)) return;
  throw broken(
    file.signature.length === 64
      ? `The signature does not match ${signed}: ${signed} or ${file.signatureFile} was changed, or it was signed with another key than ${key.id}.`
      : `${file.signatureFile} is not an ed25519 signature: it has ${file.signature.length} bytes, not 64.`,
  );
}

const REMEDY =
  "Use another snapshot. `fula-node snapshot list` shows which ones are valid. Keep this one: it may be evidence.";

function broken(what: string): OperatorError {
  return new OperatorError({ exit: "integrity", what, remedy: REMEDY });
}

/** A pinset that can be read any number of times, always in the same order. */
export interface PinsetSource {
  readonly title: string;
  /** Passes on blocks of whole lines, one pin per line. */
  read(takeLines: (lines: Buffer) => void | Promise<void>): Promise<void>;
  close(): Promise<void>;
}

/** A verified snapshot as a source. Every reading is checked to have the same bytes that were verified. */
export function snapshotSource({ file, sha256 }: VerifiedSnapshot): PinsetSource {
  return {
    title: file.name,
    read: async (takeLines) => {
      const reading = await file.read({ takeLines });
      if (reading.sha256 === sha256) return;
      throw new OperatorError({
        exit: "integrity",
        what: `${file.bodyFile} was changed after it was verified.`,
        remedy: "Find out who changed it, then start again with a valid copy.",
      });
    },
    close: () => Promise.resolve(),
  };
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
