import { OWNER_LABEL } from "../settings/layout.ts";

/** A value of a parsed compose file. */
export type ComposeValue = string | number | boolean | null | readonly ComposeValue[] | ComposeMap;

/** A mapping of a parsed compose file. */
export interface ComposeMap {
  readonly [key: string]: ComposeValue;
}

/** A compose file: a project's name, and services, volumes and networks by name. */
export interface ComposeDocument extends ComposeMap {
  readonly name: string;
  readonly services: ComposeMap;
}

/** True for a mapping; a sequence is none. */
export function isMap(value: unknown): value is ComposeMap {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The mapping under a key; an absent one is empty. Throws TypeError where something else stands there. */
export function mapAt(map: ComposeMap, key: string): ComposeMap {
  const value = map[key] ?? {};
  if (!isMap(value)) throw new TypeError(`${key} is no mapping`);
  return value;
}

/** JSON with sorted keys: equal for documents that mean the same, whatever their order of keys. */
function canonicalJson(value: ComposeValue): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (!isMap(value)) return JSON.stringify(value);
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(",")}}`;
}

/** Every text of a document, keys left out. */
export function textsOf(value: ComposeValue): readonly string[] {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.flatMap(textsOf);
  return isMap(value) ? Object.values(value).flatMap(textsOf) : [];
}

/** Where two documents differ, a sentence for each place; the order of keys counts for nothing. */
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
    // A thing's hash differs whenever anything else of it does; alone, it stands for a script that changed.
    const others = path.length === 2 ? found.filter((line) => !line.includes(SPEC_LABEL)) : found;
    return others.length > 0 ? others : found;
  }
  const place = path.length === 0 ? "The file" : path.join(".");
  if (wanted === undefined) return [`${place} is not wanted.`];
  if (current === undefined) return [`${place} is missing.`];
  if (canonicalJson(current) === canonicalJson(wanted)) return [];
  return [`${place} is ${show(current, path)}, wanted is ${show(wanted, [])}.`];
}

function at(map: { readonly [key: string]: ComposeValue }, key: string): ComposeValue | undefined {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

/** Only we keep secrets out of compose files: what someone else put into an environment is not repeated. */
function show(value: ComposeValue, path: Path): string {
  if (path.includes("environment") || isMap(value)) return "something else (not shown)";
  const text = JSON.stringify(value);
  return text.length <= 200 ? text : `${text.slice(0, 200)}...`;
}

/** The label that names the step which made a thing. */
export const STEP_LABEL = "land.fx.fula-node.step";

/** The label with the hash of what a thing was made from: a container with another one is drifted. */
export const SPEC_LABEL = "land.fx.fula-node.spec";

/** The label by which Compose says to which project a container, volume or network belongs. */
export const PROJECT_LABEL = "com.docker.compose.project";

/** The label by which Compose says from which files, separated by commas, a container was made. */
export const CONFIG_FILES_LABEL = "com.docker.compose.project.config_files";

/** Lower-case hex sha256 of a text; randomness-free, but not for the model to compute. */
export type Hash = (text: string) => string;

/**
 * Marks a service, volume or network as ours. Its fragment names the step. The hash covers the whole
 * definition, so a volume's never changes from version to version: Compose 2.3x offers to recreate a
 * volume, and to lose its data, when its labels change.
 */
export function withLabels(
  name: string,
  definition: ComposeMap,
  hash: Hash,
  content: readonly string[] = [],
): ComposeMap {
  const labels = mapAt(definition, "labels");
  if (typeof labels[STEP_LABEL] !== "string") throw new TypeError(`${name} names no step in its labels`);
  const spec = hash([canonicalJson(definition), ...content].join("\n"));
  return {
    ...definition,
    labels: { [OWNER_LABEL.key]: OWNER_LABEL.value, ...labels, [SPEC_LABEL]: spec },
  };
}
