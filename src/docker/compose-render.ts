import { parse, stringify } from "yaml";
import { messageOf } from "../errors.ts";
import { NAMES, STORAGE_NAMES } from "../settings/layout.ts";
import {
  COMPOSE_MARKER,
  type ComposeDocument,
  type ComposeMap,
  type ComposeValue,
  type DatabaseTls,
  type Hash,
  isMap,
  listDifferences,
  mapAt,
  mapEntries,
  type PostgresPlace,
  textsOf,
  withDatabaseTls,
  withLabels,
  withPostgresBind,
  withPostgresVolume,
  type WRITER_SCRIPTS,
} from "./compose-document.ts";
import { keptDefinition, type KeptService, keptTexts } from "./kept-service.ts";
import { isAtLeast } from "./versions.ts";

/** The fragments of a master's compose file (`compose/NAME.yml` of the package), in the order of the file. */
export const MASTER_FRAGMENTS = ["postgres", "pinning-api", "webui", "gateway", "updater", "edge"] as const;

/** The fragments of a writer's compose file. */
export const WRITER_FRAGMENTS = ["kubo", "ipfs-cluster"] as const;

/** The fragments of a storage node's compose file. */
export const STORAGE_FRAGMENTS = ["storage-kubo", "storage-cluster", "ingest"] as const;

/** Parsed fragments by name. */
export type Fragments<Name extends string> = Readonly<Record<Name, ComposeMap>>;

/** The options of every kind of node. */
interface RenderOptions {
  /** The version of fula-node, for the first line. */
  readonly version: string;
  readonly hash: Hash;
  /** The engine's `supportsStartInterval`. False gives healthchecks that older engines accept. */
  readonly startInterval: boolean;
}

/** The options of a master. */
export interface MasterOptions extends RenderOptions {
  /**
   * The volume of the database, by its real name; null if the database is external.
   * `external` is for a volume that existed before fula-node: Compose never creates, relabels or removes it.
   */
  readonly postgres: PostgresPlace | null;
  /** How the services encrypt their connections to the database. Left out for POSTGRES_SSL as 0.1.0 knew it. */
  readonly databaseTls?: DatabaseTls;
  /** Services, by their names, whose containers were adopted. They stay as they were created. */
  readonly kept?: ReadonlyMap<string, KeptService>;
  /** The images of services that another image than ours serves, by the service's name. */
  readonly images?: Readonly<Record<string, string>>;
  /** The text of the edge's Caddyfile. If it changes, Compose recreates the container. Null: the edge is off. */
  readonly edge?: string | null;
}

/** The options of a storage node. */
interface StorageOptions extends WriterOptions {
  /** The volumes, by their keys, that existed before fula-node: Compose never creates, relabels or removes them. */
  readonly external: Readonly<Record<string, string>>;
  /** Services, by their names, whose containers were adopted. They stay as they were created. */
  readonly kept?: ReadonlyMap<string, KeptService>;
}

/** The options of a writer. */
export interface WriterOptions extends RenderOptions {
  /** The texts of WRITER_SCRIPTS. If a text changes, Compose recreates the container. */
  readonly scripts: Readonly<Record<keyof typeof WRITER_SCRIPTS, string>>;
}

/** A compose file to write: the parsed document and its text. */
export interface Rendered {
  readonly document: ComposeDocument;
  readonly text: string;
}

/**
 * A master's compose file. It always contains the gateway and the updater, each under a profile of the same
 * name. The call of Compose decides whether they run, not the file.
 */
export function renderMaster(
  fragments: Fragments<(typeof MASTER_FRAGMENTS)[number]>,
  options: MasterOptions,
): Rendered {
  const { postgres, databaseTls } = options;
  const wanted = MASTER_FRAGMENTS.filter((name) => name !== "postgres" || postgres !== null);
  const merged = merge(
    NAMES.masterProject,
    wanted.map((name) => fragments[name]),
  );
  const tls = databaseTls === undefined ? merged : withDatabaseTls(merged, databaseTls);
  const bound = postgres?.bind === undefined ? tls : withPostgresBind(tls, postgres.bind);
  const whole = postgres === null ? bound : withPostgresVolume(bound, postgres);
  const served = {
    ...whole,
    services: mapEntries(whole.services, (name, service) => serve(name, service, options)),
  };
  const edge = options.edge == null ? {} : { edge: options.edge };
  return finish(withKept(served, options), options, { ...edge, ...textsOfKept(options) });
}

/** The texts, by service, whose change makes an adopted service another one. */
function textsOfKept({ kept = new Map() }: Pick<MasterOptions, "kept">): Readonly<Record<string, string>> {
  return Object.fromEntries([...kept].map(([name, { record }]) => [name, keptTexts(record).environment]));
}

/** A service with an image of the operator's: our environment, and no more of ours, since its program is another one. */
function serve(name: string, service: ComposeMap, { images = {} }: MasterOptions): ComposeMap {
  const image = images[name];
  if (image === undefined) return service;
  const {
    command: _command,
    healthcheck: _healthcheck,
    read_only: _readOnly,
    tmpfs: _tmpfs,
    ...rest
  } = service;
  const { "com.centurylinklabs.watchtower.no-pull": _noPull, ...labels } = mapAt(service, "labels");
  return { ...rest, image, labels };
}

function withKept(
  document: ComposeDocument,
  { kept = new Map() }: Pick<MasterOptions, "kept">,
): ComposeDocument {
  let { services } = document;
  let volumes = mapAt(document, "volumes");
  let networks = mapAt(document, "networks");
  for (const [name, service] of kept) {
    const ours = mapAt(services, name);
    const container = ours["container_name"];
    const adopted = keptDefinition(service, {
      container: typeof container === "string" ? container : name,
      project: document.name,
      labels: mapAt(ours, "labels"),
    });
    const { profiles } = ours;
    const definition = { ...(profiles === undefined ? {} : { profiles }), ...adopted.service };
    services = { ...services, [name]: definition };
    volumes = { ...volumes, ...adopted.volumes };
    networks = { ...networks, ...adopted.networks };
  }
  return { ...document, services, volumes, networks };
}

/** A writer's compose file: kubo and ipfs-cluster, with their data next to the file. */
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

/** A storage node's compose file: kubo, the follower and the ingest, with their data on named volumes. */
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
  const whole = withKept({ ...merged, volumes }, options);
  return finish(whole, options, { ...options.scripts, ...textsOfKept(options) });
}

/**
 * Reads one fragment: its text, and what the build has parsed it to, if it did. Throws TypeError if it has no services,
 * because then the package is broken.
 */
export function parseFragment(text: string, built?: ComposeValue): ComposeMap {
  const known = FRAGMENTS.get(text);
  if (known !== undefined) return known;
  const fragment: unknown = built ?? parse(text);
  if (!isMap(fragment) || !isMap(fragment["services"])) throw new TypeError("the fragment has no services");
  FRAGMENTS.set(text, fragment);
  return fragment;
}

/** By their texts: a run needs each one several times, and parsing is what takes long. */
const FRAGMENTS = new Map<string, ComposeMap>();

/**
 * True if healthchecks may have a start_interval. Engine 25 (API 1.44) introduced it; with an older engine
 * Compose refuses to create the container. Null means that the engine will be installed, so it will be new.
 */
export function supportsStartInterval(apiVersion: string | null): boolean {
  return apiVersion === null || isAtLeast(apiVersion, "1.44");
}

/**
 * The result of comparing a compose file on disk with the desired one. Each difference is a sentence. It never
 * repeats values of an environment.
 */
type ComposeVerdict =
  | { readonly kind: "absent" }
  | { readonly kind: "same" }
  | {
      readonly kind: "differs";
      /** True if somebody changed the file after fula-node wrote it; false if the desired document changed. */
      readonly edited: boolean;
      readonly differences: readonly string[];
    }
  | { readonly kind: "not-ours" };

/** Compares the parsed content. Comments and the order of keys do not matter. */
export function compareCompose(onDisk: string | null, wanted: string, hash: Hash): ComposeVerdict {
  if (onDisk === null) return { kind: "absent" };
  if (onDisk === wanted) return { kind: "same" };
  const marker = COMPOSE_MARKER.exec(onDisk);
  if (marker === null) return { kind: "not-ours" };
  const edited = hash(onDisk.slice(marker[0].length)) !== marker[1];
  const current = read(onDisk);
  const differences = current.ok
    ? listDifferences(current.document, parse(wanted) as ComposeValue)
    : [`The file is not valid YAML: ${current.why}`];
  return differences.length === 0 ? { kind: "same" } : { kind: "differs", edited, differences };
}

/** The healthcheck interval for an engine without start_interval: short enough for a quick start, and it stays so. */
const OLD_ENGINE_INTERVAL = "5s";

const SECTIONS = ["services", "volumes", "networks"] as const;

const NOTE = "# Rendered by fula-node, which notices changes by hand; settings belong into .env.\n";

/** Compose still reads some words as YAML 1.1 does (on, off, yes, no), so they are quoted. */
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

/** The keys that a document requires (`${KEY:?what to do}`), sorted. Without them Compose refuses it. */
export function requiredKeys(document: ComposeDocument): readonly string[] {
  const keys = textsOf(document).flatMap((text) =>
    // `$$` is a literal dollar sign.
    Array.from(text.replaceAll("$$", "").matchAll(REQUIRED), ([, key = ""]) => key),
  );
  return [...new Set(keys)].toSorted();
}

/**
 * Every variable that a document names, sorted: `${KEY...}`, `$KEY`, and each environment key without a value,
 * which Compose takes from `.env`.
 */
export function namedKeys(document: ComposeMap): readonly string[] {
  const keys = textsOf(document).flatMap((text) =>
    Array.from(text.replaceAll("$$", "").matchAll(NAMED), ([, braced, bare = ""]) => braced ?? bare),
  );
  return [...new Set([...keys, ...keysWithoutValue(document)])].toSorted();
}

function keysWithoutValue(value: ComposeValue): readonly string[] {
  if (Array.isArray(value)) return value.flatMap(keysWithoutValue);
  if (!isMap(value)) return [];
  return Object.entries(value).flatMap(([key, item]) =>
    key === "environment" && isMap(item)
      ? Object.keys(item).filter((name) => item[name] === null)
      : keysWithoutValue(item),
  );
}

const NAMED = /\$(?:\{([A-Za-z_][A-Za-z0-9_]*)|([A-Za-z_][A-Za-z0-9_]*))/g;
const REQUIRED = /\$\{([A-Za-z_][A-Za-z0-9_]*):?\?/g;
