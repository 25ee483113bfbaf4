import { open, readdir, stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { BACKUP_MARK, createBackup } from "../../src/backup/create-backup.ts";
import { requireUnchanged, unpackArchive } from "../../src/backup/unpack.ts";
import { encrypt, type Locked } from "../../src/backup/encryption.ts";
import { withSession } from "../../src/database/session.ts";
import { openDump, openExportedSnapshot } from "../../src/dumps/dump.ts";
import { createThrowaway } from "../../src/dumps/throwaway.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** Run by the bench: a backup of a database, its dump through the same compressor and encryptor alone, or the unpacking of a backup. */
interface Given {
  readonly mode: "backup" | "plain" | "unpack";
  readonly target: PostgresTarget;
  readonly image: string;
  readonly directory: string;
  readonly recipient: string;
  readonly identity: string;
}

const { mode, target, image, directory, recipient, identity } = JSON.parse(
  process.env["BACKUP"] ?? "{}",
) as Given;
const engine = createThrowaway(process.env);
const locked: Locked = { kind: "recipients", recipients: [recipient] };
const container = `fula-backup-dump-${process.pid}`;

async function backup(): Promise<number> {
  const { bytes } = await createBackup(engine, {
    directory,
    locked,
    pool: "bench",
    master: { id: null, name: "bench", hostname: "bench", base_dir: "/", writer_dir: null },
    toolVersion: "0.0.0",
    at: new Date(),
    openFiles: () => Promise.resolve({ files: [], snapshots: [] }),
    target,
    isDatabaseElsewhere: false,
    serverVersion: "17.0",
    image,
    container,
    freeBytes: Number.MAX_SAFE_INTEGER,
    lastBytes: 0,
    stop: new AbortController().signal,
    longestSilenceMs: 600_000,
    report: () => {},
  });
  return bytes;
}

function plain(): Promise<number> {
  const session = { applicationName: "bench", readOnly: true, statementTimeoutMs: 0, lockTimeoutMs: 0 };
  return withSession(target, session, async (client) => {
    const snapshot = await openExportedSnapshot(client, 3_600_000);
    const dump = await openDump(engine, target, { name: container, mark: BACKUP_MARK, image, snapshot });
    const gzip = createGzip({ level: 1, chunkSize: 64 * 1024 });
    const { chunks } = await encrypt(gzip, locked);
    const piped = pipeline(dump.stream, gzip);
    const file = await open(`${directory}/plain.age`, "w", 0o600);
    let bytes = 0;
    for await (const chunk of chunks) bytes += (await file.write(chunk)).bytesWritten;
    await Promise.all([piped, dump.ended]);
    await file.close();
    return bytes;
  });
}

/** Unpacks the largest backup of the directory. */
async function unpack(): Promise<number> {
  const names = (await readdir(directory)).filter((one) => one.startsWith("backup-"));
  const sizes = await Promise.all(
    names.map(async (name) => ({ name, size: (await stat(`${directory}/${name}`)).size })),
  );
  const [{ name } = { name: "" }] = sizes.toSorted((a, b) => b.size - a.size);
  const opener = { kind: "identities" as const, identities: [identity] };
  const space = () => Promise.resolve({ freeBytes: Number.MAX_SAFE_INTEGER });
  const leastBytes = await requireUnchanged(`${directory}/${name}`, opener);
  return (await unpackArchive(`${directory}/${name}`, opener, `${directory}/unpacked`, { space, leastBytes }))
    .bytes;
}

console.log(JSON.stringify({ bytes: await { backup, plain, unpack }[mode]() }));
await engine.removeMarked(BACKUP_MARK);
