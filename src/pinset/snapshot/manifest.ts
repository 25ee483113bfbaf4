import { utcSeconds } from "../../units.ts";
import * as z from "zod";
import { OperatorError } from "../../errors.ts";

/** The name of the format in a manifest. */
export const MANIFEST_FORMAT = "fula-node/pinset-snapshot";
/** The newest version of the format that this tool writes and reads. */
export const MANIFEST_VERSION = 1;

const hex64 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.number().int().nonnegative();

const manifestSchema = z.object({
  format: z.literal(MANIFEST_FORMAT),
  version: z.literal(MANIFEST_VERSION),
  name: z.string().regex(/^pinset-[0-9A-Za-z-]+$/),
  /** Increases by 1 with each snapshot. It gives the order of snapshots even if the clock was changed. */
  sequence: count,
  created_at: z.iso.datetime(),
  cluster: z.object({ id: z.string().nullable(), name: z.string() }),
  peer: z.object({ id: z.string(), name: z.string(), version: z.string() }),
  pins: z.object({ count, by_type: z.record(z.string(), count) }),
  digest: z.object({ algorithm: z.string(), value: hex64 }),
  body: z.object({
    file: z.string(),
    encoding: z.literal("gzip"),
    size_bytes: count,
    plain_bytes: count,
    sha256: hex64,
  }),
  /** The previous snapshot, with the sha256 of the bytes of its manifest. */
  previous: z.object({ name: z.string(), manifest_sha256: hex64 }).nullable(),
  /**
   * Set if the pinset lacked too many pins of an earlier snapshot. `from`: the pins of that one. `to`: the pins of this
   * one. `removed`: how many of `from` are missing here. 0.1.0 compared only the totals, and only with the previous one.
   */
  drop: z
    .object({ from: count, to: count, removed: count.optional(), reference: z.string().optional() })
    .nullable(),
  /** True if the operator accepted this pinset as right: earlier snapshots are not compared with any more. */
  accepted: z.boolean().optional(),
  /** Set if the chain did not continue from the last snapshot that this machine remembers. */
  restart: z.object({ expected: count.nullable(), why: z.string() }).optional(),
  /** Set in the first snapshot with a new key. `endorsement`: the old key's signature over endorsementOf(new key), as hex. */
  key_rotation: z
    .object({ from_key_id: z.string(), endorsement: z.string().regex(/^[0-9a-f]{128}$/) })
    .optional(),
  /** True if the clock showed an earlier time than the previous snapshot has. */
  clock_went_back: z.boolean(),
  tool: z.object({ name: z.string(), version: z.string() }),
  key_id: z.string(),
});

/** The description of a snapshot. The signature covers its bytes on disk. */
export type Manifest = z.infer<typeof manifestSchema>;

/** The text of a manifest as it is written and signed: indented JSON and a newline. */
export function serialiseManifest(manifest: Manifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/**
 * Reads a manifest. Throws an OperatorError: `newer` for a version of the format that this tool does
 * not support, `integrity` for anything else that is not a manifest.
 */
export function parseManifest(text: string, file: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw notAManifest(file, "it is not JSON", cause);
  }
  const head = z.object({ format: z.literal(MANIFEST_FORMAT), version: z.number().int() }).safeParse(value);
  if (!head.success) throw notAManifest(file, `its "format" is not ${MANIFEST_FORMAT}`, head.error);
  if (head.data.version > MANIFEST_VERSION) {
    throw new OperatorError({
      exit: "newer",
      what: `${file} has format version ${head.data.version}, but this fula-node reads only up to version ${MANIFEST_VERSION}.`,
      remedy: "Use the version of fula-node that created it, or a later one.",
    });
  }
  const manifest = manifestSchema.safeParse(value);
  if (manifest.success) return manifest.data;
  const first = manifest.error.issues[0];
  throw notAManifest(
    file,
    `${first?.path.join(".") ?? ""}: ${first?.message ?? "it is malformed"}`,
    manifest.error,
  );
}

/** The name of a snapshot taken at a time: `pinset-20261121T200501Z`. */
export function snapshotName(at: Date): string {
  return `pinset-${utcSeconds(at).replace(/[-:]/g, "")}`;
}

function notAManifest(file: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: `${file} is not the manifest of a pinset snapshot: ${why}.`,
    remedy: "Use another snapshot. `fula-node snapshot list` shows which ones are valid.",
    cause,
  });
}

/** The files of one snapshot, by their base names. */
export interface SnapshotParts {
  /** `ours`: a signed manifest and a compressed body. `upstream`: one JSON file that is signed itself (functionland/fula-ota). */
  readonly layout: "ours" | "upstream";
  readonly name: string;
  readonly body: string;
  readonly manifest: string | null;
  /** Possible names of the signature file; the first one that exists is used. */
  readonly signatures: readonly string[];
}

/** The files of the snapshot that a base name belongs to. A name without a known ending is taken as a snapshot of our own layout. */
export function partsOf(fileName: string): SnapshotParts {
  const ours = /^(.+?)(\.ndjson\.gz|\.manifest\.json|\.manifest\.sig)$/.exec(fileName)?.[1];
  if (ours !== undefined) return ourParts(ours);
  const upstream = /^(.+?)(\.json|\.json\.sig|\.sig)$/.exec(fileName)?.[1];
  if (upstream !== undefined) return upstreamParts(upstream);
  return ourParts(fileName);
}

/** The snapshots of a directory, found by its file names. Includes our own layout and upstream's. */
export function findSnapshots(fileNames: readonly string[]): readonly SnapshotParts[] {
  const found = new Map<string, SnapshotParts>();
  for (const file of fileNames) {
    if (!/^pinset-[^/]*\.(ndjson\.gz|json|sig)$/.test(file)) continue;
    const parts = partsOf(file);
    found.set(`${parts.layout} ${parts.name}`, parts);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The file names of one snapshot of our own layout. */
export function snapshotFiles(name: string): {
  readonly body: string;
  readonly manifest: string;
  readonly signature: string;
} {
  return { body: `${name}.ndjson.gz`, manifest: `${name}.manifest.json`, signature: `${name}.manifest.sig` };
}

function ourParts(name: string): SnapshotParts {
  const { body, manifest, signature } = snapshotFiles(name);
  return { layout: "ours", name, body, manifest, signatures: [signature] };
}

function upstreamParts(name: string): SnapshotParts {
  return {
    layout: "upstream",
    name,
    body: `${name}.json`,
    manifest: null,
    signatures: [`${name}.json.sig`, `${name}.sig`],
  };
}

/** The name of the digest in a manifest: the sum modulo 2^256 of the sha256 of every line, without its newline. */
export const DIGEST_ALGORITHM = "sum-sha256-lines";

const BYTES = 32;

/**
 * A digest of a set of pin lines that does not depend on their order: two listings of the same pinset have the
 * same digest. It shows whether two pinsets are equal. It does not protect against forgery: the sha256 of the
 * body and the signature do that.
 */
export class PinsetDigest {
  readonly #sums = new Float64Array(BYTES);

  /** Adds one line by its sha256, given as 32 characters of latin1. */
  add(sha256: string): void {
    const sums = this.#sums;
    for (let i = 0; i < BYTES; i++) sums[i] = (sums[i] as number) + sha256.charCodeAt(i);
  }

  /** The digest so far as 64 hex characters. */
  hex(): string {
    let carry = 0;
    let text = "";
    for (let i = BYTES - 1; i >= 0; i--) {
      const sum = (this.#sums[i] as number) + carry;
      text = (sum % 256).toString(16).padStart(2, "0") + text;
      carry = Math.floor(sum / 256);
    }
    return text;
  }
}
