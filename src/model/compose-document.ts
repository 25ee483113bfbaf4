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
export function canonicalJson(value: ComposeValue): string {
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
