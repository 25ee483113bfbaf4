import type { ComposeProject } from "./engine.ts";
import type { Host, HostReader } from "../host.ts";
import { mountPointsOf } from "../machine/file-reader.ts";
import { CONTAINER_USER } from "../settings/layout.ts";
import type { Service } from "./container-state.ts";
import { type DataSurvey, hasOtherOwner, type OpenData, PRIVATE_MODE } from "./container-finding.ts";

/** Where the data of a container lies: in a directory, or on a volume. */
export type DataPlace = Service & ({ readonly directory: string } | { readonly volume: string });

/**
 * Reads the owners of data directories. Only the directory itself is read: giveTree changes it last. Data that does not
 * exist yet, or that Docker mounts only while a container uses it, is left out.
 */
export async function surveyData(host: HostReader, places: readonly DataPlace[]): Promise<DataSurvey> {
  if (places.length === 0) return { open: [], mounts: [] };
  const mountPoints = mountPointsOf((await host.files.readText("/proc/self/mountinfo")) ?? "");
  const found = await Promise.all(places.map((place) => surveyPlace(host, place, mountPoints)));
  return { open: found.flatMap(({ open }) => open), mounts: found.flatMap(({ mounts }) => mounts) };
}

async function surveyPlace(
  host: HostReader,
  place: DataPlace,
  mountPoints: ReadonlySet<string>,
): Promise<DataSurvey> {
  const { service, container } = place;
  const path = await pathOf(host, place);
  // A link that the operator made leads to another disk: its target has the data.
  const real = path === null ? null : await host.files.realPath(path);
  const stat = real === null ? null : await host.files.stat(real);
  if (path === null || real === null || stat === null) return { open: [], mounts: [] };
  const { uid, mode } = stat;
  const below = [...mountPoints].filter((mount) => mount.startsWith(`${real}/`));
  const owners = await Promise.all(below.map(async (mount) => (await host.files.stat(mount))?.uid));
  return {
    open: isPrivate(stat) ? [] : [{ service, container, path, uid, mode }],
    mounts: below.filter((_, index) => owners[index] !== CONTAINER_USER.uid),
  };
}

async function pathOf(host: HostReader, place: DataPlace): Promise<string | null> {
  if ("directory" in place) return place.directory;
  const volume = await host.docker.volume(place.volume);
  return volume?.isPlain === true ? volume.mountpoint : null;
}

function isPrivate({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean {
  return uid === CONTAINER_USER.uid && mode === PRIVATE_MODE;
}

/** Creates the data directories that do not exist. Docker would create them for everybody to read. */
export async function makeDataDirectories(host: Host, places: readonly DataPlace[]): Promise<void> {
  for (const place of places) {
    if (!("directory" in place) || (await host.files.realPath(place.directory)) !== null) continue;
    await host.files.makeDirectory(place.directory, { mode: PRIVATE_MODE });
  }
}

/** Gives data to the containers' user. The container must not run if the data belongs to another user. */
export async function closeData(host: Host, data: OpenData, report: (line: string) => void): Promise<void> {
  if (hasOtherOwner(data)) await host.files.giveTree(data.path, CONTAINER_USER, report);
  else await host.files.chmod(data.path, PRIVATE_MODE);
}

/**
 * Makes the data of new containers their own before they start. A new volume gets the owner that its image says, when
 * the first container with it is created.
 */
export async function prepareData(
  host: Host,
  options: {
    readonly compose: ComposeProject;
    readonly places: readonly DataPlace[];
    readonly services: readonly string[];
  },
  report: (line: string) => void,
): Promise<void> {
  const { compose, services } = options;
  const places = options.places.filter(({ service }) => services.includes(service));
  if (places.length === 0) return;
  await makeDataDirectories(host, places);
  await host.docker.composeCreate(compose, services, report);
  for (const data of (await surveyData(host, places)).open) await closeData(host, data, report);
}

/** Stops a container, if it runs. */
export async function stopContainer(host: Host, name: string): Promise<void> {
  const status = (await host.docker.container(name))?.status;
  if (status !== undefined && status !== "created" && status !== "exited") await host.docker.stop(name);
}
