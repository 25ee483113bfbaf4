import * as z from "zod";
import { OperatorError } from "../../errors.ts";

/** What a manifest calls its own format. */
export const MANIFEST_FORMAT = "fula-node/pinset-snapshot";
/** The newest version of the format that this tool writes and reads. */
export const MANIFEST_VERSION = 1;

const hex64 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.number().int().nonnegative();

const manifestSchema = z.object({
  format: z.literal(MANIFEST_FORMAT),
  version: z.literal(MANIFEST_VERSION),
  name: z.string().regex(/^pinset-[0-9A-Za-z-]+$/),
  /** Counts up along the chain; the order of snapshots, whatever the clock did. */
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
  /** The snapshot before this one, by the sha256 of its manifest's bytes. */
  previous: z.object({ name: z.string(), manifest_sha256: hex64 }).nullable(),
  /** Set where the pinset was much smaller than in the snapshot before. */
  drop: z.object({ from: count, to: count }).nullable(),
  /** True where the clock said an earlier time than the snapshot before. */
  clock_went_back: z.boolean(),
  tool: z.object({ name: z.string(), version: z.string() }),
  key_id: z.string(),
});

/** What a snapshot says of itself; the signature is made over its bytes on disk. */
export type Manifest = z.infer<typeof manifestSchema>;

/** The bytes of a manifest as they are written and signed: indented JSON and a newline. */
export function serialiseManifest(manifest: Manifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/**
 * Reads a manifest. Throws an OperatorError: `newer` for a version of the format that this tool does
 * not know, `integrity` for anything else that is no manifest.
 */
export function parseManifest(text: string, file: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw notAManifest(file, "it is no JSON", cause);
  }
  const head = z.object({ format: z.literal(MANIFEST_FORMAT), version: z.number().int() }).safeParse(value);
  if (!head.success) throw notAManifest(file, "it does not say that it is one", head.error);
  if (head.data.version > MANIFEST_VERSION) {
    throw new OperatorError({
      exit: "newer",
      what: `${file} is of format version ${head.data.version}; this tool reads up to ${MANIFEST_VERSION}.`,
      remedy: "Use the version of fula-node that made it, or a later one.",
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
  return `pinset-${at
    .toISOString()
    .replace(/\.\d{3}Z$/, "Z")
    .replace(/[-:]/g, "")}`;
}

function notAManifest(file: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: `${file} is no manifest of a pinset snapshot: ${why}.`,
    remedy: "Use another snapshot: `fula-node snapshot list` says which are whole.",
    cause,
  });
}

/** Which files make up a snapshot, by their base names. */
export interface SnapshotParts {
  /** `ours`: signed manifest and compressed body; `upstream`: one JSON file, signed itself (functionland/fula-ota). */
  readonly layout: "ours" | "upstream";
  readonly name: string;
  readonly body: string;
  readonly manifest: string | null;
  /** Names that the signature may have; the first that exists counts. */
  readonly signatures: readonly string[];
}

/** The parts that a file's base name belongs to; a bare name is one of ours. */
export function partsOf(fileName: string): SnapshotParts {
  const ours = /^(.+?)(\.ndjson\.gz|\.manifest\.json|\.manifest\.sig)$/.exec(fileName)?.[1];
  if (ours !== undefined) return ourParts(ours);
  const upstream = /^(.+?)(\.json|\.json\.sig|\.sig)$/.exec(fileName)?.[1];
  if (upstream !== undefined) return upstreamParts(upstream);
  return ourParts(fileName);
}

/** The snapshots that lie in a directory, by its file names, ours and upstream's. */
export function findSnapshots(fileNames: readonly string[]): readonly SnapshotParts[] {
  const found = new Map<string, SnapshotParts>();
  for (const file of fileNames) {
    if (!/^pinset-[^/]*\.(ndjson\.gz|json|sig)$/.test(file)) continue;
    const parts = partsOf(file);
    found.set(`${parts.layout} ${parts.name}`, parts);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The files of one snapshot, by what they hold. */
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

/** The name of the digest in a manifest: the sum modulo 2^256 of the sha256 of every line, newline left out. */
export const DIGEST_ALGORITHM = "sum-sha256-lines";

const BYTES = 32;

/**
 * An order-independent digest of a set of pin lines: two listings of the same pinset give the same
 * digest in whatever order the peer wrote them. It tells equal from different; against forgery stand
 * the body's own sha256 and the signature.
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
