import type { AnyStep } from "../../src/engine/step.ts";
import type { FakeMaster } from "./fake-master.ts";
import { joinedBox, LAYOUT, stepOn, type RunOptions } from "./master-boxes.ts";

/** The secrets that a first run generates, in the order of `.env`. */
export const MINTED = [
  "CLUSTER_BASIC_AUTH",
  "POSTGRES_PASSWORD",
  "SYSTEM_KEY",
  "JWT_SECRET",
  "SESSION_SECRET",
  "ENCRYPTION_KEY",
];

/** A joined master. Tests copy it and break the copy. */
export const joined: FakeMaster = await joinedBox();

/** Removes keys from `.env`. */
export function lose(host: FakeMaster, ...keys: readonly string[]): void {
  const lines = host.files.textOf(LAYOUT.envFile).split("\n");
  const kept = lines.filter((line) => !keys.some((key) => line.startsWith(`${key}=`)));
  host.files.put(LAYOUT.envFile, kept.join("\n"), 0o600);
}

/** Removes `.env`. */
export function loseFile(host: FakeMaster): void {
  host.files.drop(LAYOUT.envFile);
}

/** Removes these containers; all of them if none is named. */
export function loseContainers(host: FakeMaster, ...names: readonly string[]): void {
  for (const name of names.length > 0 ? names : [...host.docker.boxes.keys()]) host.docker.boxes.delete(name);
}

/** Changes the value of a key in `.env`. */
export function replaceSaved(host: FakeMaster, key: string, value: string): void {
  lose(host, key);
  host.files.put(LAYOUT.envFile, `${host.files.textOf(LAYOUT.envFile)}${key}=${value}\n`, 0o600);
}

/** A joined box on which something was lost, and the step env-file of the next run. */
export async function after(
  arrange: (host: FakeMaster) => void,
  options: RunOptions = {},
): Promise<{ readonly host: FakeMaster; readonly step: AnyStep }> {
  const host = joined.copy();
  arrange(host);
  return { host, step: await stepOn(host, "env-file", options) };
}
