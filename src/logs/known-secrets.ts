import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { parseEnvFile } from "../settings/env-file.ts";
import { type MasterLayout, POSTGRES_TLS_FILES } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { savedValue } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";

const SECRET_KEYS: ReadonlySet<string> = new Set(
  [...MASTER_SETTINGS, ...STORAGE_SETTINGS].flatMap(({ key, secret }) => (secret === true ? [key] : [])),
);
/** Keys of other programs in `.env` and in containers whose value is a secret. */
const SECRET_NAME = /pass|secret|token|credential|auth|(?:^|_)(?:key|pem|jwt|dsn)(?:_|$)|api_?key|private/i;

/** True if the value of this key is a secret. A key that we do not know counts by its name. */
export function isSecretKey(key: string): boolean {
  if (SECRET_KEYS.has(key)) return true;
  const isKnown = [...MASTER_SETTINGS, ...STORAGE_SETTINGS].some((spec) => spec.key === key);
  return !isKnown && SECRET_NAME.test(key);
}

/**
 * Every secret of the node on this machine that a log could have: from `.env`, from the environment of its containers, from a
 * change of a secret that is not finished, and its keys. What can't be read is left out: then no program here has read it.
 */
export async function readKnownSecrets(
  host: Pick<HostReader, "files" | "docker">,
  layout: MasterLayout,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ReadonlySet<string>> {
  const { files, docker } = host;
  const read = (path: string) => orNull(() => files.readText(path));
  const keyFiles = [
    layout.signingKey,
    `${layout.postgresTlsDir}/ca.key`,
    `${layout.postgresTlsDir}/${POSTGRES_TLS_FILES.directory}/${POSTGRES_TLS_FILES.key}`,
  ];
  const [env, rotation, keys, containers] = await Promise.all([
    read(layout.envFile),
    read(layout.rotation),
    Promise.all(keyFiles.map(read)),
    orNull(() => docker.containers()),
  ]);
  const parsed = parseEnvFile(env ?? "");
  const saved = parsed.ok ? parsed.entries.map(({ key }) => [key, savedValue(parsed, key)] as const) : [];
  const pairs = [
    ...saved,
    ...linesOf(env ?? ""),
    ...(containers ?? []).flatMap((one) => Object.entries(one.env)),
    ...Object.entries(environment),
  ];
  const secrets = pairs.flatMap(([key, value = ""]) =>
    isSecretKey(key) && (SECRET_KEYS.has(key) || value.length >= SHORTEST_UNKNOWN) ? [value] : [],
  );
  const found = [...secrets, ...keys.flatMap((text) => text ?? []), ...valuesIn(rotation)];
  return new Set(found.filter((secret) => secret !== ""));
}

/** Of a key that we do not know, a short value is a word such as `trust`. */
const SHORTEST_UNKNOWN = 8;

/** A `.env` that is not valid still has secrets. */
function linesOf(text: string): readonly (readonly [string, string])[] {
  return text.split("\n").flatMap((line) => {
    const [, key = "", value = ""] = /^\s*(?:export\s+)?([\w.]+)\s*=\s*["']?(.*?)["']?\s*$/.exec(line) ?? [];
    return key === "" ? [] : [[key, value] as const];
  });
}

/** The values in the record of a change of a secret, also if it was cut off. */
function valuesIn(record: string | null): readonly string[] {
  return [...(record ?? "").matchAll(/"(?:previous|next)"\s*:\s*("(?:[^"\\]|\\.)*")/g)].map(
    ([, text = '""']) => String(JSON.parse(text)),
  );
}

async function orNull<Answer>(ask: () => Promise<Answer>): Promise<Answer | null> {
  try {
    return await ask();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}
