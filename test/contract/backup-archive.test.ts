import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync, inflateSync } from "node:zlib";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import * as vectors from "cctv-age";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type ReadArchive, readArchive } from "../../src/backup/archive-reader.ts";
import { type ArchiveEntry, packArchive, textEntry } from "../../src/backup/archive-writer.ts";
import {
  archiveName,
  type BackupManifest,
  LAST_ENTRY,
  newManifest,
} from "../../src/backup/backup-manifest.ts";
import {
  decrypt,
  encrypt,
  type Locked,
  type Opener,
  readHeader,
  requireIdentities,
  requirePassphrase,
  requireRecipients,
  sumOfHeader,
} from "../../src/backup/encryption.ts";
import { unpackArchive } from "../../src/backup/unpack.ts";
import { OperatorError } from "../../src/errors.ts";

const MANIFEST = newManifest({
  created_at: "2026-11-27T14:00:00.000Z",
  tool: { name: "fula-node", version: "0.5.0" },
  pool: "my-pool",
  master: {
    id: "m-1",
    name: "berlin-1",
    hostname: "berlin-1",
    base_dir: "/opt/fula-master",
    writer_dir: "/opt/fula-writer",
  },
  peers: { kubo: "12D3KooWKubo", cluster: "12D3KooWCluster" },
  database: {
    is_elsewhere: false,
    name: "pinning_service",
    server_version: "16.9",
    major: 16,
    migration: 40,
    roles: [],
  },
  snapshots: ["pinset-20261127T120000Z"],
});
const PASSPHRASE = "correct horse battery staple";
const AT = new Date("2026-11-27T14:00:00Z");

async function* iterate(entries: readonly ArchiveEntry[]): AsyncGenerator<ArchiveEntry> {
  for (const entry of entries) yield await Promise.resolve(entry);
}

async function* bytes(...chunks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield await Promise.resolve(chunk);
}

async function whole(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}

async function make(
  locked: Locked,
  entries: readonly ArchiveEntry[],
  manifest: BackupManifest = MANIFEST,
): Promise<{ readonly archive: Buffer; readonly name: string; readonly opener: Opener }> {
  const { chunks, opener } = await encrypt(packArchive(manifest, iterate(entries)), locked);
  const archive = await whole(chunks);
  const { header } = await readHeader(bytes(archive));
  return { archive, name: archiveName("my-pool", AT, sumOfHeader(header)), opener };
}

interface Unpacked extends ReadArchive {
  readonly files: ReadonlyMap<string, { readonly mode: number; readonly body: Buffer }>;
}

async function unpack(archive: AsyncIterable<Uint8Array>, opener: Opener, name: string): Promise<Unpacked> {
  const files = new Map<string, { mode: number; body: Buffer }>();
  const read = await readArchive(decrypt(archive, opener, name), {
    manifest: () => {},
    entry: async ({ name: entry, mode }) => {
      const chunks: Buffer[] = [];
      return Promise.resolve({
        write: (chunk) => void chunks.push(chunk),
        end: async () => void files.set(entry, { mode, body: await Promise.resolve(Buffer.concat(chunks)) }),
      });
    },
  });
  return { ...read, files };
}

async function exitOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown.exit;
    throw thrown;
  }
}

const SECRETS = "POSTGRES_PASSWORD=geheim\nENCRYPTION_KEY=abcdef\n";
const body = (size: number): Buffer => randomBytes(size);

describe("an archive", () => {
  let identity = "";
  let recipients: readonly string[] = [];
  let opener: Opener;

  beforeAll(async () => {
    identity = await generateX25519Identity();
    recipients = [await identityToRecipient(identity)];
    opener = { kind: "identities", identities: [identity] };
  });

  const entriesOf = (dump: Buffer): readonly ArchiveEntry[] => [
    { ...textEntry("database/000000", ""), bytes: dump.length, body: [dump] },
    { ...textEntry("base/adopted", ""), kind: "directory", mode: 0o700, body: [] },
    { ...textEntry("base/.env", SECRETS), mode: 0o640, uid: 61_077 },
    textEntry("base/empty", ""),
  ];

  it("has what went into it, with its modes, for each kind of key", async () => {
    const dump = body(300_000);
    for (const locked of [
      { kind: "recipients", recipients },
      { kind: "passphrase", passphrase: PASSPHRASE },
    ] satisfies readonly Locked[]) {
      const made = await make(locked, entriesOf(dump));
      const by: Opener = locked.kind === "recipients" ? opener : locked;
      for (const one of [by, made.opener]) {
        const { files, manifest, entries } = await unpack(bytes(made.archive), one, made.name);
        expect(manifest).toEqual(MANIFEST);
        expect(entries).toBe(5);
        expect([...files.keys()]).toEqual(["database/000000", "base/adopted", "base/.env", "base/empty"]);
        expect(files.get("database/000000")?.body.equals(dump)).toBe(true);
        expect(files.get("base/.env")).toEqual({ mode: 0o640, body: Buffer.from(SECRETS) });
        expect(files.get("base/adopted")?.mode).toBe(0o700);
      }
      expect(made.archive.includes("geheim")).toBe(false);
    }
  });

  it("unpacked, leaves nothing if a signal ends the process in the middle; of a restore, the mark", async () => {
    const base = mkdtempSync(join(tmpdir(), "fula-unpack-"));
    const made = await make({ kind: "recipients", recipients }, entriesOf(body(1000)));
    const file = join(base, made.name);
    writeFileSync(file, made.archive);
    const others = new Set(process.listeners("exit"));
    let parts = 0;
    let left: readonly string[] = [];
    const space = async () => {
      parts += 1;
      if (parts < 4) return { freeBytes: 1e12 };
      for (const act of process.listeners("exit")) if (!others.has(act)) act(130);
      left = readdirSync(base, { recursive: true }).map(String);
      throw new Error("the process has ended");
    };
    for (const staysBegun of [false, true]) {
      parts = 0;
      const unpacked = unpackArchive(file, opener, join(base, "x"), { space, leastBytes: 0, staysBegun });
      await expect(unpacked).rejects.toThrow();
      expect(left).toEqual([...(staysBegun ? [".x.backup-partial"] : []), made.name]);
      expect(process.listeners("exit").filter((act) => !others.has(act))).toEqual([]);
    }
    rmSync(base, { recursive: true });
  });

  it("is opened by the second of two recipients, too, and its name survives odd names of pools", async () => {
    const other = await generateX25519Identity();
    const both = [await identityToRecipient(other), ...recipients];
    const made = await make({ kind: "recipients", recipients: both }, entriesOf(body(10)));
    expect((await unpack(bytes(made.archive), opener, made.name)).entries).toBe(5);
    expect(archiveName("a/b ü", AT, "0".repeat(64))).toBe("backup-a-b---20261127T140000Z-000000000000.age");
  });

  it("is refused with exit 28 when any one byte was altered", async () => {
    const made = await make({ kind: "recipients", recipients }, entriesOf(body(200_000)));
    const { header } = await readHeader(bytes(made.archive));
    const check = async (at: number, by: number): Promise<void> => {
      const altered = Buffer.from(made.archive);
      altered[at] = (altered[at] ?? 0) ^ by;
      expect([at, by, await exitOf(unpack(bytes(altered), opener, made.name))]).toEqual([
        at,
        by,
        "integrity",
      ]);
    };
    for (let at = 0; at < header.length + 40; at += 1) await check(at, 1);
    await check(made.archive.length - 1, 128);
    await fc.assert(
      fc.asyncProperty(fc.nat(made.archive.length - 1), fc.integer({ min: 1, max: 255 }), check),
      { numRuns: 60 },
    );
  });

  it("is refused with exit 28 when a byte of the header for a passphrase was altered", async () => {
    const locked: Locked = { kind: "passphrase", passphrase: PASSPHRASE };
    const made = await make(locked, entriesOf(body(10)));
    for (const at of [30, 40, 60, 100, 140]) {
      const altered = Buffer.from(made.archive);
      altered[at] = (altered[at] ?? 0) ^ 1;
      expect([at, await exitOf(unpack(bytes(altered), locked, made.name))]).toEqual([at, "integrity"]);
    }
  });

  it("is refused with exit 28 wherever it was cut off, also at the border of a chunk", async () => {
    const made = await make({ kind: "recipients", recipients }, entriesOf(body(400_000)));
    const { header } = await readHeader(bytes(made.archive));
    const borders = [1, 2, 3, 4].map((number) => header.length + 16 + number * (64 * 1024 + 16));
    const few = [0, 1, header.length - 1, header.length, header.length + 5, made.archive.length - 1];
    const check = async (length: number): Promise<void> => {
      const cut = made.archive.subarray(0, length);
      expect([length, await exitOf(unpack(bytes(cut), opener, made.name))]).toEqual([length, "integrity"]);
    };
    for (const length of [...few, ...borders]) await check(length);
    await fc.assert(fc.asyncProperty(fc.nat(made.archive.length - 1), check), { numRuns: 40 });
    const more = unpack(bytes(made.archive, Buffer.from("x")), opener, made.name);
    expect(await exitOf(more)).toBe("integrity");
  });

  it("is refused with exit 21 with a wrong key, also under another name", async () => {
    const other: Opener = { kind: "identities", identities: [await generateX25519Identity()] };
    const word: Opener = { kind: "passphrase", passphrase: "not the right passphrase" };
    const forKey = await make({ kind: "recipients", recipients }, entriesOf(body(10)));
    const forWord = await make({ kind: "passphrase", passphrase: PASSPHRASE }, entriesOf(body(10)));
    for (const [made, wrong] of [
      [forKey, other],
      [forWord, word],
      [forKey, word],
      [forWord, other],
    ] as const)
      for (const name of [made.name, "renamed.age"])
        expect(await exitOf(unpack(bytes(made.archive), wrong, name))).toBe("settings");
    expect(
      (await unpack(bytes(forWord.archive), { kind: "passphrase", passphrase: PASSPHRASE }, "x")).entries,
    ).toBe(5);
  });

  it("is refused with exit 30 if its format is newer", async () => {
    const newer = { ...MANIFEST, version: 2, added: true } as unknown as BackupManifest;
    const made = await make({ kind: "recipients", recipients }, entriesOf(body(10)), newer);
    expect(await exitOf(unpack(bytes(made.archive), opener, made.name))).toBe("newer");
  });

  it("is refused with exit 28 if it was made of parts of another one", async () => {
    const parts = async (chunks: AsyncIterable<Uint8Array>): Promise<Buffer> => whole(chunks);
    const plain = (dump: Buffer, more: readonly ArchiveEntry[] = []) =>
      parts(packArchive(MANIFEST, iterate([...entriesOf(dump), ...more])));
    const read = (text: Buffer) =>
      exitOf(readArchive(bytes(text), { manifest: () => {}, entry: () => Promise.resolve(null) }));
    const [one, two] = [await plain(body(1000)), await plain(body(1000))];
    expect(await read(one)).toBe("ok");
    // Two archives in one, one that leads out of its directory, and no tar at all.
    expect(await read(Buffer.concat([one, two]))).toBe("integrity");
    expect(await read(await plain(body(10), [textEntry("base/../../etc/passwd", "x")]))).toBe("integrity");
    expect(await read(Buffer.from("nothing"))).toBe("integrity");
  });

  it("is refused with exit 28 if a body is not what its list says, or the list is missing", async () => {
    const dump = Buffer.alloc(2000, "a");
    const plain = gunzipSync(await whole(packArchive(MANIFEST, iterate(entriesOf(dump)))));
    const read = (tar: Buffer) =>
      exitOf(readArchive(bytes(gzipSync(tar)), { manifest: () => {}, entry: () => Promise.resolve(null) }));
    expect(await read(plain)).toBe("ok");
    const at = plain.indexOf(dump);
    const altered = Buffer.from(plain);
    altered[at + 5] = 98;
    expect(await read(altered)).toBe("integrity");
    const renamed = Buffer.from(plain);
    renamed.write("base/.env".replace("env", "enw"), plain.indexOf('"base/.env"') + 1);
    expect(await read(renamed)).toBe("integrity");
    const list = plain.indexOf(LAST_ENTRY);
    expect(await read(Buffer.concat([plain.subarray(0, list), Buffer.alloc(1024)]))).toBe("integrity");
  });

  it("gives each chunk to what is slow only after the one before, and ends an entry after its last one", async () => {
    const parts = Array.from({ length: 6 }, (_, index) => body(300_000 + index));
    const entries = parts.map((dump, index) => ({
      ...textEntry(`database/00000${index}`, ""),
      bytes: dump.length,
      body: [dump],
    }));
    const { archive, name } = await make({ kind: "recipients", recipients }, entries);
    const written: Buffer[] = [];
    let busy = 0;
    const slowly = async (work: () => void): Promise<void> => {
      busy += 1;
      expect(busy).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 2));
      work();
      busy -= 1;
    };
    await readArchive(decrypt(bytes(archive), opener, name), {
      manifest: () => {},
      entry: () =>
        Promise.resolve({
          write: (chunk) => slowly(() => void written.push(Buffer.from(chunk))),
          end: () => slowly(() => {}),
        }),
    });
    expect(Buffer.concat(written).equals(Buffer.concat(parts))).toBe(true);
  });

  it("fails as its source fails, and does not hang", async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(body(100_000));
      throw new OperatorError({ exit: "unavailable", what: "The disk is gone." });
    }
    const entry = { ...textEntry("database/000000", ""), bytes: 1_000_000, body: broken() };
    expect(await exitOf(make({ kind: "recipients", recipients }, [entry]))).toBe("unavailable");
    async function* endless(): AsyncGenerator<ArchiveEntry> {
      for (let number = 0; ; number += 1)
        yield await Promise.resolve(textEntry(`base/${number}`, "x".repeat(9999)));
    }
    const { chunks } = await encrypt(packArchive(MANIFEST, endless()), { kind: "recipients", recipients });
    for await (const chunk of chunks) if (chunk.length > 0) break;
  });

  it("stays flat in memory", async () => {
    const part = Buffer.concat([body(512 * 1024), Buffer.alloc(7.5 * 1024 ** 2)]);
    const count = 40;
    async function* entries(): AsyncGenerator<ArchiveEntry> {
      for (let number = 0; number < count; number += 1)
        yield await Promise.resolve({
          ...textEntry(`database/${number}`, ""),
          bytes: part.length,
          body: [part],
        });
    }
    const { chunks, opener: own } = await encrypt(packArchive(MANIFEST, entries()), {
      kind: "recipients",
      recipients,
    });
    const before = process.memoryUsage().rss;
    let most = 0;
    async function* watched(): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunks) {
        most = Math.max(most, process.memoryUsage().rss);
        yield chunk;
      }
    }
    const { bytes: read } = await unpackNothing(watched(), own);
    expect(read).toBeGreaterThan(count * part.length);
    expect(most - before).toBeLessThan(150 * 1024 ** 2);
  });
});

function unpackNothing(chunks: AsyncIterable<Uint8Array>, opener: Opener): Promise<ReadArchive> {
  return readArchive(decrypt(chunks, opener, "x"), {
    manifest: () => {},
    entry: () => Promise.resolve(null),
  });
}

/** A vector of the age test suite: lines about it, an empty line, and the file. https://c2sp.org/CCTV/age */
function readVector(vector: Uint8Array): {
  readonly fields: ReadonlyMap<string, string>;
  readonly opener: Opener;
  readonly file: Buffer;
} {
  const all = Buffer.from(vector);
  const end = all.indexOf("\n\n");
  const lines = all.subarray(0, end).toString().split("\n");
  const fields = new Map(
    lines.map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]),
  );
  const rest = all.subarray(end + 2);
  const { passphrase, identity = "" } = Object.fromEntries(fields);
  return {
    fields,
    opener:
      passphrase === undefined
        ? { kind: "identities", identities: [identity] }
        : { kind: "passphrase", passphrase },
    file: fields.get("compressed") === "zlib" ? inflateSync(rest) : rest,
  };
}

/** Armored files, and files without any key, are none that we make. */
const ours = Object.entries(vectors)
  .map(([name, vector]) => ({ name, ...readVector(vector) }))
  .filter(({ fields }) => !fields.has("armored") && (fields.has("identity") || fields.has("passphrase")));

describe("decrypt, by the age test suite", () => {
  it("has enough vectors", () => expect(ours.length).toBeGreaterThan(100));

  it.each(ours)("$name", async ({ fields, opener, file }) => {
    const wanted = fields.get("expect");
    for (const size of [file.length, 1000, 65_552]) {
      const chunks = Array.from({ length: Math.ceil(file.length / size) }, (_, index) =>
        file.subarray(index * size, (index + 1) * size),
      );
      const plain = whole(decrypt(bytes(...chunks), opener, "vector.age"));
      if (wanted === "success")
        expect(
          createHash("sha256")
            .update(await plain)
            .digest("hex"),
        ).toBe(fields.get("payload"));
      else expect(["integrity", "settings"]).toContain(await exitOf(plain));
      if (wanted === "payload failure") expect(await exitOf(plain)).toBe("integrity");
    }
  });
});

describe("a key", () => {
  it("is refused with exit 21 if it can't be one, and never shown", async () => {
    const identity = await generateX25519Identity();
    const file = `# created: 2026\n# public key: ${await identityToRecipient(identity)}\n${identity}\n`;
    expect(requireIdentities(file, "BACKUP_IDENTITY")).toEqual([identity]);
    expect(requirePassphrase(PASSPHRASE, "BACKUP_PASSPHRASE")).toBe(PASSPHRASE);
    for (const attempt of [
      () => requireIdentities("AGE-SECRET-KEY-1QQQ", "BACKUP_IDENTITY"),
      () => requireIdentities("# nothing\n", "BACKUP_IDENTITY"),
      () => requirePassphrase("short-secret", "BACKUP_PASSPHRASE"),
      () => requireRecipients("age1qqq", "--recipient"),
      () => requireRecipients(identity, "--recipient"),
      () => requireRecipients("", "--recipient"),
    ]) {
      let text = "";
      try {
        attempt();
      } catch (thrown) {
        if (!(thrown instanceof OperatorError)) throw thrown;
        expect(thrown.exit).toBe("settings");
        text = [thrown.what, thrown.why, thrown.remedy].join(" ");
      }
      expect(text).not.toBe("");
      expect(text).not.toMatch(/QQQ|short-secret|AGE-SECRET-KEY-1[0-9A-Z]{20}/);
    }
    expect(createHash("sha256").update(file).digest("hex")).toHaveLength(64);
  });

  it("that is a mistyped recipient is shown, with what to do", async () => {
    const recipient = await identityToRecipient(await generateX25519Identity());
    const mistyped = recipient.replace(/.$/, (last) => (last === "q" ? "p" : "q"));
    expect(requireRecipients(recipient, "--recipient")).toEqual([recipient]);
    for (const [text, shown] of [
      [`${recipient} ${mistyped}`, mistyped],
      [recipient.slice(0, -1), recipient.slice(0, -1)],
      [`${recipient}${"q".repeat(100)}`, `${recipient}${"q".repeat(18)}... (162 characters)`],
    ] as const)
      expect(() => requireRecipients(text, "--recipient")).toThrow(
        expect.objectContaining({
          exit: "settings",
          what: `--recipient has ${shown}, which is not a recipient of the program age.`,
          why: "A character of it is wrong or missing, or it is one of a plugin of age.",
          remedy: "Where its secret key is, age-keygen -y backup-key.txt prints it again.",
        }) as Error,
      );
  });
});
