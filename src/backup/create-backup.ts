import { PassThrough, type Readable } from "node:stream";
import { once } from "node:events";
import type { Client } from "pg";
import { readLedger } from "../database/ledger.ts";
import { databaseErrorOf, withSession } from "../database/session.ts";
import { ROLES_SQL } from "../dumps/database-facts.ts";
import { type Dump, openDump, openExportedSnapshot } from "../dumps/dump.ts";
import type { Throwaway } from "../dumps/throwaway.ts";
import { OperatorError } from "../errors.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { decimalBytes, duration } from "../units.ts";
import { beginArchive } from "./archive-file.ts";
import { readArchive } from "./archive-reader.ts";
import { type ArchiveEntry, packArchive } from "./archive-writer.ts";
import { archiveName, type BackupManifest, newManifest } from "./backup-manifest.ts";
import { decrypt, encrypt, from, type Locked, readHeader, sumOfHeader } from "./encryption.ts";
import { closeAll, entriesOf, type OpenFile, PLACES, readPeerIds } from "./node-files.ts";

/** On the containers of a backup. */
export const BACKUP_MARK = "land.fx.fula-node.backup=dump";

/** What a backup is made of, and with. */
interface BackupGiven {
  readonly directory: string;
  readonly locked: Locked;
  readonly pool: string;
  readonly master: BackupManifest["master"];
  readonly toolVersion: string;
  readonly at: Date;
  /**
   * Opens the files, and says which snapshots of the pinset are among them. Called once the moment of the dump is fixed: a pin that the
   * database has is then in a snapshot that is taken here.
   */
  readonly openFiles: () => Promise<{
    readonly files: readonly OpenFile[];
    readonly snapshots: readonly string[];
  }>;
  readonly target: PostgresTarget;
  readonly isDatabaseElsewhere: boolean;
  readonly serverVersion: string;
  /** The image with pg_dump, and the name of its container. */
  readonly image: string;
  readonly container: string;
  /** Free bytes where a directory is, or will be. */
  readonly freeBytes: number;
  /** Of the last backup of this master; 0 if that is not known. */
  readonly lastBytes: number;
  /** Aborted by a signal. What was written is removed then. */
  readonly stop: AbortSignal;
  /** How long the database may send nothing, in milliseconds. */
  readonly longestSilenceMs: number;
  readonly report: (line: string) => void;
}

/** A backup that has its name, and was read back whole. */
export interface MadeBackup {
  readonly path: string;
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Of all that is in it, unpacked. */
  readonly plainBytes: number;
  readonly dumpBytes: number;
  readonly manifest: BackupManifest;
}

/** Twice so much of the dump is in memory at once. */
const PART_BYTES = 8 * 1024 ** 2;
/** Indexes are not in a dump, and it is compressed. One of random bytes needs more: then the last backup says how much. */
const DATABASE_SHARE = 0.5;
const SPACE_MORE_BYTES = 64 * 1024 ** 2;
/** A table of which no row is left gives no byte while it is read; a database that hangs never gives one again. */
export const LONGEST_SILENCE_MS = 10 * 60_000;
/** Only a server that nobody listens to any more ends a dump. */
const LONGEST_MS = 24 * 3_600_000;

/** Makes a backup: dumps the database, packs, encrypts, reads all of it back, and gives it its name. */
export async function createBackup(engine: Throwaway, given: BackupGiven): Promise<MadeBackup> {
  const { target } = given;
  const session = {
    applicationName: "fula-node backup",
    readOnly: true,
    statementTimeoutMs: 60_000,
    lockTimeoutMs: 10_000,
  };
  try {
    return await withSession(target, session, (client) => dumpAndPack(engine, given, client));
  } catch (thrown) {
    const error = databaseErrorOf(thrown);
    if (error === null) throw thrown;
    throw new OperatorError({
      exit: "unavailable",
      what: "The database could not be read for the backup.",
      why: error.message,
      remedy: "The role of POSTGRES_USER must be able to read all of it.",
      cause: thrown,
    });
  }
}

async function dumpAndPack(engine: Throwaway, given: BackupGiven, client: Client): Promise<MadeBackup> {
  const snapshot = await openExportedSnapshot(client, LONGEST_MS);
  const { files, snapshots } = await given.openFiles();
  try {
    refuseStopped(given.stop);
    return await dumpWith(engine, given, { client, snapshot, files, snapshots });
  } finally {
    await closeAll(files);
  }
}

async function dumpWith(
  engine: Throwaway,
  given: BackupGiven,
  now: {
    readonly client: Client;
    readonly snapshot: string;
    readonly files: readonly OpenFile[];
    readonly snapshots: readonly string[];
  },
): Promise<MadeBackup> {
  const { target, image, container: name, report } = given;
  const { client, snapshot, files, snapshots } = now;
  const migration = (await readLedger(client)).findLast(({ state }) => state === "applied")?.version ?? null;
  const roles = await client.query<{ role: string }>(ROLES_SQL);
  await requireSpace(client, given, files);
  const manifest = newManifest({
    created_at: given.at.toISOString(),
    tool: { name: "fula-node", version: given.toolVersion },
    pool: given.pool,
    master: given.master,
    peers: await readPeerIds(files),
    database: {
      is_elsewhere: given.isDatabaseElsewhere,
      name: target.database,
      server_version: given.serverVersion,
      major: Number.parseInt(given.serverVersion, 10),
      migration,
      roles: roles.rows.map(({ role }) => role).filter((role) => role !== target.user),
    },
    snapshots: [...snapshots],
  });
  report("dumping the database; nothing is stopped, and nobody waits for it");
  const dump = await openDump(engine, target, { name, mark: BACKUP_MARK, image, snapshot });
  const counter = { bytes: 0 };
  const end = (): void => void dump.stream.destroy(stoppedError());
  given.stop.addEventListener("abort", end, { once: true });
  try {
    const made = await writeVerified(given, manifest, allEntries(files, { ...dump, given }, counter));
    await client.query("COMMIT");
    return { ...made, dumpBytes: counter.bytes, manifest };
  } finally {
    given.stop.removeEventListener("abort", end);
    dump.stream.destroy();
  }
}

function stoppedError(): OperatorError {
  return new OperatorError({
    exit: "interrupted",
    what: "The backup was stopped.",
    remedy: "Run again: it begins from the start.",
    changed: "nothing; what was written of it is removed.",
  });
}

function refuseStopped(stop: AbortSignal): void {
  if (stop.aborted) throw stoppedError();
}

async function* allEntries(
  files: readonly OpenFile[],
  dump: Dump & { readonly given: BackupGiven },
  counter: { bytes: number },
): AsyncGenerator<ArchiveEntry, void, undefined> {
  yield* entriesOf(files);
  yield* readAhead(partsOf(dump, counter));
}

/** The dump in parts. Throws (`unavailable`) if it did not come to its end, or is empty. */
async function* partsOf(
  dump: Dump & { readonly given: BackupGiven },
  counter: { bytes: number },
): AsyncGenerator<ArchiveEntry, void, undefined> {
  let number = 0;
  const partOf = (body: readonly Buffer[], bytes: number): ArchiveEntry => {
    const name = `${PLACES.database}/${String(number).padStart(6, "0")}`;
    number += 1;
    counter.bytes += bytes;
    return { name, kind: "file", mode: 0o600, uid: 0, gid: 0, bytes, body };
  };
  let chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of untilSilent(dump.stream, dump.given)) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes < PART_BYTES) continue;
    yield partOf(chunks, bytes);
    chunks = [];
    bytes = 0;
  }
  await dump.ended;
  if (counter.bytes + bytes === 0)
    throw new OperatorError({
      exit: "unavailable",
      what: "pg_dump ended well, but gave no dump.",
      remedy: "Run again. If it stays so, look at the database: fula-node doctor",
    });
  yield partOf(chunks, bytes);
}

/** The bytes of a dump. Throws (`unavailable`) if none comes for too long. That whoever reads is slow does not count. */
async function* untilSilent(
  stream: Readable,
  { longestSilenceMs, report }: BackupGiven,
): AsyncGenerator<Buffer, void, undefined> {
  const giveUp = (): void =>
    void stream.destroy(
      new OperatorError({
        exit: "unavailable",
        what: `The database has sent nothing for ${duration(longestSilenceMs)}, so the backup was given up.`,
        why: "It hangs, its container is paused, or its disk does not answer.",
        remedy: "fula-node doctor says what is wrong. Repair that, then run again.",
        changed: "nothing; what was written of it is removed.",
      }),
    );
  const say = (): void =>
    report(`the database sends nothing; the backup is given up once that is ${duration(longestSilenceMs)}`);
  const chunks = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  for (;;) {
    const timers = [setTimeout(giveUp, longestSilenceMs), setTimeout(say, longestSilenceMs / 10)];
    const next = chunks.next();
    const { done, value } = await next.finally(() => timers.forEach(clearTimeout));
    if (done === true) return;
    yield value;
  }
}

/** The same, with the next one read while one is at work: pg_dump works while a part is compressed. */
async function* readAhead<One>(source: AsyncGenerator<One>): AsyncGenerator<One, void, undefined> {
  let next = source.next();
  for (;;) {
    const { done, value } = await next;
    if (done === true) return;
    next = source.next();
    // Whoever reads on gets the error; whoever gave up has its own.
    next.catch(() => {});
    yield value;
  }
}

/** Throws (`preflight`) if the archive may not fit. */
async function requireSpace(
  client: Client,
  { freeBytes, directory, lastBytes }: BackupGiven,
  files: readonly OpenFile[],
): Promise<void> {
  const { rows } = await client.query<{ bytes: string }>(
    "SELECT pg_database_size(current_database())::text AS bytes",
  );
  const database = Number(rows[0]?.bytes ?? 0);
  const expected = files.reduce((sum, { bytes }) => sum + bytes, 0) + database * DATABASE_SHARE;
  const needed = Math.max(expected, lastBytes) + SPACE_MORE_BYTES;
  if (freeBytes >= needed) return;
  throw new OperatorError({
    exit: "preflight",
    what: `The disk of ${directory} has ${decimalBytes(freeBytes)} free, and a backup may need ${decimalBytes(needed)}.`,
    why: `The database has ${decimalBytes(database)}${lastBytes > expected ? `, and the last backup ${decimalBytes(lastBytes)}` : ""}; ${decimalBytes(SPACE_MORE_BYTES)} stay free.`,
    remedy: "Free some space there, or back up to another directory.",
  });
}

/** What is written is unpacked and compared at the same time, and the file is read back before it gets its name. */
async function writeVerified(
  { directory, locked, pool, at, master, stop }: BackupGiven,
  manifest: BackupManifest,
  entries: AsyncIterable<ArchiveEntry>,
): Promise<Omit<MadeBackup, "dumpBytes" | "manifest">> {
  const draft = await beginArchive(directory, master.id ?? master.name);
  try {
    const { chunks, opener } = await encrypt(packArchive(manifest, entries), locked);
    const encrypted = chunks[Symbol.asyncIterator]();
    const { header, start } = await readHeader(encrypted);
    const name = archiveName(pool, at, sumOfHeader(header));
    const copy = new PassThrough();
    const read = readArchive(decrypt(copy as AsyncIterable<Buffer>, opener, name), {
      manifest: () => {},
      entry: () => Promise.resolve(null),
    });
    // A check that fails destroys the copy, or reads it no more: its error is that of `read`, and ends the writing.
    copy.on("error", () => {});
    read.catch(() => {});
    try {
      for await (const chunk of from(start, encrypted)) {
        await draft.write(chunk);
        if (!copy.write(chunk)) await Promise.race([once(copy, "drain"), read]);
      }
    } finally {
      copy.end();
    }
    const { bytes: plainBytes } = await read;
    const { bytes, sha256 } = await draft.seal();
    refuseStopped(stop);
    return { path: await draft.publish(name), name, bytes, sha256, plainBytes };
  } finally {
    await draft.discard();
  }
}
