import type { Problem } from "../errors.ts";
import { type EnvFile, findEntry, quoteValue } from "./env-file.ts";
import type { Rule } from "./rule.ts";

/** How a secret that nobody gave is made. */
export type Minting =
  | { readonly kind: "token"; readonly characters: number }
  | { readonly kind: "hex"; readonly bytes: number };

/** One setting: its upstream name, what it is for, and what it may be. */
export interface SettingSpec {
  readonly key: string;
  readonly about: string;
  readonly rule: Rule;
  /** Never shown, never in a change, kept for ever. */
  readonly secret?: boolean;
  /** Written to `.env` when nobody gave a value. */
  readonly byDefault?: string;
  /** Generated when nobody gave a value and no data depends on an older one. */
  readonly minted?: Minting;
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
 * Puts the sources together and checks every value; all problems are given at once. A key that nobody
 * gave and that has no default is not in the map: a secret to mint, or an option that stays off.
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
  const known = new Set(specs.map(({ key }) => key));
  for (const key of sources.flags.keys()) {
    if (!known.has(key))
      problems.push({
        subject: key,
        what: `${key} is no setting of this command.`,
        remedy: nearest(key, known),
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

/** How a value may be shown: a secret's length at most. */
export function showValue(spec: SettingSpec, value: string): string {
  return spec.secret === true ? `(${value.length} characters, not shown)` : JSON.stringify(value);
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
  if (entry !== undefined && "unclear" in entry.value) {
    const what = `${key} in line ${entry.line} of .env is unclear: ${entry.value.unclear}.`;
    return { problem: { subject: key, what, remedy: "Put the value in single quotes." } };
  }
  if (entry !== undefined && "text" in entry.value && entry.value.text !== "")
    return { value: entry.value.text, origin: "saved" };
  return byDefault === undefined ? null : { value: byDefault, origin: "default" };
}

const PLACES: Record<Origin, string> = {
  flag: "given by flag",
  environment: "from the environment",
  saved: "in .env",
  default: "by default",
};

function check(spec: SettingSpec, { value, origin }: Setting): Problem | null {
  const place = PLACES[origin];
  const remedy =
    origin === "saved"
      ? `Mend it in .env, or give --set ${spec.key}=VALUE.`
      : `Give another value: --set ${spec.key}=VALUE.`;
  if (!spec.rule.holds(value)) {
    return {
      subject: spec.key,
      what: `${spec.key} ${place} is ${showValue(spec, value)}; it must be ${spec.rule.say}.`,
      remedy,
    };
  }
  if (quoteValue(value) === null) {
    const what = `${spec.key} ${place} is ${showValue(spec, value)}; no way of quoting it in .env is read alike by every program.`;
    return {
      subject: spec.key,
      what,
      remedy: "Leave out line breaks, and do not mix single quotes with $, # or backslashes.",
    };
  }
  return null;
}

function nearest(key: string, known: ReadonlySet<string>): string {
  const words = key.toUpperCase().split("_");
  const like = [...known].filter((name) => words.some((word) => word.length > 3 && name.includes(word)));
  return like.length > 0 ? `Did you mean ${like.slice(0, 3).join(", ")}?` : "The README lists the settings.";
}
