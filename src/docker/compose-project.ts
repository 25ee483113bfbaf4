import type { Host, HostReader } from "../host.ts";
import { type Rendered, WRITER_SCRIPTS } from "./compose-render.ts";

/** What kubo and ipfs-cluster make first where they keep their data, and never without an identity in it. */
const IDENTITIES = ["kubo/config", "ipfs-cluster/identity.json"] as const;

/** The scripts of ours in a directory: what lies beside them is a writer's that was made here. */
export async function findWriterMarks(host: HostReader, directory: string): Promise<readonly string[]> {
  const paths = Object.values(WRITER_SCRIPTS).map((name) => `${directory}/${name}`);
  const stats = await Promise.all(paths.map((path) => host.files.stat(path)));
  return paths.filter((_, index) => stats[index] !== null);
}

/**
 * The identities of a writer that another hand left where ours would keep its data. None where a script
 * of ours lies beside them: then it is our own writer, whose compose file and containers are gone.
 */
export async function findLeftIdentities(host: HostReader, directory: string): Promise<readonly string[]> {
  const paths = IDENTITIES.map((path) => `${directory}/${path}`);
  const [marks, identities] = await Promise.all([
    findWriterMarks(host, directory),
    Promise.all(paths.map((path) => host.files.stat(path))),
  ]);
  if (marks.length > 0) return [];
  return paths.filter((_, index) => identities[index] !== null);
}

/** One of our compose projects, rendered. */
export interface Project extends Rendered {
  readonly name: string;
  readonly directory: string;
  readonly file: string;
  /** Scripts that the document mounts, beside it. */
  readonly scripts: readonly { readonly path: string; readonly text: string }[];
}

/** What of the package is installed and goes into the service image: what `npm pack` ships. */
export const PACKAGE_ENTRIES = [
  "package.json",
  "bin",
  "dist",
  "compose",
  "migrations",
  "docs",
  "LICENSE",
  "README.md",
  "CHANGELOG.md",
];

/** The label by which a service image, and a container made from it, tells the package's hash. */
export const PACKAGE_LABEL = "land.fx.fula-node.package";

/** The label by which Compose says whose a container, volume or network is. */
export const PROJECT = "com.docker.compose.project";

/** The name under which an older compose file is kept; the same for the same content. */
export function keptName(project: Project, text: string, hash: (text: string) => string): string {
  return `${project.file}.${hash(text).slice(0, 12)}.old`;
}

/** The scripts of a project that are missing on disk or differ. */
export async function staleScripts(host: HostReader, project: Project): Promise<readonly string[]> {
  const onDisk = await Promise.all(project.scripts.map(({ path }) => host.files.readText(path)));
  return project.scripts.filter(({ text }, index) => onDisk[index] !== text).map(({ path }) => path);
}

/** Writes what differs of a project's scripts and compose file, and keeps an older compose file beside it. */
export async function writeCompose(host: Host, project: Project, keep: string | null): Promise<void> {
  const stale = await staleScripts(host, project);
  for (const { path, text } of project.scripts.filter((script) => stale.includes(script.path)))
    await host.files.writeAtomic(path, text, { mode: 0o755 });
  const text = await host.files.readText(project.file);
  if (text === project.text) return;
  if (text !== null && keep !== null) await host.files.writeAtomic(keep, text, { mode: 0o600 });
  await host.files.writeAtomic(project.file, project.text, { mode: 0o644 });
}
