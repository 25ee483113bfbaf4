import type { Host, HostReader } from "../host.ts";
import { type GuardedPath, isOurs, NAMES, PACKAGE_ENTRIES } from "../settings/layout.ts";
import type { Settings } from "../settings/settings.ts";
import { WRITER_SCRIPTS } from "./compose-document.ts";
import { compareCompose, type Rendered } from "./compose-render.ts";
import type { NodeContext } from "../settings/context.ts";
import { wholeImage } from "./whole-images.ts";
import { customServices, type KeptService } from "./kept-service.ts";

/** The first files that kubo and ipfs-cluster create in their data directories. Each contains an identity. */
const IDENTITIES = ["kubo/config", "ipfs-cluster/identity.json"] as const;

/** The fula-node scripts in a directory. They show that fula-node created the writer whose data is next to them. */
export async function findWriterMarks(host: HostReader, directory: string): Promise<readonly string[]> {
  const paths = Object.values(WRITER_SCRIPTS).map((name) => `${directory}/${name}`);
  const stats = await Promise.all(paths.map((path) => host.files.stat(path)));
  return paths.filter((_, index) => stats[index] !== null);
}

/**
 * The identities of a writer that fula-node did not create, in the directory where it would create one. None if
 * a fula-node script is next to them: then it is our own writer that lost its compose file and containers.
 */
export async function findExistingIdentities(
  host: HostReader,
  directory: string,
): Promise<readonly string[]> {
  const paths = IDENTITIES.map((path) => `${directory}/${path}`);
  const [marks, identities] = await Promise.all([
    findWriterMarks(host, directory),
    Promise.all(paths.map((path) => host.files.stat(path))),
  ]);
  if (marks.length > 0) return [];
  return paths.filter((_, index) => identities[index] !== null);
}

/** A rendered fula-node compose project. */
export interface Project extends Rendered {
  readonly name: string;
  readonly directory: string;
  readonly file: string;
  /** Files that the document needs next to it: scripts (0755), and records of adopted containers with their mode. */
  readonly scripts: readonly { readonly path: string; readonly text: string; readonly mode?: number }[];
  /** Services whose containers stay as they are once they are adopted, by name. Left out if this kind of node has none. */
  readonly kept?: ReadonlyMap<string, KeptService>;
}

/** What root alone may change of a project: its directory, its document, and the scripts that its containers run. */
export function guardedOfProject({ directory, file, scripts }: Project): readonly GuardedPath[] {
  return [directory, file, ...scripts.map((script) => script.path)].map((path) => ({ path }));
}

/** The label with the package's hash, on a service image and on a container created from it. */
export const PACKAGE_LABEL = "land.fx.fula-node.package";

/** The label with the base image's name, on a service image. */
export const BASE_LABEL = "land.fx.fula-node.base";

/** What the service image is: absent, up to date, or different, and how. */
export interface ServiceImage {
  readonly image: { readonly id: string; readonly labels: Readonly<Record<string, string>> } | null;
  readonly packageHash: string | null;
  /** One sentence for each difference; empty if the image is absent or up to date. */
  readonly differences: readonly string[];
}

/** Compares the service image with the running package and with the base image of the settings. */
export async function lookAtServiceImage(
  host: HostReader,
  place: Pick<NodeContext, "layout" | "packageDir">,
  { tag, base }: { readonly tag: string; readonly base: string },
): Promise<ServiceImage> {
  const [image, packageHash] = await Promise.all([
    wholeImage(host, place, tag),
    host.files.hashTree(place.packageDir, PACKAGE_ENTRIES),
  ]);
  if (image === null) return { image, packageHash, differences: [] };
  const { [PACKAGE_LABEL]: built, [BASE_LABEL]: builtOn } = image.labels;
  return {
    image,
    packageHash,
    differences: [
      ...(built === packageHash ? [] : [`${tag} was built from different files`]),
      ...(builtOn === base ? [] : [`${tag} was built on ${builtOn ?? "another image"}; expected ${base}`]),
    ],
  };
}

/** True if fula-node created the writer: its label is on a container, or its marker is in the compose file. */
export async function isWriterManaged(
  host: HostReader,
  project: Project,
  hash: (text: string) => string,
): Promise<boolean> {
  const found = await Promise.all([NAMES.kubo, NAMES.cluster].map((name) => host.docker.container(name)));
  if (found.some((container) => container !== null && isOurs(container))) return true;
  const { kind } = compareCompose(await host.files.readText(project.file), project.text, hash);
  return kind !== "absent" && kind !== "not-ours";
}

/** The name of the copy of an old compose file. Equal content gives an equal name. */
export function keptName(project: Project, text: string, hash: (text: string) => string): string {
  return `${project.file}.${hash(text).slice(0, 12)}.old`;
}

/** The scripts of a project that are missing on disk or differ. */
export async function staleScripts(host: HostReader, project: Project): Promise<readonly string[]> {
  const onDisk = await Promise.all(project.scripts.map(({ path }) => host.files.readText(path)));
  return project.scripts.filter(({ text }, index) => onDisk[index] !== text).map(({ path }) => path);
}

/** Writes the scripts and the compose file that differ. Keeps a copy of the old compose file next to it. */
export async function writeCompose(host: Host, project: Project, keep: string | null): Promise<void> {
  const stale = await staleScripts(host, project);
  for (const { path, text, mode = 0o755 } of project.scripts.filter((script) => stale.includes(script.path)))
    await host.files.writeAtomic(path, text, { mode });
  const text = await host.files.readText(project.file);
  if (text === project.text) return;
  if (text !== null && keep !== null) await host.files.writeAtomic(keep, text, { mode: 0o600 });
  await host.files.writeAtomic(project.file, project.text, { mode: 0o644 });
}

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
  if (customServices(settings).length > 0 || (await host.docker.image(value("GATEWAY_IMAGE") ?? "")) !== null)
    return { runs: true, refusal: null };
  return {
    runs: false,
    refusal:
      "The updater would get control of Docker, but could renew nothing here: fula-node builds the images of its services itself.",
  };
}
