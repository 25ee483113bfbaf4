import type { AnyStep } from "../../src/engine/step.ts";
import type { FakeMaster } from "./fake-master.ts";
import { joinedBox, LAYOUT, stepOn, type Wishes } from "./master-boxes.ts";

/** The secrets that a first run mints, in the order of `.env`. */
export const MINTED = ["POSTGRES_PASSWORD", "SYSTEM_KEY", "JWT_SECRET", "SESSION_SECRET", "ENCRYPTION_KEY"];

/** A master that was joined, to be copied and broken. */
export const joined: FakeMaster = await joinedBox();

/** Takes keys out of `.env`. */
export function lose(host: FakeMaster, ...keys: readonly string[]): void {
  const lines = host.files.textOf(LAYOUT.envFile).split("\n");
  const kept = lines.filter((line) => !keys.some((key) => line.startsWith(`${key}=`)));
  host.files.put(LAYOUT.envFile, kept.join("\n"), 0o600);
}

/** Takes the whole of `.env` away. */
export function loseFile(host: FakeMaster): void {
  host.files.drop(LAYOUT.envFile);
}

/** Takes these containers away; all where none is named. */
export function loseContainers(host: FakeMaster, ...names: readonly string[]): void {
  for (const name of names.length > 0 ? names : [...host.docker.boxes.keys()]) host.docker.boxes.delete(name);
}

/** Puts another value of a key into `.env`. */
export function replaceSaved(host: FakeMaster, key: string, value: string): void {
  lose(host, key);
  host.files.put(LAYOUT.envFile, `${host.files.textOf(LAYOUT.envFile)}${key}=${value}\n`, 0o600);
}

/** A joined box on which something was lost, and the step env-file as the next run on it makes it. */
export async function after(
  arrange: (host: FakeMaster) => void,
  wishes: Wishes = {},
): Promise<{ readonly host: FakeMaster; readonly step: AnyStep }> {
  const host = joined.copy();
  arrange(host);
  return { host, step: await stepOn(host, "env-file", wishes) };
}
