import { closest, distance } from "fastest-levenshtein";
import type { Problem } from "../errors.ts";
import { type EnvEntry, type EnvFile, findEntry, quoteValue, whyUnwritable } from "./env-file.ts";
import { FORMER_DEFAULTS } from "./former-defaults.ts";
import type { Rule } from "./rules.ts";

/** How a secret is generated if none is given. */
export type Generation =
  | { readonly kind: "token"; readonly characters: number }
  | { readonly kind: "hex"; readonly bytes: number }
  /** `user:TOKEN`. */
  | { readonly kind: "credentials"; readonly user: string; readonly characters: number };

/** One setting: its upstream name, its purpose and its allowed values. */
export interface SettingSpec {
  readonly key: string;
  readonly about: string;
  readonly rule: Rule;
  /** Never shown, and never part of a change. */
  readonly secret?: boolean;
  /** Data depends on it: while such data exists, the value must not change. */
  readonly immutable?: boolean;
  /** Used if no value is given. It is not saved, so that a newer version brings its newer default, unless `bound` is set. */
  readonly byDefault?: string;
  /** Saved to `.env` even if it is the default: data or this machine is bound to the value of the first run. */
  readonly bound?: boolean;
  /** Generated if no value is given and no data depends on an older one. */
  readonly generated?: Generation;
  /** Set if fula-node itself does not use the value: a compose document passes it to these images. */
  readonly readBy?: ImageReader;
  /** What a run sets off by setting the value, if the name does not say it: for the plan. Null if it sets nothing off. */
  readonly setsOff?: (before: (key: string) => string | undefined, settings: Settings) => string | null;
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
export type Origin = "flag" | "environment" | "saved" | "adopted" | "default";

/** A setting with a value. */
export interface Setting {
  readonly value: string;
  readonly origin: Origin;
  /** What gave a value of the origin "flag", if not `--set`: the invite, or the pool API. */
  readonly offeredBy?: string;
  /** The value that an earlier version saved although it was its default. This run no longer saves it. */
  readonly released?: string;
}

/** The values of a run by key. Precedence: flags, `.env`, environment, defaults. */
export type Settings = ReadonlyMap<string, Setting>;

/** Where settings come from. */
export interface SettingSources {
  /** Values from `--set`, `--set-file` and from flags that set a key. */
  readonly flags: ReadonlyMap<string, string>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /**
   * True for a join: an environment value is used, and saved, if `.env` has none. Other verbs use what a join
   * installed, so that a variable of the shell can't make them work with another database or other limits.
   */
  readonly adoptsEnvironment: boolean;
  readonly saved: EnvFile & { ok: true };
  /** The version that runs: what it wrote itself, it does not release. */
  readonly version: string;
}

/** The settings of a run, all their problems, and a sentence for each environment value that is not used. */
export interface ResolvedSettings {
  readonly settings: Settings;
  readonly problems: readonly Problem[];
  readonly warnings: readonly string[];
}

/**
 * Merges the sources and checks every value; returns all problems at once. An empty environment variable and
 * an empty value in `.env` count as not given. A key without a value and without a default is not in the map:
 * it is a secret to generate, or an option that stays off.
 */
export function resolveSettings(specs: readonly SettingSpec[], sources: SettingSources): ResolvedSettings {
  const settings = new Map<string, Setting>();
  const problems: Problem[] = [];
  const warnings: string[] = [];
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
    if (found !== null && "problem" in found) {
      problems.push(found.problem);
      continue;
    }
    const ignored = findIgnored(spec, found, sources);
    if (ignored !== null) warnings.push(ignored);
    if (found === null) continue;
    const problem = check(spec, found);
    if (problem === null) settings.set(spec.key, found);
    else problems.push(problem);
  }
  return { settings, problems, warnings };
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

function lookUp(spec: SettingSpec, sources: SettingSources): Setting | { readonly problem: Problem } | null {
  const { key, byDefault } = spec;
  const flag = sources.flags.get(key);
  if (flag !== undefined) return { value: flag, origin: "flag" };
  const entry = findEntry(sources.saved, key);
  const problem = entry === undefined ? null : whyUnclear(entry);
  if (problem !== null) return { problem };
  const kept = savedValue(sources.saved, key);
  const inherited = inheritedValue(key, sources);
  if (kept !== undefined) {
    // If the environment has another value, it would take the place of the released one: then the saved one stays.
    const isReleased = isSavedDefault(spec, kept, sources) && (inherited === undefined || inherited === kept);
    return isReleased && byDefault !== undefined
      ? { value: byDefault, origin: "default", released: kept }
      : { value: kept, origin: "saved" };
  }
  if (inherited !== undefined && sources.adoptsEnvironment)
    return { value: inherited, origin: "environment" };
  return byDefault === undefined ? null : { value: byDefault, origin: "default" };
}

function inheritedValue(key: string, { environment }: SettingSources): string | undefined {
  return environment[key] === "" ? undefined : environment[key];
}

/** The value that `.env` has for a key; undefined if it has none, an empty one, or one that programs read differently. */
export function savedValue(saved: EnvFile & { ok: true }, key: string): string | undefined {
  const value = findEntry(saved, key)?.value;
  return value !== undefined && "text" in value && value.text !== "" ? value.text : undefined;
}

/** The key with the version of fula-node that last wrote `.env`. fula-node sets it, so it is not a setting. */
export const VERSION_KEY = "FULA_NODE_VERSION";

/** The versions that saved every default. */
const SAVED_DEFAULTS = /^0\.[0-2]\./;

/** True if a version that saved its defaults wrote the file, and this value is such a default: nobody chose it. */
function isSavedDefault(
  { key, bound, byDefault }: SettingSpec,
  value: string,
  { saved, version }: Pick<SettingSources, "saved" | "version">,
): boolean {
  if (bound === true || byDefault === undefined) return false;
  const writer = savedValue(saved, VERSION_KEY) ?? "";
  if (!SAVED_DEFAULTS.test(writer) || writer === version) return false;
  return Object.hasOwn(FORMER_DEFAULTS, key) && FORMER_DEFAULTS[key]?.includes(value) === true;
}

/** Describes an environment value that differs from the used one and is not used; null if there is none. */
function findIgnored(spec: SettingSpec, used: Setting | null, sources: SettingSources): string | null {
  const { key } = spec;
  const inherited = inheritedValue(key, sources);
  if (inherited === undefined || inherited === used?.value) return null;
  if (used?.origin === "flag" || used?.origin === "environment") return null;
  const show = (value: string) => (spec.secret === true ? "" : ` (${showValue(spec, value)})`);
  const place =
    used === null
      ? "this node has no value for it"
      : `${used.origin === "saved" ? ".env has another one" : "the default is used"}${show(used.value)}`;
  return `${key} in the environment${show(inherited)} is ignored: ${place}. To change it, run the join command with ${flagOf(spec)}.`;
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
  adopted: "of the adopted container",
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
    remedy: REMEDIES[origin](key, flagOf(spec, exampleOf(spec))),
  };
}

/** The flag that gives a setting its value. Other users of the machine see what is in a command line: a secret comes from a file. */
function flagOf({ key, secret }: Pick<SettingSpec, "key" | "secret">, value = "VALUE"): string {
  return secret === true ? `--set-file ${key}=PATH` : `--set ${key}=${value}`;
}

/** A value that is accepted if the flag is pasted as it stands: the default, unless data may be bound to another value. */
function exampleOf({ byDefault, rule, bound, immutable }: SettingSpec): string | undefined {
  if (bound === true || immutable === true) return undefined;
  return byDefault !== undefined && /^[\w.:/-]+$/.test(byDefault) && rule.holds(byDefault)
    ? byDefault
    : undefined;
}

const REMEDIES: Record<Origin, (key: string, flag: string) => string> = {
  flag: (_key, flag) => `Give another value: ${flag}.`,
  environment: (key, flag) => `Unset the variable ${key} or change its value. ${flag} overrides it.`,
  saved: (_key, flag) => `Correct it in .env, or pass ${flag}.`,
  adopted: (_key, flag) => `Give another value: ${flag}.`,
  default: (_key, flag) => `Give a value: ${flag}.`,
};

/** Suggests the most similar setting, ignoring case; refers to the docs if none is similar. */
function suggest(key: string, known: readonly string[]): string {
  return didYouMean(key.toUpperCase(), known) ?? "See docs/settings.md for all settings.";
}

/** `Did you mean NAME?`, with the most similar of the known names; null if none is similar. */
export function didYouMean(name: string, known: readonly string[]): string | null {
  const given = name.slice(0, SHOWN_CHARACTERS);
  const nearest = closest(given, known);
  const isNear = distance(given, nearest) <= Math.max(2, given.length / 3);
  return isNear ? `Did you mean ${nearest}?` : null;
}
