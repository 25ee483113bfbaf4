import { NAMES, STORAGE_NAMES } from "./layout.ts";
import type { Setting, Settings, SettingSpec } from "./settings.ts";

/** What is known about one key of `.env` before a run touches anything. */
export interface SecretFacts {
  readonly spec: SettingSpec;
  /** Given by flag or environment, or saved in `.env`. */
  readonly setting: Setting | undefined;
  /** What `.env` holds by itself, whatever this run was given. */
  readonly saved: string | undefined;
  /** The same key in the environment of a container of ours, and that container's name. */
  readonly container: { readonly name: string; readonly value: string } | undefined;
  /** True where data that may have been made with this value lives. */
  readonly dataLives: boolean;
}

/** What is to be done about one key. */
export type SecretVerdict =
  | { readonly kind: "keep" }
  | { readonly kind: "write-given" }
  | { readonly kind: "recover"; readonly container: string }
  | { readonly kind: "mint" }
  | { readonly kind: "leave-out" }
  | { readonly kind: "lost" }
  | { readonly kind: "would-replace" };

/**
 * Decides about one key: a setting goes by its value, a secret also by what was made with it. Over data
 * that lives nothing is ever minted, and nothing that the data was made with is replaced: it is recovered
 * from our own container's environment where that still stands, or the run halts.
 */
export function decideSecret({ spec, setting, saved, container, dataLives }: SecretFacts): SecretVerdict {
  if (setting !== undefined && setting.origin !== "default") {
    if (setting.value === saved) return { kind: "keep" };
    const older = saved ?? container?.value;
    const replaces = older !== undefined && older !== setting.value && spec.immutable === true && dataLives;
    return { kind: replaces ? "would-replace" : "write-given" };
  }
  if (saved !== undefined) return { kind: "keep" };
  if (container !== undefined) return { kind: "recover", container: container.name };
  if (setting !== undefined) return { kind: "write-given" };
  if (spec.generated === undefined) return { kind: "leave-out" };
  return dataLives ? { kind: "lost" } : { kind: "mint" };
}

/** A setting that a container of ours tells in its environment. */
export interface Recoverable {
  readonly key: string;
  readonly container: string;
  /** The name by which that container knows it, where it is another. */
  readonly knownAs?: string;
}

const DATABASE = ["POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_USER"];
const SIGNING = ["JWT_SECRET", "SESSION_SECRET"];

/** What a master's containers tell of its settings (compose/*.yml), the surest teller first. */
export const MASTER_RECOVERABLE: readonly Recoverable[] = [
  ...DATABASE.map((key) => ({ key, container: NAMES.postgres })),
  ...[...DATABASE, ...SIGNING, "SYSTEM_KEY", "CLUSTER_BASIC_AUTH"].map((key) => ({
    key,
    container: NAMES.pinningApi,
  })),
  ...[...DATABASE, ...SIGNING, "ENCRYPTION_KEY", "ETHERSCAN_API_KEY"].map((key) => ({
    key,
    container: NAMES.webui,
  })),
  { key: "SYSTEM_KEY", container: NAMES.webui, knownAs: "PINNING_SYSTEM_KEY" },
  ...["CLUSTER_SECRET", "CLUSTER_PEERNAME"].map((key) => ({ key, container: NAMES.cluster })),
];

/** What a storage node's containers tell of its settings (compose/storage-*.yml, compose/ingest.yml). */
export const STORAGE_RECOVERABLE: readonly Recoverable[] = [
  ...["CLUSTERNAME", "CLUSTER_SECRET", "CLUSTER_PEERNAME"].map((key) => ({
    key,
    container: STORAGE_NAMES.cluster,
  })),
  {
    key: "MASTER_CLUSTER_PEERIDS",
    container: STORAGE_NAMES.cluster,
    knownAs: "CLUSTER_CRDT_TRUSTEDPEERS",
  },
  { key: "MASTER_CLUSTER_BOOTSTRAP", container: STORAGE_NAMES.cluster, knownAs: "CLUSTER_PEERADDRESSES" },
  ...["KUBO_PRIVATE_NETWORK", "KUBO_STORAGE_MAX"].map((key) => ({ key, container: STORAGE_NAMES.kubo })),
  ...["STORAGE_API_URL", "INGEST_QUOTA_MODE", "INGEST_PORT", "INGEST_BIND"].map((key) => ({
    key,
    container: STORAGE_NAMES.ingest,
  })),
];

/** The pool's secret follows from its name, as upstream has it, unless one is given. */
export function withClusterSecret(settings: Settings, hash: (text: string) => string): Settings {
  const name = settings.get("CLUSTERNAME");
  if (name === undefined || settings.has("CLUSTER_SECRET")) return settings;
  return new Map([...settings, ["CLUSTER_SECRET", { value: hash(name.value), origin: "default" }]]);
}
