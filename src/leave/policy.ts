import { WRITER_SCRIPTS } from "../docker/compose-document.ts";
import { OperatorError } from "../errors.ts";
import { isTemporary } from "../machine/file-writer.ts";
import {
  DRILL_DIRECTORY,
  type MasterLayout,
  PACKAGE_ENTRIES,
  type StorageLayout,
  TAKEN_OVER,
} from "../settings/layout.ts";

/** The parts that stay when a node leaves, unless `--purge` names them, with a description for operators. */
export const PURGEABLE = {
  data: "the database, the blocks, the peers' identities with their pinset, and the edge's certificates",
  settings: "`.env`, with its secrets",
  keys: "the key that signs snapshots",
  snapshots: "the snapshots of the pinset",
  logs: "the journal and the other logs",
} as const;

/** A part that `--purge` can name. */
export type Part = keyof typeof PURGEABLE;

/**
 * What a leave does with an entry of a node's directory. `remove`: removes it. `remove-if-marked`: removes it if its
 * first line says that we wrote it. `marker`: a file which shows that the data next to it is ours; it is removed
 * together with that data. A part's name: the entry stays unless that part is purged.
 */
export type Cleanup = "remove" | "remove-if-marked" | "marker" | Part;

/**
 * What we, and the programs that we run, put into a directory of ours. Whatever else is in it stays, and then the
 * directory stays too.
 */
const CONTENTS: Readonly<Record<string, RegExp>> = {
  cli: /^(?:current|\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)$/,
  snapshots: /^\.?pinset-[0-9A-Za-z-]+\.(?:ndjson\.gz|manifest\.json|manifest\.sig)$/,
  heartbeats: /^[a-z-]+\.json$/,
  restore: /^pinset-[0-9A-Za-z-]+\.[a-z-]+\.ndjson$/,
  adopted: /^[a-z-]+\.(?:json|env)$/,
  edge: /^(?:Caddyfile|(?:cert|key|acme-root)\.pem)$/,
  // kubo's repository (its repo/fsrepo, and what its plugins and subsystems keep there).
  kubo: /^(?:api|autoconf|blocks|config|config[.-][0-9A-Za-z.-]+|datastore|datastore_spec|gateway|keystore|provider-keystore|repo\.lock|swarm\.key|telemetry_uuid|version)$/,
  "ipfs-cluster":
    /^(?:identity\.json|service\.json|peerstore|cluster\.lock|api-socket|badger|badger3|leveldb|pebble|raft)$/,
};

/** What the package puts into the directory of one version. */
const VERSION_ENTRIES = new RegExp(`^(?:${PACKAGE_ENTRIES.join("|").replaceAll(".", "\\.")})$`);

/** The rule for the names inside a directory of ours; null for any other directory: all of it is ours. */
export function contentsOf(path: string): RegExp | null {
  const [name = "", parent] = path.split("/").toReversed();
  if (parent === "cli") return VERSION_ENTRIES;
  return Object.hasOwn(CONTENTS, name) ? (CONTENTS[name] ?? null) : null;
}

/** Cleanup by the name of a directory's entry. An entry without one was not created by fula-node. */
export type CleanupPolicy = ReadonlyMap<string, Cleanup>;

const BASE: Readonly<Record<Exclude<keyof StorageLayout, "baseDir">, Cleanup>> = {
  envFile: "settings",
  composeFile: "remove-if-marked",
  journal: "logs",
  cliDir: "remove",
  cliCurrent: "remove",
  // Without these files, nobody can create the adopted containers again.
  adoptedDir: "settings",
  announced: "remove",
  unfinishedImages: "remove",
};

const MASTER: Readonly<Record<Exclude<keyof MasterLayout, "baseDir">, Cleanup>> = {
  ...BASE,
  signingKey: "keys",
  verifyingKey: "keys",
  snapshotsDir: "snapshots",
  snapshotMemory: "snapshots",
  // In the same directory.
  drillRecord: "snapshots",
  restoreRecord: "snapshots",
  backupRecord: "snapshots",
  rotation: "settings",
  alertLog: "logs",
  snapshotLog: "logs",
  sweepLog: "logs",
  drillLog: "logs",
  backupLog: "logs",
  restoreDir: "logs",
  snapshotHeartbeat: "remove",
  sweepHeartbeat: "remove",
  backupHeartbeat: "remove",
  knownNodes: "data",
  edgeDir: "remove",
  // Other masters trust this CA as long as the database is there.
  postgresTlsDir: "keys",
  // It stays as long as the CA that it describes.
  edgeKnown: "data",
  // It has what was not put in place yet.
  fromBackupDir: "settings",
};

/** The entries of a master's base directory. */
export function masterPolicy(layout: MasterLayout): CleanupPolicy {
  return byName(layout, MASTER);
}

/** The entries of a storage node's base directory. */
export function storagePolicy(layout: StorageLayout): CleanupPolicy {
  return new Map([...byName(layout, BASE), ...ofScripts("remove")]);
}

/** The entries of the directory of a writer that was made here, by their names. Data that was taken over is not ours. */
export function writerPolicy(names: readonly string[]): CleanupPolicy {
  const data = names.includes(TAKEN_OVER) ? [] : ["kubo", "ipfs-cluster"];
  return new Map<string, Cleanup>([
    ["docker-compose.yml", "remove-if-marked"],
    ...ofScripts("marker"),
    ...data.map((name) => [name, "data"] as const),
  ]);
}

/** A backup that a killed run had begun to unpack. Nothing of it is in place yet. */
const UNPACKING = /^\.from-backup\.backup-partial$/;

/** What a leave does with one entry; null for one that is not ours. */
export function cleanupOf(name: string, policy: CleanupPolicy): Cleanup | null {
  const cleanup = policy.get(name);
  if (cleanup !== undefined) return cleanup;
  if (isTemporary(name) || DRILL_DIRECTORY.test(name) || UNPACKING.test(name)) return "remove";
  const backup = /^(.+)\.[0-9a-f]{12}\.old$/.exec(name)?.[1];
  if (backup !== undefined && policy.get(backup) === "remove-if-marked") return "remove-if-marked";
  const rotated = /^(.+)\.[0-9]+(?:\.gz)?$/.exec(name)?.[1];
  return rotated !== undefined && policy.get(rotated) === "logs" ? "logs" : null;
}

/** The part with which an entry is removed; null if every leave removes it. `hasData`: there is data next to a marker. */
export function partOf(cleanup: Cleanup, hasData: boolean): Part | null {
  if (cleanup === "remove" || cleanup === "remove-if-marked") return null;
  if (cleanup === "marker") return hasData ? "data" : null;
  return cleanup;
}

/** What `--purge` asks for: all parts, and those of them that were named one by one, not only by `all`. */
export interface Purge {
  readonly parts: ReadonlySet<Part>;
  readonly named: ReadonlySet<Part>;
}

/** Parses the values of `--purge`: parts, also separated by commas, or `all`. Throws (`usage`) for any other word. */
export function parsePurge(given: readonly string[]): Purge {
  const words = given.flatMap((text) => text.split(",")).map((word) => word.trim());
  const all = Object.keys(PURGEABLE) as Part[];
  const unknown = words.filter((word) => word !== "all" && !all.some((part) => part === word));
  const named = new Set(all.filter((part) => words.includes(part)));
  if (unknown.length === 0) return { parts: words.includes("all") ? new Set(all) : named, named };
  throw new OperatorError({
    exit: "usage",
    what: `--purge does not know ${unknown.map((word) => JSON.stringify(word)).join(", ")}.`,
    remedy: `Possible values: ${all.join(", ")}, or all.`,
  });
}

const BY_LEAVE = /"kind":"(?:remove|release|retract)-/;

/**
 * True if a journal says that an interrupted leave removed the last things of a directory: then it is empty because
 * of us. Not true any more once a join has written to the journal after that leave.
 */
export function wasEmptiedByLeave(journal: string, directory: string): boolean {
  const inside = `"name":${JSON.stringify(`${directory}/`).slice(0, -1)}`;
  return linesOfLastLeave(journal).some(
    (line) => line.includes('"kind":"remove-path"') && line.includes(inside),
  );
}

/** True if a journal says that the last leave released the node's name, and that no join has changed anything since. */
export function wasNameReleased(journal: string): boolean {
  return linesOfLastLeave(journal).some(
    (line) => line.includes('"kind":"release-name"') && line.includes('"phase":"done"'),
  );
}

function linesOfLastLeave(journal: string): readonly string[] {
  // A line that a crash cut off is ignored.
  const lines = journal.split("\n").filter((line) => line.endsWith("}"));
  return lines.slice(lines.findLastIndex((line) => !BY_LEAVE.test(line)) + 1);
}

/** Cleanups by the first component of each path below the base directory. */
function byName<Layout extends { readonly baseDir: string }>(
  layout: Layout,
  cleanups: Readonly<Record<Exclude<keyof Layout, "baseDir">, Cleanup>>,
): CleanupPolicy {
  const entries = Object.entries(cleanups) as [Exclude<keyof Layout, "baseDir">, Cleanup][];
  return new Map(
    entries.map(([key, cleanup]) => {
      const inside = String(layout[key]).slice(layout.baseDir.length + 1);
      return [inside.split("/", 1)[0] ?? "", cleanup];
    }),
  );
}

function ofScripts(cleanup: Cleanup): readonly (readonly [string, Cleanup])[] {
  return Object.values(WRITER_SCRIPTS).map((name) => [name, cleanup]);
}
