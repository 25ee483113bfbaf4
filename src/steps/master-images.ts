import type { HostReader } from "../host.ts";
import { isDatabaseElsewhere, type MasterContext } from "../settings/master-context.ts";

/** The images that a master needs from elsewhere; the base only while the service image is still to be built. */
export async function masterImages(
  host: HostReader,
  { settings, version, provisionWriter }: MasterContext,
): Promise<readonly string[]> {
  const valueOf = (key: string) => settings.get(key)?.value;
  const image = (key: string) => valueOf(key) ?? "";
  const service = await host.docker.image(`fula-node:${version}`);
  return [
    ...(isDatabaseElsewhere(valueOf) ? [] : [image("POSTGRES_IMAGE")]),
    ...(service === null ? [image("NODE_BASE_IMAGE")] : []),
    ...(provisionWriter ? [image("KUBO_IMAGE"), image("CLUSTER_IMAGE")] : []),
    ...(image("AUTO_UPDATE") === "true" ? [image("UPDATER_IMAGE")] : []),
  ];
}
