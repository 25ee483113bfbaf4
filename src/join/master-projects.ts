import { parse } from "yaml";
import {
  MASTER_FRAGMENTS,
  renderMaster,
  renderWriter,
  supportsStartInterval,
  WRITER_FRAGMENTS,
  WRITER_SCRIPTS,
} from "../docker/compose-render.ts";
import type { Project } from "../docker/compose-services.ts";
import type { HostReader } from "../host.ts";
import { isOurs, type MasterLayout, NAMES } from "../settings/master-layout.ts";
import { isDatabaseElsewhere } from "../settings/master.ts";
import type { Settings } from "../settings/settings.ts";
import { readFragments, readShipped } from "./shipped.ts";

const DATA_PATH = "/var/lib/postgresql/data";

/** Which volume holds the database, and whether it was there before us. */
export interface DatabaseVolume {
  readonly volume: string;
  readonly external: boolean;
}

/**
 * Finds the database's volume: what the container mounts, else what our compose file names, else ours.
 * One without our label was there before us, so Compose must neither make nor relabel it.
 */
export async function findDatabaseVolume(host: HostReader, layout: MasterLayout): Promise<DatabaseVolume> {
  const container = await host.docker.container(NAMES.postgres);
  const mount = container?.mounts.find(
    ({ type, destination }) => type === "volume" && destination === DATA_PATH,
  );
  const name =
    mount?.name ?? namedInFile(await host.files.readText(layout.composeFile)) ?? NAMES.postgresVolume;
  const volume = await host.docker.volume(name);
  return { volume: name, external: volume !== null && !isOurs(volume) };
}

/** Renders the compose projects of a master from the fragments of the running package. */
export async function renderProjects(options: {
  readonly host: HostReader;
  readonly packageDir: string;
  readonly layout: MasterLayout;
  readonly settings: Settings;
  readonly version: string;
  readonly hash: (text: string) => string;
  readonly volume: DatabaseVolume;
}): Promise<{ readonly master: Project; readonly writer: Project }> {
  const { host, packageDir, layout, settings, version, hash, volume } = options;
  const engine = await host.docker.version();
  const common = { version, hash, startInterval: supportsStartInterval(engine?.apiVersion ?? null) };
  const scripts = {
    kubo: await readShipped(host, packageDir, WRITER_SCRIPTS.kubo),
    "ipfs-cluster": await readShipped(host, packageDir, WRITER_SCRIPTS["ipfs-cluster"]),
  };
  const elsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
  const writerDir = settings.get("WRITER_DIR")?.value ?? "/opt/fula-writer";
  return {
    master: {
      ...renderMaster(await readFragments(host, packageDir, MASTER_FRAGMENTS), {
        ...common,
        postgres: elsewhere ? null : volume,
      }),
      name: NAMES.masterProject,
      directory: layout.baseDir,
      file: layout.composeFile,
      scripts: [],
    },
    writer: {
      ...renderWriter(await readFragments(host, packageDir, WRITER_FRAGMENTS), { ...common, scripts }),
      name: NAMES.writerProject,
      directory: writerDir,
      file: `${writerDir}/docker-compose.yml`,
      scripts: [
        { path: `${writerDir}/${WRITER_SCRIPTS.kubo}`, text: scripts.kubo },
        { path: `${writerDir}/${WRITER_SCRIPTS["ipfs-cluster"]}`, text: scripts["ipfs-cluster"] },
      ],
    },
  };
}

/** The volume that a compose file of ours names; null for a file that we can't read or that names none. */
function namedInFile(text: string | null): string | null {
  if (text === null || !text.startsWith("# fula-node compose ")) return null;
  try {
    const document = parse(text) as { volumes?: { pgdata?: { name?: unknown } } };
    const name = document.volumes?.pgdata?.name;
    return typeof name === "string" ? name : null;
  } catch {
    return null;
  }
}
