import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import tar from "tar-stream";
import { type BackupContents, type BackupManifest, FIRST_ENTRY, LAST_ENTRY } from "./backup-manifest.ts";

/** One file, or one directory, that goes into an archive. */
export interface ArchiveEntry {
  /** Relative, with slashes. */
  readonly name: string;
  readonly kind: "file" | "directory";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly bytes: number;
  /** Exactly so many bytes. */
  readonly body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** A little less small than with more work, and a third of the time: a backup is not to hold up the machine. */
const GZIP = { level: 1, chunkSize: 64 * 1024 } as const;

/** The plain bytes of an archive: a compressed tar that begins with the manifest and ends with the list of all entries. */
export async function* packArchive(
  manifest: BackupManifest,
  entries: AsyncIterable<ArchiveEntry>,
): AsyncGenerator<Buffer, void, undefined> {
  const pack = tar.pack();
  const gzip = createGzip(GZIP);
  // The streams say only that they were closed: what closed them is the cause.
  const source: { fault: unknown } = { fault: null };
  const filled = fill(pack, manifest, entries, source).catch((thrown: unknown) => {
    source.fault ??= thrown;
    gzip.destroy(thrown as Error);
    throw thrown;
  });
  const piped = pipeline(pack, gzip);
  // Whoever reads sees the failure of either as that of the stream.
  filled.catch(() => {});
  piped.catch(() => {});
  try {
    for await (const chunk of gzip) yield chunk as Buffer;
    await Promise.all([filled, piped]);
  } catch (thrown) {
    throw source.fault ?? thrown;
  } finally {
    gzip.destroy();
    pack.destroy();
    await filled.catch(() => {});
  }
}

async function fill(
  pack: tar.Pack,
  manifest: BackupManifest,
  entries: AsyncIterable<ArchiveEntry>,
  source: { fault: unknown },
): Promise<void> {
  const at = new Date(manifest.created_at);
  const listed: BackupContents["entries"][number][] = [];
  const add = async (entry: ArchiveEntry): Promise<void> => {
    listed.push({ name: entry.name, bytes: entry.bytes, sha256: await addEntry(pack, entry, at, source) });
  };
  await add(textEntry(FIRST_ENTRY, `${JSON.stringify(manifest, null, 2)}\n`));
  for await (const entry of entries) await add(entry);
  await addEntry(pack, textEntry(LAST_ENTRY, `${JSON.stringify({ entries: listed })}\n`), at, source);
  pack.finalize();
}

/** Returns the sha256 of the body, as hex. */
async function addEntry(
  pack: tar.Pack,
  entry: ArchiveEntry,
  mtime: Date,
  source: { fault: unknown },
): Promise<string> {
  const { name, mode, uid, gid, bytes: size, kind: type } = entry;
  const sha256 = createHash("sha256");
  const header = { name, mode, uid, gid, size, type, mtime };
  const { sink, ended } = openEntry(pack, header);
  if (type === "directory") {
    await ended;
    return sha256.digest("hex");
  }
  async function* hashed(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of entry.body) {
        sha256.update(chunk);
        yield chunk;
      }
    } catch (thrown) {
      source.fault ??= thrown;
      throw thrown;
    }
  }
  await Promise.all([pipeline(Readable.from(hashed(), { objectMode: false }), sink), ended]);
  return sha256.digest("hex");
}

function openEntry(
  pack: tar.Pack,
  header: tar.Headers,
): { readonly sink: NodeJS.WritableStream; readonly ended: Promise<void> } {
  let sink: NodeJS.WritableStream | null = null;
  const ended = new Promise<void>((resolve, reject) => {
    sink = pack.entry(header, (error) => (error instanceof Error ? reject(error) : resolve()));
  });
  if (sink === null) throw new TypeError("an entry was added to a closed archive");
  return { sink, ended };
}

/** A text as an entry. */
export function textEntry(name: string, text: string): ArchiveEntry {
  const body = Buffer.from(text);
  return { name, kind: "file", mode: 0o600, uid: 0, gid: 0, bytes: body.length, body: [body] };
}
