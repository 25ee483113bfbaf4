import type { Setting, SettingSpec } from "./settings.ts";

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
    const replaces = older !== undefined && older !== setting.value && spec.bindsData === true && dataLives;
    return { kind: replaces ? "would-replace" : "write-given" };
  }
  if (saved !== undefined) return { kind: "keep" };
  if (container !== undefined) return { kind: "recover", container: container.name };
  if (setting !== undefined) return { kind: "write-given" };
  if (spec.minted === undefined) return { kind: "leave-out" };
  return dataLives ? { kind: "lost" } : { kind: "mint" };
}
