import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { STORAGE_SETTINGS } from "../../src/settings/storage.ts";
import type { Box } from "./box.ts";
import { replacing, type Replace } from "./end-state-rules.ts";

/** What end-state-survey.cjs prints. */
export interface Survey {
  readonly files: readonly SurveyedFile[];
  /** Null if no engine answers. */
  readonly docker: {
    readonly containers: readonly Inspected[];
    readonly volumes: readonly Inspected[];
    readonly networks: readonly Inspected[];
    readonly images: readonly Inspected[];
  } | null;
  readonly units: readonly string[];
  /** root's own cron table. */
  readonly tables: string;
  /** Null if no database of ours answers. */
  readonly database: {
    readonly dump: string;
    readonly rows: readonly { readonly name: string; readonly rows: number }[];
    readonly ledger: readonly Inspected[];
    readonly invalid: readonly { readonly name: string }[];
    readonly roles: readonly Inspected[];
    readonly system: string;
  } | null;
}

export interface SurveyedFile {
  readonly path: string;
  readonly kind: string;
  readonly mode: string;
  readonly owner: string;
  /** The hash, the target of a link, or nothing for a directory. */
  readonly content?: string;
  readonly text?: string;
}

/** An object of Docker's API or a row, as it came. */
export type Inspected = Readonly<Record<string, unknown>>;

/** The end state of a box as data that can be compared and kept as JSON. No value of a secret is in it. */
export interface EndState {
  /** By a name that says what it is (`file /opt/…`, `container …`, `table …`), everything about it that a clean run fixes. */
  readonly things: Readonly<Record<string, string>>;
  /** By name, a fingerprint of what must not change once it was written: secrets, identities, keys, snapshots. */
  readonly kept: Readonly<Record<string, string>>;
}

/** Rows that come and go by themselves: leases, scans of chains, sessions. */
const MOVING_TABLES = /^public\.(?:cron_lease|chain_scans|chain_sync_state|node_releases)$/;
const BASES = ["/opt/fula-master", "/opt/fula-storage"];
const SECRETS = new Set(
  [...MASTER_SETTINGS, ...STORAGE_SETTINGS]
    .filter(({ key, secret }) => secret === true || key === "MASTER_ID")
    .map(({ key }) => key),
);

/** Looks at a box: everything that a run of fula-node may write to. */
export async function endStateOf(box: Box): Promise<EndState> {
  const script = readFileSync(`${import.meta.dirname}/end-state-survey.cjs`, "utf8");
  const { stdout } = await box.run(["node", "-"], { input: script });
  return toEndState(JSON.parse(stdout) as Survey);
}

/** Makes a survey comparable: what each box has for itself gets the name of what it is. */
export function toEndState(survey: Survey): EndState {
  const own = ownValues(survey.files);
  const replace = replacing(own.map(([name, value]) => [value, `<${name}>`]));
  const things = new Map<string, string>();
  const add = (name: string, text: string): void => {
    // Two files whose names differ in their time only are two files.
    let count = 1;
    let free = name;
    while (things.has(free)) free = `${name} #${(count += 1)}`;
    things.set(free, text);
  };
  for (const file of survey.files) {
    const path = replace(file.path, file.path);
    if (path !== null) add(`file ${path}`, describeFile(file, replace));
  }
  for (const [name, text] of dockerThings(survey.docker, replace)) add(name, text);
  for (const unit of survey.units) add(`unit ${unit}`, "");
  if (survey.tables !== "") add("crontab of root", survey.tables);
  for (const [name, text] of databaseThings(survey.database)) add(name, text);
  const kept = new Map(own);
  if (survey.database !== null) kept.set("system identifier of Postgres", survey.database.system);
  for (const [name, value] of signedSnapshots(survey.files)) kept.set(name, value);
  return {
    things: Object.fromEntries([...things].toSorted(byName)),
    kept: Object.fromEntries([...kept].toSorted(byName).map(([name, value]) => [name, fingerprint(value)])),
  };
}

function describeFile({ path, kind, mode, owner, text, content }: SurveyedFile, replace: Replace): string {
  if (path.endsWith(".manifest.sig")) return `${kind} ${mode} ${owner} (signature)`;
  const what =
    text === undefined ? content : path.endsWith(".ndjson") ? wholeLines(text) : replace(text, path);
  return [kind, mode, owner, what ?? ""].join(" ").trimEnd();
}

/** A journal differs from run to run. That each of its lines is whole does not; a kill may have cut off the last one, which the next line replaces. */
function wholeLines(text: string): string {
  const broken = text
    .split("\n")
    .slice(0, -1)
    .filter((line) => !isJson(line));
  return broken.length === 0 ? "(lines, all whole)" : `(${broken.length} broken lines)`;
}

function isJson(line: string): boolean {
  try {
    JSON.parse(line);
    return true;
  } catch {
    return false;
  }
}

function dockerThings(docker: Survey["docker"], replace: Replace): readonly (readonly [string, string])[] {
  if (docker === null) return [["docker", "no engine answers"]];
  const { containers, volumes, networks, images } = docker;
  const imageNames = new Map(images.map((image) => [String(image["Id"]), imageName(image)]));
  const text = (thing: unknown): string => {
    let json = JSON.stringify(thing, null, 1);
    for (const [id, name] of imageNames) json = json.replaceAll(id, `<${name}>`);
    return replace(json, "docker") ?? "";
  };
  return [
    ...containers.map(
      (one) => [`container ${String(one["Name"]).slice(1)}`, text(ofContainer(one))] as const,
    ),
    ...volumes.map((one) => [`volume ${String(one["Name"])}`, text(pick(one, VOLUME_PARTS))] as const),
    ...networks.map((one) => [`network ${String(one["Name"])}`, text(pick(one, NETWORK_PARTS))] as const),
    ...images.map((one) => [imageName(one), text(ofImage(one))] as const),
  ];
}

const VOLUME_PARTS = ["Driver", "Labels", "Options", "Scope"];
const NETWORK_PARTS = ["Driver", "EnableIPv6", "Internal", "Labels", "Options"];

function pick(thing: Inspected, parts: readonly string[]): Inspected {
  return Object.fromEntries(parts.map((part) => [part, thing[part]]));
}

/** How a container is defined, and how it stands. Its ids, times, addresses and counts are its own. */
function ofContainer(one: Inspected): unknown {
  const {
    Id: id,
    Config,
    HostConfig,
    Mounts,
    NetworkSettings,
    State,
    Image,
  } = one as Inspected & {
    readonly Config: Inspected;
    readonly HostConfig: Inspected;
    readonly Mounts: readonly Inspected[];
    readonly NetworkSettings: { readonly Networks: Inspected };
    readonly State: { readonly Status: string; readonly Health?: { readonly Status: string } };
  };
  const { Hostname, Env, ...config } = Config;
  const isOwnName = String(id).startsWith(String(Hostname));
  return {
    state: [State.Status, State.Health?.Status ?? ""],
    image: Image,
    hostname: isOwnName ? "<id>" : Hostname,
    // Compose's order is random.
    environment: [...((Env ?? []) as readonly string[])].toSorted(),
    config,
    host: {
      // An engine that was restarted says [] where it had said null.
      ...Object.fromEntries(
        Object.entries(HostConfig).map(([key, value]) => [
          key,
          Array.isArray(value) && value.length === 0 ? null : value,
        ]),
      ),
      Binds: ((HostConfig["Binds"] ?? []) as readonly string[]).toSorted(),
      Mounts: sortedBy("Target", (HostConfig["Mounts"] ?? []) as readonly Inspected[]),
    },
    mounts: sortedBy("Destination", Mounts),
    networks: Object.keys(NetworkSettings.Networks).toSorted(),
  };
}

/** Compose gives mounts in a random order. */
function sortedBy(key: string, things: readonly Inspected[]): readonly Inspected[] {
  return things.toSorted((one, two) => String(one[key]).localeCompare(String(two[key])));
}

/** What an image is made of. The last two layers of one built here hold times, so a hash over their files stands for them. */
function ofImage(one: Inspected): unknown {
  const { Config, RootFS, RepoTags, Tree } = one as Inspected & {
    readonly Config: Inspected;
    readonly HostConfig: Inspected;
    readonly RootFS: { readonly Layers: readonly string[] };
    readonly RepoTags: readonly string[];
  };
  const { Image: _parent, ...config } = Config;
  const isBuiltHere = RepoTags.length === 0 || RepoTags.some((tag) => tag.startsWith("fula-node:"));
  return {
    config,
    layers: isBuiltHere ? [...RootFS.Layers.slice(0, -2), Tree] : RootFS.Layers,
  };
}

function imageName(image: Inspected): string {
  const [tag] = image["RepoTags"] as readonly string[];
  return tag === undefined ? "image without a name" : `image ${tag}`;
}

function databaseThings(database: Survey["database"]): readonly (readonly [string, string])[] {
  if (database === null) return [];
  const { dump, rows, ledger, invalid, roles } = database;
  return [
    ...schemaParts(dump),
    ...rows
      .filter(({ name }) => !MOVING_TABLES.test(name))
      .map(({ name, rows: count }) => [`rows of ${name}`, String(count)] as const),
    ...ledger.map((row) => [`migration ${String(row["version"])}`, JSON.stringify(row)] as const),
    ...invalid.map(({ name }) => [`invalid index ${name}`, ""] as const),
    ...roles.map((role) => [`role ${String(role["rolname"])}`, JSON.stringify(role)] as const),
  ];
}

/** The parts of a dump, each under the name that pg_dump gives it. */
function schemaParts(dump: string): readonly (readonly [string, string])[] {
  const parts = dump.split(/^--\n-- Name: /m).slice(1);
  return parts.map((part) => {
    const [title = "", ...lines] = part.split("\n");
    const body = lines.filter((line) => line !== "" && !/^(?:--|\\|SET default_)/.test(line));
    return [`schema ${title.replace(/; Owner: .*$/, "")}`, body.join("\n")] as const;
  });
}

/** What each box has for itself, by name: secrets and identities in its files. The longest value comes first. */
function ownValues(files: readonly SurveyedFile[]): readonly (readonly [string, string])[] {
  const found = new Map<string, string>();
  const note = (name: string, value: unknown): void => {
    if (typeof value === "string" && value.length >= 8 && ![...found.values()].includes(value))
      found.set(name, value);
  };
  for (const { path, text = "" } of files) {
    if (BASES.some((base) => path === `${base}/.env`)) {
      for (const [, key = "", value = ""] of text.matchAll(/^([A-Z][A-Z_0-9]*)=(.*)$/gm)) {
        if (!SECRETS.has(key)) continue;
        note(key, value);
        if (key === "CLUSTER_BASIC_AUTH") note(`${key}, its password`, value.split(":")[1]);
      }
    } else if (/\/(?:kubo|kubo-data|_data)\/config$/.test(path)) {
      const { Identity } = parsed(text) as { Identity?: { PeerID?: string; PrivKey?: string } };
      note("peer id of kubo", Identity?.PeerID);
      note("private key of kubo", Identity?.PrivKey);
    } else if (path.endsWith("/identity.json")) {
      const { id, private_key: key } = parsed(text) as { id?: string; private_key?: string };
      note("peer id of ipfs-cluster", id);
      note("private key of ipfs-cluster", key);
    } else if (path.endsWith(".pem") || path.endsWith(".key")) {
      // What is unpacked of a backup is kept in its final place.
      note(path.replace(/^\/opt\/[^/]+\/(?:\.?from-backup(?:\.backup-partial)?\/base\/)?/, ""), text);
    }
  }
  return [...found].toSorted(([, one], [, two]) => two.length - one.length);
}

function parsed(text: string): unknown {
  return isJson(text) ? JSON.parse(text) : {};
}

/** The snapshots that were completed: a later run may add one, and lose none. */
function signedSnapshots(files: readonly SurveyedFile[]): readonly (readonly [string, string])[] {
  return files
    .filter(({ path }) => path.endsWith(".manifest.sig"))
    .map(({ path, content, text }) => [`snapshot ${path.split("/").at(-1)}`, content ?? text ?? ""] as const);
}

function byName([one]: readonly [string, string], [two]: readonly [string, string]): number {
  return one < two ? -1 : one > two ? 1 : 0;
}

/** Enough to see that a value changed, without showing it. */
function fingerprint(value: string): string {
  return createHash("sha256").update(value).digest("hex").slice(0, 16);
}

/** What differs between the end state of a clean run and another, one line each; empty if nothing does. */
export function stateDifference(clean: EndState, other: EndState): readonly string[] {
  const names = [...new Set([...Object.keys(clean.things), ...Object.keys(other.things)])].toSorted();
  return names.flatMap((name) => {
    const [one, two] = [clean.things[name], other.things[name]];
    if (one === two) return [];
    if (one === undefined) return [`more: ${name}`];
    if (two === undefined) return [`less: ${name}`];
    return [`changed: ${name}: ${firstDifference(one, two)}`];
  });
}

/** The first line that differs, from both. */
function firstDifference(one: string, two: string): string {
  const [ours, theirs] = [one.split("\n"), two.split("\n")];
  const at = ours.findIndex((line, index) => line !== theirs[index]);
  const index = at === -1 ? ours.length : at;
  const shown = (line: string | undefined): string =>
    line === undefined ? "(nothing)" : line.trim().slice(0, 200);
  return `${shown(ours[index])} -> ${shown(theirs[index])}`;
}

/** What a later state lost or changed of what had been written once, one line each. */
export function lostSince(earlier: EndState, later: EndState): readonly string[] {
  return Object.entries(earlier.kept).flatMap(([name, value]) => {
    const now = later.kept[name];
    if (now === value) return [];
    return [`${now === undefined ? "lost" : "changed"}: ${name}`];
  });
}
