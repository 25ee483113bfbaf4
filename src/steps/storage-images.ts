import type { HostReader } from "../host.ts";
import type { StorageContext } from "../federation/storage-context.ts";

/** The images that a storage node needs from elsewhere; the base only while the service image is still to be built. */
export async function storageImages(
  host: HostReader,
  { settings, version }: StorageContext,
): Promise<readonly string[]> {
  const image = (key: string) => settings.get(key)?.value ?? "";
  const service = await host.docker.image(`fula-node:${version}`);
  return [
    image("KUBO_IMAGE"),
    image("CLUSTER_IMAGE"),
    ...(service === null ? [image("NODE_BASE_IMAGE")] : []),
  ];
}
