import { canonicalJson, type ComposeValue, isMap } from "./compose-document.ts";
import { SPEC_LABEL } from "./compose-labels.ts";

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
