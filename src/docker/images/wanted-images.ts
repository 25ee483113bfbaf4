import { isDatabaseElsewhere } from "../../settings/postgres-target.ts";
import type { Settings } from "../../settings/settings.ts";
import { customServices } from "../kept-service.ts";

/** The images that a node of this kind can need from elsewhere, by its settings. The image of its services is built on it. */
export function imagesOfKind(kind: "master" | "storage-node", settings: Settings): readonly string[] {
  const valueOf = (key: string) => settings.get(key)?.value;
  const images = (...keys: readonly string[]) => keys.map((key) => valueOf(key) ?? "");
  const writer = images("NODE_BASE_IMAGE", "KUBO_IMAGE", "CLUSTER_IMAGE");
  if (kind === "storage-node") return writer;
  return [
    ...(isDatabaseElsewhere(valueOf) ? [] : images("POSTGRES_IMAGE")),
    ...writer,
    // A master that has no PUBLIC_HOST yet can get one later.
    ...images("EDGE_IMAGE"),
    ...(valueOf("AUTO_UPDATE") === "true" ? images("UPDATER_IMAGE") : []),
    ...customServices(settings).map(({ image }) => image),
  ];
}
