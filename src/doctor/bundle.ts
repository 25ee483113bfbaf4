import { findEntry } from "../settings/env-file.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { readSavedSettings } from "../join/settings-source.ts";
import { isSecretKey } from "../logs/known-secrets.ts";
import { openLogFile } from "../logs/log-file.ts";
import { readLogs } from "../logs/read-logs.ts";
import type { Redact } from "../logs/redact.ts";
import { type LogSource, sourcesOf } from "../logs/sources.ts";
import { CRON_FILES, masterLayout, type MasterLayout } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { savedValue, type SettingSpec } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import type { StatusDeps } from "../status/look-at-node.ts";
import type { BundleEntry } from "./bundle-file.ts";
import type { Diagnosis } from "./examine.ts";

/** How many of the last lines of each log are taken, and how much of a text at most. */
const LOG_LINES = 2_000;
const MAX_TEXT = 4 * 1024 ** 2;

/**
 * The files of an archive for support, one after the other. Every text passes `redact`, which is the only way into the archive.
 * A thing that can't be read leaves a file that says why.
 */
export async function* bundleEntries(
  diagnosis: Diagnosis,
  lines: readonly string[],
  { deps, redact, stop }: { readonly deps: StatusDeps; readonly redact: Redact; readonly stop: AbortSignal },
): AsyncGenerator<BundleEntry> {
  const { host } = deps;
  const layout = masterLayout(diagnosis.baseDir);
  const parts: readonly (readonly [name: string, read: () => Promise<string | null>])[] = [
    ["doctor.txt", async () => `${lines.join("\n")}\n`],
    ["doctor.json", async () => asJson(diagnosis)],
    ["versions.json", async () => asJson(await versionsOf(deps))],
    ["settings.txt", () => settingsOf(diagnosis.kind, layout, deps)],
    ["containers.json", async () => asJson(await containersOf(host))],
    ["listeners.json", async () => asJson(await host.system.listeners())],
    ...filesOf(layout, await writerDirOf(layout, deps)).map(
      ([name, path]) => [name, () => host.files.readText(path)] as const,
    ),
    ...(diagnosis.kind === null ? [] : sourcesOf(diagnosis.kind, layout)).map(
      (source) => [`logs/${source.name}.log`, () => logOf(source, deps, stop)] as const,
    ),
  ];
  for (const [name, read] of parts) {
    const text = await orWhy(read);
    if (text !== null) yield { name, text: lastLines(redact(text)) };
  }
}

/** The end of a text that is too long, from the beginning of a line. It must be redacted: a cut secret is not recognised. */
function lastLines(text: string): string {
  if (text.length <= MAX_TEXT) return text;
  const end = text.slice(-MAX_TEXT);
  return end.slice(end.indexOf("\n") + 1);
}

async function orWhy(read: () => Promise<string | null>): Promise<string | null> {
  try {
    return await read();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return `Not read: ${thrown.what} ${thrown.why ?? ""}\n`;
    throw thrown;
  }
}

function asJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

async function versionsOf({ host, version, nodePath }: StatusDeps): Promise<unknown> {
  const [os, engine, compose, images] = await Promise.all([
    host.system.os(),
    host.docker.version(),
    host.docker.composeVersion(),
    host.docker.listImages(),
  ]);
  return {
    "fula-node": version,
    node: { version: process.version, path: nodePath },
    os,
    memoryBytes: host.system.memoryBytes(),
    docker: engine,
    compose,
    images: images.map(({ id, tags }) => ({ id, tags })),
    at: host.clock.now().toISOString(),
  };
}

/** Each setting, with its value only if it is ours and no secret. Of other keys, the names. */
async function settingsOf(
  kind: Diagnosis["kind"],
  { envFile }: MasterLayout,
  deps: StatusDeps,
): Promise<string> {
  const specs: readonly SettingSpec[] = kind === "storage-node" ? STORAGE_SETTINGS : MASTER_SETTINGS;
  const saved = await readSavedSettings(deps, envFile);
  const known = specs.map(({ key }) => {
    if (findEntry(saved, key) === undefined) return `# ${key} is not set`;
    return isSecretKey(key)
      ? `# ${key} is set (secret)`
      : `${key}=${savedValue(saved, key) ?? "(not clear)"}`;
  });
  const others = saved.entries
    .filter(({ key }) => !specs.some((spec) => spec.key === key))
    .map(({ key }) => `# ${key} is set (not a setting of fula-node)`);
  return `${[...known, ...others].join("\n")}\n`;
}

/** What Docker says about each container, without its environment and without the values of labels that are not Compose's. */
async function containersOf({ docker }: HostReader): Promise<unknown> {
  const containers = await docker.containers();
  return containers.map(({ env, labels, ...rest }) => ({
    ...rest,
    variables: Object.keys(env).toSorted(),
    labels: Object.fromEntries(
      Object.entries(labels).filter(
        ([key]) => key.startsWith("com.docker.compose.") || key.startsWith("land.fx."),
      ),
    ),
  }));
}

/** Where the writer of a master is; its default, if `.env` can't be read. */
async function writerDirOf({ envFile }: MasterLayout, deps: StatusDeps): Promise<string> {
  const byDefault = MASTER_SETTINGS.find(({ key }) => key === "WRITER_DIR")?.byDefault ?? "";
  try {
    return savedValue(await readSavedSettings(deps, envFile), "WRITER_DIR") ?? byDefault;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return byDefault;
    throw thrown;
  }
}

function filesOf(
  layout: MasterLayout,
  writerDir: string,
): readonly (readonly [name: string, path: string])[] {
  return [
    ["compose/node.yml", layout.composeFile],
    ["compose/writer.yml", `${writerDir}/docker-compose.yml`],
    ...Object.entries(CRON_FILES).map(([name, path]) => [`cron/${name}`, path] as const),
    ["state/snapshot-heartbeat.json", layout.snapshotHeartbeat],
    ["state/sweep-heartbeat.json", layout.sweepHeartbeat],
    ["state/backup-heartbeat.json", layout.backupHeartbeat],
    ["state/backups.json", layout.backupRecord],
    ["state/drills.json", layout.drillRecord],
    ["state/restore-proof.json", layout.restoreRecord],
    ["state/known-nodes.json", layout.knownNodes],
    ["state/announced.json", layout.announced],
    ["state/unfinished-images.txt", layout.unfinishedImages],
    ["machine/meminfo", "/proc/meminfo"],
    ["machine/loadavg", "/proc/loadavg"],
    ["machine/mounts", "/proc/self/mountinfo"],
    ["machine/resolv.conf", "/etc/resolv.conf"],
    ["machine/daemon.json", "/etc/docker/daemon.json"],
  ];
}

/** The last lines of a log; null if there is none. */
async function logOf(source: LogSource, { host }: StatusDeps, stop: AbortSignal): Promise<string | null> {
  const found: string[] = [];
  const query = {
    since: null,
    lines: LOG_LINES,
    follow: false,
    signal: stop,
    areNamed: false,
    missing: (_source: string, why: string) => void found.push(`Not read: ${why}`),
  };
  let sizeChars = 0;
  for await (const { atMs, text } of readLogs([source], { host, openLogFile }, query)) {
    found.push(`${new Date(atMs).toISOString()} ${text}`);
    sizeChars += text.length;
    // The last lines count: what is too much goes at the front.
    while (sizeChars > MAX_TEXT) sizeChars -= found.shift()?.length ?? sizeChars;
  }
  return found.length === 0 ? null : `${found.join("\n")}\n`;
}
