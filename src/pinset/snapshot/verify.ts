import type { ClusterReader } from "../../cluster/client.ts";
import { linesOf, readWholePin } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import { splitLines } from "../../machine/line-scanner.ts";
import type { VerifyingKey } from "../../machine/signing.ts";
import type { Mark, PinsetMarks } from "../marks.ts";
import type { PinsetMatch, PinsetWorkspace } from "../workspace.ts";
import { judgeOrder, type OrderVerdict } from "./chain.ts";
import { type Manifest, parseManifest } from "./manifest.ts";
import type { BodyReading, SnapshotFile } from "./store.ts";

/** A snapshot of which nothing was found to be wrong. */
export interface VerifiedSnapshot {
  readonly file: SnapshotFile;
  /** Null for upstream's, which have none. */
  readonly manifest: Manifest | null;
  readonly count: number;
  readonly sizeBytes: number;
  /** Of the body's file, as hex: every later reading must come to the same. */
  readonly sha256: string;
  readonly keyId: string;
  readonly order: OrderVerdict;
}

/** Hashes bytes: sha256 as hex. */
export type Sha256 = (bytes: Uint8Array) => string;

/**
 * Checks a snapshot whole: signature, manifest, every byte of the body, its pins' count, and how it hangs
 * on its neighbours (`order`, of judgeNeighbours). Throws an OperatorError: `integrity` for whatever does not
 * fit, `newer` for a format that this tool does not know.
 */
export async function verifySnapshot(
  file: SnapshotFile,
  key: VerifyingKey,
  hands: { readonly sha256: Sha256; readonly order: ReadonlyMap<string, OrderVerdict> },
): Promise<VerifiedSnapshot> {
  if (file.layout === "upstream") return verifyUpstream(file, key, hands.sha256);
  const manifest = checkManifest(file, key);
  const order = hands.order.get(file.name) ?? { state: "gap", why: null };
  if (order.state === "broken")
    throw broken(`The chain of snapshots does not hold: ${file.name}: ${order.why}.`);
  const reading = await readWhole(file);
  checkBody(file, manifest, reading);
  const { sha256, sizeBytes, count } = reading;
  return { file, manifest, count, sizeBytes, sha256, keyId: key.id, order };
}

/** The manifest of one of our snapshots, once its signature was checked; the body is not opened. */
export function checkManifest(file: SnapshotFile, key: VerifyingKey): Manifest {
  const manifestFile = file.manifestFile ?? "";
  if (file.manifest === null) throw broken(`${manifestFile} is missing.`);
  checkSignature(file, manifestFile, file.manifest, key);
  if (!file.hasBody) throw broken(`${file.bodyFile} is missing.`);
  const manifest = parseManifest(file.manifest.toString("utf8"), manifestFile);
  if (manifest.name !== file.name)
    throw broken(`${manifestFile} is the manifest of ${manifest.name}: the files were renamed or swapped.`);
  if (manifest.body.file !== file.bodyFile)
    throw broken(`${manifestFile} speaks of a body ${manifest.body.file}, not of ${file.bodyFile}.`);
  return manifest;
}

/** Refuses a body that is not the one that was signed. */
function checkBody(file: SnapshotFile, { body, pins, digest }: Manifest, reading: BodyReading): void {
  if (reading.sizeBytes !== body.size_bytes)
    throw broken(
      `${file.bodyFile} has ${reading.sizeBytes} bytes; ${body.size_bytes} were signed: it was cut off or added to.`,
    );
  if (reading.sha256 !== body.sha256)
    throw broken(`${file.bodyFile} is not the one that was signed: its sha256 differs.`);
  if (reading.plainBytes !== body.plain_bytes)
    throw broken(
      `${file.bodyFile} unpacks to ${reading.plainBytes} bytes; its manifest says ${body.plain_bytes}.`,
    );
  if (reading.count !== pins.count)
    throw broken(`${file.bodyFile} holds ${reading.count} pins; its manifest says ${pins.count}.`);
  if (reading.digest !== null && reading.digest !== digest.value)
    throw broken(`${file.bodyFile} holds other pins than its manifest says: their digest differs.`);
}

/** How the snapshots of one directory hang on each other, for those whose signature fits. */
export function judgeNeighbours(
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
  return judgeOrder(entries);
}

/** A body that can't be unpacked is told as what it most likely is: not the one that was signed. */
async function readWhole(file: SnapshotFile): Promise<BodyReading> {
  try {
    return await file.read();
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.exit !== "integrity") throw thrown;
    throw new OperatorError({
      exit: "integrity",
      what: `${file.bodyFile} is not the one that was signed. ${thrown.what}`,
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
  if (sha256 !== hash(signed)) throw broken(`${file.bodyFile} changed while it was read.`);
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
      what: `${file.bodyFile} holds something that is no JSON, although its signature fits: ${line.slice(0, 80)}`,
      remedy: REMEDY,
      cause,
    });
  }
  if (readWholePin(value) === null)
    throw broken(
      `${file.bodyFile} holds something without a CID, although its signature fits: ${line.slice(0, 80)}`,
    );
}

function checkSignature(file: SnapshotFile, signed: string, bytes: Buffer, key: VerifyingKey): void {
  if (file.signature === null)
    throw broken(`${file.signatureFile} is missing: nothing says that ${signed} is genuine.`);
  if (key.verify(bytes, file.signature)) return;
  throw broken(
    file.signature.length === 64
      ? `The signature does not fit ${signed}: ${signed} or ${file.signatureFile} was changed, or another key than ${key.id} made it.`
      : `${file.signatureFile} is no ed25519 signature: it has ${file.signature.length} bytes, not 64.`,
  );
}

const REMEDY =
  "Use another snapshot: `fula-node snapshot list` says which are whole. Keep this one: it may be evidence.";

function broken(what: string): OperatorError {
  return new OperatorError({ exit: "integrity", what, remedy: REMEDY });
}

/** A pinset that can be read any number of times, always in the same order. */
export interface PinsetSource {
  readonly title: string;
  /** Hands over blocks of whole lines, one pin a line. */
  read(takeLines: (lines: Buffer) => void | Promise<void>): Promise<void>;
  close(): Promise<void>;
}

/** A verified snapshot; every reading of it is checked to be of the very bytes that were verified. */
export function snapshotSource({ file, sha256 }: VerifiedSnapshot): PinsetSource {
  return {
    title: file.name,
    read: async (takeLines) => {
      const reading = await file.read({ takeLines });
      if (reading.sha256 === sha256) return;
      throw new OperatorError({
        exit: "integrity",
        what: `${file.bodyFile} was changed after it had been verified.`,
        remedy: "Find out who writes there, then start over with a copy that verifies.",
      });
    },
    close: () => Promise.resolve(),
  };
}

/** The pinset that the cluster has now, kept on the disk until it is closed. Throws (`unavailable`) where the list is not complete. */
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

/** Compares two pinsets pin by pin, in constant memory but for two bits a pin. */
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

/** Reads a pinset and visits the pins that have one of these marks, in order; a visit's promise makes the reading wait. */
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
