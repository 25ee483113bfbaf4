import { closest, distance } from "fastest-levenshtein";
import type { Problem } from "../errors.ts";
import { type EnvEntry, type EnvFile, findEntry, quoteValue, whyUnwritable } from "./env-file.ts";
import type { Rule } from "./rules.ts";

/** How a secret that nobody gave is made. */
export type Generation =
  | { readonly kind: "token"; readonly characters: number }
  | { readonly kind: "hex"; readonly bytes: number };

/** One setting: its upstream name, what it is for, and what it may be. */
export interface SettingSpec {
  readonly key: string;
  readonly about: string;
  readonly rule: Rule;
  /** Never shown and never in a change. */
  readonly secret?: boolean;
  /** Data is made with it: while such data lives, no other value may take its place. */
  readonly immutable?: boolean;
  /** Written to `.env` when nobody gave a value. */
  readonly byDefault?: string;
  /** Generated when nobody gave a value and no data depends on an older one. */
  readonly generated?: Generation;
  /** Set if fula-node itself does nothing with the value: a compose document passes it on to these images. */
  readonly readBy?: ImageReader;
}

/**
 * `upstream`: only functionland's images (web service, pinning service, gateway), not the service that
 * fula-node runs in their place. `ipfs-cluster`: its own program, on every node.
 */
export type ImageReader = "upstream" | "ipfs-cluster";

const READERS: Record<ImageReader, string> = {
  upstream: "read by upstream's images only",
  "ipfs-cluster": "read by ipfs-cluster itself",
};

/** What a setting is for, in one line, and who reads it if fula-node does not: for tables and for `.env`. */
export function describeSetting({ about, readBy }: SettingSpec): string {
  return readBy === undefined ? about : `${about} (${READERS[readBy]})`;
}

/** Where a value came from. */
export type Origin = "flag" | "environment" | "saved" | "default";

/** A setting with a value. */
export interface Setting {
  readonly value: string;
  readonly origin: Origin;
}

/** The values of a run by key, flags over environment over `.env` over defaults. */
export type Settings = ReadonlyMap<string, Setting>;

/**
 * Puts the sources together and checks every value; all problems are given at once. A blank variable of
 * the environment and a blank value in `.env` count as not given. A key that nobody gave and that has no
 * default is not in the map: a secret to mint, or an option that stays off.
 */
export function resolveSettings(
  specs: readonly SettingSpec[],
  sources: {
    /** `--set` and the flags that stand for keys. */
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
        what: `${key} is no setting of this command.`,
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
 * How a value may be shown: of a secret its length at most; of others the beginning, and with every
 * letter outside ASCII spelled out, since some look like others.
 */
export function showValue(spec: SettingSpec, value: string): string {
  if (spec.secret === true) return `(${value.length} characters, not shown)`;
  const shown = JSON.stringify(value.slice(0, SHOWN_CHARACTERS)).replaceAll(
    /[^\x20-\x7e]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return value.length > SHOWN_CHARACTERS ? `${shown}... (${value.length} characters)` : shown;
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
 * What is wrong with the keys of `.env` that are not settings. A value that a compose document names, and that
 * Compose and fula-node would read differently, would make every run find another container than the one that
 * it made; a template that Compose cannot read, in whatever key, makes it refuse the whole file.
 */
export function findUnclear(
  specs: readonly SettingSpec[],
  saved: EnvFile & { ok: true },
  named: readonly string[],
): readonly Problem[] {
  const known = new Set(specs.map(({ key }) => key));
  const handedOn = new Set(named);
  return saved.entries
    .filter(({ key }) => !known.has(key))
    .filter(({ key, start, end }) => {
      // Compose takes a # at the beginning of a value for a part of it.
      const lineEnd = saved.text.indexOf("\n", end);
      const written = saved.text.slice(start, lineEnd < 0 ? undefined : lineEnd);
      return handedOn.has(key) || isBrokenTemplate(written);
    })
    .flatMap((entry) => whyUnclear(entry) ?? []);
}

/** What Compose surely puts in: `${KEY}`, `${KEY:-text}`, `${KEY-text}`, `${KEY:+text}`, `${KEY+text}`. */
const TEMPLATE = /\$\{[A-Za-z_][A-Za-z0-9_]*(?::?[-+][^${}'"\\#]*)?\}/g;

/** True for a `${` that Compose may not understand, or that demands a value (`:?`). The text of a template may be one, too. */
function isBrokenTemplate(written: string): boolean {
  let left = written;
  for (let before = ""; before !== left;) {
    before = left;
    // A blank takes its place: what is around a template must not become one.
    left = left.replaceAll(TEMPLATE, " ");
  }
  return left.includes("${");
}

function whyUnclear({ key, line, value }: EnvEntry): Problem | null {
  if (!("unclear" in value)) return null;
  return {
    subject: key,
    what: `${key} in line ${line} of .env can be read in more than one way: ${value.unclear}.`,
    remedy: `Write it there as ${key}='VALUE', on one line and in single quotes.`,
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
    const remedy = `Leave the flag out; to take a value back, put ${key}= into .env without one.`;
    return { subject: key, what: `${key} ${PLACES[origin]} is empty.`, remedy };
  }
  const shown = `${key} ${PLACES[origin]} is ${showValue(spec, value)}`;
  if (quoteValue(value) === null) {
    const { why, remedy } = whyUnwritable(value);
    return { subject: key, what: `${shown}; it can't be used: ${why}.`, remedy };
  }
  if (spec.rule.holds(value)) return null;
  return { subject: key, what: `${shown}; it must be ${spec.rule.say}.`, remedy: REMEDIES[origin](key) };
}

const REMEDIES: Record<Origin, (key: string) => string> = {
  flag: (key) => `Give another value: --set ${key}=VALUE.`,
  environment: (key) =>
    `Unset the variable ${key}, or give it another value; --set ${key}=VALUE goes before it.`,
  saved: (key) => `Mend it in .env, or give --set ${key}=VALUE.`,
  default: (key) => `Give a value: --set ${key}=VALUE.`,
};

/** Case does not count; what is no setting of any likeness gets no suggestion. */
function suggest(key: string, known: readonly string[]): string {
  const wanted = key.slice(0, SHOWN_CHARACTERS).toUpperCase();
  const nearest = closest(wanted, known);
  const isNear = distance(wanted, nearest) <= Math.max(2, wanted.length / 3);
  return isNear ? `Did you mean ${nearest}?` : "docs/settings.md lists the settings.";
}
