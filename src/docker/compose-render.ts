import { parse, stringify } from "yaml";
import { messageOf } from "../errors.ts";
import { isAtLeast } from "./versions.ts";
import { NAMES, STORAGE_NAMES } from "../settings/layout.ts";
import {
  type ComposeDocument,
  type ComposeMap,
  type ComposeValue,
  type Hash,
  isMap,
  listDifferences,
  mapAt,
  textsOf,
  withLabels,
} from "./compose-document.ts";

/** The fragments of a master's compose file: `compose/NAME.yml` of the package, in the order of the file. */
export const MASTER_FRAGMENTS = ["postgres", "pinning-api", "webui", "gateway", "updater"] as const;

/** The fragments of a writer's compose file. */
export const WRITER_FRAGMENTS = ["kubo", "ipfs-cluster"] as const;

/** The fragments of a storage node's compose file. */
export const STORAGE_FRAGMENTS = ["storage-kubo", "storage-cluster", "ingest"] as const;

/**
 * The scripts that kubo's and ipfs-cluster's containers run, by service: `compose/NAME` of the package. They
 * belong beside the compose file, 0755, before the containers start.
 */
export const WRITER_SCRIPTS = { kubo: "kubo-init.sh", "ipfs-cluster": "cluster-start.sh" } as const;

/** Parsed fragments by name. */
export type Fragments<Name extends string> = Readonly<Record<Name, ComposeMap>>;

/** What every rendering needs. */
interface RenderOptions {
  /** Ours, for the first line. */
  readonly version: string;
  readonly hash: Hash;
  /** `supportsStartInterval` of the engine; false gives healthchecks that older engines take. */
  readonly startInterval: boolean;
}

/** What is special about a master. */
export interface MasterOptions extends RenderOptions {
  /**
   * The volume that holds the database, by its real name; null where the database is elsewhere.
   * `external` is for a volume that was there before us: Compose then never makes, relabels or removes it.
   */
  readonly postgres: { readonly volume: string; readonly external: boolean } | null;
}

/** What is special about a storage node. */
interface StorageOptions extends WriterOptions {
  /** The volumes, by their keys, that were there before us: Compose never makes, relabels or removes them. */
  readonly external: Readonly<Record<string, string>>;
}

/** What is special about a writer. */
export interface WriterOptions extends RenderOptions {
  /** The texts of WRITER_SCRIPTS: another text makes Compose recreate the container. */
  readonly scripts: Readonly<Record<keyof typeof WRITER_SCRIPTS, string>>;
}

/** A compose file to be written: what it means, and its text. */
export interface Rendered {
  readonly document: ComposeDocument;
  readonly text: string;
}

/**
 * A master's compose file. Gateway and updater are always in it, under profiles of these names:
 * whether they run is decided when Compose is called, not in the file.
 */
export function renderMaster(
  fragments: Fragments<(typeof MASTER_FRAGMENTS)[number]>,
  options: MasterOptions,
): Rendered {
  const { postgres } = options;
  const wanted = MASTER_FRAGMENTS.filter((name) => name !== "postgres" || postgres !== null);
  const merged = merge(
    NAMES.masterProject,
    wanted.map((name) => fragments[name]),
  );
  return finish(postgres === null ? merged : withPostgresVolume(merged, postgres), options, {});
}

/** A writer's compose file: kubo and ipfs-cluster, their data beside the file. */
export function renderWriter(
  fragments: Fragments<(typeof WRITER_FRAGMENTS)[number]>,
  options: WriterOptions,
): Rendered {
  const merged = merge(
    NAMES.writerProject,
    WRITER_FRAGMENTS.map((name) => fragments[name]),
  );
  return finish(merged, options, options.scripts);
}

/** A storage node's compose file: kubo, the follower and the ingest, their data on named volumes. */
export function renderStorage(
  fragments: Fragments<(typeof STORAGE_FRAGMENTS)[number]>,
  options: StorageOptions,
): Rendered {
  const merged = merge(
    STORAGE_NAMES.project,
    STORAGE_FRAGMENTS.map((name) => fragments[name]),
  );
  const external = Object.entries(options.external).map(
    ([key, name]) => [key, { external: true, name }] as const,
  );
  const volumes = { ...mapAt(merged, "volumes"), ...Object.fromEntries(external) };
  return finish({ ...merged, volumes }, options, options.scripts);
}

/** Reads one fragment. Throws TypeError for one without services: the package is broken then. */
export function parseFragment(text: string): ComposeMap {
  const fragment: unknown = parse(text);
  if (!isMap(fragment) || !isMap(fragment["services"])) throw new TypeError("the fragment has no services");
  return fragment;
}

/**
 * True where healthchecks may have a start_interval. It came with Engine 25 (API 1.44); with an older
 * engine Compose refuses to make the container. Null is an engine still to be installed: a new one.
 */
export function supportsStartInterval(apiVersion: string | null): boolean {
  return apiVersion === null || isAtLeast(apiVersion, "1.44");
}

/**
 * What a compose file on disk is, against the wanted one. A difference is a sentence, and never repeats
 * what stands in an environment.
 */
type ComposeVerdict =
  | { readonly kind: "absent" }
  | { readonly kind: "same" }
  | {
      readonly kind: "differs";
      /** True where the file was changed since we wrote it; false where what we wish has changed. */
      readonly edited: boolean;
      readonly differences: readonly string[];
    }
  | { readonly kind: "not-ours" };

/** Compares what the files mean, not how they are written: comments and the order of keys count for nothing. */
export function compareCompose(onDisk: string | null, wanted: string, hash: Hash): ComposeVerdict {
  if (onDisk === null) return { kind: "absent" };
  if (onDisk === wanted) return { kind: "same" };
  const marker = MARKER.exec(onDisk);
  if (marker === null) return { kind: "not-ours" };
  const edited = hash(onDisk.slice(marker[0].length)) !== marker[1];
  const current = read(onDisk);
  const differences = current.ok
    ? listDifferences(current.document, parse(wanted) as ComposeValue)
    : [`The file is no valid YAML: ${current.why}`];
  return differences.length === 0 ? { kind: "same" } : { kind: "differs", edited, differences };
}

/** True where the first line says that we wrote it, as it stands or edited since. */
export function isOurCompose(text: string): boolean {
  return MARKER.test(text);
}

const MARKER = /^# fula-node compose sha256=([0-9a-f]{64}) version=\S+\n/;

/** How often an engine without start_interval asks: often enough for a quick start, for ever. */
const OLD_ENGINE_INTERVAL = "5s";

const SECTIONS = ["services", "volumes", "networks"] as const;

const NOTE = "# Rendered by fula-node, which notices changes by hand; settings belong into .env.\n";

/** Compose still reads some words of YAML 1.1 (on, off, yes, no): those are quoted. */
const YAML = { lineWidth: 0, aliasDuplicateObjects: false, compat: "yaml-1.1" } as const;

function merge(name: string, fragments: readonly ComposeMap[]): ComposeDocument {
  const sections: Record<(typeof SECTIONS)[number], ComposeMap> = { services: {}, volumes: {}, networks: {} };
  for (const fragment of fragments) {
    for (const section of SECTIONS) {
      sections[section] = { ...sections[section], ...mapAt(fragment, section) };
    }
  }
  return { name, ...sections };
}

function withPostgresVolume(
  document: ComposeDocument,
  { volume, external }: NonNullable<MasterOptions["postgres"]>,
): ComposeDocument {
  const volumes = mapAt(document, "volumes");
  const pgdata = external ? { external: true, name: volume } : { name: volume, ...mapAt(volumes, "pgdata") };
  return { ...document, volumes: { ...volumes, pgdata } };
}

function finish(
  document: ComposeDocument,
  options: RenderOptions,
  scripts: Readonly<Record<string, string>>,
): Rendered {
  const label = (name: string, definition: ComposeMap): ComposeMap => {
    if (definition["external"] === true) return definition;
    const script = scripts[name];
    return withLabels(name, definition, options.hash, script === undefined ? [] : [script]);
  };
  const services = mapEntries(document.services, (name, service) =>
    label(name, options.startInterval ? service : withoutStartInterval(service)),
  );
  const rest = (["volumes", "networks"] as const)
    .map((section) => [section, mapEntries(mapAt(document, section), label)] as const)
    .filter(([, section]) => Object.keys(section).length > 0);
  const finished: ComposeDocument = { name: document.name, services, ...Object.fromEntries(rest) };
  const body = NOTE + stringify(finished, YAML);
  const marker = `# fula-node compose sha256=${options.hash(body)} version=${options.version}\n`;
  return { document: finished, text: marker + body };
}

function mapEntries(
  map: ComposeMap,
  change: (name: string, definition: ComposeMap) => ComposeMap,
): ComposeMap {
  return Object.fromEntries(Object.keys(map).map((name) => [name, change(name, mapAt(map, name))]));
}

function withoutStartInterval(service: ComposeMap): ComposeMap {
  if (!isMap(service["healthcheck"])) return service;
  const { start_interval: startInterval, ...healthcheck } = service["healthcheck"];
  if (startInterval === undefined) return service;
  return { ...service, healthcheck: { ...healthcheck, interval: OLD_ENGINE_INTERVAL } };
}

function read(
  text: string,
): { readonly ok: true; readonly document: ComposeValue } | { readonly ok: false; readonly why: string } {
  try {
    return { ok: true, document: parse(text) as ComposeValue };
  } catch (error) {
    return { ok: false, why: messageOf(error).split("\n", 1)[0] ?? "" };
  }
}

/** The keys without which Compose refuses a document (`${KEY:?what to do}`), sorted. */
export function requiredKeys(document: ComposeDocument): readonly string[] {
  const keys = textsOf(document).flatMap((text) =>
    // `$$` is a literal dollar sign.
    Array.from(text.replaceAll("$$", "").matchAll(REQUIRED), ([, key = ""]) => key),
  );
  return [...new Set(keys)].toSorted();
}

/**
 * Every variable that a document names, sorted: `${KEY...}`, `$KEY`, and a key of an environment without a
 * value, which Compose hands on from `.env`.
 */
export function namedKeys(document: ComposeMap): readonly string[] {
  const keys = textsOf(document).flatMap((text) =>
    Array.from(text.replaceAll("$$", "").matchAll(NAMED), ([, braced, bare = ""]) => braced ?? bare),
  );
  return [...new Set([...keys, ...passedOn(document)])].toSorted();
}

function passedOn(value: ComposeValue): readonly string[] {
  if (Array.isArray(value)) return value.flatMap(passedOn);
  if (!isMap(value)) return [];
  return Object.entries(value).flatMap(([key, item]) =>
    key === "environment" && isMap(item)
      ? Object.keys(item).filter((name) => item[name] === null)
      : passedOn(item),
  );
}

const NAMED = /\$(?:\{([A-Za-z_][A-Za-z0-9_]*)|([A-Za-z_][A-Za-z0-9_]*))/g;
const REQUIRED = /\$\{([A-Za-z_][A-Za-z0-9_]*):?\?/g;
