import type { HostReader } from "../host.ts";
import { isOurs } from "../settings/layout.ts";
import { type ComposeMap, type ComposeValue, isMap, mapAt, PROJECT_LABEL } from "./compose-document.ts";
import type { Project } from "./compose-project.ts";
import type { Obstacle } from "./container-finding.ts";

const NETWORK_LABEL = "com.docker.compose.network";
/** Volumes with data that their own steps judge. */
const JUDGED = new Set(["pgdata", "kubo-data", "cluster-data"]);

/**
 * Finds networks and volumes that have the names of those which these services need, and that Compose did not make for
 * this project. Compose refuses such a network only after other things were written, and fills such a volume.
 */
export async function findNameConflicts(
  host: HostReader,
  { name: project, document }: Project,
  services: readonly string[],
): Promise<Obstacle | null> {
  const definitions = services.map((service) => mapAt(document.services, service));
  const networks = new Set(definitions.flatMap(networksOf));
  const volumes = new Set(definitions.flatMap(volumesOf).filter((key) => !JUDGED.has(key)));
  const nameOf = (section: "networks" | "volumes", key: string) => {
    const definition = mapAt(mapAt(document, section), key);
    const { external, name } = definition;
    if (external === true) return null;
    return { key, name: typeof name === "string" ? name : `${project}_${key}` };
  };
  const [here, stored] = await Promise.all([
    networks.size === 0 ? [] : host.docker.listNetworks(),
    Promise.all(
      [...volumes].map(async (key) => {
        const wanted = nameOf("volumes", key);
        return wanted === null ? null : await host.docker.volume(wanted.name);
      }),
    ),
  ]);
  const strangeNetworks = [...networks].flatMap((key) => {
    const wanted = nameOf("networks", key);
    const found = here.filter(({ name }) => name === wanted?.name);
    return found.filter(({ labels }) => labels[PROJECT_LABEL] !== project || labels[NETWORK_LABEL] !== key);
  });
  const strangeVolumes = stored.filter(
    (volume) => volume !== null && !isOurs(volume) && volume.labels[PROJECT_LABEL] !== project,
  );
  const things = [
    ...strangeNetworks.map(({ name }) => ["network", name] as const),
    ...strangeVolumes.flatMap((volume) => (volume === null ? [] : [["volume", volume.name] as const])),
  ];
  if (things.length === 0) return null;
  return {
    why: things
      .map(([kind, name]) => `The ${kind} ${name} exists, but Compose did not create it for ${project}.`)
      .join(" "),
    remedy: `If nothing needs it, remove it: ${things.map(([kind, name]) => `docker ${kind} rm ${name}`).join("; ")}. Otherwise give it another name.`,
    claim: null,
  };
}

function networksOf({ network_mode: mode, networks }: ComposeMap): readonly string[] {
  if (mode !== undefined) return [];
  if (networks === undefined) return ["default"];
  return isMap(networks) ? Object.keys(networks) : textsIn(networks);
}

function volumesOf({ volumes }: ComposeMap): readonly string[] {
  const mounts: readonly ComposeValue[] = Array.isArray(volumes) ? volumes : [];
  return mounts.flatMap((mount) => {
    if (isMap(mount)) return mount["type"] === "volume" ? textsIn([mount["source"] ?? ""]) : [];
    const [source = ""] = typeof mount === "string" ? mount.split(":") : [];
    return /^[A-Za-z0-9]/.test(source) ? [source] : [];
  });
}

function textsIn(value: ComposeValue): readonly string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}
