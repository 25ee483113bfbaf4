import { closest, distance } from "fastest-levenshtein";
import type { Problem } from "../errors.ts";
import { type EnvEntry, type EnvFile, findEntry, quoteValue, whyUnwritable } from "./env-file.ts";
import type { Rule } from "./rules.ts";

/** How a secret is generated if none is given. */
export type Generation =
  | { readonly kind: "token"; readonly characters: number }
  | { readonly kind: "hex"; readonly bytes: number };

/** One setting: its upstream name, its purpose and its allowed values. */
export interface SettingSpec {
  readonly key: string;
  readonly about: string;
  readonly rule: Rule;
  /** Never shown, and never part of a change. */
  readonly secret?: boolean;
  /** Data depends on it: while such data exists, the value must not change. */
  readonly immutable?: boolean;
  /** Written to `.env` if no value is given. */
  readonly byDefault?: string;
  /** Generated if no value is given and no data depends on an older one. */
  readonly generated?: Generation;
  /** Set if fula-node itself does not use the value: a compose document passes it to these images. */
  readonly readBy?: ImageReader;
}

/**
 * `upstream`: only functionland's images (web service, pinning service, gateway), not the service that
 * fula-node runs instead. `ipfs-cluster`: the program itself, on every node.
 */
export type ImageReader = "upstream" | "ipfs-cluster";

const READERS: Record<ImageReader, string> = {
  upstream: "read by upstream's images only",
  "ipfs-cluster": "read by ipfs-cluster itself",
};

/** Describes a setting in one line, with the images that read it if fula-node does not. For tables and for `.env`. */
export function describeSetting({ about, readBy }: SettingSpec): string {
  return readBy === undefined ? about : `${about} (${READERS[readBy]})`;
}

/** The source of a value. */
export type Origin = "flag" | "environment" | "saved" | "default";

/** A setting with a value. */
export interface Setting {
  readonly value: string;
  readonly origin: Origin;
}

/** The values of a run by key. Precedence: flags, environment, `.env`, defaults. */
export type Settings = ReadonlyMap<string, Setting>;

/**
 * Merges the sources and checks every value; returns all problems at once. An empty environment variable and
 * an empty value in `.env` count as not given. A key without a value and without a default is not in the map:
 * it is a secret to generate, or an option that stays off.
 */
export function resolveSettings(
  specs: readonly SettingSpec[],
  sources: {
    /** Values from `--set` and from flags that set a key. */
    readonly flags: ReadonlyMap<string, string>;
    readonly environment: Readonly<Record<string, string | undefined>>;
    readonly saved: EnvFile & { ok: true };
  },
): { readonly settings: Settings; readonly problems: readonly Problem[] } {
  const settings = new Map<string, Setting>();
  const problems: Problem[] = [];
  const known = specs.map(({ key }) => key);
  for (const key of sources.flags.keys()) {
    if (!known.includes(key))
      problems.push({
        subject: key,
        what: `${key} is not a setting of this command.`,
        remedy: suggest(key, known),
      });
  }
  for (const spec of specs) {
    const found = lookUp(spec, sources);
    if (found === null) continue;
    if ("problem" in found) problems.push(found.problem);
    else {
      const problem = check(spec, found);
      if (problem === null) settings.set(spec.key, found);
      else problems.push(problem);
    }
  }
  return { settings, problems };
}

const SHOWN_CHARACTERS = 80;

/**
 * Formats a value for display. Of a secret, only the length is shown. Other values are shortened, and every
 * character outside ASCII is escaped, since some characters look alike.
 */
export function showValue(spec: SettingSpec, value: string): string {
  if (spec.secret === true) return `(${value.length} characters, not shown)`;
  const printable = JSON.stringify(value.slice(0, SHOWN_CHARACTERS)).replaceAll(
    /[^\x20-\x7e]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return value.length > SHOWN_CHARACTERS ? `${printable}... (${value.length} characters)` : printable;
}

function lookUp(
  { key, byDefault }: SettingSpec,
  { flags, environment, saved }: Parameters<typeof resolveSettings>[1],
): Setting | { readonly problem: Problem } | null {
  const flag = flags.get(key);
  if (flag !== undefined) return { value: flag, origin: "flag" };
  const inherited = environment[key];
  if (inherited !== undefined && inherited !== "") return { value: inherited, origin: "environment" };
  const entry = findEntry(saved, key);
  const problem = entry === undefined ? null : whyUnclear(entry);
  if (problem !== null) return { problem };
  if (entry !== undefined && "text" in entry.value && entry.value.text !== "")
    return { value: entry.value.text, origin: "saved" };
  return byDefault === undefined ? null : { value: byDefault, origin: "default" };
}

/**
 * Finds problems in keys of `.env` that are not settings. If a compose document uses such a key, and Compose and
 * fula-node read its value differently, every run would find a difference in the container that it created.
 * A template that Compose can't read, in any key, makes Compose refuse the whole file.
 */
export function findUnclear(
  specs: readonly SettingSpec[],
  saved: EnvFile & { ok: true },
  named: readonly string[],
): readonly Problem[] {
  const known = new Set(specs.map(({ key }) => key));
  const passedOn = new Set(named);
  const isBroken = ({ start, end }: EnvEntry): boolean => {
    // Compose reads a # at the start of a value as part of the value.
    const lineEnd = saved.text.indexOf("\n", end);
    return isBrokenTemplate(saved.text.slice(start, lineEnd < 0 ? undefined : lineEnd));
  };
  return [
    ...saved.entries.filter((entry) => !known.has(entry.key) && (passedOn.has(entry.key) || isBroken(entry))),
    ...saved.overridden.filter(isBroken),
  ].flatMap((entry) => whyUnclear(entry) ?? []);
}

/** Templates that Compose always understands: `${KEY}`, `${KEY:-text}`, `${KEY-text}`, `${KEY:+text}`, `${KEY+text}`. */
const TEMPLATE = /\$\{[A-Za-z_][A-Za-z0-9_]*(?::?[-+][^${}'"\\#]*)?\}/g;

/** True if the text has a `${` that Compose may not understand, or one that requires a value (`:?`). Templates may be nested. */
function isBrokenTemplate(written: string): boolean {
  let left = written;
  for (let before = ""; before !== left;) {
    before = left;
    // Replaced by a space, so that the text around a template does not become a new template.
    left = left.replaceAll(TEMPLATE, " ");
  }
  return left.includes("${");
}

function whyUnclear({ key, line, value }: EnvEntry): Problem | null {
  if (!("unclear" in value)) return null;
  return {
    subject: key,
    what: `${key} in line ${line} of .env is ambiguous: ${value.unclear}.`,
    remedy: `Write it as ${key}='VALUE', on one line and in single quotes.`,
  };
}

const PLACES: Record<Origin, string> = {
  flag: "given by flag",
  environment: "from the environment",
  saved: "in .env",
  default: "by default",
};

function check(spec: SettingSpec, { value, origin }: Setting): Problem | null {
  const { key } = spec;
  if (value === "") {
    const remedy = `Omit the flag. To remove a saved value, write ${key}= without a value in .env.`;
    return { subject: key, what: `${key} ${PLACES[origin]} is empty.`, remedy };
  }
  const description = `${key} ${PLACES[origin]} is ${showValue(spec, value)}`;
  if (quoteValue(value) === null) {
    const { why, remedy } = whyUnwritable(value);
    return { subject: key, what: `${description}; it can't be used: ${why}.`, remedy };
  }
  if (spec.rule.holds(value)) return null;
  return {
    subject: key,
    what: `${description}; it must be ${spec.rule.requirement}.`,
    remedy: REMEDIES[origin](key),
  };
}

const REMEDIES: Record<Origin, (key: string) => string> = {
  flag: (key) => `Give another value: --set ${key}=VALUE.`,
  environment: (key) => `Unset the variable ${key} or change its value. --set ${key}=VALUE overrides it.`,
  saved: (key) => `Correct it in .env, or pass --set ${key}=VALUE.`,
  default: (key) => `Give a value: --set ${key}=VALUE.`,
};

/** Suggests the most similar setting, ignoring case; refers to the docs if none is similar. */
function suggest(key: string, known: readonly string[]): string {
  const given = key.slice(0, SHOWN_CHARACTERS).toUpperCase();
  const nearest = closest(given, known);
  const isNear = distance(given, nearest) <= Math.max(2, given.length / 3);
  return isNear ? `Did you mean ${nearest}?` : "See docs/settings.md for all settings.";
}
