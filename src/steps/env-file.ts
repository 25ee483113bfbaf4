import type { Change, Finding, Foreign, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { Host, HostReader } from "../host.ts";
import { nameOfKind } from "../machine/file-reader.ts";
import {
  type ContainerEnv,
  type DataGuard,
  type NodeContext,
  readContainerEnv,
  readEnvFile,
} from "../settings/context.ts";
import { findEntry, newEnvText, setValues } from "../settings/env-file.ts";
import { secretNameOf } from "../settings/rotation.ts";
import { decideSecret, type SecretVerdict } from "../settings/secrets.ts";
import {
  describeSetting,
  type Generation,
  savedValue,
  type SettingSpec,
  VERSION_KEY,
} from "../settings/settings.ts";
import { countOf } from "../units.ts";

/** What to do with the file's keys. Never holds their values. */
interface Seen {
  readonly set: readonly string[];
  readonly generate: readonly string[];
  readonly recover: readonly Recovery[];
  /** Defaults that an earlier version saved. */
  readonly release: readonly string[];
  /** What the new values set off, for the plan. */
  readonly setsOff: readonly string[];
}

type Recovery = { readonly key: string; readonly container: string };

type Verdicts = readonly { readonly spec: SettingSpec; readonly verdict: SecretVerdict }[];

type EnvFileChange =
  | (Change & {
      readonly kind: "write-env";
      readonly path: string;
      /** Keys only. A change never contains values. */
      readonly set: readonly string[];
      readonly mint: readonly string[];
      readonly recover: readonly Recovery[];
      readonly release: readonly string[];
    })
  | (Change & { readonly kind: "restrict-env"; readonly path: string });

/** Settings and secrets in `.env` (0600). While data exists, its lost secrets are never replaced by new ones. */
export function envFile(context: NodeContext, guard: DataGuard): StepSpec<Seen, EnvFileChange> {
  const { layout } = context;
  return {
    id: "env-file",
    title: "settings and secrets",
    touches: "Writes settings and secrets to `.env` (0600). Generates each missing secret once.",
    probe: (host) => probe(host, context, guard),

    plan(finding) {
      if (finding.state === "ours") return [];
      const { set, generate, recover, release } = finding.seen;
      if (set.length + generate.length + recover.length + release.length === 0) {
        return [
          {
            kind: "restrict-env",
            summary: `make ${layout.envFile} readable by root only`,
            path: layout.envFile,
          },
        ];
      }
      return [
        {
          kind: "write-env",
          summary: describe(layout.envFile, finding.seen),
          path: layout.envFile,
          set,
          mint: generate,
          recover,
          release,
        },
      ];
    },

    apply: (change, host) => apply(change, host, context),

    async verify(host) {
      const stat = await host.files.stat(layout.envFile);
      const file = await readEnvFile(host, layout.envFile);
      const missing = context.specs.filter(
        ({ key, generated, byDefault, bound }) =>
          (generated !== undefined || (bound === true && byDefault !== undefined)) &&
          findEntry(file, key) === undefined,
      );
      if (stat !== null && stat.mode === 0o600 && missing.length === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${layout.envFile} does not have the content that was just written: ${stat === null ? "it is missing" : `mode ${stat.mode.toString(8)}, missing: ${missing.map(({ key }) => key).join(", ") || "nothing"}`}.`,
        remedy: "Another program changes this file. Find that program, then run again.",
      });
    },
  };
}

async function probe(host: HostReader, context: NodeContext, guard: DataGuard): Promise<Finding<Seen>> {
  const { layout, settings, version } = context;
  const [file, stat] = await Promise.all([
    readEnvFile(host, layout.envFile),
    host.files.stat(layout.envFile),
  ]);
  const [containerEnv, liveData] = await Promise.all([
    readContainerEnv(host, { ...context, saved: file }),
    guard.findLiveData(host),
  ]);
  const saved = (key: string) => savedValue(file, key);
  const verdicts: { spec: SettingSpec; verdict: SecretVerdict }[] = [];
  for (const spec of context.specs) {
    const known = containerEnv.get(spec.key);
    const facts = {
      spec,
      setting: settings.get(spec.key),
      saved: saved(spec.key),
      container: known !== undefined && spec.rule.holds(known.value) ? known : undefined,
    };
    let verdict = decideSecret({ ...facts, hasData: liveData !== null });
    if (verdict.kind === "lost" && (await guard.countDependents(host, spec.key)) === 0)
      verdict = { kind: "generate" };
    verdicts.push({ spec, verdict });
  }
  const evidence = {
    file: stat === null ? "absent" : `mode ${stat.mode.toString(8)}`,
    "live data": liveData ?? "none found",
  };
  const refusal = refuse(verdicts, evidence, context) ?? (await guard.check(host, evidence));
  if (refusal !== null) return refusal;
  if (stat !== null && stat.kind !== "file") {
    return {
      state: "foreign",
      evidence,
      why: `${layout.envFile} is a ${nameOfKind(stat.kind)}, not a file.`,
      remedy: "Replace it with a regular file.",
    };
  }
  const seen: Seen = {
    set: [...keysOf(verdicts, "write-given"), ...(saved(VERSION_KEY) === version ? [] : [VERSION_KEY])],
    generate: keysOf(verdicts, "generate"),
    recover: verdicts.flatMap(({ spec, verdict }) =>
      verdict.kind === "recover" ? [{ key: spec.key, container: verdict.container }] : [],
    ),
    release: keysOf(verdicts, "release"),
    setsOff: context.specs.flatMap((spec) => spec.setsOff?.(saved, settings) ?? []),
  };
  if (stat === null) {
    const isInherited = (key: string) => settings.get(key)?.origin === "environment";
    const inherited = seen.set.filter(isInherited).map((key) => describeSet(key, undefined, context));
    return { state: "absent", seen, evidence, settings: inherited };
  }
  const changed = [
    ...seen.set.filter((key) => key !== VERSION_KEY).map((key) => describeSet(key, saved(key), context)),
    ...seen.release.map((key) => describeSet(key, saved(key), context)),
  ];
  const drift = [
    ...changed,
    ...(seen.set.includes(VERSION_KEY)
      ? [`${VERSION_KEY} ${saved(VERSION_KEY) ?? "(none)"} -> ${version}`]
      : []),
    ...(seen.generate.length === 0 ? [] : [`missing: ${seen.generate.join(", ")}`]),
    ...seen.recover.map(
      ({ key, container }) => `missing, but the container ${container} still has it: ${key}`,
    ),
    ...(stat.mode === 0o600 ? [] : [`other users can read it: mode ${stat.mode.toString(8)}`]),
  ];
  return drift.length === 0
    ? { state: "ours", seen, evidence }
    : { state: "drifted", seen, drift, evidence, settings: changed };
}

function keysOf(verdicts: Verdicts, kind: SecretVerdict["kind"]): readonly string[] {
  return verdicts.filter(({ verdict }) => verdict.kind === kind).map(({ spec }) => spec.key);
}

function refuse(
  verdicts: Verdicts,
  evidence: Foreign<Seen>["evidence"],
  { layout }: NodeContext,
): Foreign<Seen> | null {
  const lost = keysOf(verdicts, "lost");
  if (lost.length > 0) {
    return {
      state: "foreign",
      evidence,
      why: `${lost.join(", ")} ${lost.length === 1 ? "is" : "are"} missing, but data that needs ${lost.length === 1 ? "it" : "them"} exists (${evidence["live data"] ?? ""}).`,
      remedy: `Restore ${layout.envFile} from your backup, or pass the old values: ${lost.map((key) => `--set-file ${key}=PATH`).join(" ")}. To set a new Postgres password inside the database, see docs/troubleshooting.md#password.`,
    };
  }
  const replaced = keysOf(verdicts, "would-replace");
  if (replaced.length === 0) return null;
  return {
    state: "foreign",
    evidence,
    why: `The given ${replaced.join(", ")} ${replaced.length === 1 ? "differs" : "differ"} from what the existing data was created with.`,
    remedy: `Remove ${replaced.join(", ")} from the flags and the environment. ${howToReplace(replaced, layout.envFile)}`,
  };
}

/** How to replace these secrets on purpose. A secret without a rotation is only changed by hand. */
function howToReplace(keys: readonly string[], path: string): string {
  const names = keys.flatMap((key) => secretNameOf(key) ?? []);
  return names.length === keys.length
    ? `To change it and what depends on it: ${names.map((name) => `fula-node secret rotate ${name}`).join(", ")}.`
    : `Or, if you are sure, edit ${path}.`;
}

async function apply(change: EnvFileChange, host: Host, context: NodeContext): Promise<void> {
  if (change.kind === "restrict-env") {
    await host.files.chmod(change.path, 0o600);
    return;
  }
  const file = await readEnvFile(host, change.path);
  const containerEnv: ContainerEnv =
    change.recover.length === 0 ? new Map() : await readContainerEnv(host, { ...context, saved: file });
  const values = new Map<string, string>();
  for (const key of change.set) {
    const value = key === VERSION_KEY ? context.version : context.settings.get(key)?.value;
    if (value !== undefined) values.set(key, value);
  }
  for (const { key, container } of change.recover) {
    const found = containerEnv.get(key);
    if (found === undefined) {
      throw new OperatorError({
        exit: "interrupted",
        what: `The container ${container} no longer has ${key}.`,
        remedy: "Run again.",
      });
    }
    values.set(key, found.value);
  }
  for (const key of change.mint) {
    const generated = context.specs.find((spec) => spec.key === key)?.generated;
    if (generated === undefined) throw new RangeError(`${key} is never generated`);
    values.set(key, makeSecret(host, generated));
  }
  const isNew = (await host.files.stat(change.path)) === null;
  const known = context.specs.map((spec) => ({ ...spec, about: describeSetting(spec) }));
  const next = isNew ? newEnvText(known, values) : setValues(file, values, new Set(change.release));
  await host.files.writeAtomic(change.path, next, { mode: 0o600 });
}

function makeSecret({ random }: Host, generation: Generation): string {
  if (generation.kind === "hex") return random.hex(generation.bytes);
  const token = random.token(generation.characters);
  return generation.kind === "token" ? token : `${generation.user}:${token}`;
}

const SOURCES = {
  flag: "--set",
  environment: "environment",
  saved: ".env",
  adopted: "adopted",
  default: "default",
} as const;

/** `REPL_MIN 2 -> 3 (--set)`: a setting that the run changes, with the source of its new value. A secret is not shown. */
function describeSet(key: string, old: string | undefined, { specs, settings }: NodeContext): string {
  const setting = settings.get(key);
  const isSecret = specs.some((spec) => spec.key === key && spec.secret === true);
  const show = (value: string | undefined) =>
    value !== undefined && isSecret ? "(secret)" : (value ?? "(none)");
  const source =
    setting?.released === undefined
      ? (setting?.offeredBy ?? SOURCES[setting?.origin ?? "default"])
      : "default released";
  return `${key} ${show(old)} -> ${show(setting?.value)} (${source})`;
}

function describe(path: string, { set, generate, recover, release, setsOff }: Seen): string {
  const parts = [
    ...(set.length > 0 ? [countOf(set.length, "setting")] : []),
    ...(release.length > 0 ? [`${countOf(release.length, "default")} no longer saved`] : []),
    ...(generate.length > 0 ? [`generated ${generate.join(", ")}`] : []),
    ...(recover.length > 0
      ? [`recovered ${recover.map(({ key, container }) => `${key} from ${container}`).join(", ")}`]
      : []),
    ...setsOff,
  ];
  return `write ${path}: ${parts.join("; ")}`;
}
