import type { Evidence } from "../engine/step.ts";
import type { HostReader } from "../host.ts";
import { isOurs } from "../settings/layout.ts";
import { type ComposeMap, type ComposeValue, isMap, mapAt, PROJECT_LABEL } from "./compose-document.ts";
import type { Project } from "./compose-project.ts";
import { driftOf, foreignContainers, type Judge, type Obstacle } from "./container-finding.ts";

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

/**
 * Checks the names that a container of a storage node uses: the volume with its data (fula-node did not create it
 * if it has no fula-node label), and the systemd unit that runs the same program without a container (upstream's way).
 */
export async function surveyNames(
  host: HostReader,
  names: {
    readonly container: string;
    readonly volume: string;
    readonly unit: string;
    /** True if the container is or will be adopted, with its data. */
    readonly isKept: boolean;
  },
): Promise<Judge> {
  const [unit, volume, container] = await Promise.all([
    host.system.unit(names.unit),
    host.docker.volume(names.volume),
    host.docker.container(names.container),
  ]);
  if (unit !== null && unit.loaded) {
    const why = `The systemd unit ${unit.name} runs the same program on this machine.`;
    return judgeNames({ evidence: { [unit.name]: unit.execStart }, why, claimable: false });
  }
  const isKnown = names.isKept || (container !== null && isOurs(container));
  if (volume === null || isOurs(volume) || isKnown) return judgeNames(null);
  return judgeNames({
    evidence: { [volume.name]: `no fula-node label, at ${volume.mountpoint}` },
    why: `The volume ${volume.name} exists without a fula-node label, so this node did not create it.`,
    claimable: true,
  });
}

/** Judges a container of a storage node. `conflict` is anything else that uses one of its names. */
export function judgeNames(
  conflict: { readonly evidence: Evidence; readonly why: string; readonly claimable: boolean } | null,
): Judge {
  const remedy = "If it is not needed, move it away.";
  return (states) => {
    const foreign = foreignContainers(states, remedy);
    if (conflict === null) return { obstacle: foreign };
    const { evidence, why, claimable } = conflict;
    return { evidence, obstacle: foreign ?? { why, remedy, claim: claimable ? driftOf(states) : null } };
  };
}
