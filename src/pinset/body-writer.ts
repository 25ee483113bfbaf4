import { createHash, hash } from "node:crypto";
import { once } from "node:events";
import { type FileHandle, open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib";
import { readPinLine } from "../cluster/pin.ts";
import { splitLines } from "../machine/line-scanner.ts";
import { PinsetDigest } from "./snapshot/manifest.ts";

/** Facts about a snapshot's body that was written. */
export interface BodyFacts {
  readonly count: number;
  readonly byType: Readonly<Record<string, number>>;
  /** PinsetDigest of the lines, as hex. */
  readonly digest: string;
  /** Of the compressed file, as hex. */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly plainBytes: number;
}

const NEWLINE = 0x0a;

/** Level 1 is the fastest: many bodies are written, few are read. The high-water mark belongs to the stream, not to zlib. */
const GZIP_OPTIONS = { level: 1, memLevel: 9, chunkSize: 256 * 1024, highWaterMark: 2 * 1024 * 1024 };

/** Writes lines of pins, compressed, to a new file (0600), and computes BodyFacts while it writes. */
export class BodyWriter {
  readonly #gzip = zlib.createGzip(GZIP_OPTIONS);
  readonly #sha256 = createHash("sha256");
  readonly #digest = new PinsetDigest();
  readonly #byType = new Map<string, number>();
  readonly #written: Promise<void>;
  #count = 0;
  #sizeBytes = 0;
  #plainBytes = 0;

  private constructor(handle: FileHandle) {
    const file = handle.createWriteStream({ flush: true });
    this.#written = pipeline(this.#gzip, (chunks: AsyncIterable<Buffer>) => this.#measure(chunks), file);
    this.#written.catch(() => undefined);
  }

  /** Creates the file, which must not exist yet. */
  static async create(path: string): Promise<BodyWriter> {
    return new BodyWriter(await open(path, "wx", 0o600));
  }

  /** Writes whole lines. If it returns a promise, wait for it before the next call. Throws an OperatorError for a line that is not a pin. */
  write(lines: Buffer): void | Promise<void> {
    for (const line of splitLines(lines)) this.#add(line);
    const ended = lines.length === 0 || lines[lines.length - 1] === NEWLINE;
    const block = ended ? lines : Buffer.concat([lines, Buffer.from([NEWLINE])]);
    this.#plainBytes += block.length;
    if (this.#gzip.write(block)) return undefined;
    return Promise.race([once(this.#gzip, "drain"), this.#written]).then(() => undefined);
  }

  /** Ends the file and syncs it to the disk. */
  async finish(): Promise<BodyFacts> {
    this.#gzip.end();
    await this.#written;
    return {
      count: this.#count,
      byType: Object.fromEntries([...this.#byType].sort(([a], [b]) => (a < b ? -1 : 1))),
      digest: this.#digest.hex(),
      sha256: this.#sha256.digest("hex"),
      sizeBytes: this.#sizeBytes,
      plainBytes: this.#plainBytes,
    };
  }

  /** Stops writing. The caller removes the incomplete file. */
  async abandon(): Promise<void> {
    this.#gzip.destroy();
    await this.#written.catch(() => undefined);
  }

  #add(line: Buffer): void {
    const { type } = readPinLine(line.toString("latin1"));
    this.#byType.set(type, (this.#byType.get(type) ?? 0) + 1);
    this.#digest.add(hash("sha256", line, "binary"));
    this.#count += 1;
  }

  async *#measure(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      this.#sha256.update(chunk);
      this.#sizeBytes += chunk.length;
      yield chunk;
    }
  }
}
