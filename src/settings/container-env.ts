import type { HostReader } from "../host.ts";
import { isOurs } from "./master-layout.ts";
import type { Recoverable } from "./recovery.ts";

/** What the environments of our own containers know, by key. */
export type ContainerEnv = ReadonlyMap<string, { readonly name: string; readonly value: string }>;

/** Reads settings that data was made with back from the environments of containers with our label. */
export async function readContainerEnv(
  host: HostReader,
  recoverable: readonly Recoverable[],
): Promise<ContainerEnv> {
  const found = new Map<string, { name: string; value: string }>();
  const ours = (await host.docker.containers()).filter(isOurs);
  for (const { key, container: name, knownAs = key } of recoverable) {
    const value = ours.find((container) => container.name === name)?.env[knownAs];
    if (value !== undefined && value !== "" && !found.has(key)) found.set(key, { name, value });
  }
  return found;
}
