import * as z from "zod";
import { OperatorError } from "../errors.ts";
import { utcSeconds } from "../units.ts";

/** The name of the format in a manifest. */
const BACKUP_FORMAT = "fula-node/backup";
/** The newest version of the format that this tool writes and reads. */
export const BACKUP_VERSION = 1;

/** The first entry of an archive, and the last one. */
export const FIRST_ENTRY = "manifest.json";
export const LAST_ENTRY = "contents.json";

const count = z.number().int().nonnegative();

const manifestSchema = z.object({
  format: z.literal(BACKUP_FORMAT),
  version: z.literal(BACKUP_VERSION),
  created_at: z.iso.datetime(),
  tool: z.object({ name: z.string(), version: z.string() }),
  pool: z.string(),
  master: z.object({
    id: z.string().nullable(),
    /** CLUSTER_PEERNAME. */
    name: z.string(),
    hostname: z.string(),
    base_dir: z.string(),
    writer_dir: z.string().nullable(),
  }),
  /** Null: the writer's identity is not in the archive, because its files are not in the directory of a writer of ours. */
  peers: z.object({ kubo: z.string().nullable(), cluster: z.string().nullable() }),
  database: z.object({
    /** True if the master uses a server that another machine or somebody else runs. */
    is_elsewhere: z.boolean(),
    name: z.string(),
    server_version: z.string(),
    major: z.number().int().positive(),
    /** The newest migration in its ledger; null if it has none. */
    migration: count.nullable(),
    /** Roles of the server, without its own and that of the master. A dump names those that own something or may do something. */
    roles: z.array(z.string()),
  }),
  /** The snapshots of the pinset in the archive, the newest first. */
  snapshots: z.array(z.string()),
});

/** What an archive says of itself: the master that it is of, and when it was made. */
export type BackupManifest = z.infer<typeof manifestSchema>;

const contentsSchema = z.object({
  entries: z.array(z.object({ name: z.string(), bytes: count, sha256: z.string().regex(/^[0-9a-f]{64}$/) })),
});

/** Every entry of an archive but the list itself, in their order. */
export type BackupContents = z.infer<typeof contentsSchema>;

/** The manifest of a backup that is made now. */
export function newManifest(about: Omit<BackupManifest, "format" | "version">): BackupManifest {
  return { format: BACKUP_FORMAT, version: BACKUP_VERSION, ...about };
}

/** Reads the first entry. Throws (`newer`) for a later version of the format, and (`integrity`) for anything else. */
export function parseBackupManifest(text: string): BackupManifest {
  const value = parseJson(text, FIRST_ENTRY);
  const head = z.object({ format: z.literal(BACKUP_FORMAT), version: z.number().int() }).safeParse(value);
  if (!head.success) throw damaged(`its ${FIRST_ENTRY} is not that of a backup`, head.error);
  if (head.data.version > BACKUP_VERSION)
    throw new OperatorError({
      exit: "newer",
      what: `This backup has format version ${head.data.version}, and this fula-node reads up to version ${BACKUP_VERSION}.`,
      remedy: "Use the version of fula-node that made it, or a later one.",
    });
  const manifest = manifestSchema.safeParse(value);
  if (manifest.success) return manifest.data;
  const [first] = manifest.error.issues;
  throw damaged(`its ${FIRST_ENTRY} is malformed at ${first?.path.join(".") ?? ""}`, manifest.error);
}

/** Reads the last entry. Throws (`integrity`) if it is no list. */
export function parseContents(text: string): BackupContents {
  const contents = contentsSchema.safeParse(parseJson(text, LAST_ENTRY));
  if (contents.success) return contents.data;
  throw damaged(`its ${LAST_ENTRY} is malformed`, contents.error);
}

function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw damaged(`its ${name} is not JSON`, cause);
  }
}

/** The error (`integrity`) for an archive that is not as it was made. `why` is a clause. */
export function damaged(why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: "The file is not a backup of fula-node, or it is damaged.",
    why: `${why.charAt(0).toUpperCase()}${why.slice(1)}.`,
    remedy: "Use another backup. What changed this one: the disk, or a copy that was cut off.",
    cause,
  });
}

const HEADER_SUM = 12;
const NAME = /^backup-[A-Za-z0-9._-]+-\d{8}T\d{6}Z-([0-9a-f]{12})\.age$/;

/**
 * The name of an archive. It ends with a sum of the age header, so that a header that was changed can be told from a wrong
 * passphrase: to age, both are a key that does not fit.
 */
export function archiveName(pool: string, at: Date, headerSha256: string): string {
  const named = pool.replaceAll(/[^A-Za-z0-9._-]/g, "-").slice(0, 60) || "pool";
  return `backup-${named}-${utcSeconds(at).replace(/[-:]/g, "")}-${headerSha256.slice(0, HEADER_SUM)}.age`;
}

/** The sum of the header in a name; null for a file that was renamed. */
export function headerSumOf(name: string): string | null {
  return NAME.exec(name)?.[1] ?? null;
}
