import { FORMER_DEFAULTS } from "../settings/former-defaults.ts";
import { bracketed } from "../settings/address.ts";
import { OWNER_LABEL, POSTGRES_TLS_FILES } from "../settings/layout.ts";

/** A value of a parsed compose file. */
export type ComposeValue = string | number | boolean | null | readonly ComposeValue[] | ComposeMap;

/** A mapping of a parsed compose file. */
export interface ComposeMap {
  readonly [key: string]: ComposeValue;
}

/** A compose file: the project's name, and its services, volumes and networks by name. */
export interface ComposeDocument extends ComposeMap {
  readonly name: string;
  readonly services: ComposeMap;
}

/** True for a mapping, false for a sequence. */
export function isMap(value: unknown): value is ComposeMap {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The mapping under a key, or an empty one if the key is absent. Throws TypeError for any other value. */
export function mapAt(map: ComposeMap, key: string): ComposeMap {
  const value = map[key] ?? {};
  if (!isMap(value)) throw new TypeError(`${key} is not a mapping`);
  return value;
}

/** JSON with sorted keys, so the order of keys makes no difference. */
function canonicalJson(value: ComposeValue): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (!isMap(value)) return JSON.stringify(value);
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(",")}}`;
}

/** Every string value of a document, without keys. */
export function textsOf(value: ComposeValue): readonly string[] {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.flatMap(textsOf);
  return isMap(value) ? Object.values(value).flatMap(textsOf) : [];
}

/** The differences between two documents, one sentence each. The order of keys does not matter. */
export function listDifferences(current: ComposeValue, wanted: ComposeValue): readonly string[] {
  return compareAt(current, wanted, []);
}

type Path = readonly string[];

function compareAt(
  current: ComposeValue | undefined,
  wanted: ComposeValue | undefined,
  path: Path,
): readonly string[] {
  if (isMap(current) && isMap(wanted)) {
    const keys = [...new Set([...Object.keys(wanted), ...Object.keys(current)])];
    const found = keys.flatMap((key) => compareAt(at(current, key), at(wanted, key), [...path, key]));
    // The hash changes with every other change, so it is reported only alone: then a script has changed.
    const others =
      path.length === 2
        ? found.filter((line) => !line.includes(SPEC_LABEL) && !line.endsWith(SPEC_CHANGED))
        : found;
    return others.length > 0 ? others : found;
  }
  const place = path.length === 0 ? "The file" : path.join(".");
  if (wanted === undefined) return [`${place} should not be there.`];
  if (current === undefined) return [`${place} is missing.`];
  if (canonicalJson(current) === canonicalJson(wanted)) return [];
  if (path.at(-1) === SPEC_LABEL) return [`${path.slice(0, -2).join(".")}${SPEC_CHANGED}`];
  return [`${place} is ${show(current, path)}; expected ${show(wanted, [])}.`];
}

/** A hash says nothing to people. */
const SPEC_CHANGED = ": its settings or files changed.";

function at(map: { readonly [key: string]: ComposeValue }, key: string): ComposeValue | undefined {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

/** Fits a line of the plan: the rest of a long value would say no more. */
const MAX_SHOWN = 56;

/** Never prints an environment: somebody may have written secrets into it by hand. */
function show(value: ComposeValue, path: Path): string {
  if (path.includes("environment") || isMap(value)) return "a different value (not shown)";
  const text = JSON.stringify(value);
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}...`;
}

/** The label that names the step which created a service, volume or network. */
export const STEP_LABEL = "land.fx.fula-node.step";

/** The label with the hash of the definition. A container with a different hash has drifted. */
export const SPEC_LABEL = "land.fx.fula-node.spec";

/** Compose's label with the project that a container, volume or network belongs to. */
export const PROJECT_LABEL = "com.docker.compose.project";

/** Compose's label with the files, separated by commas, that a container was created from. */
export const CONFIG_FILES_LABEL = "com.docker.compose.project.config_files";

/** The directory whose compose file a container was created from, as Compose's label says. */
export function homeOf({
  labels,
}: {
  readonly labels: Readonly<Record<string, string>>;
}): string | undefined {
  const [file = ""] = (labels[CONFIG_FILES_LABEL] ?? "").split(",", 1);
  return file.startsWith("/") ? file.replace(/\/[^/]*$/, "") || "/" : undefined;
}

/** Lower-case hex sha256 of a text. Passed in, because this file must not import `node:crypto`. */
export type Hash = (text: string) => string;

/** `${KEY:-default}` without anything nested. */
const WITH_DEFAULT = /\$\{([A-Z][A-Z0-9_]*):-[^{}]*\}/g;

/**
 * A definition with the defaults of 0.2.0 instead of today's. Compose's own hash notices if a container gets
 * another value. So a container for which the operator chose the value is not recreated with a newer default.
 */
function withFormerDefaults(definition: string): string {
  return definition.replaceAll(WITH_DEFAULT, (whole, key: string) => {
    const former = Object.hasOwn(FORMER_DEFAULTS, key) ? FORMER_DEFAULTS[key]?.at(-1) : undefined;
    return former === undefined ? whole : `\${${key}:-${former}}`;
  });
}

/**
 * Labels a service, volume or network as created by fula-node. Its fragment names the step. The hash covers
 * only the definition, so the labels of a volume stay the same from version to version: when they change,
 * Compose 2.3x offers to recreate the volume, which would delete its data.
 */
export function withLabels(
  name: string,
  definition: ComposeMap,
  hash: Hash,
  content: readonly string[] = [],
): ComposeMap {
  const labels = mapAt(definition, "labels");
  if (typeof labels[STEP_LABEL] !== "string") throw new TypeError(`${name} has no label that names its step`);
  const spec = hash([withFormerDefaults(canonicalJson(definition)), ...content].join("\n"));
  return {
    ...definition,
    labels: { [OWNER_LABEL.key]: OWNER_LABEL.value, ...labels, [SPEC_LABEL]: spec },
  };
}

/**
 * The scripts that the containers of kubo and ipfs-cluster run, by service (`compose/NAME` of the package).
 * They must be next to the compose file, with mode 0755, before the containers start.
 */
export const WRITER_SCRIPTS = { kubo: "kubo-init.sh", "ipfs-cluster": "cluster-start.sh" } as const;

/** True if the first line says that fula-node wrote the file. Somebody may have edited it later. */
export function isOurCompose(text: string): boolean {
  return COMPOSE_MARKER.test(text);
}

/** The first line of a compose file of ours: the hash of the rest, as it was written. */
export const COMPOSE_MARKER = /^# fula-node compose sha256=([0-9a-f]{64}) version=\S+\n/;

/** The mapping with each of its mappings changed. */
export function mapEntries(
  map: ComposeMap,
  change: (name: string, definition: ComposeMap) => ComposeMap,
): ComposeMap {
  return Object.fromEntries(Object.keys(map).map((name) => [name, change(name, mapAt(map, name))]));
}

/** Where the Postgres of a master has its data, and who reaches it. */
export interface PostgresPlace {
  readonly volume: string;
  readonly external: boolean;
  /** Where other machines reach it, with TLS only, and the directory of the files for that. */
  readonly bind?: { readonly address: string; readonly directory: string };
}

/** How the services encrypt their connections to the database. */
export interface DatabaseTls {
  readonly mode: string;
  /** The path of the CA's file. */
  readonly ca: string | null;
  /** True if `.env` has a CA in POSTGRES_CA. */
  readonly hasSavedCa?: boolean;
}

/** Names the volume of the database. */
export function withPostgresVolume(
  document: ComposeDocument,
  { volume, external }: PostgresPlace,
): ComposeDocument {
  const volumes = mapAt(document, "volumes");
  const pgdata = external ? { external: true, name: volume } : { name: volume, ...mapAt(volumes, "pgdata") };
  return { ...document, volumes: { ...volumes, pgdata } };
}

/** Where the container finds the files of its TLS, and where its start puts its key: Postgres refuses one that is not its own. */
const TLS_INSIDE = "/etc/fula-node/tls";
const KEY_INSIDE = "/tmp/fula-node-server.key";

/** Publishes Postgres at another address than the loopback, too. It then lets nobody in without TLS but itself. */
export function withPostgresBind(
  document: ComposeDocument,
  { address, directory }: NonNullable<PostgresPlace["bind"]>,
): ComposeDocument {
  const services = mapEntries(document.services, (name, service) => {
    if (name !== "postgres") return service;
    const listOf = (key: string) => (service[key] ?? []) as readonly ComposeValue[];
    const settings = {
      ssl: "on",
      ssl_cert_file: `${TLS_INSIDE}/${POSTGRES_TLS_FILES.certificate}`,
      ssl_key_file: KEY_INSIDE,
      ssl_min_protocol_version: "TLSv1.3",
      hba_file: `${TLS_INSIDE}/${POSTGRES_TLS_FILES.rules}`,
    };
    const copy = `install -o postgres -g postgres -m 600 ${TLS_INSIDE}/${POSTGRES_TLS_FILES.key} ${KEY_INSIDE}`;
    return {
      ...service,
      entrypoint: ["/bin/sh", "-ec", `${copy}\nexec docker-entrypoint.sh "$$@"`, "docker-entrypoint.sh"],
      command: ["postgres", ...Object.entries(settings).flatMap(([key, value]) => ["-c", `${key}=${value}`])],
      ports: [...listOf("ports"), `${bracketed(address)}:\${POSTGRES_PORT:-5432}:5432`],
      volumes: [
        ...listOf("volumes"),
        {
          type: "bind",
          source: directory,
          target: TLS_INSIDE,
          read_only: true,
          bind: { create_host_path: false },
        },
      ],
    };
  });
  return { ...document, services };
}

/** Where the services find the CA of the database's certificate. */
const CA_INSIDE = "/etc/fula-node/postgres-ca.pem";

/**
 * Upstream's images encrypt for POSTGRES_SSL=true, take any certificate then, and know no other mode. So both services
 * get that, and ours the mode beside it.
 */
export function withDatabaseTls(
  document: ComposeDocument,
  { mode, ca, hasSavedCa = false }: DatabaseTls,
): ComposeDocument {
  const services = mapEntries(document.services, (name, service) => {
    if (name !== "pinning-api" && name !== "webui") return service;
    const environment = {
      ...mapAt(service, "environment"),
      POSTGRES_SSL: "true",
      POSTGRES_SSL_MODE: mode,
      ...(ca === null ? {} : { POSTGRES_SSL_CA: CA_INSIDE }),
      ...(hasSavedCa ? { POSTGRES_CA: null } : {}),
    };
    const before = Array.isArray(service["volumes"]) ? (service["volumes"] as readonly ComposeValue[]) : [];
    const mount = { type: "bind", source: ca, target: CA_INSIDE, read_only: true };
    return { ...service, environment, ...(ca === null ? {} : { volumes: [...before, mount] }) };
  });
  return { ...document, services };
}
