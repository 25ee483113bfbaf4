import { parseEnvFile, setValues } from "./env-file.ts";
import type { SettingSpec } from "./settings.ts";

const HEADER = `# Settings and secrets of this fula-node. Keep a copy of this file elsewhere: with it and the data,
# a box can be rebuilt; without it, encrypted data can't be read. Your own keys and comments stay as
# they are. After a change: run the same fula-node join again.
`;

/** The text of a new `.env`: each key below a line that says what it is for. */
export function newEnvText(specs: readonly SettingSpec[], values: ReadonlyMap<string, string>): string {
  const blocks = specs
    .filter(({ key }) => values.has(key))
    .map(({ key, about }) => `\n# ${about}\n${lineOf(key, values.get(key) ?? "")}`);
  const known = new Set(specs.map(({ key }) => key));
  const others = [...values]
    .filter(([key]) => !known.has(key))
    .map(([key, value]) => `\n${lineOf(key, value)}`);
  return HEADER + blocks.join("") + others.join("");
}

/** An existing text with these keys set; everything else stays byte for byte. */
export function editEnvText(text: string, values: ReadonlyMap<string, string>): string {
  const file = parseEnvFile(text);
  if (!file.ok) throw new RangeError(`line ${file.line}: ${file.what}`);
  return setValues(file, values);
}

function lineOf(key: string, value: string): string {
  return setValues({ ok: true, text: "", entries: [] }, new Map([[key, value]]));
}
