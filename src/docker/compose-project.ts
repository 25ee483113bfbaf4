import type { Host, HostReader } from "../host.ts";
import type { Rendered } from "./compose-render.ts";

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
