import { FORMER_DEFAULTS } from "./former-defaults.ts";
import { NAMES, STORAGE_NAMES } from "./layout.ts";
import type { Generation, Setting, Settings, SettingSpec } from "./settings.ts";

/** What is known about one key of `.env` before a run changes anything. */
export interface SecretFacts {
  readonly spec: SettingSpec;
  /** From a flag, the environment, `.env` or a default. */
  readonly setting: Setting | undefined;
  /** The value in `.env`, regardless of flags and environment. */
  readonly saved: string | undefined;
  /** The value in the environment of one of our containers, and the name of that container. */
  readonly container: { readonly name: string; readonly value: string } | undefined;
  /** True if data exists that may depend on this value. */
  readonly hasData: boolean;
}

/** What to do about one key. */
export type SecretVerdict =
  | { readonly kind: "keep" }
  | { readonly kind: "write-given" }
  | { readonly kind: "recover"; readonly container: string }
  | { readonly kind: "generate" }
  /** An earlier version saved its default: the key becomes a comment. */
  | { readonly kind: "release" }
  | { readonly kind: "leave-out" }
  | { readonly kind: "lost" }
  | { readonly kind: "would-replace" };

/**
 * Decides about one key. For a secret, existing data counts too: while data exists that may depend on it, no
 * new secret is generated and no used secret is replaced. The secret is recovered from the environment of our
 * own container if that container still exists; otherwise the run halts.
 */
export function decideSecret({ spec, setting, saved, container, hasData }: SecretFacts): SecretVerdict {
  if (setting !== undefined && setting.origin !== "default") {
    if (setting.value === saved) return { kind: "keep" };
    const older = saved ?? container?.value;
    const replaces = older !== undefined && older !== setting.value && spec.immutable === true && hasData;
    return { kind: replaces ? "would-replace" : "write-given" };
  }
  if (saved !== undefined) return { kind: setting?.released === saved ? "release" : "keep" };
  if (container !== undefined) return { kind: "recover", container: container.name };
  if (setting !== undefined) return { kind: spec.bound === true ? "write-given" : "leave-out" };
  if (spec.generated === undefined) return { kind: "leave-out" };
  // What is not secret encrypts and signs nothing, so a new value takes nothing away from older data.
  return hasData && spec.secret === true ? { kind: "lost" } : { kind: "generate" };
}

/** A setting that can be read back from the environment of one of our containers. */
export interface Recoverable {
  readonly key: string;
  readonly container: string;
  /** The name of the variable in that container, if it differs from `key`. */
  readonly knownAs?: string;
}

/**
 * True if a value in a container's environment shows that `.env` has lost the operator's choice. A default that
 * is not saved can only be lost with the whole file: otherwise it is missing on purpose, and an older version's
 * default in an older container is no choice.
 */
export function mayBeLost(spec: SettingSpec, value: string, isEnvLost: boolean): boolean {
  if (spec.byDefault === undefined || spec.bound === true) return true;
  const isDefault = value === spec.byDefault || FORMER_DEFAULTS[spec.key]?.includes(value) === true;
  return isEnvLost && !isDefault;
}

const DATABASE = ["POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_USER"];
const SIGNING = ["JWT_SECRET", "SESSION_SECRET"];

/** The settings in the environment of a master's containers (compose/*.yml). The most reliable source comes first. */
export const MASTER_RECOVERABLE: readonly Recoverable[] = [
  ...DATABASE.map((key) => ({ key, container: NAMES.postgres })),
  ...[...DATABASE, ...SIGNING, "SYSTEM_KEY", "CLUSTER_BASIC_AUTH"].map((key) => ({
    key,
    container: NAMES.pinningApi,
  })),
  ...[...DATABASE, ...SIGNING, "ENCRYPTION_KEY", "ETHERSCAN_API_KEY", "MASTER_ID"].map((key) => ({
    key,
    container: NAMES.webui,
  })),
  { key: "SYSTEM_KEY", container: NAMES.webui, knownAs: "PINNING_SYSTEM_KEY" },
  ...["CLUSTER_SECRET", "CLUSTER_PEERNAME"].map((key) => ({ key, container: NAMES.cluster })),
  { key: "CLUSTER_BASIC_AUTH", container: NAMES.cluster, knownAs: "CLUSTER_CREDENTIALS" },
];

/** The settings in the environment of a storage node's containers (compose/storage-*.yml, compose/ingest.yml). */
export const STORAGE_RECOVERABLE: readonly Recoverable[] = [
  ...["CLUSTERNAME", "CLUSTER_SECRET", "CLUSTER_PEERNAME"].map((key) => ({
    key,
    container: STORAGE_NAMES.cluster,
  })),
  { key: "CLUSTER_BASIC_AUTH", container: STORAGE_NAMES.cluster, knownAs: "CLUSTER_CREDENTIALS" },
  {
    key: "MASTER_CLUSTER_PEERIDS",
    container: STORAGE_NAMES.cluster,
    knownAs: "CLUSTER_CRDT_TRUSTEDPEERS",
  },
  { key: "MASTER_CLUSTER_BOOTSTRAP", container: STORAGE_NAMES.cluster, knownAs: "CLUSTER_PEERADDRESSES" },
  ...["KUBO_PRIVATE_NETWORK", "KUBO_STORAGE_MAX"].map((key) => ({ key, container: STORAGE_NAMES.kubo })),
  ...["STORAGE_API_URL", "STORAGE_API_CA", "INGEST_QUOTA_MODE", "INGEST_PORT", "INGEST_BIND"].map((key) => ({
    key,
    container: STORAGE_NAMES.ingest,
  })),
];

/** How the password of an ipfs-cluster that fula-node creates is generated. */
export const GENERATED_AUTH: Generation = { kind: "credentials", user: "fula-node", characters: 40 };

/** Adds CLUSTER_SECRET, derived from CLUSTERNAME as upstream does, unless one is given. */
export function withClusterSecret(settings: Settings, hash: (text: string) => string): Settings {
  const name = settings.get("CLUSTERNAME");
  if (name === undefined || settings.has("CLUSTER_SECRET")) return settings;
  return new Map([...settings, ["CLUSTER_SECRET", { value: hash(name.value), origin: "default" }]]);
}
