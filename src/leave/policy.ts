import { WRITER_SCRIPTS } from "../docker/compose-render.ts";
import { isTemporary } from "../machine/file-writer.ts";
import type { MasterLayout, StorageLayout } from "../settings/master-layout.ts";

/** What stays when a node leaves, unless `--purge` names it: the words, and what each means to an operator. */
export const PURGEABLE = {
  data: "the database, the blocks, and the peers' identities with their pinset",
  settings: "`.env`, with its secrets",
  keys: "the key that signs snapshots",
  snapshots: "the snapshots of the pinset",
  logs: "the journal and the other logs",
} as const;

/** One of those words. */
export type Part = keyof typeof PURGEABLE;

/**
 * What becomes of an entry of a node's directory. `goes`: it is removed. `marked`: so it is, where its first
 * line says that we wrote it. `mark`: it says whose the data beside it is, and goes when that is gone.
 * A part's name: it stays unless that part is purged.
 */
export type Fate = "goes" | "marked" | "mark" | Part;

/** Fates by the names of a directory's entries; what is not named is somebody else's. */
export type Fates = ReadonlyMap<string, Fate>;

const BASE: Readonly<Record<Exclude<keyof StorageLayout, "baseDir">, Fate>> = {
  envFile: "settings",
  composeFile: "marked",
  journal: "logs",
  cliDir: "goes",
  cliCurrent: "goes",
};

const MASTER: Readonly<Record<Exclude<keyof MasterLayout, "baseDir">, Fate>> = {
  ...BASE,
  signingKey: "keys",
  verifyingKey: "keys",
  snapshotsDir: "snapshots",
  alertLog: "logs",
  snapshotLog: "logs",
  sweepLog: "logs",
  restoreDir: "logs",
  snapshotHeartbeat: "goes",
  sweepHeartbeat: "goes",
  knownNodes: "data",
};

/** The entries of a master's base directory. */
export function masterFates(layout: MasterLayout): Fates {
  return byName(layout, MASTER);
}

/** The entries of a storage node's base directory. */
export function storageFates(layout: StorageLayout): Fates {
  return new Map([...byName(layout, BASE), ...ofScripts("goes")]);
}

/** The entries of the directory of a writer that was made here; data that was taken over is not among them. */
export function writerFates(isTakenOver: boolean): Fates {
  const data = isTakenOver ? [] : (["kubo", "ipfs-cluster"] as const).map((name) => [name, "data"] as const);
  return new Map<string, Fate>([["docker-compose.yml", "marked"], ...ofScripts("mark"), ...data]);
}

/** What becomes of one entry; null for one that is not ours. */
export function fateOf(name: string, fates: Fates): Fate | null {
  const fate = fates.get(name);
  if (fate !== undefined) return fate;
  if (isTemporary(name)) return "goes";
  const kept = /^(.+)\.[0-9a-f]{12}\.old$/.exec(name)?.[1];
  if (kept !== undefined && fates.get(kept) === "marked") return "marked";
  const rotated = /^(.+)\.[0-9]+(?:\.gz)?$/.exec(name)?.[1];
  return rotated !== undefined && fates.get(rotated) === "logs" ? "logs" : null;
}

/** What `--purge` asks for: the parts, and which of them were named, not only meant by `all`. */
export interface Purge {
  readonly parts: ReadonlySet<Part>;
  readonly named: ReadonlySet<Part>;
}

/** Reads what `--purge` was given: parts, separated by commas too, or `all`. Names the words that are none. */
export function parsePurge(given: readonly string[]): Purge | { readonly unknown: readonly string[] } {
  const words = given.flatMap((text) => text.split(",")).map((word) => word.trim());
  const all = Object.keys(PURGEABLE) as Part[];
  const unknown = words.filter((word) => word !== "all" && !all.some((part) => part === word));
  if (unknown.length > 0) return { unknown };
  const named = new Set(all.filter((part) => words.includes(part)));
  return { parts: words.includes("all") ? new Set(all) : named, named };
}

/** The first piece of each path below the base directory, with the fate of its key. */
function byName<Layout extends { readonly baseDir: string }>(
  layout: Layout,
  fates: Readonly<Record<Exclude<keyof Layout, "baseDir">, Fate>>,
): Fates {
  const entries = Object.entries(fates) as [Exclude<keyof Layout, "baseDir">, Fate][];
  return new Map(
    entries.map(([key, fate]) => {
      const inside = String(layout[key]).slice(layout.baseDir.length + 1);
      return [inside.split("/", 1)[0] ?? "", fate];
    }),
  );
}

function ofScripts(fate: Fate): readonly (readonly [string, Fate])[] {
  return Object.values(WRITER_SCRIPTS).map((name) => [name, fate]);
}
