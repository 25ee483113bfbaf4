import type { HostReader } from "../host.ts";
import type { Settings } from "../settings/settings.ts";
import { OWN_IMAGE } from "./kept-service.ts";

/** What AUTO_UPDATE means on this machine. */
export interface UpdaterWish {
  /** True if the updater runs. */
  readonly runs: boolean;
  /** Why it does not run although AUTO_UPDATE is true, as a sentence; null otherwise. */
  readonly refusal: string | null;
}

/**
 * Decides whether the updater runs. It gets Docker's socket, so it runs only where it has something to do: a service with
 * an image that a registry may have. No registry has the image that fula-node builds.
 */
export async function decideUpdater(host: HostReader, settings: Settings): Promise<UpdaterWish> {
  const value = (key: string) => settings.get(key)?.value;
  if (value("AUTO_UPDATE") !== "true") return { runs: false, refusal: null };
  const served = ["PINNING_API_IMAGE", "WEBUI_IMAGE"].some((key) => (value(key) ?? OWN_IMAGE) !== OWN_IMAGE);
  if (served || (await host.docker.image(value("GATEWAY_IMAGE") ?? "")) !== null)
    return { runs: true, refusal: null };
  return {
    runs: false,
    refusal:
      "The updater would get control of Docker, but could renew nothing here: fula-node builds the images of its services itself.",
  };
}
